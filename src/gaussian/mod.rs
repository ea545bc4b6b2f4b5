//! One Gaussian per position of the grid: what good patches look like there.

mod estimator;
mod triangle;

pub use estimator::GaussianEstimator;

use burn::tensor::Tensor;
use nalgebra::DMatrix;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::host::{to_device, to_host};
use crate::{Error, Result};
use triangle::packed_len;

/// The divisor of the covariance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CovarianceDivisor {
    /// `N - 1`: unbiased, the paper's equation 1.
    Unbiased,
    /// `N`: the maximum likelihood estimate.
    Biased,
}

/// How the Gaussians are estimated. Stored with every detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GaussianConfig {
    /// Added to the variances, so that the covariance can be inverted. Default: 0.01 (paper: 0.01;
    /// anomalib: 0.01001). With fewer images than dimensions it decides how much a direction counts
    /// in which the good images do not vary at all.
    pub epsilon: f64,
    /// Default: `N - 1` (paper: the same).
    pub divisor: CovarianceDivisor,
}

impl Default for GaussianConfig {
    fn default() -> Self {
        Self { epsilon: 0.01, divisor: CovarianceDivisor::Unbiased }
    }
}

impl GaussianConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        if self.epsilon.is_finite() && self.epsilon > 0.0 {
            return Ok(());
        }
        let reason =
            format!("must be a positive number, got {}; the paper's is 0.01", self.epsilon);
        Err(Error::config("epsilon", reason))
    }
}

/// Mean and covariance of the embedding vectors at every position of the grid (paper, section
/// III.B), made by a [`GaussianEstimator`].
///
/// The covariance is kept as its whitening `W = L^-1` with `covariance = L L^T`, in f32, packed to
/// the lower triangle. The Mahalanobis distance is then the length of `W (x - mean)`: half the memory
/// and half the work of a full inverse, and never the root of a negative number.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianModel {
    dimension: usize,
    /// `[height, width]`
    grid: [usize; 2],
    count: usize,
    /// `[positions, dimension]`
    mean: Vec<f32>,
    /// `[positions, dimension * (dimension + 1) / 2]`, each triangle by columns.
    whitening: Vec<f32>,
}

impl GaussianModel {
    /// Puts a model together from its parts, as they come from a file.
    pub(crate) fn from_parts(
        dimension: usize,
        grid: [usize; 2],
        count: usize,
        mean: Vec<f32>,
        whitening: Vec<f32>,
    ) -> Result<Self> {
        let positions = grid[0] * grid[1];
        let expected = [positions * dimension, positions * packed_len(dimension)];
        let actual = [mean.len(), whitening.len()];
        if actual != expected {
            return Err(Error::shape("Gaussian model", format!("{expected:?} values"), actual));
        }
        if !mean.par_iter().chain(&whitening).all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the Gaussian model".into() });
        }
        Ok(Self { dimension, grid, count, mean, whitening })
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The grid `[height, width]` of positions.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// The number of images that the model was estimated from.
    pub fn image_count(&self) -> usize {
        self.count
    }

    /// The means of all positions, row-major `[positions, dimension]`. Position `p` is at row
    /// `p / grid_width`, column `p % grid_width`.
    pub fn means(&self) -> &[f32] {
        &self.mean
    }

    pub(crate) fn whitenings(&self) -> &[f32] {
        &self.whitening
    }

    /// The covariance at a position, epsilon included: `[dimension, dimension]`. `None` beyond the
    /// grid.
    pub fn covariance(&self, position: usize) -> Option<DMatrix<f64>> {
        let factor = triangle::invert_lower(&self.whitening_matrix(position)?);
        Some(&factor * factor.transpose())
    }

    /// The inverse of the covariance at a position: `[dimension, dimension]`. `None` beyond the grid.
    pub fn inverse_covariance(&self, position: usize) -> Option<DMatrix<f64>> {
        let whitening = self.whitening_matrix(position)?;
        Some(whitening.transpose() * whitening)
    }

    fn whitening_matrix(&self, position: usize) -> Option<DMatrix<f64>> {
        let packed = self.whitening.chunks_exact(packed_len(self.dimension)).nth(position)?;
        Some(triangle::unpack(packed, self.dimension))
    }

    /// The Mahalanobis distance (paper, equation 2; not squared) of every embedding vector of a
    /// batch from the Gaussian at its position.
    ///
    /// # Shapes
    ///
    /// `embeddings`: `[batch, dimension, grid_height, grid_width]`; the result:
    /// `[batch, grid_height, grid_width]`, on the same device.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for embeddings of another dimension or grid, [`Error::NotFinite`] for
    /// embeddings that are not numbers.
    pub fn mahalanobis_distance(&self, embeddings: Tensor<4>) -> Result<Tensor<3>> {
        let [height, width] = self.grid;
        let batch = embeddings.dims()[0];
        let device = embeddings.device();
        let vectors = positions_first(embeddings, [self.dimension, height, width])?;
        let distances = self.distances(&vectors, batch);
        if !distances.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the embedding".into() });
        }
        Ok(to_device(distances, [batch, height, width], &device))
    }

    /// `vectors`: `[positions, batch, dimension]`; the result: `[batch, positions]`. Each distance
    /// depends on its own vector alone, whatever the batch.
    fn distances(&self, vectors: &[f32], batch: usize) -> Vec<f32> {
        let d = self.dimension;
        let positions = self.grid[0] * self.grid[1];
        let mut by_position = vec![0.0; positions * batch];
        by_position
            .par_chunks_exact_mut(batch)
            .zip(vectors.par_chunks_exact(batch * d))
            .zip(self.mean.par_chunks_exact(d))
            .zip(self.whitening.par_chunks_exact(packed_len(d)))
            .for_each_init(
                || (vec![0.0; batch * d], vec![0.0; batch * d]),
                |(centred, whitened), (((out, vectors), mean), whitening)| {
                    for (row, vector) in centred.chunks_exact_mut(d).zip(vectors.chunks_exact(d)) {
                        for ((c, x), m) in row.iter_mut().zip(vector).zip(mean) {
                            *c = x - m;
                        }
                    }
                    whitened.fill(0.0);
                    triangle::multiply(whitening, centred, whitened, d);
                    for (out, row) in out.iter_mut().zip(whitened.chunks_exact(d)) {
                        let squared: f64 = row.iter().map(|&z| f64::from(z) * f64::from(z)).sum();
                        *out = squared.sqrt() as f32;
                    }
                },
            );
        (0..batch).flat_map(|b| by_position.iter().skip(b).step_by(batch)).copied().collect()
    }
}

/// Brings a batch of embeddings to the host as `[positions, batch, dimension]`, after checking that
/// it is `[batch, expected...]` and that the batch is not empty.
fn positions_first(embeddings: Tensor<4>, expected: [usize; 3]) -> Result<Vec<f32>> {
    let dims = embeddings.dims();
    if dims[1..] != expected || dims[0] == 0 {
        let expected = format!("[batch, {}, {}, {}]", expected[0], expected[1], expected[2]);
        return Err(Error::shape("embeddings", expected, dims));
    }
    let [batch, d, height, width] = dims;
    let positions = height * width;
    let values = to_host(embeddings)?;
    let mut vectors = vec![0.0; values.len()];
    // A run of positions at a time, so that reads stay sequential while writes stay in cache.
    const RUN: usize = 16;
    vectors.par_chunks_mut(RUN * batch * d).enumerate().for_each(|(chunk, target)| {
        for (row, plane) in values.chunks_exact(positions).enumerate() {
            let start = chunk * RUN;
            for (p, &value) in plane[start..(start + RUN).min(positions)].iter().enumerate() {
                target[p * batch * d + row] = value;
            }
        }
    });
    Ok(vectors)
}

#[cfg(test)]
mod tests;
