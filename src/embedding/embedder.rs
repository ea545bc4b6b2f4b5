//! Computes embedding vectors from feature maps.

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use super::projection::Projection;
use super::selection::ChannelSelection;
use super::vectors::{
    Choice, DenseVectors, GatheredVectors, PartOfBatch, PatchVectors, Source, nearest_sources,
    to_tensor,
};
use crate::backbone::FeatureMaps;
use crate::error::{Error, Result};
use crate::host::{DeviceIndices, is_host};

/// Concatenates the feature maps of several layers into one embedding vector per position of the
/// first layer's grid, keeping only the selected channels (paper, section III.A).
///
/// Coarser maps are aligned to the grid by nearest-neighbor sampling: a coarse vector is shared by all
/// positions that it covers. The ratio of the sizes can be any number. Channels are selected *before*
/// the alignment, so only selected channels are enlarged.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use padim::backbone::FeatureMaps;
/// use padim::embedding::{ChannelSelection, PatchEmbedder};
///
/// let device = Device::flex();
/// let maps = FeatureMaps::new(vec![
///     Tensor::zeros([1, 64, 56, 56], &device),
///     Tensor::zeros([1, 128, 28, 28], &device),
/// ])?;
/// let embedder = PatchEmbedder::new(&[64, 128], &ChannelSelection::random(100, 1024))?;
/// assert_eq!(embedder.embed(&maps)?.dims(), [1, 100, 56, 56]);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PatchEmbedder {
    layer_channels: Vec<usize>,
    indices: Vec<usize>,
    projection: Option<Projection>,
    on_device: Selection,
}

/// Indices of the selection in the memory of a device.
#[derive(Debug, Clone, PartialEq)]
struct Selection {
    /// For each layer: the channels, and the layer's position for each position of the grid.
    layers: Vec<[DeviceIndices; 2]>,
    /// The order of the embedding's components.
    order: DeviceIndices,
}

impl Selection {
    fn new(layers: usize) -> Self {
        let layers = (0..layers).map(|_| Default::default()).collect();
        Self { layers, order: DeviceIndices::default() }
    }
}

impl PatchEmbedder {
    /// Selects the channels.
    ///
    /// `layer_channels`: the number of channels of each map. A channel's index counts through all maps.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the selection is empty, asks for more channels than exist, names a
    /// channel that does not exist, or names a channel twice.
    pub fn new(layer_channels: &[usize], selection: &ChannelSelection) -> Result<Self> {
        let indices = selection.indices(layer_channels.iter().sum())?;
        let on_device = Selection::new(layer_channels.len());
        Ok(Self { layer_channels: layer_channels.to_vec(), indices, projection: None, on_device })
    }

    /// The same embedder with a projection of the selected channels to fewer components (paper, Table
    /// II: PCA).
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the projection's number of channels is not the number of selected
    /// channels.
    pub fn with_projection(self, projection: Projection) -> Result<Self> {
        if projection.channels() != self.indices.len() {
            let expected = format!("one of {} channels", self.indices.len());
            return Err(Error::shape("projection", expected, projection.channels()));
        }
        Ok(Self { projection: Some(projection), ..self })
    }

    pub(crate) fn without_projection(&self) -> Self {
        Self { projection: None, ..self.clone() }
    }

    /// The projection of the selected channels, if there is one.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// The selected channels, in the order of the embedding's components before the projection.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The layer of each selected channel and its index in the layer, both from 0.
    pub(crate) fn sources(&self) -> Vec<(usize, usize)> {
        let mut sources = vec![(0, 0); self.indices.len()];
        for (layer, choice) in self.choices().into_iter().enumerate() {
            for (place, channel) in choice.places.into_iter().zip(choice.channels) {
                sources[place] = (layer, channel);
            }
        }
        sources
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.projection.as_ref().map_or(self.indices.len(), Projection::components)
    }

    /// Embeds a batch.
    ///
    /// # Shapes
    ///
    /// The result is `[batch, dimension, grid_height, grid_width]`, with the grid of the first map.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the channels of the maps differ from the embedder's
    /// `layer_channels`.
    pub fn embed(&self, features: &FeatureMaps) -> Result<Tensor<4>> {
        let device = features.maps()[0].device();
        Ok(self.embed_maps(features.maps().to_vec())?.into_tensor(&device))
    }

    /// As [`embed`](Self::embed), but consumes the maps.
    pub(crate) fn embed_maps(&self, maps: Vec<Tensor<4>>) -> Result<Embedding> {
        let channels: Vec<usize> = maps.iter().map(|map| map.dims()[1]).collect();
        if channels != self.layer_channels {
            let expected = format!("channels {:?}", self.layer_channels);
            return Err(Error::shape("feature maps", expected, channels));
        }
        let device = maps[0].device();
        if !is_host(&device) {
            let embedding = self.concatenate(maps);
            return Ok(Embedding::Tensor(match &self.projection {
                Some(projection) => projection.apply(embedding),
                None => embedding,
            }));
        }
        let gathered = self.gather(maps)?;
        Ok(Embedding::Vectors(match &self.projection {
            Some(projection) => {
                Box::new(DenseVectors::of(projection.apply(to_tensor(&gathered, &device)))?)
            }
            None => Box::new(gathered),
        }))
    }

    /// The selected channels of each layer.
    fn choices(&self) -> Vec<Choice> {
        let mut first = 0;
        let mut choice = |&count: &usize| {
            let layer = first..first + count;
            let kept = |&(_, channel): &(usize, &usize)| layer.contains(channel);
            let chosen = self.indices.iter().enumerate().filter(kept);
            let (places, channels) =
                chosen.map(|(place, channel)| (place, channel - first)).unzip();
            first += count;
            Choice { places, channels }
        };
        self.layer_channels.iter().map(&mut choice).collect()
    }

    /// The place of each embedding channel among the concatenated channels of all layers.
    fn order(&self, choices: &[Choice]) -> Vec<usize> {
        let mut order = vec![0; self.indices.len()];
        let places = choices.iter().flat_map(|choice| &choice.places);
        places.enumerate().for_each(|(concatenated, &place)| order[place] = concatenated);
        order
    }

    /// The channels of each layer that are needed, and an embedder for maps with only these channels.
    pub(crate) fn narrowed(&self) -> (Vec<Vec<usize>>, Self) {
        let choices = self.choices();
        let indices = self.order(&choices);
        let layer_channels: Vec<usize> =
            choices.iter().map(|choice| choice.channels.len()).collect();
        let on_device = Selection::new(layer_channels.len());
        let projection = self.projection.clone();
        let embedder = Self { layer_channels, indices, projection, on_device };
        (choices.into_iter().map(|choice| choice.channels).collect(), embedder)
    }

    /// Concatenates the maps by tensor operations on the device.
    fn concatenate(&self, maps: Vec<Tensor<4>>) -> Tensor<4> {
        let [_, _, height, width] = maps[0].dims();
        let device = maps[0].device();
        let mut parts = Vec::with_capacity(maps.len());
        let choices = self.choices();
        let order = self.order(&choices);
        let choices = choices.into_iter().zip(&self.on_device.layers);
        for (map, (Choice { channels, .. }, [there, places])) in maps.into_iter().zip(choices) {
            if !channels.is_empty() {
                let all = channels.iter().copied().eq(0..map.dims()[1]);
                let chosen = if all { map } else { map.select(1, there.on(&device, &channels)) };
                parts.push(align_nearest(chosen, [height, width], places));
            }
        }
        let embedding = Tensor::cat(parts, 1);
        if order.is_sorted() {
            embedding
        } else {
            embedding.select(1, self.on_device.order.on(&device, &order))
        }
    }

    /// Gathers vectors from the maps in host memory.
    fn gather(&self, maps: Vec<Tensor<4>>) -> Result<GatheredVectors> {
        let [batch, _, height, width] = maps[0].dims();
        let sources = maps
            .into_iter()
            .zip(self.choices())
            .map(|(map, choice)| Source::new(map, [height, width], choice));
        Ok(GatheredVectors {
            shape: [batch, self.indices.len(), height, width],
            sources: sources.collect::<Result<_>>()?,
        })
    }
}

/// The embedding of a batch.
// A tensor's handle has a few hundred bytes, far less than its values.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Embedding {
    /// In the memory of a device.
    Tensor(Tensor<4>),
    /// In host memory.
    Vectors(Box<dyn PatchVectors>),
}

/// Some images of a batch.
#[allow(clippy::large_enum_variant)]
pub(crate) enum EmbeddingPart<'a> {
    Tensor(Tensor<4>),
    Vectors(PartOfBatch<'a>),
}

impl Embedding {
    /// `[batch, dimension, grid_height, grid_width]`
    pub fn shape(&self) -> [usize; 4] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Vectors(vectors) => vectors.shape(),
        }
    }

    pub fn into_tensor(self, device: &Device) -> Tensor<4> {
        match self {
            Self::Tensor(tensor) => tensor,
            Self::Vectors(vectors) => to_tensor(&*vectors, device),
        }
    }

    pub fn into_vectors(self) -> Result<Box<dyn PatchVectors>> {
        Ok(match self {
            Self::Tensor(tensor) => Box::new(DenseVectors::of(tensor)?),
            Self::Vectors(vectors) => vectors,
        })
    }

    pub fn all(&self) -> EmbeddingPart<'_> {
        self.part(0..self.shape()[0])
    }

    pub fn part(&self, images: Range<usize>) -> EmbeddingPart<'_> {
        match self {
            Self::Tensor(tensor) => {
                EmbeddingPart::Tensor(tensor.clone().narrow(0, images.start, images.len()))
            }
            Self::Vectors(vectors) => {
                EmbeddingPart::Vectors(PartOfBatch { vectors: &**vectors, images })
            }
        }
    }
}

/// Enlarges `[batch, channels, height, width]` by nearest-neighbor sampling.
fn align_nearest(
    map: Tensor<4>,
    [height, width]: [usize; 2],
    on_device: &DeviceIndices,
) -> Tensor<4> {
    let [batch, channels, source_height, source_width] = map.dims();
    if [source_height, source_width] == [height, width] {
        return map;
    }
    let columns = nearest_sources(source_width, width);
    let row = |y: usize| columns.iter().map(move |x| y * source_width + x);
    let places: Vec<usize> =
        nearest_sources(source_height, height).into_iter().flat_map(row).collect();
    let places = on_device.on(&map.device(), &places);
    let flat = map.reshape([batch, channels, source_height * source_width]);
    flat.select(2, places).reshape([batch, channels, height, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{index_tensor, to_device, to_host};
    use proptest::prelude::*;

    /// The method as in the paper: concatenate all channels at full resolution, then select.
    fn embed_naively(
        maps: &[(Vec<f32>, [usize; 4])],
        indices: &[usize],
        b: usize,
        y: usize,
        x: usize,
    ) -> Vec<f32> {
        let [_, _, height, width] = maps[0].1;
        let mut all = Vec::new();
        for (values, [_, c, h, w]) in maps {
            let (sy, sx) = (nearest_sources(*h, height)[y], nearest_sources(*w, width)[x]);
            all.extend((0..*c).map(|k| values[((b * c + k) * h + sy) * w + sx]));
        }
        indices.iter().map(|&i| all[i]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn selecting_first_equals_concatenating_first(
            (h, w) in (3_usize..12, 3_usize..12), second in 1_usize..8, seed in 0_u64..99,
            count in 1_usize..9,
        ) {
            let device = Device::flex();
            let shapes = [[2, 4, h, w], [2, 5, second.min(h), second.min(w)]];
            let maps = shapes.map(|shape: [usize; 4]| {
                let n = shape.iter().product::<usize>();
                ((0..n).map(|i| ((i * 37 + n) % 101) as f32).collect::<Vec<_>>(), shape)
            });
            let embedder =
                PatchEmbedder::new(&[4, 5], &ChannelSelection::random(count, seed)).unwrap();
            let features = FeatureMaps::new(
                maps.iter().map(|(v, s)| to_device(v.clone(), *s, &device)).collect(),
            ).unwrap();
            // Host code, device code, and both with only the selected channels.
            let on_device = embedder.concatenate(features.maps().to_vec());
            let (chosen, narrowed) = embedder.narrowed();
            let mut embeddings = vec![embedder.embed(&features).unwrap(), on_device];
            if chosen.iter().all(|channels| !channels.is_empty()) {
                let few = features.maps().iter().zip(&chosen).map(|(map, channels)| {
                    map.clone().select(1, index_tensor(channels, &device))
                });
                let few = FeatureMaps::new(few.collect()).unwrap();
                embeddings.push(narrowed.embed(&few).unwrap());
                embeddings.push(narrowed.concatenate(few.maps().to_vec()));
            }
            for embedding in embeddings {
                let fast = to_host(embedding).unwrap();
                for (b, y, x) in [(0, 0, 0), (1, h - 1, w - 1), (1, h / 2, w / 2)] {
                    let naive = embed_naively(&maps, embedder.indices(), b, y, x);
                    for (c, expected) in naive.into_iter().enumerate() {
                        prop_assert_eq!(fast[((b * count + c) * h + y) * w + x], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn other_channels_than_expected_are_refused() {
        let device = Device::flex();
        let embedder = PatchEmbedder::new(&[4, 5], &ChannelSelection::All).unwrap();
        let maps = FeatureMaps::new(vec![Tensor::zeros([1, 4, 3, 3], &device)]).unwrap();
        let error = embedder.embed(&maps).unwrap_err().to_string();
        assert!(error.contains("[4, 5]") && error.contains("[4]"), "{error}");
    }
}
