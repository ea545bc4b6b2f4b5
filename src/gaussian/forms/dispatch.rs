//! Which file a form is in.

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
use crate::gaussian::storage::Storage;

/// Evaluates an expression with the type of a storage's form. `Storage::Auto` has none.
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

/// The form's own methods: see `form.rs`. A model never has [`Storage::Auto`].
impl Storage {
    /// The number of numbers that a position takes. `rows` counts where there are rows.
    pub(crate) fn numbers(self, dimension: usize, rows: usize) -> Option<usize> {
        by_form!(self, F => F::numbers(dimension, rows, self.precision()), auto => None)
    }

    /// How many of a position's numbers, the last ones, correct the others.
    pub(crate) fn correction(self, dimension: usize) -> usize {
        by_form!(self, F => F::correction(dimension, self.precision()), auto => 0)
    }

    /// The number of numbers that a position takes on a device.
    pub(crate) fn device_numbers(self, dimension: usize, rows: usize) -> Option<usize> {
        by_form!(self, F => F::device_numbers(dimension, rows), auto => None)
    }

    /// Writes the numbers of a covariance without the correction, and gives the scale.
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

    /// Writes the correction of numbers that have been rounded to 16 bits.
    pub(in crate::gaussian) fn correct(
        self,
        rounded: &[u16],
        scratch: &Scratch,
        correction: &mut [u16],
    ) {
        by_form!(self, F => F::correct(rounded, scratch, correction), auto => ());
    }

    /// Writes the distances of some vectors.
    #[inline(always)]
    pub(in crate::gaussian) fn measure<S: Simd>(self, simd: S, measured: Measured<'_>) {
        by_form!(self, F => F::measure(simd, measured), auto => ());
    }

    /// The inverse of the covariance, without the scale.
    pub(in crate::gaussian) fn inverse(self, packed: &Packed<'_>) -> Option<DMatrix<f64>> {
        by_form!(self, F => Some(F::inverse(packed)), auto => None)
    }

    /// The covariance, by its inverse.
    pub(in crate::gaussian) fn covariance(self, inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        by_form!(self, F => F::covariance(inverse), auto => None)
    }

    /// The inverse of the covariance times a vector, without the scale.
    pub(in crate::gaussian) fn multiply(
        self,
        packed: &Packed<'_>,
        x: &DVector<f64>,
    ) -> Option<DVector<f64>> {
        by_form!(self, F => Some(F::multiply(packed, x)), auto => None)
    }

    /// The Gaussians of some positions on a device.
    pub(in crate::gaussian) fn on_device(
        self,
        source: &DeviceSource<'_>,
    ) -> Option<Box<dyn DeviceForm>> {
        by_form!(self, F => Some(F::on_device(source)), auto => None)
    }
}
