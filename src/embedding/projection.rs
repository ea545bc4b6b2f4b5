//! Principal components, common to all positions.

use burn::tensor::Tensor;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Par, Side};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::host::pixels_to_host;

/// A linear projection of embedding vectors to fewer components, the same at every position.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    components: usize,
    channels: usize,
    /// `[components, channels]`
    matrix: Vec<f32>,
}

impl Projection {
    /// Creates a projection from a row-major matrix `[components, channels]`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless `components` is in `1..=channels`, [`Error::ShapeMismatch`] for
    /// a wrong number of values, [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn new(components: usize, channels: usize, matrix: Vec<f32>) -> Result<Self> {
        if components == 0 || components > channels {
            let reason = format!("must be in 1..={channels}, got {components}");
            return Err(Error::config("components", reason));
        }
        if components.checked_mul(channels) != Some(matrix.len()) {
            let expected = format!("{components} x {channels} values");
            return Err(Error::shape("projection", expected, matrix.len()));
        }
        if !matrix.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the projection".into() });
        }
        Ok(Self { components, channels, matrix })
    }

    /// The number of components of a projected vector.
    pub fn components(&self) -> usize {
        self.components
    }

    /// The number of channels of a vector before the projection.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The row-major matrix `[components, channels]`. If fitted, its rows are orthonormal and sorted by
    /// decreasing variance.
    pub fn matrix(&self) -> &[f32] {
        &self.matrix
    }

    /// Projects `[batch, channels, height, width]`. The caller has checked the shape.
    pub(super) fn apply(&self, embedding: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = embedding.dims();
        let shape = [1, self.components, self.channels];
        let matrix: Tensor<3> =
            crate::host::to_device(self.matrix.clone(), shape, &embedding.device());
        let vectors = embedding.reshape([batch, channels, height * width]);
        let matrix = matrix.expand([batch, self.components, self.channels]);
        matrix.matmul(vectors).reshape([batch, self.components, height, width])
    }
}

/// Accumulates the mean and the covariance of the vectors of all positions.
pub(crate) struct ProjectionEstimator {
    channels: usize,
    count: usize,
    /// The mean of the first image's vectors. It is subtracted before summing, so that a common
    /// offset costs no precision.
    pivot: Vec<f64>,
    sum: Vec<f64>,
    /// The sum of outer products; only the lower triangle is used.
    scatter: Mat<f64>,
}

impl ProjectionEstimator {
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            count: 0,
            pivot: Vec::new(),
            sum: vec![0.0; channels],
            scatter: Mat::zeros(channels, channels),
        }
    }

    /// Adds the vectors of a batch `[batch, channels, height, width]` at the positions where `mask` is
    /// true.
    pub fn update(&mut self, embedding: Tensor<4>, mask: Option<&[bool]>) -> Result<()> {
        let [_, channels, height, width] = embedding.dims();
        let places = height * width;
        // Vectors `[batch, places, channels]`.
        let values = pixels_to_host(embedding)?;
        if !values.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the embedding".into() });
        }
        let used: Vec<usize> = (0..places).filter(|&p| mask.is_none_or(|m| m[p])).collect();
        if self.pivot.is_empty() {
            let first = &values[..channels * places];
            let mean =
                |c: usize| first[c..].iter().step_by(channels).copied().map(f64::from).sum::<f64>();
            self.pivot = (0..channels).map(|c| mean(c) / places as f64).collect();
        }
        let pivot = &self.pivot;
        let of_image = |image: &&[f32]| {
            let shifted = Mat::from_fn(channels, used.len(), |c, k| {
                f64::from(image[used[k] * channels + c]) - pivot[c]
            });
            let sum: Vec<f64> = shifted.row_iter().map(|row| row.iter().sum()).collect();
            let mut scatter = Mat::<f64>::zeros(channels, channels);
            let whole = BlockStructure::Rectangular;
            let lower = BlockStructure::TriangularLower;
            let other = shifted.transpose();
            matmul(
                scatter.as_mut(),
                lower,
                Accum::Add,
                &shifted,
                whole,
                other,
                whole,
                1.0,
                Par::Seq,
            );
            (sum, scatter)
        };
        let images: Vec<&[f32]> = values.chunks_exact(channels * places).collect();
        // Sums are added per image and in order, so that they do not depend on threads or batches. Only
        // a few images at a time, because each has a matrix of `channels * channels` numbers.
        for together in images.chunks(4) {
            for (sum, scatter) in together.par_iter().map(of_image).collect::<Vec<_>>() {
                self.sum.iter_mut().zip(sum).for_each(|(s, v)| *s += v);
                self.scatter += scatter;
            }
        }
        self.count += images.len() * used.len();
        Ok(())
    }

    /// The directions of largest variance.
    pub fn finish(self, components: usize) -> Result<Projection> {
        let (c, n) = (self.channels, self.count as f64);
        if self.count < 2 {
            return Err(Error::TooFewImages { count: self.count });
        }
        let covariance = Mat::from_fn(c, c, |i, j| {
            (self.scatter[(i.max(j), i.min(j))] - self.sum[i] * self.sum[j] / n) / (n - 1.0)
        });
        let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(|e| {
            Error::config("components", format!("no principal components were found: {e:?}"))
        })?;
        let vectors = eigen.U();
        let mut matrix = Vec::with_capacity(components * c);
        for k in 0..components.min(c) {
            let column = vectors.col(c - 1 - k);
            // The sign of an eigenvector is arbitrary; make the largest component positive.
            let largest =
                column.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            matrix.extend(column.iter().map(|v| (v * largest.signum()) as f32));
        }
        Projection::new(components, c, matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{to_device, to_host};
    use burn::tensor::Device;

    #[test]
    fn the_direction_of_the_variation_is_found() {
        let device = Device::flex();
        let mut estimator = ProjectionEstimator::new(3);
        // Points on a line along (1, 2, -2) / 3 with some noise, far from zero.
        for batch in 0..4 {
            let at = |b: usize, c: usize, p: usize| {
                let t = ((batch * 50 + b * 25 + p) as f32 * 0.7).sin() * 3.0;
                let noise = ((b * 7 + c * 3 + p) as f32 * 1.3).cos() * 0.01;
                1000.0 + t * [1.0, 2.0, -2.0][c] / 3.0 + noise
            };
            let mut values = Vec::new();
            for (b, c) in (0..2).flat_map(|b| (0..3).map(move |c| (b, c))) {
                values.extend((0..25).map(|p| at(b, c, p)));
            }
            estimator.update(to_device(values, [2, 3, 5, 5], &device), None).unwrap();
        }
        let projection = estimator.finish(1).unwrap();
        let expected = [1.0 / 3.0, 2.0 / 3.0, -2.0 / 3.0];
        let same = projection.matrix().iter().zip(expected).map(|(a, e)| a * e).sum::<f32>();
        assert!((same.abs() - 1.0).abs() < 1e-4, "{:?}", projection.matrix());

        let vectors = to_device(vec![3.0, 0.0, 6.0, 0.0, -6.0, 1.0], [1, 3, 1, 2], &device);
        let projected = to_host(projection.apply(vectors)).unwrap();
        assert!((projected[0].abs() - 9.0).abs() < 1e-3, "{projected:?}");
    }

    #[test]
    fn sums_depend_neither_on_threads_nor_on_batches() {
        let (count, channels, side) = (11, 5, 6);
        let values: Vec<f32> = (0..count * channels * side * side)
            .map(|i| (i as f32 * 0.618).sin() * (1.0 + i as f32 / 77.0))
            .collect();
        let sums = |threads: usize, batch: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut estimator = ProjectionEstimator::new(channels);
            for images in values.chunks(batch * channels * side * side) {
                let batch = images.len() / (channels * side * side);
                let shape = [batch, channels, side, side];
                let tensor = to_device(images.to_vec(), shape, &Device::flex());
                pool.install(|| estimator.update(tensor, None)).unwrap();
            }
            let ProjectionEstimator { count, pivot, sum, scatter, .. } = estimator;
            (count, pivot, sum, scatter)
        };
        let expected = sums(1, count);
        for (threads, batch) in [(2, count), (3, count), (4, count), (2, 5), (1, 1)] {
            assert!(sums(threads, batch) == expected, "{threads} threads, batches of {batch}");
        }
    }

    #[test]
    fn impossible_projections_are_refused() {
        assert!(Projection::new(0, 3, vec![]).is_err());
        assert!(Projection::new(4, 3, vec![0.0; 12]).is_err());
        assert!(Projection::new(1, 3, vec![0.0; 2]).is_err());
        assert!(Projection::new(1, 1, vec![f32::NAN]).is_err());
    }
}
