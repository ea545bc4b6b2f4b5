//! The form that stores only variances.

use burn::tensor::Tensor;
use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource, length};
use super::form::{Form, Measured, Packed};
use super::scaled::finite;
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::NumbersRef;
use crate::gaussian::storage::Precision;

/// See [`Storage::Diagonal`](crate::gaussian::Storage::Diagonal). The numbers are inverse standard
/// deviations.
pub struct Diagonal;

impl Form for Diagonal {
    fn numbers(dimension: usize, _rows: usize, _: Precision) -> Option<usize> {
        Some(dimension)
    }

    fn write(
        covariance: &Covariance,
        _rows: usize,
        _: Precision,
        target: &mut [f32],
        _scratch: &mut Scratch,
    ) -> Option<f32> {
        let variances = covariance.form.variances();
        let deviations = variances.iter().map(|v| (v * covariance.keep + covariance.floor).sqrt());
        target.iter_mut().zip(deviations).for_each(|(t, s)| *t = (1.0 / s) as f32);
        finite(target, 1.0)
    }

    #[inline(always)]
    fn measure<S: Simd>(simd: S, measured: Measured<'_>) {
        let Measured { mut images, numbers, range, d, scale, distances, .. } = measured;
        if let NumbersRef::F32(all) = numbers {
            let inverse_deviations = &all[range];
            for b in 0..distances.len() {
                let (x, z) = images.of(b);
                for ((z, x), w) in z.iter_mut().zip(x).zip(inverse_deviations) {
                    *z = x * w;
                }
            }
        }
        images.lengths(simd, d, scale, distances);
    }

    fn inverse(packed: &Packed<'_>) -> DMatrix<f64> {
        let squares = packed.values.iter().map(|&w| f64::from(w).powi(2));
        DMatrix::from_diagonal(&DVector::from_iterator(packed.dimension, squares))
    }

    fn covariance(inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        Some(DMatrix::from_diagonal(&inverse.diagonal().map(|v| 1.0 / v)))
    }

    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        let weights = packed.values.iter().map(|&w| f64::from(w));
        x.zip_map(&DVector::from_iterator(packed.dimension, weights), |x, w| w * w * x)
    }

    fn device_numbers(dimension: usize, _rows: usize) -> Option<usize> {
        Some(dimension)
    }

    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm> {
        let d = source.dimension;
        let scaled = |numbers: &[f32], scale: f32, target: &mut [f32]| {
            target.iter_mut().zip(numbers).for_each(|(t, v)| *t = v * scale);
        };
        let values = source.filled(d, &scaled);
        Box::new(OnDevice(source.float(values, [source.gaussians.len(), d, 1])))
    }
}

/// The distance is the length of `w x`, the product by component. `w`: `[gaussians, dimension, 1]`.
#[derive(Debug)]
struct OnDevice(Tensor<3>);

impl DeviceForm for OnDevice {
    fn distances(&self, x: Tensor<3>, _: Precision) -> Tensor<3> {
        length(x * self.0.clone())
    }
}
