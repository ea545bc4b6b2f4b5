//! Statistics of the embedding vectors of good images, independent of the settings.

use std::borrow::Borrow;
use std::ops::ControlFlow;

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::block::Block;
use super::config::{CovarianceDivisor, GaussianConfig};
use super::covariance::{Covariance, SampleCovariance};
use super::model::GaussianModel;
use super::model::ModelShape;
use super::numbers::Numbers;
use super::pooled;
use super::positions::Positions;
use super::shrinkage::Shrinkage;
use super::shrinkage::Spread;
use super::storage::Storage;
use super::sums::Deviations;
use super::weights::ImageWeights;
use crate::embedding::PatchVectors;
use crate::error::{Error, Result};

/// Statistics of the embedding vectors of good images at each position: the vectors themselves while
/// there are few, later their sums. They hold no settings, so the same statistics give Gaussians with
/// any epsilon, shrinkage and storage.
///
/// A [`GaussianEstimator`](crate::gaussian::GaussianEstimator), a [`PartialFit`](crate::PartialFit)
/// and a detector that can be extended hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianStatistics {
    pub(super) dimension: usize,
    pub(super) positions: Positions,
    pub(super) tally: ImageWeights,
    pub(super) blocks: Vec<Block>,
}

/// The number of vectors that are collected before they are added to the sums: adding many at once is
/// faster.
pub(crate) const PENDING: usize = 64;

/// The number of vectors that a position keeps before they are first turned into sums.
pub(crate) const fn sample_limit(dimension: usize) -> usize {
    if dimension < PENDING { PENDING } else { dimension }
}

impl GaussianStatistics {
    /// Statistics without an image.
    pub(crate) fn new(dimension: usize, positions: Positions) -> Self {
        let blocks = Block::cut(positions.gaussians(), dimension);
        Self { dimension, positions, tally: ImageWeights::default(), blocks }
    }

    /// Builds statistics from their parts. The caller has checked the sizes.
    pub(crate) fn from_parts(
        dimension: usize,
        positions: Positions,
        tally: ImageWeights,
        blocks: Vec<Block>,
    ) -> Self {
        Self { dimension, positions, tally, blocks }
    }

    pub(crate) fn tally(&self) -> &ImageWeights {
        &self.tally
    }

    /// Whether earlier vectors are only in sums.
    pub(crate) fn is_summed(&self) -> bool {
        self.blocks.iter().any(|block| block.sums.is_some())
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The number of images so far.
    pub fn image_count(&self) -> usize {
        self.tally.count
    }

    /// The size in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.blocks.iter().map(Block::size_in_bytes).sum()
    }

    /// Checks the shape of embeddings `[batch, dimension, grid_height, grid_width]`.
    pub(super) fn check_shape(&self, shape: [usize; 4]) -> Result<()> {
        self.positions.check(shape, self.dimension)
    }

    /// Checks that these settings can be used with the statistics.
    pub(crate) fn check(&self, config: &GaussianConfig) -> Result<()> {
        config.check(self.dimension)?;
        if config.pooled != self.positions.pooled() {
            let reason = "cannot be changed after the first image; fit again";
            return Err(Error::config("pooled", reason));
        }
        Ok(())
    }

    /// Adds the embedding vectors of a batch of images.
    pub(crate) fn update(&mut self, vectors: &dyn PatchVectors) -> Result<()> {
        let shape = vectors.shape();
        self.check_shape(shape)?;
        if !vectors.all_finite() {
            return Err(Error::NotFinite { what: "the embedding".into() });
        }
        if let ([block], true) = (self.blocks.as_mut_slice(), self.positions.pooled()) {
            let weight = pooled::fold(block, vectors, &self.positions, self.tally.folded);
            self.tally.folded += weight;
            self.tally.squared += weight;
            self.tally.count += shape[0];
            return Ok(());
        }
        let mut done = 0;
        while done < shape[0] {
            let limit = if self.is_summed() { PENDING } else { sample_limit(self.dimension) };
            if self.tally.weights.len() >= limit {
                self.fold();
                continue;
            }
            let taken = done..shape[0].min(done + limit - self.tally.weights.len());
            let room = taken.len().max(self.tally.weights.len());
            let room = room.min(limit - self.tally.weights.len());
            let positions = &self.positions;
            self.blocks.par_iter_mut().for_each(|block| {
                block.make_room(taken.len(), room);
                block.push(vectors, positions, taken.clone());
            });
            self.tally.weights.extend(vec![1.0; taken.len()]);
            self.tally.count += taken.len();
            self.tally.squared += taken.len() as f64;
            done = taken.end;
        }
        Ok(())
    }

    /// Reserves memory for this number of further images, as far as their vectors will be kept. This
    /// avoids copies when memory grows.
    pub(crate) fn reserve(&mut self, images: usize) {
        if self.positions.pooled() {
            return;
        }
        let room =
            images.min(sample_limit(self.dimension).saturating_sub(self.tally.weights.len()));
        self.blocks.iter_mut().for_each(|block| block.make_room(room, room));
    }

    /// Turns the samples into sums.
    fn fold(&mut self) {
        let ImageWeights { weights, folded, .. } = &mut self.tally;
        self.blocks.iter_mut().for_each(|block| block.fold(weights, *folded, PENDING));
        *folded += weights.iter().sum::<f64>();
        weights.clear();
    }

    #[cfg(test)]
    pub(super) fn fold_for_test(&mut self) {
        self.fold();
    }

    /// Adds the images of other statistics, as if all had been added here. The order of merging only
    /// affects rounding.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the other statistics have another dimension, grid or region.
    pub(crate) fn merge(&mut self, mut other: Self) -> Result<()> {
        if (self.dimension, &self.positions) != (other.dimension, &other.positions) {
            let describe = |e: &Self| {
                let [height, width] = e.positions.grid();
                let pooled = if e.positions.pooled() { "pooled" } else { "not pooled" };
                let count = e.positions.len();
                format!("{count} of {height}x{width} positions, {pooled}, {}", e.dimension)
            };
            return Err(Error::ShapeMismatch {
                what: "statistics to merge (positions, dimension)",
                expected: describe(self),
                actual: describe(&other),
            });
        }
        let samples = self.tally.weights.len() + other.tally.weights.len();
        if self.is_summed() || other.is_summed() || samples > sample_limit(self.dimension) {
            self.fold();
            other.fold();
            let (weight, other_weight) = (self.tally.folded, other.tally.folded);
            if weight == 0.0 {
                self.blocks = std::mem::take(&mut other.blocks);
            } else if other_weight > 0.0 {
                for (block, other) in self.blocks.iter_mut().zip(&mut other.blocks) {
                    block.merge(weight, other, other_weight);
                    other.sums = None;
                }
            }
        } else {
            for (block, other) in self.blocks.iter_mut().zip(&mut other.blocks) {
                block.append(other);
            }
        }
        self.tally.weights.append(&mut other.tally.weights);
        self.tally.folded += other.tally.folded;
        self.tally.squared += other.tally.squared;
        self.tally.count = self.tally.count.saturating_add(other.tally.count);
        Ok(())
    }

    /// Multiplies the weight of all images so far by a forgetting factor. Done before each new group
    /// of images, this is exponential forgetting. The images then count as fewer, also in the divisor
    /// of the covariance.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the factor is above 0 and at most 1.
    pub(crate) fn forget(&mut self, factor: f64) -> Result<()> {
        check_forgetting_factor(factor)?;
        self.tally.weights.iter_mut().for_each(|w| *w *= factor);
        self.tally.folded *= factor;
        self.tally.squared *= factor * factor;
        self.blocks.iter_mut().for_each(|block| block.scale_sums(factor));
        Ok(())
    }

    /// Computes the Gaussians and frees memory meanwhile. `progress` gets the number of finished
    /// positions and the total, and can stop the computation.
    pub(crate) fn finish(
        mut self,
        config: &GaussianConfig,
        progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<GaussianModel> {
        self.check(config)?;
        let chosen = self.choose(config)?;
        let blocks = std::mem::take(&mut self.blocks);
        self.factorize(config, chosen, blocks, progress)
    }

    /// Computes the Gaussians of the images so far with these settings.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::InvalidConfig`] for settings that
    /// are invalid or cannot be used with these images, [`Error::NotPositiveDefinite`] if a
    /// covariance cannot be inverted.
    pub fn model(&self, config: &GaussianConfig) -> Result<GaussianModel> {
        self.model_with(config, |_done, _total| ControlFlow::Continue(()))
    }

    /// As [`model`](Self::model). `progress` gets the number of finished positions and the total, and
    /// can stop the computation.
    ///
    /// # Errors
    ///
    /// As [`model`](Self::model); [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
    pub fn model_with(
        &self,
        config: &GaussianConfig,
        progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<GaussianModel> {
        self.check(config)?;
        let chosen = self.choose(config)?;
        self.factorize(config, chosen, &self.blocks, progress)
    }

    fn factorize(
        &self,
        config: &GaussianConfig,
        (storage, rows): (Storage, usize),
        blocks: impl IntoIterator<Item = impl Borrow<Block>>,
        mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<GaussianModel> {
        let d = self.dimension;
        let total = self.positions.gaussians();
        let shape = ModelShape {
            storage,
            dimension: d,
            rows,
            positions: self.positions.clone(),
            count: self.tally.count,
        };
        let each = shape.numbers().unwrap_or(0);
        let mut numbers = Numbers::zeros(storage.precision(), total * each);
        let mut scales = vec![0.0; total];
        let mut means = vec![0.0; total * d];
        const RUN: usize = 64;
        for block in blocks {
            let block: &Block = block.borrow();
            for start in (0..block.positions).step_by(RUN) {
                let first = block.first + start;
                let count = RUN.min(block.positions - start);
                let beside = scales[first..first + count]
                    .par_iter_mut()
                    .zip(means[first * d..(first + count) * d].par_chunks_exact_mut(d));
                numbers.fill(
                    first,
                    storage,
                    [each, storage.correction(d)],
                    beside,
                    |p, (scale, target_mean), target, scratch| {
                        let (mean, covariance) = self.covariance(config, block, start + p);
                        target_mean.iter_mut().zip(&mean).for_each(|(t, &m)| *t = m as f32);
                        let written = storage.write(&covariance, rows, target, scratch);
                        let position = self.positions.place(first + p);
                        *scale = written.ok_or(Error::NotPositiveDefinite { position })?;
                        Ok(())
                    },
                )?;
                if progress(first + count, total).is_break() {
                    return Err(Error::Cancelled);
                }
            }
        }
        GaussianModel::from_parts(shape, means, scales, numbers)
    }

    /// The mean `[dimension]` and the covariance `[dimension, dimension]` with these settings at the
    /// position `row * grid_width + column`, in f64. Storages can be compared with it. `None` outside
    /// the grid or the region of interest, and for fewer than two images.
    pub fn gaussian(
        &self,
        config: &GaussianConfig,
        position: usize,
    ) -> Option<(DVector<f64>, DMatrix<f64>)> {
        let number = self.positions.gaussian(position)?;
        if self.tally.effective_count() < 1.0 + 1e-9 {
            return None;
        }
        let block = self.blocks.iter().rfind(|block| block.first <= number)?;
        let (mean, covariance) = self.covariance(config, block, number - block.first);
        Some((DVector::from_vec(mean), covariance.dense()))
    }

    /// The mean and the regularized covariance of a position of a block.
    pub(super) fn covariance(
        &self,
        config: &GaussianConfig,
        block: &Block,
        position: usize,
    ) -> (Vec<f64>, Covariance) {
        let tally = &self.tally;
        let weight = tally.weight();
        let divisor = match config.divisor {
            CovarianceDivisor::Unbiased => weight - tally.squared / weight,
            CovarianceDivisor::Biased => weight,
        };
        let needs_fourth = config.shrinkage == Shrinkage::LedoitWolf;
        let (mean, form, fourth) = match block.deviations(position, &tally.weights) {
            Some(deviations) => {
                let fourth = if needs_fourth { deviations.fourth(&tally.weights) } else { 0.0 };
                let Deviations { mean, mut columns } = deviations;
                let factor = divisor.sqrt().recip();
                columns.col_iter_mut().for_each(|c| c.iter_mut().for_each(|v| *v *= factor));
                (mean, SampleCovariance::Outer(columns), fourth)
            }
            None => {
                let mut sums = block.sums(position, &tally.weights, tally.folded);
                let factor = divisor.recip();
                for column in sums.scatter.col_iter_mut().filter_map(|c| c.try_as_col_major_mut()) {
                    column.as_slice_mut().iter_mut().for_each(|v| *v *= factor);
                }
                (sums.mean, SampleCovariance::Dense(sums.scatter), sums.fourth)
            }
        };
        if config.shrinkage == Shrinkage::None {
            return (mean, Covariance { form, keep: 1.0, floor: config.epsilon });
        }
        let trace: f64 = form.variances().iter().sum();
        let biased = divisor / weight;
        let intensity = config.shrinkage.intensity(&Spread {
            dimension: self.dimension,
            count: tally.effective_count(),
            trace: trace * biased,
            squared_norm: form.squared_norm() * biased * biased,
            fourth: fourth / weight,
        });
        let floor = config.epsilon + intensity * trace / self.dimension as f64;
        (mean, Covariance { form, keep: 1.0 - intensity, floor })
    }
}

/// Checks a forgetting factor, the fraction of their weight that images keep.
pub(crate) fn check_forgetting_factor(factor: f64) -> Result<()> {
    if factor > 0.0 && factor <= 1.0 {
        return Ok(());
    }
    Err(Error::config("forgetting_factor", format!("must be above 0 and at most 1, got {factor}")))
}
