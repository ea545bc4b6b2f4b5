//! The distances of all vectors of a batch, on the host (on a device: `device.rs`): from the
//! Gaussians at their positions, from the nearest ones in a window, or from the pooled one.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::device::{DeviceGaussians, ModelNumbers, Window};
use super::measure::{Position, Workspace};
use super::model::GaussianModel;
use super::positions::Positions;
use super::storage::Precision;
use super::window::reach;
use crate::embedding::{DenseVectors, PatchVectors};
use crate::error::{Error, Result};
use crate::host::{LARGEST_BUFFER, all_finite_on_device, is_host, to_device};
use crate::instructions;

impl GaussianModel {
    /// The Mahalanobis distance (paper, equation 2; not squared) of every embedding vector of a
    /// batch from the Gaussian at its position; 0 outside the region of interest.
    ///
    /// # Shapes
    ///
    /// `embeddings`: `[batch, dimension, grid_height, grid_width]`; the result:
    /// `[batch, grid_height, grid_width]`, on the same device.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for embeddings of another dimension or grid, [`Error::NotFinite`] for
    /// NaN or infinite embeddings.
    pub fn mahalanobis_distance(&self, embeddings: Tensor<4>) -> Result<Tensor<3>> {
        self.nearest_mahalanobis_distance(embeddings, 1)
    }

    /// As [`mahalanobis_distance`](Self::mahalanobis_distance), but from the nearest Gaussian in a
    /// window of `neighborhood` rows and columns around the position. The window is cut off at the
    /// border of the grid and of the region of interest. A window of 1 is the position itself. A
    /// pooled model has one Gaussian, so the window has no effect.
    ///
    /// # Errors
    ///
    /// As [`mahalanobis_distance`](Self::mahalanobis_distance), and [`Error::InvalidConfig`] for a
    /// neighborhood that is even or above 31.
    pub fn nearest_mahalanobis_distance(
        &self,
        embeddings: Tensor<4>,
        neighborhood: usize,
    ) -> Result<Tensor<3>> {
        let reach = reach(neighborhood)?;
        let device = embeddings.device();
        self.positions.check(embeddings.dims(), self.dimension)?;
        if !is_host(&device) {
            let distances = self.distances_on_device(embeddings, reach, Precision::F32)?;
            return match all_finite_on_device(distances.clone())? {
                true => Ok(distances),
                false => Err(not_finite()),
            };
        }
        let vectors = DenseVectors::of(embeddings)?;
        let [height, width] = self.grid();
        let batch = vectors.shape()[0];
        Ok(to_device(self.distances_of(&vectors, reach)?, [batch, height, width], &device))
    }

    /// The distances `[batch, grid_height, grid_width]` of embeddings
    /// `[batch, dimension, grid_height, grid_width]`, computed on their device. They can be NaN.
    pub(crate) fn distances_on_device(
        &self,
        embeddings: Tensor<4>,
        reach: usize,
        precision: Precision,
    ) -> Result<Tensor<3>> {
        self.positions.check(embeddings.dims(), self.dimension)?;
        Ok(self.measured_on_device(embeddings, reach, precision))
    }

    /// The distances `[batch, grid_height, grid_width]` of vectors on the host from the nearest
    /// Gaussian at most `reach` rows and columns away.
    pub(crate) fn distances_of(
        &self,
        vectors: &dyn PatchVectors,
        reach: usize,
    ) -> Result<Vec<f32>> {
        self.positions.check(vectors.shape(), self.dimension)?;
        let distances = self.distances(vectors, reach);
        if !distances.iter().all(|v| v.is_finite()) {
            return Err(not_finite());
        }
        Ok(self.positions.spread_out(distances))
    }

    /// For each place `[grid_height, grid_width]`, the place of the Gaussian that is nearest to the
    /// first image's vector there. Outside the region, the place itself.
    pub(crate) fn nearest_of(&self, vectors: &dyn PatchVectors, reach: usize) -> Vec<usize> {
        let mut nearest: Vec<usize> = (0..self.grid().iter().product()).collect();
        if reach == 0 || self.positions.pooled() {
            return nearest;
        }
        let windows = Windows::new(self, vectors, reach);
        for number in 0..self.positions.len() {
            let place = self.positions.place(number);
            let seen = windows.seen_from(&self.positions, number, 0);
            if let Some((_, number)) = seen.min_by(|a, b| a.0.total_cmp(&b.0)) {
                nearest[place] = self.positions.place(number);
            }
        }
        nearest
    }

    /// The distances `[batch, positions]`. Each depends only on its own vector, not on the batch.
    fn distances(&self, vectors: &dyn PatchVectors, reach: usize) -> Vec<f32> {
        let batch = vectors.shape()[0];
        let positions = &self.positions;
        let by_position = match reach {
            _ if positions.pooled() => self.pooled_distances(vectors),
            0 => Windows::new(self, vectors, 0).distances,
            _ => {
                let windows = Windows::new(self, vectors, reach);
                let mut nearest = vec![0.0; positions.len() * batch];
                nearest.par_chunks_exact_mut(batch).enumerate().for_each(|(number, nearest)| {
                    for (b, nearest) in nearest.iter_mut().enumerate() {
                        let seen = windows.seen_from(positions, number, b);
                        *nearest = seen.map(|(distance, _)| distance).fold(f32::INFINITY, f32::min);
                    }
                });
                nearest
            }
        };
        if batch == 1 {
            return by_position;
        }
        let mut by_image = vec![0.0; by_position.len()];
        for (p, distances) in by_position.chunks_exact(batch).enumerate() {
            for (b, &distance) in distances.iter().enumerate() {
                by_image[b * positions.len() + p] = distance;
            }
        }
        by_image
    }

    /// The distances `[positions, batch]` from the pooled Gaussian.
    fn pooled_distances(&self, vectors: &dyn PatchVectors) -> Vec<f32> {
        let batch = vectors.shape()[0];
        let places: Vec<usize> =
            (0..self.positions.len()).map(|number| self.positions.place(number)).collect();
        let together = (TOGETHER / batch).max(1);
        let mut distances = vec![0.0; places.len() * batch];
        let runs = places.par_chunks(together).zip(distances.par_chunks_mut(together * batch));
        runs.for_each_init(Workspace::default, |workspace, (places, distances)| {
            self.measure(0, vectors, places, distances, workspace);
        });
        distances
    }

    /// Writes the distances `[places, batch]` of the vectors at some places from one Gaussian.
    fn measure(
        &self,
        gaussian: usize,
        vectors: &dyn PatchVectors,
        places: &[usize],
        distances: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let d = self.dimension;
        instructions::arch().dispatch(Position {
            storage: self.storage,
            mean: &self.means[gaussian * d..(gaussian + 1) * d],
            numbers: self.numbers.slice(0..self.numbers.len()),
            range: self.range(gaussian),
            scale: self.scales[gaussian],
            vectors,
            places,
            distances,
            workspace,
        });
    }
}

impl GaussianModel {
    pub(super) fn parts(&self) -> ModelNumbers<'_> {
        let Self { storage, dimension, rows, positions, means, scales, numbers, .. } = self;
        let (storage, dimension, rows) = (*storage, *dimension, *rows);
        ModelNumbers { storage, dimension, rows, positions, means, scales, numbers }
    }
    /// The Gaussians on a device, from a cache. `precision`: the precision of products there.
    pub(crate) fn on_device(&self, device: &Device, precision: Precision) -> Arc<DeviceGaussians> {
        self.on_device.get((device.clone(), precision), |(device, precision)| {
            DeviceGaussians::new(&self.parts(), device, *precision, LARGEST_BUFFER)
        })
    }

    /// The distances `[batch, grid_height, grid_width]` of embeddings
    /// `[batch, dimension, grid_height, grid_width]` from the nearest Gaussian at most `reach` rows and
    /// columns away, computed on their device; 0 outside the region of interest. The caller has checked
    /// the shapes.
    pub(super) fn measured_on_device(
        &self,
        embeddings: Tensor<4>,
        reach: usize,
        precision: Precision,
    ) -> Tensor<3> {
        let device = embeddings.device();
        let there = self.on_device(&device, precision);
        if reach == 0 || self.positions.pooled() {
            return there.distances(embeddings, &[]);
        }
        let windows = self
            .windows
            .get((device, reach), |(device, reach)| Window::all(&self.positions, *reach, device));
        there.distances(embeddings, &windows)
    }
}

fn not_finite() -> Error {
    Error::NotFinite { what: "the embedding or its distances".into() }
}

/// The number of vectors that are measured at once. They stay in the cache meanwhile.
const TOGETHER: usize = 32;

/// The distances from each Gaussian to the vectors in the window around its position. So a Gaussian's
/// rows are read once for all vectors for which it may be the nearest.
struct Windows {
    reach: usize,
    batch: usize,
    /// `[positions, window, batch]`; 0 for places without a position.
    distances: Vec<f32>,
}

impl Windows {
    fn new(model: &GaussianModel, vectors: &dyn PatchVectors, reach: usize) -> Self {
        const RUN: usize = 16;
        let batch = vectors.shape()[0];
        let positions = &model.positions;
        let each = (2 * reach + 1).pow(2) * batch;
        let together = (TOGETHER / batch).max(1);
        let mut distances = vec![0.0; positions.len() * each];
        distances.par_chunks_mut(RUN * each).enumerate().for_each_init(
            || (Workspace::default(), Vec::new()),
            |(workspace, measured), (run, targets)| {
                for (p, target) in targets.chunks_exact_mut(each).enumerate() {
                    let number = run * RUN + p;
                    let place = positions.place(number);
                    if reach == 0 {
                        model.measure(number, vectors, &[place], target, workspace);
                        continue;
                    }
                    let (slots, places): (Vec<usize>, Vec<usize>) = positions
                        .window(place, reach)
                        .map(|(slot, number)| (slot, positions.place(number)))
                        .unzip();
                    for (slots, places) in slots.chunks(together).zip(places.chunks(together)) {
                        measured.resize(places.len() * batch, 0.0);
                        model.measure(number, vectors, places, measured, workspace);
                        for (&slot, own) in slots.iter().zip(measured.chunks_exact(batch)) {
                            target[slot * batch..(slot + 1) * batch].copy_from_slice(own);
                        }
                    }
                }
            },
        );
        Self { reach, batch, distances }
    }

    /// The distances of an image's vector at a position from all Gaussians of its window, each with
    /// the number of the Gaussian's position.
    fn seen_from<'a>(
        &'a self,
        positions: &'a Positions,
        number: usize,
        image: usize,
    ) -> impl Iterator<Item = (f32, usize)> + 'a {
        let window = (2 * self.reach + 1).pow(2);
        positions.window(positions.place(number), self.reach).map(move |(slot, other)| {
            // In the other window, this position is on the opposite side.
            let slot = other * window + window - 1 - slot;
            (self.distances[slot * self.batch + image], other)
        })
    }
}
