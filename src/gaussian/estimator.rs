//! Estimates Gaussians from batches of embeddings.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use nalgebra::{DMatrix, DVector};

use super::config::GaussianConfig;
use super::model::GaussianModel;
use super::positions::Positions;
use super::statistics::GaussianStatistics;
use crate::embedding::DenseVectors;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

/// Estimates a [`GaussianModel`] from batches of embeddings in one pass. Estimators can be merged,
/// saved as part of a fit ([`PartialFit`](crate::PartialFit)), and updated again after a model was
/// computed.
///
/// While there are no more images than dimensions, the vectors themselves are kept. After that, the
/// sums of their outer products are kept in f64, centered at the running mean (Chan, Golub, LeVeque
/// 1979). So memory stops growing, and a large common offset costs no precision. Pooled Gaussians
/// ([`GaussianConfig::pooled`]) use sums from the start.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use padim::gaussian::{GaussianConfig, GaussianEstimator};
///
/// let device = Device::flex();
/// let mut estimator = GaussianEstimator::new(GaussianConfig::default(), 3, [4, 5])?;
/// for _ in 0..10 {
///     let batch = Tensor::random([8, 3, 4, 5], Distribution::Normal(0.0, 1.0), &device);
///     estimator.update(batch)?;
/// }
/// let model = estimator.finish()?;
/// assert_eq!(model.image_count(), 80);
/// println!("kept as {}", model.storage());
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianEstimator {
    config: GaussianConfig,
    statistics: GaussianStatistics,
}

impl GaussianEstimator {
    /// An estimator for vectors of `dimension` components on a grid `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for invalid settings or a size of zero.
    pub fn new(config: GaussianConfig, dimension: usize, grid: [usize; 2]) -> Result<Self> {
        Self::at(config, dimension, Positions::all(grid)?)
    }

    /// An estimator for the positions where `region` (row-major, `[height, width]`) is true. Other
    /// positions take no memory.
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

    fn at(config: GaussianConfig, dimension: usize, positions: Positions) -> Result<Self> {
        config.check(dimension)?;
        let positions = positions.with_pooled(config.pooled);
        Ok(Self { config, statistics: GaussianStatistics::new(dimension, positions) })
    }

    /// The settings.
    pub fn config(&self) -> &GaussianConfig {
        &self.config
    }

    /// The statistics of the images so far.
    pub fn statistics(&self) -> &GaussianStatistics {
        &self.statistics
    }

    /// The same images with other settings, such as another epsilon, shrinkage or storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for invalid settings, or if [`GaussianConfig::pooled`] changes.
    pub fn with_config(mut self, config: GaussianConfig) -> Result<Self> {
        self.statistics.check(&config)?;
        self.config = config;
        Ok(self)
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.statistics.dimension()
    }

    /// The number of images so far.
    pub fn image_count(&self) -> usize {
        self.statistics.image_count()
    }

    /// Adds a batch of embeddings `[batch, dimension, grid_height, grid_width]`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for NaN or infinite values.
    /// The estimator is then unchanged.
    pub fn update(&mut self, embeddings: Tensor<4>) -> Result<()> {
        self.statistics.check_shape(embeddings.dims())?;
        self.statistics.update(&DenseVectors::of(embeddings)?)
    }

    /// Reserves memory for this number of further images, as far as their vectors will be kept. This
    /// avoids copies when memory grows.
    pub fn reserve(&mut self, images: usize) {
        self.statistics.reserve(images);
    }

    /// Adds the images of another estimator, as if all had been added here. This estimator's settings
    /// stay. The order of merging only affects rounding.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the other estimator has another dimension, grid or region.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        self.statistics.merge(other.statistics)
    }

    /// Multiplies the weight of all images so far by a forgetting factor. Done before each new group
    /// of images, this is exponential forgetting. The images then count as fewer, also in the divisor
    /// of the covariance.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the factor is above 0 and at most 1.
    pub fn forget(&mut self, forgetting_factor: f64) -> Result<()> {
        self.statistics.forget(forgetting_factor)
    }

    /// Computes the Gaussians and frees memory meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::InvalidConfig`] for a storage that
    /// is not possible for their number, [`Error::NotPositiveDefinite`] if a covariance cannot be
    /// inverted.
    pub fn finish(self) -> Result<GaussianModel> {
        self.finish_with(|_done, _total| ControlFlow::Continue(()))
    }

    /// As [`finish`](Self::finish). `progress` gets the number of finished positions and the total,
    /// and can stop the computation.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish); [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
    pub fn finish_with(
        self,
        progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<GaussianModel> {
        self.statistics.finish(&self.config, progress)
    }

    /// As [`finish`](Self::finish), but keeps the estimator. For other settings, use
    /// [`GaussianStatistics::model`].
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn model(&self) -> Result<GaussianModel> {
        self.statistics.model(&self.config)
    }

    /// As [`GaussianStatistics::gaussian`], with the estimator's own settings.
    pub fn gaussian(&self, position: usize) -> Option<(DVector<f64>, DMatrix<f64>)> {
        self.statistics.gaussian(&self.config, position)
    }

    #[cfg(test)]
    pub(super) fn fold_for_test(&mut self) {
        self.statistics.fold_for_test();
    }
}
