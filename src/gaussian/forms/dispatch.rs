//! Calls the code of a storage's form.

use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource};
use super::diagonal::Diagonal;
use super::form::{Form, Measured, Packed};
use super::full_inverse::FullInverse;
use super::low_rank::LowRank;
use super::principal::Principal;
use super::triangle::Triangle;
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::to_half;
use crate::gaussian::storage::Storage;

/// Evaluates an expression with the type of a storage's form. `Storage::Auto` has no form.
macro_rules! by_form {
    ($storage:expr, $form:ident => $value:expr, auto => $auto:expr) => {
        match $storage {
            Storage::Auto => $auto,
            Storage::FullInverse => {
                type $form = FullInverse;
                $value
            }
            Storage::Triangle(_) => {
                type $form = Triangle;
                $value
            }
            Storage::LowRank(_) => {
                type $form = LowRank;
                $value
            }
            Storage::Principal(_) => {
                type $form = Principal;
                $value
            }
            Storage::Diagonal => {
                type $form = Diagonal;
                $value
            }
        }
    };
}

/// The methods of `Form`, documented in `form.rs`. A model never has [`Storage::Auto`].
impl Storage {
    /// The number of stored numbers per position. `rows` matters only for forms with rows.
    pub(crate) fn numbers(self, dimension: usize, rows: usize) -> Option<usize> {
        by_form!(self, F => F::numbers(dimension, rows, self.precision()), auto => None)
    }

    /// How many of a position's numbers, at the end, correct the rounding of the others.
    pub(crate) fn correction(self, dimension: usize) -> usize {
        by_form!(self, F => F::correction(dimension, self.precision()), auto => 0)
    }

    /// The number of numbers per position on a device.
    pub(crate) fn device_numbers(self, dimension: usize, rows: usize) -> Option<usize> {
        by_form!(self, F => F::device_numbers(dimension, rows), auto => None)
    }

    /// Writes the numbers of a covariance without the correction, and returns the scale.
    pub(in crate::gaussian) fn write(
        self,
        covariance: &Covariance,
        rows: usize,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32> {
        let precision = self.precision();
        by_form!(self, F => F::write(covariance, rows, precision, target, scratch), auto => None)
    }

    /// Rounds the numbers of [`write`](Self::write) to 16 bits and adds the correction.
    pub(in crate::gaussian) fn round(self, exact: &[f32], scratch: &Scratch, target: &mut [u16]) {
        let (rounded, correction) = target.split_at_mut(exact.len());
        to_half(exact, rounded);
        by_form!(self, F => F::correct(rounded, scratch, correction), auto => ());
    }

    /// Computes the distances of some vectors.
    #[inline(always)]
    pub(in crate::gaussian) fn measure<S: Simd>(self, simd: S, measured: Measured<'_>) {
        by_form!(self, F => F::measure(simd, measured), auto => ());
    }

    /// The inverse of the covariance, for a scale of 1.
    pub(in crate::gaussian) fn inverse(self, packed: &Packed<'_>) -> Option<DMatrix<f64>> {
        by_form!(self, F => Some(F::inverse(packed)), auto => None)
    }

    /// The covariance, from its inverse.
    pub(in crate::gaussian) fn covariance(self, inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        by_form!(self, F => F::covariance(inverse), auto => None)
    }

    /// The inverse of the covariance times a vector, for a scale of 1.
    pub(in crate::gaussian) fn multiply(
        self,
        packed: &Packed<'_>,
        x: &DVector<f64>,
    ) -> Option<DVector<f64>> {
        by_form!(self, F => Some(F::multiply(packed, x)), auto => None)
    }

    /// Copies the Gaussians of some positions to a device.
    pub(in crate::gaussian) fn on_device(
        self,
        source: &DeviceSource<'_>,
    ) -> Option<Box<dyn DeviceForm>> {
        by_form!(self, F => Some(F::on_device(source)), auto => None)
    }
}
