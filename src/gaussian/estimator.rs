//! From batches of embeddings to Gaussians.

use std::borrow::Borrow;

use burn::tensor::Tensor;
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::covariance::{Covariance, Form, Scratch};
use super::distance::{NumbersRef, Position, Workspace, correct_low_rank, to_half};
use super::model::{ModelShape, Numbers};
use super::pooled;
use super::positions::Positions;
use super::shrinkage::Spread;
use super::statistics::Block;
use super::storage::{Precision, Storage, trapezoid_len};
use super::sums::Deviations;
use super::{CovarianceDivisor, GaussianConfig, GaussianModel, Shrinkage};
use crate::embedding::{DenseVectors, PatchVectors};
use crate::{Error, Result};

/// Estimates a [`GaussianModel`] from batches of embeddings in one pass. It can be merged with
/// others, saved with a fit ([`PartialFit`](crate::PartialFit)), and go on after the model is made.
///
/// While there are no more images than dimensions, the vectors themselves are kept; after that, the
/// sums of their outer products in f64, merged around the running mean (Chan, Golub, LeVeque 1979).
/// So memory stops growing, and a large common offset costs no digits. Pooled Gaussians
/// ([`GaussianConfig::pooled`]) are sums from the start.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use padim::{GaussianConfig, GaussianEstimator};
///
/// let device = Device::flex();
/// let mut estimator = GaussianEstimator::new(GaussianConfig::default(), 3, [4, 5])?;
/// for _ in 0..10 {
///     let batch = Tensor::random([8, 3, 4, 5], Distribution::Normal(0.0, 1.0), &device);
///     estimator.update(batch)?;
/// }
/// let model = estimator.finish(|_done, _total| ())?;
/// assert_eq!(model.image_count(), 80);
/// println!("kept as {}", model.storage());
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianEstimator {
    config: GaussianConfig,
    dimension: usize,
    positions: Positions,
    tally: Tally,
    blocks: Vec<Block>,
}

/// How many images there are and what they weigh.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    pub count: usize,
    /// Of the samples.
    pub weights: Vec<f64>,
    /// The weight that has gone into sums.
    pub folded: f64,
    /// The sum of the squared weights of all images.
    pub squared: f64,
}

impl Tally {
    fn weight(&self) -> f64 {
        self.folded + self.weights.iter().sum::<f64>()
    }

    /// Whether this can be what images have left behind, or has been tampered with.
    pub fn is_sound(&self, summed: bool) -> bool {
        let positive = |w: f64| w.is_finite() && w > 0.0;
        (summed || !self.weights.is_empty())
            && self.weights.iter().all(|&w| positive(w))
            && self.count >= self.weights.len()
            && (if summed { positive(self.folded) } else { self.folded == 0.0 })
            && positive(self.squared)
    }

    /// How many images of weight 1 tell as much.
    fn effective_count(&self) -> f64 {
        if self.squared > 0.0 { self.weight().powi(2) / self.squared } else { 0.0 }
    }
}

/// So many vectors are gathered before they are added to the sums: products of many at once are
/// faster.
pub(crate) const PENDING: usize = 64;

/// How many vectors a position keeps before they are summed up for the first time.
pub(crate) const fn sample_limit(dimension: usize) -> usize {
    if dimension < PENDING { PENDING } else { dimension }
}

impl GaussianEstimator {
    /// An estimator for vectors of `dimension` components on a grid `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for settings that cannot be, or a size of zero.
    pub fn new(config: GaussianConfig, dimension: usize, grid: [usize; 2]) -> Result<Self> {
        Self::at(config, dimension, Positions::all(grid)?)
    }

    /// An estimator for the positions where `region` (row-major, `[height, width]`) is true. The
    /// others take no memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), [`Error::ShapeMismatch`] for a region of another size, and
    /// [`Error::InvalidConfig`] for an empty one.
    pub fn with_region(
        config: GaussianConfig,
        dimension: usize,
        grid: [usize; 2],
        region: &[bool],
    ) -> Result<Self> {
        Self::at(config, dimension, Positions::inside(grid, region)?)
    }

    pub(crate) fn at(
        config: GaussianConfig,
        dimension: usize,
        positions: Positions,
    ) -> Result<Self> {
        check(&config, dimension)?;
        let positions = positions.with_pooled(config.pooled);
        let blocks = Block::cut(positions.gaussians(), dimension);
        Ok(Self { config, dimension, positions, tally: Tally::default(), blocks })
    }

    /// Puts an estimator together from its parts, whose sizes have been checked.
    pub(crate) fn from_parts(
        config: GaussianConfig,
        dimension: usize,
        positions: Positions,
        tally: Tally,
        blocks: Vec<Block>,
    ) -> Result<Self> {
        let empty = Self::at(config, dimension, positions)?;
        Ok(Self { tally, blocks, ..empty })
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The settings.
    pub fn config(&self) -> &GaussianConfig {
        &self.config
    }

    /// The same images with other settings: another epsilon, shrinkage or storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for settings that cannot be, and for pooled Gaussians of images that were
    /// not pooled, or the other way round.
    pub fn with_config(mut self, config: GaussianConfig) -> Result<Self> {
        self.check(&config)?;
        self.config = config;
        Ok(self)
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The number of images so far.
    pub fn image_count(&self) -> usize {
        self.tally.count
    }

    /// Checks settings for the images so far.
    fn check(&self, config: &GaussianConfig) -> Result<()> {
        check(config, self.dimension)?;
        if config.pooled != self.config.pooled {
            let reason = "is decided before the first image; fit again";
            return Err(Error::config("pooled", reason));
        }
        Ok(())
    }

    /// Takes in a batch of embeddings `[batch, dimension, grid_height, grid_width]`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for values that are not
    /// numbers. The estimator is then as it was before.
    pub fn update(&mut self, embeddings: Tensor<4>) -> Result<()> {
        self.positions.check(embeddings.dims(), self.dimension)?;
        self.update_with(&DenseVectors::of(embeddings)?)
    }

    /// As [`update`](Self::update), with vectors in the program's own memory.
    pub(crate) fn update_with(&mut self, vectors: &dyn PatchVectors) -> Result<()> {
        let shape = vectors.shape();
        self.positions.check(shape, self.dimension)?;
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
            let summed = self.blocks.iter().any(|block| block.sums.is_some());
            let limit = if summed { PENDING } else { sample_limit(self.dimension) };
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

    /// Makes room for so many images more, as far as their vectors are kept: less memory is then
    /// moved about.
    pub fn reserve(&mut self, images: usize) {
        if self.positions.pooled() {
            return;
        }
        let room =
            images.min(sample_limit(self.dimension).saturating_sub(self.tally.weights.len()));
        self.blocks.iter_mut().for_each(|block| block.make_room(room, room));
    }

    /// Turns the samples into sums.
    fn fold(&mut self) {
        let Tally { weights, folded, .. } = &mut self.tally;
        self.blocks.iter_mut().for_each(|block| block.fold(weights, *folded, PENDING));
        *folded += weights.iter().sum::<f64>();
        weights.clear();
    }

    #[cfg(test)]
    pub(super) fn fold_for_test(&mut self) {
        self.fold();
    }

    /// Takes in the images of another estimator, as if this one had seen them all. The order of
    /// merging changes nothing but rounding.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the other one has another dimension, grid or region. This one's
    /// settings stay.
    pub fn merge(&mut self, mut other: Self) -> Result<()> {
        if (self.dimension, &self.positions) != (other.dimension, &other.positions) {
            let describe = |e: &Self| {
                let [height, width] = e.positions.grid();
                let pooled = if e.positions.pooled() { "pooled" } else { "not pooled" };
                let count = e.positions.len();
                format!("{count} of {height}x{width} positions, {pooled}, {}", e.dimension)
            };
            return Err(Error::ShapeMismatch {
                what: "estimator to merge (positions, dimension)",
                expected: describe(self),
                actual: describe(&other),
            });
        }
        let has_sums = |e: &Self| e.blocks.iter().any(|block| block.sums.is_some());
        let samples = self.tally.weights.len() + other.tally.weights.len();
        if has_sums(self) || has_sums(&other) || samples > sample_limit(self.dimension) {
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
        self.tally.count += other.tally.count;
        Ok(())
    }

    /// Makes all images so far count `keep` times what they did: exponential forgetting, if done
    /// before each new group of images. They then count as fewer images, in the divisor of the
    /// covariance, too.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless `keep` is above 0 and at most 1.
    pub fn forget(&mut self, keep: f64) -> Result<()> {
        if !(keep > 0.0 && keep <= 1.0) {
            let reason = format!("must be above 0 and at most 1, got {keep}");
            return Err(Error::config("keep", reason));
        }
        self.tally.weights.iter_mut().for_each(|w| *w *= keep);
        self.tally.folded *= keep;
        self.tally.squared *= keep * keep;
        self.blocks.iter_mut().for_each(|block| block.scale_sums(keep));
        Ok(())
    }

    /// Factorises the covariances, giving memory back as it goes. `progress` is told how many
    /// positions of how many are done.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::InvalidConfig`] for a storage that
    /// does not go with their number, [`Error::NotPositiveDefinite`] where a covariance cannot be
    /// inverted.
    pub fn finish(mut self, progress: impl FnMut(usize, usize)) -> Result<GaussianModel> {
        let config = self.config.clone();
        let (storage, rows) = self.choose(&config)?;
        let blocks = std::mem::take(&mut self.blocks);
        self.factorise(&config, (storage, rows), blocks, progress)
    }

    /// The model of the images so far. As [`finish`](Self::finish), but the estimator stays.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn model(&self, progress: impl FnMut(usize, usize)) -> Result<GaussianModel> {
        self.model_with(&self.config, progress)
    }

    /// As [`model`](Self::model), with other settings: another epsilon, shrinkage or storage.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish), and [`Error::InvalidConfig`] for settings that cannot be.
    pub fn model_with(
        &self,
        config: &GaussianConfig,
        progress: impl FnMut(usize, usize),
    ) -> Result<GaussianModel> {
        self.check(config)?;
        let chosen = self.choose(config)?;
        self.factorise(config, chosen, &self.blocks, progress)
    }

    fn factorise(
        &self,
        config: &GaussianConfig,
        (storage, rows): (Storage, usize),
        blocks: impl IntoIterator<Item = impl Borrow<Block>>,
        mut progress: impl FnMut(usize, usize),
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
                    [each, storage.correction(d)],
                    beside,
                    |p, (scale, target_mean), target, scratch| {
                        let (mean, covariance) = self.covariance(config, block, start + p);
                        target_mean.iter_mut().zip(&mean).for_each(|(t, &m)| *t = m as f32);
                        let written = covariance.write(storage, rows, target, scratch);
                        let position = self.positions.place(first + p);
                        *scale = written.ok_or(Error::NotPositiveDefinite { position })?;
                        Ok(())
                    },
                )?;
                progress(first + count, total);
            }
        }
        GaussianModel::from_parts(shape, means, scales, numbers)
    }

    /// The mean `[dimension]` and the covariance `[dimension, dimension]`, with all regularisation, at
    /// a position `row * grid_width + column`, in f64: what storages are compared with. `None` beyond
    /// the grid and outside the region of interest, and before the second image.
    pub fn gaussian(&self, position: usize) -> Option<(DVector<f64>, DMatrix<f64>)> {
        let number = self.positions.gaussian(position)?;
        if self.tally.effective_count() < 1.0 + 1e-9 {
            return None;
        }
        let block = self.blocks.iter().rfind(|block| block.first <= number)?;
        let (mean, covariance) = self.covariance(&self.config, block, number - block.first);
        Some((DVector::from_vec(mean), covariance.dense()))
    }

    /// The mean and the regularised covariance of a block's position.
    fn covariance(
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
                (mean, Form::Outer(columns), fourth)
            }
            None => {
                let mut sums = block.sums(position, &tally.weights, tally.folded);
                let factor = divisor.recip();
                for column in sums.scatter.col_iter_mut().filter_map(|c| c.try_as_col_major_mut()) {
                    column.as_slice_mut().iter_mut().for_each(|v| *v *= factor);
                }
                (sums.mean, Form::Dense(sums.scatter), sums.fourth)
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

    /// The storage that the settings mean for the images so far, and its rows.
    fn choose(&self, config: &GaussianConfig) -> Result<(Storage, usize)> {
        let count = self.positions.vectors(self.tally.count);
        // Of images that are as good as forgotten nothing can be divided.
        if count < 2 || self.tally.effective_count() < 1.0 + 1e-9 {
            return Err(Error::TooFewImages { count: self.tally.count });
        }
        let (storage, rows) = Self::foreseen(config, self.dimension, count)?;
        match config.storage {
            Storage::Auto => self.probed(config, storage, rows),
            _ => Ok((storage, rows)),
        }
    }

    /// The storage that the settings mean for so many vectors of a Gaussian, and its rows.
    /// [`Storage::Auto`] means 16 bits here.
    pub(crate) fn foreseen(
        config: &GaussianConfig,
        dimension: usize,
        count: usize,
    ) -> Result<(Storage, usize)> {
        check(config, dimension)?;
        let fail = |field, reason| Err(Error::config(field, reason));
        match (config.storage, config.components) {
            (_, Some(k)) if k >= count => fail(
                "components",
                format!("{count} images have {} principal ones at most, not {k}", count.max(1) - 1),
            ),
            (Storage::Auto, Some(k)) => Ok((Storage::Principal(Precision::F16), k)),
            (storage, Some(k)) => Ok((storage, k)),
            (Storage::LowRank(_), _) if count > dimension => fail(
                "storage",
                format!("low rank needs fewer images than dimensions: {count}, {dimension}"),
            ),
            (storage @ Storage::LowRank(_), _) => Ok((storage, count.max(1) - 1)),
            (Storage::Auto, None) => Ok(match automatic_rows(dimension, count) {
                Some(rows) => (Storage::LowRank(Precision::F16), rows),
                None => (Storage::Triangle(Precision::F16), dimension),
            }),
            (storage, None) => Ok((storage, dimension)),
        }
    }

    /// The storage in 16 bits, or in 32 if that turns out too coarse at a sample of positions, for
    /// vectors drawn from their Gaussians.
    fn probed(
        &self,
        config: &GaussianConfig,
        storage: Storage,
        rows: usize,
    ) -> Result<(Storage, usize)> {
        const POSITIONS: usize = 16;
        const PROBES: usize = 4;
        const TOLERANCE: f32 = 1e-3;
        let (d, total) = (self.dimension, self.positions.gaussians());
        let fine = storage.with_precision(Precision::F32);
        let each = fine.numbers(d, rows).unwrap_or(0);
        let sample: Vec<usize> =
            (0..POSITIONS.min(total)).map(|i| i * total / POSITIONS.min(total)).collect();
        let worst = sample.par_iter().map(|&number| {
            let block = self.blocks.iter().rfind(|block| block.first <= number);
            let Some(block) = block else { return Ok(0.0) };
            let (_, covariance) = self.covariance(config, block, number - block.first);
            let place = self.positions.place(number);
            let failed = || Error::NotPositiveDefinite { position: place };
            let mut exact = vec![0.0; each];
            let mut scratch = Scratch::new();
            let scale = covariance.write(fine, rows, &mut exact, &mut scratch);
            let scale = scale.ok_or_else(failed)?;
            let mut coarse = vec![0; each + storage.correction(d)];
            let (rounded, correction) = coarse.split_at_mut(each);
            to_half(&exact, rounded);
            if !correction.is_empty() {
                correct_low_rank(rounded, &scratch.direction, scratch.share, correction);
            }
            let mut vectors = vec![0.0; PROBES * d];
            for probe in 0..PROBES {
                let drawn = covariance.draw(|i| noise(probe * (d + self.tally.count) + i));
                let drawn = drawn.ok_or_else(failed)?;
                for (target, v) in vectors[probe * d..].iter_mut().zip(drawn) {
                    *target = v as f32;
                }
            }
            let vectors = DenseVectors::at_one_place(vectors, d);
            let measure = |storage, numbers, count| {
                let mut distances = [0.0; PROBES];
                pulp::Arch::new().dispatch(Position {
                    storage,
                    mean: &vec![0.0; d],
                    numbers,
                    range: 0..count,
                    scale,
                    vectors: &vectors,
                    places: &[0],
                    distances: &mut distances,
                    workspace: &mut Workspace::default(),
                });
                distances
            };
            let expected = measure(fine, NumbersRef::F32(&exact), exact.len());
            let actual = measure(storage, NumbersRef::F16(&coarse), coarse.len());
            let error = |(a, e): (f32, f32)| if e > 0.0 { (a / e - 1.0).abs() } else { 0.0 };
            Ok(actual.into_iter().zip(expected).map(error).fold(0.0, f32::max))
        });
        let worst = worst.collect::<Result<Vec<f32>>>()?.into_iter().fold(0.0, f32::max);
        Ok((if worst <= TOLERANCE { storage } else { fine }, rows))
    }
}

fn check(config: &GaussianConfig, dimension: usize) -> Result<()> {
    config.validate()?;
    if dimension == 0 {
        return Err(Error::config("channels", "embedding vectors need at least 1 component"));
    }
    match config.components {
        Some(k) if k > dimension => {
            Err(Error::config("components", format!("cannot keep {k} of {dimension}")))
        }
        _ => Ok(()),
    }
}

/// The rows of the low rank form, where [`Storage::Auto`] takes it.
fn automatic_rows(dimension: usize, images: usize) -> Option<usize> {
    let rows = images.saturating_sub(1);
    let pays = rows < dimension
        && 10 * trapezoid_len(dimension, rows) <= 6 * trapezoid_len(dimension, dimension);
    pays.then_some(rows)
}

/// Reproducible noise of variance 1.
fn noise(i: usize) -> f64 {
    let mut bits = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let uniform = ((bits ^ (bits >> 29)) >> 11) as f64 / (1_u64 << 53) as f64;
    (uniform - 0.5) * 12_f64.sqrt()
}
