//! The inverse of a Cholesky factor, for matrices that fit into the cache.
//!
//! Libraries are made for larger matrices. For a hundred rows they take twice as long, and a model
//! has thousands of such matrices.

use pulp::{Simd, WithSimd};

use super::products::{COLUMNS, Lines, Tile, fill, stride};
use crate::instructions;

/// The largest number of rows for which this is faster than faer.
pub(super) const MOST: usize = 256;

/// Matrices that a thread reuses for other positions.
#[derive(Default)]
pub struct Whitening {
    d: usize,
    stride: usize,
    /// The lower triangle, later its Cholesky factor. Columns are `stride` numbers apart.
    lower: Vec<f64>,
    /// The inverse of the factor, zero above the diagonal. Rows are `stride` numbers apart.
    inverse: Vec<f64>,
}

impl Whitening {
    /// Copies the columns of a symmetric matrix. Only the lower triangle is read.
    pub fn set<'a>(&mut self, d: usize, columns: impl Iterator<Item = &'a [f64]>) {
        if self.d != d {
            let stride = stride(d);
            let matrix = || vec![0.0; d.next_multiple_of(COLUMNS) * stride];
            *self = Self { d, stride, lower: matrix(), inverse: matrix() };
        }
        for (j, (target, column)) in
            self.lower.chunks_exact_mut(self.stride).zip(columns).enumerate()
        {
            target[..j].fill(0.0);
            target[j..d].copy_from_slice(&column[j..]);
        }
    }

    /// Inverts the Cholesky factor, and returns the largest absolute value in the inverse; `None` if
    /// the matrix is not positive definite.
    pub fn invert(&mut self) -> Option<f64> {
        instructions::arch().dispatch(Invert(self))
    }

    /// Writes the inverse's lower triangle, column by column, each number times `factor`.
    pub fn write(&self, factor: f64, target: &mut [f32]) {
        let mut rest = target;
        for j in 0..self.d {
            let (column, behind) = rest.split_at_mut(self.d - j);
            rest = behind;
            let values = self.inverse[j * self.stride + j..].iter().step_by(self.stride);
            column.iter_mut().zip(values).for_each(|(c, v)| *c = (v * factor) as f32);
        }
    }
}

struct Invert<'a>(&'a mut Whitening);

impl WithSimd for Invert<'_> {
    type Output = Option<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Option<f64> {
        let Whitening { d, stride, lower, inverse } = self.0;
        if !factorize(simd, lower, *d, *stride) {
            return None;
        }
        invert(simd, lower, inverse, *d, *stride);
        let mut largest = simd.splat_f64s(0.0);
        for &v in S::as_simd_f64s(inverse).0 {
            largest = simd.max_f64s(simd.abs_f64s(v), largest);
        }
        Some(simd.reduce_max_f64s(largest))
    }
}

/// Replaces the lower triangle by its Cholesky factor, some columns at a time: first subtracts the
/// products of earlier columns, then factorizes within these columns. Returns `false` if the matrix
/// is not positive definite.
#[inline(always)]
fn factorize<S: Simd>(simd: S, lower: &mut [f64], d: usize, stride: usize) -> bool {
    let mut tile: Tile = Default::default();
    for left in (0..d).step_by(COLUMNS) {
        let (done, rest) = lower.split_at_mut(left * stride);
        let width = COLUMNS.min(d - left);
        let panel = &mut rest[..width * stride];
        let mut top = left;
        while left > 0 && top < d {
            let across = Lines { values: done, place: left };
            let down = Lines { values: done, place: top };
            let rows = fill(simd, &mut tile, across, down, d - top, stride);
            for (column, sums) in panel.chunks_exact_mut(stride).zip(&tile) {
                column[top..top + rows].iter_mut().zip(sums).for_each(|(v, s)| *v -= s);
            }
            top += rows;
        }
        for j in 0..width {
            let (before, column) = panel.split_at_mut(j * stride);
            let column = &mut column[left..stride];
            for other in before.chunks_exact(stride) {
                subtract(column, other[left + j], &other[left..]);
            }
            let pivot = column[j];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            let factor = pivot.sqrt().recip();
            column.iter_mut().for_each(|v| *v *= factor);
        }
    }
    true
}

/// Solves `lower * inverse = identity`, some rows at a time.
#[inline(always)]
fn invert<S: Simd>(simd: S, lower: &[f64], inverse: &mut [f64], d: usize, stride: usize) {
    let mut tile: Tile = Default::default();
    for top in (0..d).step_by(COLUMNS) {
        let (done, rest) = inverse.split_at_mut(top * stride);
        let height = COLUMNS.min(d - top);
        let panel = &mut rest[..height * stride];
        let mut left = 0;
        while left < top {
            // Earlier rows are zero in these columns, because they are zero above the diagonal.
            let across = Lines { values: &lower[left * stride..top * stride], place: top };
            let down = Lines { values: &done[left * stride..], place: left };
            let columns = fill(simd, &mut tile, across, down, top - left, stride);
            for (row, sums) in panel.chunks_exact_mut(stride).zip(&tile) {
                row[left..left + columns].iter_mut().zip(sums).for_each(|(v, s)| *v = -s);
            }
            left += columns;
        }
        for i in 0..height {
            let (before, row) = panel.split_at_mut(i * stride);
            let row = &mut row[..top + COLUMNS];
            row[top..].fill(0.0);
            row[top + i] = 1.0;
            for (j, other) in before.chunks_exact(stride).enumerate() {
                subtract(row, lower[(top + j) * stride + top + i], other);
            }
            let factor = lower[(top + i) * stride + top + i].recip();
            row.iter_mut().for_each(|v| *v *= factor);
        }
    }
}

#[inline(always)]
fn subtract(from: &mut [f64], factor: f64, other: &[f64]) {
    from.iter_mut().zip(other).for_each(|(f, o)| *f -= factor * o);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::DMatrix;
    use proptest::prelude::*;
    use pulp::Scalar;

    proptest! {
        #[test]
        fn the_inverse_factor_whitens(d in 1_usize..70, other in 1_usize..70, seed in 0_u64..999) {
            let noise = |i: usize, j: usize| {
                let bits = ((i * 977 + j) as u64 + seed * 7919 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((bits ^ (bits >> 31)) >> 20 & 0xFFFF) as f64 / 65536.0 - 0.5
            };
            // The first matrix has another size.
            let mut whitening = Whitening::default();
            for d in [other, d] {
                let root = DMatrix::from_fn(d, d + 2, noise);
                let matrix = &root * root.transpose() + DMatrix::identity(d, d) * 0.05;
                let matrix = matrix * 0.75 + DMatrix::identity(d, d) * 0.01;
                for plain in [false, true] {
                    whitening.set(d, matrix.as_slice().chunks_exact(d));
                    let actual = if plain {
                        Invert(&mut whitening).with_simd(Scalar)
                    } else {
                        whitening.invert()
                    };
                    let mut packed = vec![0.0; d * (d + 1) / 2];
                    whitening.write(2.0, &mut packed);
                    let expected = matrix.clone().cholesky().and_then(|c| c.l().try_inverse());
                    let expected = expected.ok_or_else(|| TestCaseError::fail("no inverse"))?;
                    let largest = expected.amax();
                    prop_assert!(actual.is_some_and(|v| (v / largest - 1.0).abs() < 1e-9));
                    let below = (0..d).flat_map(|j| (j..d).map(move |i| (i, j)));
                    for ((i, j), actual) in below.zip(packed) {
                        let difference = f64::from(actual) / 2.0 - expected[(i, j)];
                        prop_assert!(difference.abs() < 1e-7 * largest, "{i} {j}: {difference}");
                    }
                }
            }
        }

        #[test]
        fn what_is_not_positive_definite_is_refused(d in 1_usize..40, place in 0_usize..40) {
            let mut matrix = DMatrix::<f64>::identity(d, d);
            for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
                matrix[(place % d, place % d)] = bad;
                let mut whitening = Whitening::default();
                whitening.set(d, matrix.as_slice().chunks_exact(d));
                prop_assert!(whitening.invert().is_none());
            }
        }
    }
}
