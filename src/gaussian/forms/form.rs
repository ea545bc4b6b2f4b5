//! The trait of all forms.

use std::ops::Range;

use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource};
use crate::gaussian::covariance::{Covariance, Scratch};
use crate::gaussian::half::NumbersRef;
use crate::gaussian::kernels::{Images, Step};
use crate::gaussian::storage::{Precision, trapezoid_rows};

/// A form in which a Gaussian is stored. The numbers of a position and its scale describe the inverse
/// covariance.
pub trait Form {
    /// The number of stored numbers per position; `None` on overflow, or if there cannot be so many
    /// rows. `rows` matters only for forms with rows.
    fn numbers(dimension: usize, rows: usize, precision: Precision) -> Option<usize>;

    /// How many of them, at the end, correct the rounding of the others.
    fn correction(_dimension: usize, _precision: Precision) -> usize {
        0
    }

    /// Writes the numbers of a covariance without the correction, and returns the scale. `None` if
    /// the covariance cannot be inverted in f32.
    fn write(
        covariance: &Covariance,
        rows: usize,
        precision: Precision,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32>;

    /// Writes the correction of numbers that were rounded to 16 bits. `scratch`: the same as for
    /// [`write`](Self::write).
    fn correct(_rounded: &[u16], _scratch: &Scratch, _correction: &mut [u16]) {}

    /// Computes the distances of some vectors.
    fn measure<S: Simd>(simd: S, measured: Measured<'_>);

    /// The inverse of the covariance, `[dimension, dimension]`, for a scale of 1.
    fn inverse(packed: &Packed<'_>) -> DMatrix<f64>;

    /// The covariance, from its inverse.
    fn covariance(inverse: DMatrix<f64>) -> Option<DMatrix<f64>> {
        inverse.try_inverse()
    }

    /// The inverse of the covariance times a vector, for a scale of 1.
    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        Self::inverse(packed) * x
    }

    /// The number of numbers per position on a device; `None` on overflow.
    fn device_numbers(dimension: usize, rows: usize) -> Option<usize> {
        rows.max(1).checked_mul(dimension)
    }

    /// Copies the Gaussians of some positions to a device.
    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm>;
}

/// Vectors at a position, its numbers, and the distances to compute.
pub struct Measured<'a> {
    /// The vectors minus the mean, and memory for results.
    pub images: Images<'a>,
    /// The numbers of all positions.
    pub numbers: NumbersRef<'a>,
    /// The range of this position's numbers.
    pub range: Range<usize>,
    /// The dimension.
    pub d: usize,
    pub scale: f32,
    pub distances: &'a mut [f32],
    /// Memory for unpacked rows.
    pub buffer: &'a mut Vec<f32>,
}

impl Measured<'_> {
    /// Computes the lengths of the vectors that `F` makes from the stored rows.
    #[inline(always)]
    pub fn by_rows<S: Simd, F: Step>(self, simd: S) {
        let Measured { mut images, numbers, range, d, scale, distances, buffer } = self;
        images.by_rows::<S, F>(simd, numbers, range, d, buffer);
        images.lengths(simd, d, scale, distances);
    }
}

/// The numbers of a position in f32, for operations that need not be fast.
pub struct Packed<'a> {
    pub values: &'a [f32],
    pub dimension: usize,
    pub rows: usize,
    pub precision: Precision,
}

impl Packed<'_> {
    /// The packed rows as a matrix, with zeros before the diagonal.
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

/// The number of elements of packed rows; `None` on overflow, or if there are more rows than columns:
/// a file can claim any size.
pub fn packed_rows(dimension: usize, rows: usize) -> Option<usize> {
    dimension.checked_add(2)?.checked_mul(dimension)?;
    (rows <= dimension).then(|| crate::gaussian::storage::trapezoid_len(dimension, rows))
}
