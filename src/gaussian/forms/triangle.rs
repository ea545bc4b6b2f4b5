//! The form with the lower triangle of `W = L^-1`, where the covariance is `L L^T`.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Par, Spec};
use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource, Root};
use super::form::{Form, Measured, Packed, packed_rows};
use super::scaled::{columns_of, finite, scale_of, write_scaled};
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::Number;
use crate::gaussian::kernels::{ROWS, Rows, Step};
use crate::gaussian::storage::Precision;
use crate::gaussian::whitening;

/// See [`Storage::Triangle`](crate::gaussian::Storage::Triangle). The columns of `W` are stored as
/// packed rows.
pub struct Triangle;

impl Form for Triangle {
    fn numbers(dimension: usize, rows: usize, _: Precision) -> Option<usize> {
        packed_rows(dimension, rows)
    }

    fn write(
        covariance: &Covariance,
        _rows: usize,
        _: Precision,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32> {
        let d = covariance.form.dimension();
        let Scratch { whitening, lower, inverse, stack, .. } = scratch;
        covariance.lower_into(lower);
        if d <= whitening::MOST {
            whitening.set(d, columns_of(lower));
            let scale = scale_of(whitening.invert()?);
            whitening.write(scale.recip(), target);
            return finite(target, scale as f32);
        }
        let needed = cholesky_in_place_scratch::<f64>(d, Par::Seq, Spec::default());
        if stack.len() < needed.unaligned_bytes_required() {
            *stack = MemBuffer::new(needed);
        }
        let stack = MemStack::new(stack);
        let regularization = LltRegularization::default();
        cholesky_in_place(lower.as_mut(), regularization, Par::Seq, stack, Spec::default()).ok()?;
        inverse.resize_with(d, d, |_, _| 0.0);
        invert_lower_triangular(inverse.as_mut(), lower.as_ref(), Par::Seq);
        let columns = columns_of(inverse).enumerate().map(|(j, column)| &column[j..]);
        let largest = |largest: f64, v: &f64| largest.max(v.abs());
        let largest = columns.clone().flatten().fold(0.0, largest);
        write_scaled(target, largest, columns.flatten())
    }

    #[inline(always)]
    fn measure<S: Simd>(simd: S, measured: Measured<'_>) {
        measured.by_rows::<S, Whiten>(simd);
    }

    fn inverse(packed: &Packed<'_>) -> DMatrix<f64> {
        let columns = packed.upper();
        &columns * columns.transpose()
    }

    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        let columns = packed.upper();
        &columns * columns.tr_mul(x)
    }

    fn device_numbers(dimension: usize, _rows: usize) -> Option<usize> {
        dimension.checked_mul(dimension)
    }

    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm> {
        let d = source.dimension;
        let columns =
            source.filled(d * d, &|packed, scale, target| source.unpack(packed, scale, target));
        let columns = source.float(columns, [source.gaussians.len(), d, d]);
        Box::new(Root(source.lower(columns.swap_dims(1, 2))))
    }
}

/// `z += W x` for some rows, which are columns of `W`.
struct Whiten;

impl Step for Whiten {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = [[0.0; ROWS]; N];
        for (factors, x) in factors.iter_mut().zip(x) {
            factors.copy_from_slice(&x[rows.first..rows.first + ROWS]);
        }
        rows.add(simd, factors, z);
    }
}
