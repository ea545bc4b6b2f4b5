//! Mean and covariance in one pass over the images.

use burn::tensor::Tensor;
use nalgebra::{Cholesky, DMatrix};
use rayon::prelude::*;

use super::triangle::{add_lower, invert_lower, pack, packed_len, unpack_symmetric};
use super::{CovarianceDivisor, GaussianConfig, GaussianModel, positions_first};
use crate::{Error, Result};

/// Estimates a [`GaussianModel`] from batches of embeddings, in one pass and in memory that does not
/// depend on their number.
///
/// Sums are kept in f64 and merged batch by batch around the running mean (Chan, Golub, LeVeque
/// 1979), so a large common offset costs no digits.
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
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GaussianEstimator {
    config: GaussianConfig,
    dimension: usize,
    grid: [usize; 2],
    count: usize,
    /// `[positions, dimension]`
    mean: Vec<f64>,
    /// For each position the packed lower triangle of the sum of outer products around the mean.
    scatter: Vec<Vec<f64>>,
}

impl GaussianEstimator {
    /// An estimator for vectors of `dimension` components on a grid `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if epsilon is not positive or a size is zero.
    pub fn new(config: GaussianConfig, dimension: usize, grid: [usize; 2]) -> Result<Self> {
        config.validate()?;
        if dimension == 0 || grid.contains(&0) {
            let reason = format!("sizes must not be zero, got {dimension} x {grid:?}");
            return Err(Error::config("grid", reason));
        }
        let positions = grid[0] * grid[1];
        Ok(Self {
            config,
            dimension,
            grid,
            count: 0,
            mean: vec![0.0; positions * dimension],
            scatter: vec![vec![0.0; packed_len(dimension)]; positions],
        })
    }

    /// The number of images so far.
    pub fn image_count(&self) -> usize {
        self.count
    }

    /// Takes in a batch of embeddings `[batch, dimension, grid_height, grid_width]`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for values that are not
    /// numbers. The estimator is then as it was before.
    pub fn update(&mut self, embeddings: Tensor<4>) -> Result<()> {
        let batch = embeddings.dims()[0];
        let [height, width] = self.grid;
        let vectors = positions_first(embeddings, [self.dimension, height, width])?;
        if !vectors.par_iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the embedding".into() });
        }
        let d = self.dimension;
        let (before, added) = (self.count as f64, batch as f64);
        let total = before + added;
        self.mean
            .par_chunks_exact_mut(d)
            .zip(&mut self.scatter)
            .zip(vectors.par_chunks_exact(batch * d))
            .for_each_init(
                || Workspace::new(d, batch),
                |workspace, ((mean, scatter), vectors)| {
                    let Workspace { deviations, transposed, product } = workspace;
                    let batch_mean: Vec<f64> = (0..d)
                        .map(|c| {
                            let column = vectors.iter().skip(c).step_by(d);
                            column.map(|&v| f64::from(v)).sum::<f64>() / added
                        })
                        .collect();
                    for (mut column, vector) in
                        deviations.column_iter_mut().zip(vectors.chunks_exact(d))
                    {
                        for ((y, &x), m) in column.iter_mut().zip(vector).zip(&batch_mean) {
                            *y = f64::from(x) - m;
                        }
                    }
                    // The shift between the two means acts as one more sample.
                    let weight = (before * added / total).sqrt();
                    let mut shift = deviations.column_mut(batch);
                    for ((y, m), b) in shift.iter_mut().zip(mean.iter_mut()).zip(&batch_mean) {
                        *y = (b - *m) * weight;
                        *m += (b - *m) * added / total;
                    }
                    deviations.transpose_to(transposed);
                    product.gemm(1.0, deviations, transposed, 0.0);
                    add_lower(scatter, product);
                },
            );
        self.count += batch;
        Ok(())
    }

    /// Factorises the covariances. `progress` is told how many positions of how many are done.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::NotPositiveDefinite`] where a
    /// covariance has no Cholesky factor.
    pub fn finish(mut self, mut progress: impl FnMut(usize, usize)) -> Result<GaussianModel> {
        if self.count < 2 {
            return Err(Error::TooFewImages { count: self.count });
        }
        let d = self.dimension;
        let positions = self.scatter.len();
        let scale = match self.config.divisor {
            CovarianceDivisor::Unbiased => 1.0 / (self.count - 1) as f64,
            CovarianceDivisor::Biased => 1.0 / self.count as f64,
        };
        let mut whitening = vec![0.0; positions * packed_len(d)];
        const CHUNK: usize = 64;
        let chunks =
            whitening.chunks_mut(CHUNK * packed_len(d)).zip(self.scatter.chunks_mut(CHUNK));
        for (chunk, (whitening, scatter)) in chunks.enumerate() {
            whitening.par_chunks_exact_mut(packed_len(d)).zip(scatter).enumerate().try_for_each(
                |(p, (target, scatter))| {
                    // Taken, so that its memory is free again as the result grows.
                    let scatter = std::mem::take(scatter);
                    let mut covariance = unpack_symmetric(&scatter, d, scale);
                    drop(scatter);
                    for i in 0..d {
                        covariance[(i, i)] += self.config.epsilon;
                    }
                    let factor = Cholesky::new(covariance);
                    if let Some(factor) = &factor {
                        pack(&invert_lower(factor.l_dirty()), target);
                    }
                    // A tiny epsilon can leave a factor whose inverse is beyond f32.
                    if factor.is_some() && target.iter().all(|w| w.is_finite()) {
                        return Ok(());
                    }
                    let epsilon = self.config.epsilon;
                    Err(Error::NotPositiveDefinite { position: chunk * CHUNK + p, epsilon })
                },
            )?;
            progress(((chunk + 1) * CHUNK).min(positions), positions);
        }
        let mean = self.mean.iter().map(|&m| m as f32).collect();
        GaussianModel::from_parts(d, self.grid, self.count, mean, whitening)
    }
}

/// Buffers that a thread reuses from position to position.
struct Workspace {
    /// `[dimension, batch + 1]`
    deviations: DMatrix<f64>,
    transposed: DMatrix<f64>,
    product: DMatrix<f64>,
}

impl Workspace {
    fn new(d: usize, batch: usize) -> Self {
        Self {
            deviations: DMatrix::zeros(d, batch + 1),
            transposed: DMatrix::zeros(batch + 1, d),
            product: DMatrix::zeros(d, d),
        }
    }
}
