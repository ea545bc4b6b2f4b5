//! Gaussians from inverse covariances, as other programs store them.

use faer::{Mat, Side};
use rayon::prelude::*;

use super::forms::write_scaled;
use super::model::{GaussianModel, ModelShape};
use super::numbers::Numbers;
use super::positions::Positions;
use super::storage::{Precision, Storage, trapezoid_len};
use crate::error::{Error, Result};

/// The largest difference between an inverse and its transpose, relative to the largest element.
/// Rounding to f32 leaves a thousandth if a covariance is badly conditioned. Distances do not depend
/// on this difference.
const ASYMMETRY: f32 = 0.01;

impl GaussianModel {
    /// Builds a model from the inverse covariances at all positions of a grid `[height, width]`, as
    /// the paper writes them and other programs store them. The storage is [`Storage::Triangle`] in
    /// 32 bits, computed without the covariances; [`convert`](Self::convert) gives another.
    ///
    /// The number of images is unknown, so [`image_count`](Self::image_count) is 0.
    ///
    /// # Shapes
    ///
    /// `means`: `[positions, dimension]`; `inverses`: `[positions, dimension, dimension]`. Positions
    /// are row-major.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the lengths do not match the grid, [`Error::NotFinite`] for NaN or
    /// infinite values, [`Error::InvalidConfig`] for an empty grid or matrices that are not
    /// symmetric, [`Error::NotPositiveDefinite`] for matrices that are not positive definite.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use padim::gaussian::GaussianModel;
    ///
    /// // One position, variances 4 and 1.
    /// let model = GaussianModel::from_inverses([1, 1], &[1.0, 2.0], &[0.25, 0.0, 0.0, 1.0])?;
    /// let vector = Tensor::<1>::from_floats([5.0, 5.0], &Device::flex()).reshape([1, 2, 1, 1]);
    /// let distance: f32 = model.mahalanobis_distance(vector)?.into_scalar();
    /// assert!((distance - 13_f32.sqrt()).abs() < 1e-6);
    /// # Ok::<(), padim::Error>(())
    /// ```
    pub fn from_inverses(grid: [usize; 2], means: &[f32], inverses: &[f32]) -> Result<Self> {
        let positions = Positions::all(grid)?;
        let count = grid[0].saturating_mul(grid[1]);
        let d = means.len() / count;
        let expected = d.checked_mul(means.len());
        if d == 0 || d * count != means.len() || Some(inverses.len()) != expected {
            let expected = format!(
                "means [{count}, dimension] and inverses [{count}, dimension, dimension] of the \
                 grid {grid:?}"
            );
            return Err(Error::shape("Gaussians", expected, [means.len(), inverses.len()]));
        }
        let storage = Storage::Triangle(Precision::F32);
        let each = trapezoid_len(d, d);
        let mut numbers = Numbers::zeros(Precision::F32, each * count);
        let mut scales = vec![0.0; count];
        let beside = scales.par_iter_mut().zip(inverses.par_chunks_exact(d * d));
        numbers.fill(0, storage, [each, 0], beside, |position, (scale, inverse), target, _| {
            let root = inverse_root(inverse, d, position)?;
            let largest = root.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()));
            *scale = write_scaled(target, largest, root.iter())
                .ok_or(Error::NotPositiveDefinite { position })?;
            Ok(())
        })?;
        let shape = ModelShape { storage, dimension: d, rows: d, positions, count: 0 };
        Self::from_parts(shape, means.to_vec(), scales, numbers)
    }
}

/// The lower triangle of `W` with `W^T W = inverse`, column by column.
///
/// Reverse the order of rows and columns, and take the Cholesky factor: reversed again and
/// transposed, it is `W`.
fn inverse_root(inverse: &[f32], d: usize, position: usize) -> Result<Vec<f64>> {
    let at = |i: usize, j: usize| inverse[i * d + j];
    let largest = inverse.iter().fold(0.0, |largest: f32, v| largest.max(v.abs()));
    if !inverse.iter().all(|v| v.is_finite()) {
        let what = format!("the inverse covariance at grid position {position}");
        return Err(Error::NotFinite { what });
    }
    let difference = |i: usize| (0..i).map(move |j| (at(i, j) - at(j, i)).abs());
    let asymmetry = (0..d).flat_map(difference).fold(0.0, f32::max);
    if asymmetry > ASYMMETRY * largest {
        let reason = format!(
            "the inverse covariance at grid position {position} is not symmetric: its largest \
             element is {largest:e}, and it differs from its transpose by up to {asymmetry:e}"
        );
        return Err(Error::config("gaussians", reason));
    }
    let turned = Mat::from_fn(d, d, |i, j| {
        let (i, j) = (d - 1 - i, d - 1 - j);
        (f64::from(at(i, j)) + f64::from(at(j, i))) / 2.0
    });
    let factor = turned.llt(Side::Lower).map_err(|_| Error::NotPositiveDefinite { position })?;
    let lower = factor.L();
    let column = |j: usize| (j..d).map(move |i| lower[(d - 1 - j, d - 1 - i)]);
    Ok((0..d).flat_map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gaussian::{GaussianConfig, GaussianEstimator};
    use crate::golden;
    use crate::host::to_device;
    use burn::tensor::Device;
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    fn noise(name: &str, count: usize) -> Vec<f64> {
        golden::uniform(name, count).into_iter().map(|u| 2.0 * u - 1.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The reference is the paper's formula in f64.
        #[test]
        fn distances_are_those_of_the_inverse(
            d in 1_usize..40, height in 1_usize..4, width in 1_usize..4, seed in 0_u32..999,
        ) {
            let count = height * width;
            let name = |part: &str| format!("{part}:{seed}");
            let means: Vec<f32> =
                noise(&name("mean"), count * d).into_iter().map(|v| v as f32).collect();
            let vectors: Vec<f32> =
                noise(&name("vector"), count * d).into_iter().map(|v| 3.0 * v as f32).collect();
            let inverses: Vec<f32> = (0..count).flat_map(|p| {
                let root = DMatrix::from_vec(d, d, noise(&format!("{seed}:{p}"), d * d));
                let inverse = &root * root.transpose() + DMatrix::identity(d, d) * 0.02;
                inverse.iter().map(|&v| v as f32).collect::<Vec<_>>()
            }).collect();
            let model = GaussianModel::from_inverses([height, width], &means, &inverses);
            let model = model.map_err(|e| TestCaseError::fail(e.to_string()))?;
            // `[dimension, positions]`
            let by_channel = (0..d).flat_map(|c| {
                let vectors = &vectors;
                (0..count).map(move |p| vectors[p * d + c])
            });
            let input = to_device(by_channel.collect(), [1, d, height, width], &Device::flex());
            for storage in [model.storage(), Storage::FullInverse] {
                let converted = model.convert(storage).map_err(|e| TestCaseError::fail(e.to_string()))?;
                let distances = converted.mahalanobis_distance(input.clone()).unwrap();
                let distances: Vec<f32> = distances.into_data().try_into_vec().unwrap();
                for (p, &actual) in distances.iter().enumerate() {
                    let at = |values: &[f32]| {
                        DVector::from_iterator(d, values[p * d..][..d].iter().map(|&v| f64::from(v)))
                    };
                    let inverse = &inverses[p * d * d..][..d * d];
                    let inverse = DMatrix::from_iterator(d, d, inverse.iter().map(|&v| f64::from(v)));
                    let x = at(&vectors) - at(&means);
                    let expected = x.dot(&(inverse * &x)).sqrt();
                    let error = (f64::from(actual) / expected - 1.0).abs();
                    prop_assert!(error < 1e-5, "{storage} at {p}: {actual} not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_fitted_model_comes_back_from_its_inverses() {
        let (n, d) = (30, 6);
        let config = GaussianConfig {
            storage: Storage::Triangle(Precision::F32),
            ..GaussianConfig::default()
        };
        let mut estimator = GaussianEstimator::new(config, d, [2, 2]).unwrap();
        let images = golden::input(&[n, d, 2, 2]);
        estimator.update(to_device(images, [n, d, 2, 2], &Device::flex())).unwrap();
        let model = estimator.finish().unwrap();
        let inverses = (0..4).flat_map(|p| {
            let inverse = model.inverse_covariance(p).unwrap();
            inverse.iter().map(|&v| v as f32).collect::<Vec<_>>()
        });
        let inverses: Vec<f32> = inverses.collect();
        let again = GaussianModel::from_inverses([2, 2], model.means(), &inverses).unwrap();
        assert_eq!(again.means(), model.means());
        assert_eq!(again.storage(), model.storage());
        let (Numbers::F32(expected), Numbers::F32(actual)) = (model.numbers(), again.numbers())
        else {
            panic!("both are in 32 bits");
        };
        for (number, (expected, actual)) in expected.iter().zip(actual).enumerate() {
            let position = number / trapezoid_len(d, d);
            let scales = [model.scales()[position], again.scales()[position]];
            let difference = (expected * scales[0] - actual * scales[1]).abs();
            assert!(difference < 1e-5 * 10.0, "{number}: {expected} {actual}");
        }
        assert_eq!(again.image_count(), 0);
        let error = again.convert(Storage::LowRank(Precision::F32)).unwrap_err().to_string();
        assert!(error.contains("images"), "{error}");
        again.convert(Storage::Triangle(Precision::F16)).unwrap();
    }

    #[test]
    fn what_no_covariance_has_is_refused() {
        let identity = [1.0, 0.0, 0.0, 1.0];
        let with = |place: usize, value: f32| {
            let mut inverses = [identity, identity].concat();
            inverses[4 + place] = value;
            GaussianModel::from_inverses([1, 2], &[0.0; 4], &inverses)
        };
        with(0, 2.0).unwrap();
        assert!(matches!(with(1, 0.5), Err(Error::InvalidConfig { .. })), "not symmetric");
        with(1, 0.009).unwrap();
        assert!(matches!(with(0, f32::NAN), Err(Error::NotFinite { .. })));
        assert!(matches!(with(3, f32::INFINITY), Err(Error::NotFinite { .. })));
        for value in [0.0, -1.0] {
            let error = with(0, value).unwrap_err();
            assert!(matches!(error, Error::NotPositiveDefinite { position: 1 }), "{error}");
        }
        let nan = GaussianModel::from_inverses([1, 1], &[f32::NAN, 0.0], &identity);
        assert!(matches!(nan, Err(Error::NotFinite { .. })));

        let shapes = |grid, means, inverses| {
            GaussianModel::from_inverses(grid, &vec![0.0; means], &vec![1.0; inverses])
        };
        for (grid, means, inverses) in [
            ([1, 2], 4, 7),
            ([1, 2], 3, 4),
            ([1, 2], 0, 0),
            ([2, 2], 2, 4),
            ([usize::MAX, 2], 4, 8),
        ] {
            let error = shapes(grid, means, inverses).unwrap_err();
            assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
        }
        assert!(matches!(shapes([0, 2], 4, 8), Err(Error::InvalidConfig { .. })));
    }
}
