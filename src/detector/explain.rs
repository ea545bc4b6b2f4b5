//! Explains a score by the contributions of layers and channels.

use rayon::prelude::*;

use super::batches::Batches;
use super::fitted::Detector;
use super::prediction::Prediction;
use super::prepared::{Item, stack};
use crate::error::{Error, Result};
use crate::gaussian::reach;
use crate::preprocess::ImageInput;
use crate::scoring::AnomalyMap;

/// The contributions of layers and channels to the scores of an image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The prediction that is explained.
    pub prediction: Prediction,
    /// The network's layers, in their order.
    pub layers: Vec<LayerContribution>,
    /// The grid position `[row, column]` of the patch with the largest distance.
    pub peak: [usize; 2],
    /// The contribution of each selected channel to the distance of that patch, the largest first. The
    /// sum of the contributions is the distance.
    pub channels: Vec<ChannelContribution>,
}

/// The contribution of a layer to distances.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerContribution {
    /// The layer's name in the network.
    pub layer: String,
    /// The layer's contribution to the anomaly map; the maps of all layers add up to the prediction's
    /// map. Negative if this layer reduces the distance.
    pub map: AnomalyMap,
    /// The layer's contribution to the distance at the peak.
    pub at_peak: f32,
}

/// The contribution of a channel to the distance of a patch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChannelContribution {
    /// The layer's name in the network.
    pub layer: String,
    /// The channel's index in the layer, from 0.
    pub channel: usize,
    /// The contribution to the distance.
    pub contribution: f32,
}

impl Detector {
    /// Scores one image and computes the contributions of layers and channels. With `x` the embedding
    /// minus the mean, channel `c` contributes `x_c (inverse covariance x)_c / distance` to the
    /// distance.
    ///
    /// It takes several times as long as a prediction.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
    /// # let config = PadimConfig::default().with_preprocess(small);
    /// # let good = (0..4).map(|i| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80])));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit(good)?;
    /// # let strange = image::RgbImage::from_fn(80, 60, |x, y| image::Rgb([(x * y) as u8, 0, 255]));
    /// let explanation = detector.explain(strange)?;
    /// for layer in &explanation.layers {
    ///     println!("{}: {}", layer.layer, layer.at_peak);
    /// }
    /// println!("most of all {:?}", explanation.channels[0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict), and [`Error::InvalidConfig`] if the detector has a projection
    /// ([`Padim::fit_projection`](crate::Padim::fit_projection)), which mixes layers.
    pub fn explain(&self, image: impl Into<ImageInput>) -> Result<Explanation> {
        if self.projection().is_some() {
            let reason = "a projection mixes all layers, so their contributions to a score cannot be \
                          separated; fit without `fit_projection`";
            return Err(Error::config("projection", reason));
        }
        let batches = Batches::new([image].into_iter(), self.padim.steps(), 1);
        batches.first(|item| self.explain_item(item))
    }

    fn explain_item(&self, Item { name, prepared }: Item) -> Result<Explanation> {
        let image = prepared?;
        image.require_size(self.input_size, &name)?;
        let origin = image.origin();
        let tensor = stack(vec![image], self.input_size, &self.padim.backbone.device());
        let vectors = self.padim.extractor.embed(tensor)?.into_vectors()?;
        let reach = reach(self.padim.config.neighborhood)?;
        let distances = self.model.distances_of(vectors.as_ref(), reach)?;
        let nearest = self.model.nearest_of(vectors.as_ref(), reach);

        let sources = self.padim.embedder.sources();
        let layers = self.padim.backbone.layers();
        let [height, width] = self.model.grid();
        // The contribution of each channel to the distance at a position.
        let channels = |place: usize| -> Vec<f64> {
            let mut vector = vec![0.0; sources.len()];
            vectors.write(0, place, &mut vector);
            let distance = f64::from(distances[place]).max(f64::MIN_POSITIVE);
            let squared = self.model.contributions(nearest[place], &vector).unwrap_or_default();
            squared.into_iter().map(|part| part / distance).collect()
        };
        let of_layers = |place: usize| {
            let mut sums = vec![0.0; layers.len()];
            for (part, (layer, _)) in channels(place).into_iter().zip(&sources) {
                sums[*layer] += part;
            }
            sums
        };
        let places = (0..height * width).into_par_iter().map(of_layers);
        let by_place: Vec<Vec<f64>> = places.collect();
        let peak = (0..distances.len())
            .max_by(|&a, &b| distances[a].total_cmp(&distances[b]))
            .unwrap_or(0);

        let grids = std::iter::once(distances.clone()).chain(
            (0..layers.len()).map(|layer| by_place.iter().map(|s| s[layer] as f32).collect()),
        );
        let grids = grids.collect::<Vec<_>>().concat();
        let shape = [1 + layers.len(), height, width];
        let scored = self.padim.scorer.score_host(&grids, shape, self.input_size, self.region())?;
        let mut scored = scored.into_iter();
        let Some(whole) = scored.next() else {
            return Err(Error::shape("scores", "one map", "none"));
        };
        let layer_contribution =
            |(layer, scored): (usize, crate::scoring::ScoredMap)| LayerContribution {
                layer: layers[layer].name.clone(),
                map: scored.map,
                at_peak: by_place[peak][layer] as f32,
            };
        let mut at_peak: Vec<ChannelContribution> = channels(peak)
            .into_iter()
            .zip(&sources)
            .map(|(part, &(layer, channel))| ChannelContribution {
                layer: layers[layer].name.clone(),
                channel,
                contribution: part as f32,
            })
            .collect();
        at_peak.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        Ok(Explanation {
            prediction: self.prediction(whole, origin),
            layers: scored.enumerate().map(layer_contribution).collect(),
            peak: [peak / width, peak % width],
            channels: at_peak,
        })
    }
}
