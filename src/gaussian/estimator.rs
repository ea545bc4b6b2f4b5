//! From batches of embeddings to Gaussians.

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

    fn at(config: GaussianConfig, dimension: usize, positions: Positions) -> Result<Self> {
        config.check(dimension)?;
        let positions = positions.with_pooled(config.pooled);
        Ok(Self { config, statistics: GaussianStatistics::new(dimension, positions) })
    }

    /// The settings.
    pub fn config(&self) -> &GaussianConfig {
        &self.config
    }

    /// What is known of the images so far.
    pub fn statistics(&self) -> &GaussianStatistics {
        &self.statistics
    }

    /// The same images with other settings: another epsilon, shrinkage or storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for settings that cannot be, and for pooled Gaussians of images that were
    /// not pooled, or the other way round.
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

    /// Takes in a batch of embeddings `[batch, dimension, grid_height, grid_width]`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for values that are not
    /// numbers. The estimator is then as it was before.
    pub fn update(&mut self, embeddings: Tensor<4>) -> Result<()> {
        self.statistics.check_shape(embeddings.dims())?;
        self.statistics.update(&DenseVectors::of(embeddings)?)
    }

    /// Makes room for so many images more, as far as their vectors are kept: less memory is then
    /// moved about.
    pub fn reserve(&mut self, images: usize) {
        self.statistics.reserve(images);
    }

    /// Takes in the images of another estimator, as if this one had seen them all. The order of
    /// merging changes nothing but rounding.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the other one has another dimension, grid or region. This one's
    /// settings stay.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        self.statistics.merge(other.statistics)
    }

    /// Multiplies the weight of all images so far by a forgetting factor: exponential forgetting, if done
    /// before each new group of images. They then count as fewer images, in the divisor of the
    /// covariance, too.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the factor is above 0 and at most 1.
    pub fn forget(&mut self, forgetting_factor: f64) -> Result<()> {
        self.statistics.forget(forgetting_factor)
    }

    /// Factorizes the covariances, giving memory back as it goes.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::InvalidConfig`] for a storage that
    /// does not go with their number, [`Error::NotPositiveDefinite`] where a covariance cannot be
    /// inverted.
    pub fn finish(self) -> Result<GaussianModel> {
        self.finish_with(|_done, _total| ControlFlow::Continue(()))
    }

    /// As [`finish`](Self::finish). `progress` is told how many positions of how many are done, and can
    /// stop the work.
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

    /// The model of the images so far. As [`finish`](Self::finish), but the estimator stays. With other
    /// settings: [`GaussianStatistics::model`].
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
