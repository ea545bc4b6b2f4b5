//! Embedding vectors in host memory.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{all_finite, pixels_to_device, pixels_to_host};

/// The embedding vectors of a batch, read one by one.
pub(crate) trait PatchVectors: Sync {
    /// `[batch, dimension, grid_height, grid_width]`
    fn shape(&self) -> [usize; 4];

    /// Whether all values are finite.
    fn all_finite(&self) -> bool;

    /// Writes the vector of an image at position `row * grid_width + column` to `target`.
    fn write(&self, image: usize, place: usize, target: &mut [f32]);
}

/// Vectors in contiguous memory.
#[derive(Debug, Clone)]
pub(crate) struct DenseVectors {
    shape: [usize; 4],
    /// `[batch, grid_height, grid_width, dimension]`
    values: Vec<f32>,
}

impl DenseVectors {
    /// Reads the vectors of an embedding `[batch, dimension, grid_height, grid_width]`.
    pub fn of(embedding: Tensor<4>) -> Result<Self> {
        let shape = embedding.dims();
        Ok(Self { shape, values: pixels_to_host(embedding)? })
    }

    /// A copy of vectors.
    pub fn copied(vectors: &dyn PatchVectors) -> Self {
        Self { shape: vectors.shape(), values: values_of(vectors) }
    }

    /// Vectors `[batch, dimension]` of a single position.
    pub fn at_one_place(values: Vec<f32>, dimension: usize) -> Self {
        Self { shape: [values.len() / dimension, dimension, 1, 1], values }
    }
}

impl PatchVectors for DenseVectors {
    fn shape(&self) -> [usize; 4] {
        self.shape
    }

    fn all_finite(&self) -> bool {
        all_finite(&self.values)
    }

    fn write(&self, image: usize, place: usize, target: &mut [f32]) {
        let [_, dimension, height, width] = self.shape;
        let start = (image * height * width + place) * dimension;
        target.copy_from_slice(&self.values[start..start + dimension]);
    }
}

/// Some images of a batch. Does not check for NaN; its owner checks the whole batch once.
pub(crate) struct PartOfBatch<'a> {
    pub vectors: &'a dyn PatchVectors,
    pub images: Range<usize>,
}

impl PatchVectors for PartOfBatch<'_> {
    fn shape(&self) -> [usize; 4] {
        let [_, dimension, height, width] = self.vectors.shape();
        [self.images.len(), dimension, height, width]
    }

    fn all_finite(&self) -> bool {
        true
    }

    fn write(&self, image: usize, place: usize, target: &mut [f32]) {
        self.vectors.write(self.images.start + image, place, target);
    }
}

/// Vectors that are assembled on request from the feature maps; this avoids a copy in memory.
pub(crate) struct GatheredVectors {
    pub(super) shape: [usize; 4],
    pub(super) sources: Vec<Source>,
}

/// The feature map of a layer.
pub(super) struct Source {
    /// `[batch, rows, columns, channels]`
    values: Vec<f32>,
    size: [usize; 2],
    channels: usize,
    /// The map's row for each row of the grid, and its column for each column of the grid.
    of_row: Vec<usize>,
    of_column: Vec<usize>,
    choice: Choice,
}

/// The selected channels of a layer.
pub(super) struct Choice {
    /// Their indices in an embedding vector.
    pub places: Vec<usize>,
    /// Their indices in the layer.
    pub channels: Vec<usize>,
}

impl Source {
    /// Reads a map `[batch, channels, rows, columns]`, for a grid `[height, width]`.
    pub fn new(map: Tensor<4>, [height, width]: [usize; 2], choice: Choice) -> Result<Self> {
        let [_, channels, rows, columns] = map.dims();
        Ok(Self {
            values: pixels_to_host(map)?,
            size: [rows, columns],
            channels,
            of_row: nearest_sources(rows, height),
            of_column: nearest_sources(columns, width),
            choice,
        })
    }

    /// Whether the selected channels are finite. The others are not used.
    fn selection_is_finite(&self) -> bool {
        let finite = |pixel: &[f32]| self.choice.channels.iter().all(|&c| pixel[c].is_finite());
        self.values.par_chunks_exact(self.channels).with_min_len(256).all(finite)
    }
}

/// All vectors as a tensor `[batch, dimension, grid_height, grid_width]`.
pub(super) fn to_tensor(vectors: &dyn PatchVectors, device: &Device) -> Tensor<4> {
    let [batch, dimension, height, width] = vectors.shape();
    pixels_to_device(values_of(vectors), [batch, height, width, dimension], device)
}

/// All vectors, as `[batch, grid_height, grid_width, dimension]`.
fn values_of(vectors: &dyn PatchVectors) -> Vec<f32> {
    let [batch, dimension, height, width] = vectors.shape();
    let mut values = vec![0.0; batch * height * width * dimension];
    let rows = values.par_chunks_exact_mut(width * dimension).enumerate().with_min_len(4);
    rows.for_each(|(row, target)| {
        let (image, y) = (row / height, row % height);
        for (x, vector) in target.chunks_exact_mut(dimension).enumerate() {
            vectors.write(image, y * width + x, vector);
        }
    });
    values
}

impl PatchVectors for GatheredVectors {
    fn shape(&self) -> [usize; 4] {
        self.shape
    }

    fn all_finite(&self) -> bool {
        self.sources.iter().all(Source::selection_is_finite)
    }

    fn write(&self, image: usize, place: usize, target: &mut [f32]) {
        let width = self.shape[3];
        let (y, x) = (place / width, place % width);
        for Source { values, size: [rows, columns], channels, of_row, of_column, choice } in
            &self.sources
        {
            let pixel = (image * rows + of_row[y]) * columns + of_column[x];
            let pixel = &values[pixel * channels..(pixel + 1) * channels];
            let pairs = choice.places.iter().zip(&choice.channels);
            pairs.for_each(|(&place, &channel)| target[place] = pixel[channel]);
        }
    }
}

/// The index of the nearest source sample for each of `target` samples, by torch's rule in f32.
pub(super) fn nearest_sources(source: usize, target: usize) -> Vec<usize> {
    let scale = source as f32 / target as f32;
    (0..target).map(|i| ((i as f32 * scale) as usize).min(source - 1)).collect()
}
