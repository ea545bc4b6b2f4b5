//! Embedding vectors in the program's own memory.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{all_finite, pixels_to_device, pixels_to_host};

/// Embedding vectors of a batch, to be had one by one.
pub(crate) trait PatchVectors: Sync {
    /// `[batch, dimension, grid_height, grid_width]`
    fn shape(&self) -> [usize; 4];

    /// Whether all are numbers.
    fn all_finite(&self) -> bool;

    /// Writes the vector of an image at a place `row * grid_width + column`.
    fn write(&self, image: usize, place: usize, target: &mut [f32]);
}

/// Vectors that lie behind each other.
pub(crate) struct DenseVectors {
    shape: [usize; 4],
    /// `[batch, grid_height, grid_width, dimension]`
    values: Vec<f32>,
}

impl DenseVectors {
    /// Those of an embedding `[batch, dimension, grid_height, grid_width]`.
    pub fn of(embedding: Tensor<4>) -> Result<Self> {
        let shape = embedding.dims();
        Ok(Self { shape, values: pixels_to_host(embedding)? })
    }

    /// Vectors `[batch, dimension]` for a single place.
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

/// Some images of a batch. Whether it is all numbers is for its owner to ask, once.
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

/// Vectors that are put together when they are asked for: what is never written is never read again.
pub(crate) struct GatheredVectors {
    pub(super) shape: [usize; 4],
    pub(super) sources: Vec<Source>,
}

/// A layer's map.
pub(super) struct Source {
    /// `[batch, rows, columns, channels]`
    values: Vec<f32>,
    size: [usize; 2],
    channels: usize,
    /// Of each position of the grid, the row and the column that stand for it.
    of_row: Vec<usize>,
    of_column: Vec<usize>,
    choice: Choice,
}

/// What is selected of a layer.
pub(super) struct Choice {
    /// Where it stands in an embedding vector.
    pub places: Vec<usize>,
    /// Which of the layer's channels it is.
    pub channels: Vec<usize>,
}

impl Source {
    /// A map `[batch, channels, rows, columns]` for a grid.
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

    /// Channels that are not selected may hold anything.
    fn selection_is_finite(&self) -> bool {
        let finite = |pixel: &[f32]| self.choice.channels.iter().all(|&c| pixel[c].is_finite());
        self.values.par_chunks_exact(self.channels).with_min_len(256).all(finite)
    }
}

/// All of them.
pub(super) fn to_tensor(vectors: &dyn PatchVectors, device: &Device) -> Tensor<4> {
    let [batch, dimension, height, width] = vectors.shape();
    let mut values = vec![0.0; batch * height * width * dimension];
    let rows = values.par_chunks_exact_mut(width * dimension).enumerate().with_min_len(4);
    rows.for_each(|(row, target)| {
        let (image, y) = (row / height, row % height);
        for (x, vector) in target.chunks_exact_mut(dimension).enumerate() {
            vectors.write(image, y * width + x, vector);
        }
    });
    pixels_to_device(values, [batch, height, width, dimension], device)
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

/// For each of `target` samples the source sample that it takes, by torch's rule, in its f32.
pub(super) fn nearest_sources(source: usize, target: usize) -> Vec<usize> {
    let scale = source as f32 / target as f32;
    (0..target).map(|i| ((i as f32 * scale) as usize).min(source - 1)).collect()
}
