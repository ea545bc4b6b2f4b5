//! What every form must be able to do.

use std::ops::Range;

use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource};
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::NumbersRef;
use crate::gaussian::kernels::Images;
use crate::gaussian::storage::{Precision, trapezoid_rows};

/// A form in which a Gaussian is kept: the numbers of a position, and what is done with them. The numbers
/// times the position's scale describe the inverse covariance.
pub trait Form {
    /// The number of numbers of a position. `None` if there cannot be so many. `rows` counts where the form
    /// has rows.
    fn numbers(dimension: usize, rows: usize, precision: Precision) -> Option<usize>;

    /// How many of them, the last ones, correct the rounding of the others.
    fn correction(_dimension: usize, _precision: Precision) -> usize {
        0
    }

    /// Writes the numbers of a covariance without the correction, and gives the scale. `None` if the
    /// covariance cannot be inverted in f32.
    fn write(
        covariance: &Covariance,
        rows: usize,
        precision: Precision,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32>;

    /// Writes the correction of numbers that have been rounded to 16 bits. `scratch` is that of
    /// [`write`](Self::write).
    fn correct(_rounded: &[u16], _scratch: &Scratch, _correction: &mut [u16]) {}

    /// Writes the distances of some vectors.
    fn measure<S: Simd>(simd: S, measured: Measured<'_>);

    /// The inverse of the covariance `[dimension, dimension]`, without the scale.
    fn inverse(packed: &Packed<'_>) -> DMatrix<f64>;

    /// The covariance, by its inverse.
    fn covariance(inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        inverse.try_inverse()
    }

    /// The inverse of the covariance times a vector, without the scale.
    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        Self::inverse(packed) * x
    }

    /// The number of numbers of a position on a device.
    fn device_numbers(dimension: usize, rows: usize) -> Option<usize>;

    /// The Gaussians of some positions on a device.
    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm>;
}

/// Vectors to be measured, and where the distances go.
pub struct Measured<'a> {
    /// The vectors less the mean, and room for what becomes of them.
    pub images: Images<'a>,
    /// Of all positions.
    pub numbers: NumbersRef<'a>,
    /// Where those of this position are.
    pub range: Range<usize>,
    /// The dimension.
    pub d: usize,
    pub scale: f32,
    pub distances: &'a mut [f32],
    /// For unpacked rows.
    pub buffer: &'a mut Vec<f32>,
}

/// The numbers of a position in f32, for what is not done often.
pub struct Packed<'a> {
    pub values: &'a [f32],
    pub dimension: usize,
    pub rows: usize,
    pub precision: Precision,
}

impl Packed<'_> {
    /// The packed rows, with zeros before the diagonal.
    pub fn upper(&self) -> DMatrix<f64> {
        let mut upper = DMatrix::zeros(self.rows, self.dimension);
        for (i, row) in trapezoid_rows(self.values, self.dimension).take(self.rows).enumerate() {
            for (j, &value) in (i..).zip(row) {
                upper[(i, j)] = f64::from(value);
            }
        }
        upper
    }
}

/// The number of numbers of packed rows. A file may say anything: where this is `Some`, nothing overflows.
pub fn packed_rows(dimension: usize, rows: usize) -> Option<usize> {
    dimension.checked_add(2)?.checked_mul(dimension)?;
    (rows <= dimension).then(|| crate::gaussian::storage::trapezoid_len(dimension, rows))
}
