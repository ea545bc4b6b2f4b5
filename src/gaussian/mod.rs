//! The Gaussians: mean and covariance of the embedding vectors of good images, for each position of
//! the grid or for all positions together.

mod block;
mod choice;
mod config;
mod covariance;
mod device;
mod estimator;
mod fold;
mod forms;
mod half;
mod inverse;
mod kernels;
mod measure;
mod model;
mod nearest;
mod numbers;
mod pooled;
mod positions;
mod products;
mod shrinkage;
mod statistics;
mod storage;
mod sums;
mod weights;
mod whitening;
mod window;

pub use config::{CovarianceDivisor, GaussianConfig};
pub use estimator::GaussianEstimator;
pub use model::{GaussianModel, Spectrum};
pub use shrinkage::Shrinkage;
pub use statistics::GaussianStatistics;
pub use storage::{Precision, Storage};

pub(crate) use block::{Block, PackedSums};
pub(crate) use model::ModelShape;
pub(crate) use numbers::Numbers;
pub(crate) use positions::Positions;
pub(crate) use statistics::{PENDING, check_forgetting_factor, sample_limit};
pub(crate) use storage::trapezoid_len;
pub(crate) use weights::ImageWeights;
pub(crate) use window::reach;

#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod tests;
