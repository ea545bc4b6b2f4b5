//! Lower triangular matrices, packed by columns: of column `j` the rows `j..` follow each other.

use nalgebra::{DMatrix, DVector};

/// The number of elements of a packed triangle of dimension `d`.
pub(crate) const fn packed_len(d: usize) -> usize {
    d * (d + 1) / 2
}

/// The columns of a packed triangle, from the longest to the shortest.
fn columns<T>(packed: &[T], d: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = packed;
    (0..d).map(move |j| {
        let (column, behind) = rest.split_at(d - j);
        rest = behind;
        column
    })
}

/// Adds the lower triangle of `full`.
pub(crate) fn add_lower(packed: &mut [f64], full: &DMatrix<f64>) {
    let d = full.nrows();
    let mut rest = packed;
    for (j, column) in full.as_slice().chunks_exact(d).enumerate() {
        let (target, behind) = rest.split_at_mut(d - j);
        target.iter_mut().zip(&column[j..]).for_each(|(t, v)| *t += v);
        rest = behind;
    }
}

/// The symmetric matrix whose lower triangle is `packed`, scaled.
pub(crate) fn unpack_symmetric(packed: &[f64], d: usize, scale: f64) -> DMatrix<f64> {
    let mut full = DMatrix::zeros(d, d);
    for (j, column) in columns(packed, d).enumerate() {
        for (i, value) in (j..).zip(column) {
            full[(i, j)] = value * scale;
            full[(j, i)] = value * scale;
        }
    }
    full
}

/// The triangle as a full matrix with zeros above the diagonal.
pub(crate) fn unpack(packed: &[f32], d: usize) -> DMatrix<f64> {
    let mut full = DMatrix::zeros(d, d);
    for (j, column) in columns(packed, d).enumerate() {
        for (i, &value) in (j..).zip(column) {
            full[(i, j)] = f64::from(value);
        }
    }
    full
}

/// Packs the lower triangle of a matrix.
pub(crate) fn pack(full: &DMatrix<f64>, target: &mut [f32]) {
    let d = full.nrows();
    let lower = full.as_slice().chunks_exact(d).enumerate().flat_map(|(j, column)| &column[j..]);
    target.iter_mut().zip(lower).for_each(|(t, &v)| *t = v as f32);
}

/// The inverse of a lower triangular matrix with a nonzero diagonal, column by column: nalgebra's
/// forward substitution on the part of a unit vector that is not zero.
pub(crate) fn invert_lower(lower: &DMatrix<f64>) -> DMatrix<f64> {
    let d = lower.nrows();
    let mut inverse = DMatrix::zeros(d, d);
    for j in 0..d {
        let mut column = DVector::zeros(d - j);
        column[0] = 1.0;
        lower.view((j, j), (d - j, d - j)).solve_lower_triangular_mut(&mut column);
        inverse.view_mut((j, j), (d - j, 1)).copy_from(&column);
    }
    inverse
}

/// `output += packed * input` for several vectors `[vectors, d]` at once; the triangle is read once.
pub(crate) fn multiply(packed: &[f32], input: &[f32], output: &mut [f32], d: usize) {
    for (j, column) in columns(packed, d).enumerate() {
        for (x, z) in input.chunks_exact(d).zip(output.chunks_exact_mut(d)) {
            let x = x[j];
            z[j..].iter_mut().zip(column).for_each(|(z, w)| *z += w * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_and_inverting_agree_with_nalgebra(d in 1_usize..12, seed in 0_u32..500) {
            let entry = |i: usize, j: usize| {
                let noise = ((i * 31 + j * 17 + seed as usize * 7) % 13) as f64 / 13.0 - 0.5;
                if i == j { 1.5 + noise } else if i > j { noise } else { 0.0 }
            };
            let lower = DMatrix::from_fn(d, d, entry);
            let mut packed = vec![0.0; packed_len(d)];
            pack(&lower, &mut packed);
            prop_assert!((unpack(&packed, d) - &lower).amax() < 1e-6);

            let inverse = invert_lower(&lower);
            let oracle = lower.clone().try_inverse().unwrap();
            prop_assert!((&inverse - oracle).amax() < 1e-9 * inverse.amax().max(1.0));

            let x: Vec<f32> = (0..11 * d).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut z = vec![0.0; 11 * d];
            multiply(&packed, &x, &mut z, d);
            for (x, z) in x.chunks(d).zip(z.chunks(d)) {
                let x = DVector::from_iterator(d, x.iter().map(|&v| f64::from(v)));
                for (expected, z) in (&lower * x).iter().zip(z) {
                    prop_assert!((expected - f64::from(*z)).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn sums_of_triangles_are_symmetric_again(d in 1_usize..9) {
            let symmetric = DMatrix::from_fn(d, d, |i, j| (i + j) as f64 + (i * j) as f64);
            let mut packed = vec![0.0; packed_len(d)];
            add_lower(&mut packed, &symmetric);
            add_lower(&mut packed, &symmetric);
            prop_assert!((unpack_symmetric(&packed, d, 0.5) - symmetric).amax() < 1e-12);
        }
    }
}
