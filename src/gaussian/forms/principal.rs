//! The form with the whitened principal components of a position.

use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource, Root};
use super::form::{Form, Measured, Packed, packed_rows};
use super::scaled::{packed, write_scaled};
use crate::gaussian::covariance::{Covariance, Scratch, Trapezoid};
use crate::gaussian::half::Number;
use crate::gaussian::kernels::{ROWS, Rows, Step};
use crate::gaussian::storage::Precision;

/// See [`Storage::Principal`](crate::gaussian::Storage::Principal).
pub struct Principal;

impl Form for Principal {
    fn numbers(dimension: usize, rows: usize, _: Precision) -> Option<usize> {
        packed_rows(dimension, rows)
    }

    fn write(
        covariance: &Covariance,
        rows: usize,
        precision: Precision,
        target: &mut [f32],
        _scratch: &mut Scratch,
    ) -> Option<f32> {
        let whiten = |value: f64| 1.0 / (value * (value + covariance.floor));
        let Trapezoid { matrix, .. } = covariance.trapezoid(rows, precision, whiten)?;
        write_scaled(target, matrix.norm_max(), packed(&matrix))
    }

    #[inline(always)]
    fn measure<S: Simd>(simd: S, measured: Measured<'_>) {
        measured.by_rows::<S, Project>(simd);
    }

    fn inverse(packed: &Packed<'_>) -> DMatrix<f64> {
        let rows = packed.upper();
        rows.tr_mul(&rows)
    }

    /// The covariance within the span of the components.
    fn covariance(inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        // Outside the span, eigenvalues of the inverse are zero; inside, 1 / variance is far above
        // this.
        inverse.pseudo_inverse(1e-12).ok()
    }

    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        let rows = packed.upper();
        rows.tr_mul(&(&rows * x))
    }

    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm> {
        let (d, rows) = (source.dimension, source.rows);
        let root =
            source.filled(rows * d, &|packed, scale, target| source.unpack(packed, scale, target));
        Box::new(Root(source.matrix(root, [source.gaussians.len(), rows, d])))
    }
}

/// `z = R x` for some rows of `R`.
struct Project;

impl Step for Project {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        for (z, dots) in z.into_iter().zip(rows.dots(simd, x)) {
            // There are at most as many rows as columns, so `z` is long enough.
            z[rows.first..rows.first + ROWS].copy_from_slice(&dots);
        }
    }
}
