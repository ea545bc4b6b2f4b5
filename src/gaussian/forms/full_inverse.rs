//! The whole inverse: the form of the paper, and the reference for the others.

use burn::tensor::Tensor;
use nalgebra::DMatrix;
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource, multiply};
use super::form::{Form, Measured, Packed};
use super::scaled::finite;
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::NumbersRef;
use crate::gaussian::storage::Precision;

/// See [`Storage::FullInverse`](crate::gaussian::Storage::FullInverse).
pub struct FullInverse;

impl Form for FullInverse {
    fn numbers(dimension: usize, _rows: usize, _: Precision) -> Option<usize> {
        dimension.checked_mul(dimension)
    }

    fn write(
        covariance: &Covariance,
        _rows: usize,
        _: Precision,
        target: &mut [f32],
        _scratch: &mut Scratch,
    ) -> Option<f32> {
        let inverse = covariance.dense().cholesky()?.inverse();
        target.iter_mut().zip(inverse.iter()).for_each(|(t, &v)| *t = v as f32);
        finite(target, 1.0)
    }

    #[inline(always)]
    fn measure<S: Simd>(_simd: S, measured: Measured<'_>) {
        let Measured { mut images, numbers, range, d, distances, .. } = measured;
        let NumbersRef::F32(all) = numbers else { return };
        let inverse = &all[range];
        for (b, distance) in distances.iter_mut().enumerate() {
            let (x, _) = images.of(b);
            let mut squared = 0.0;
            for (row, x_i) in inverse.chunks_exact(d).zip(x) {
                let dot: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                squared += dot * f64::from(*x_i);
            }
            // Rounding can make it negative; NaN must stay NaN.
            *distance = if squared < 0.0 { 0.0 } else { squared.sqrt() as f32 };
        }
    }

    fn inverse(packed: &Packed<'_>) -> DMatrix<f64> {
        let d = packed.dimension;
        DMatrix::from_iterator(d, d, packed.values.iter().map(|&v| f64::from(v)))
    }

    fn device_numbers(dimension: usize, _rows: usize) -> Option<usize> {
        dimension.checked_mul(dimension)
    }

    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm> {
        let d = source.dimension;
        let scaled = |numbers: &[f32], scale: f32, target: &mut [f32]| {
            target.iter_mut().zip(numbers).for_each(|(t, v)| *t = v * scale * scale);
        };
        let values = source.filled(d * d, &scaled);
        Box::new(OnDevice(source.matrix(values, [source.gaussians.len(), d, d])))
    }
}

/// The distance is the square root of `x^T M x`. `M`: `[gaussians, dimension, dimension]`.
#[derive(Debug)]
struct OnDevice(Tensor<3>);

impl DeviceForm for OnDevice {
    fn distances(&self, x: Tensor<3>, precision: Precision) -> Tensor<3> {
        let squared = (multiply(self.0.clone(), x.clone(), precision) * x).sum_dim(1);
        // Rounding can make it negative; NaN must stay NaN.
        let negative = squared.clone().lower_elem(0);
        squared.mask_fill(negative, 0).sqrt()
    }
}
