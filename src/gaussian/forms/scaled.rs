//! Scales numbers to the upper end of the range of 16 bits.

use faer::Mat;

use crate::gaussian::half::LARGEST;

/// The columns of a matrix.
pub fn columns_of(matrix: &Mat<f64>) -> impl Iterator<Item = &[f64]> + Clone {
    (0..matrix.ncols()).filter_map(|j| Some(matrix.col(j).try_as_col_major()?.as_slice()))
}

/// The elements of a trapezoid, row by row: row `i` begins at column `i`.
pub fn packed(matrix: &Mat<f64>) -> impl Iterator<Item = &f64> {
    matrix.row_iter().enumerate().flat_map(|(i, row)| row.iter().skip(i))
}

/// The power of two to divide numbers by, so that their largest magnitude comes near [`LARGEST`].
pub fn scale_of(largest: f64) -> f64 {
    let largest = largest / f64::from(LARGEST);
    if largest > 0.0 { largest.log2().ceil().exp2() } else { 1.0 }
}

/// Writes `values` divided by [`scale_of`] the largest, and returns this scale, if all are finite.
pub fn write_scaled<'a>(
    target: &mut [f32],
    largest: f64,
    values: impl Iterator<Item = &'a f64>,
) -> Option<f32> {
    let scale = scale_of(largest);
    target.iter_mut().zip(values).for_each(|(t, v)| *t = (v / scale) as f32);
    finite(target, scale as f32)
}

/// The scale, if it and all numbers are finite.
pub fn finite(numbers: &[f32], scale: f32) -> Option<f32> {
    (scale.is_finite() && numbers.iter().all(|v| v.is_finite())).then_some(scale)
}
