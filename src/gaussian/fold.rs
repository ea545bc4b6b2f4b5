//! Adds vectors to the sums of a position, in place.
//!
//! The result is the same as merging the vectors' own [`Sums`](super::sums::Sums), but takes one pass
//! over memory: all vectors are centered at the new common mean at once, and the shift from the old
//! mean is added like one more vector.

use pulp::{Simd, WithSimd};

use super::products::{COLUMNS, LANES, Lines, Tile, fill, stride};
use super::storage::trapezoid_len;
use crate::instructions;

/// Buffers that a thread reuses for other positions.
#[derive(Default)]
pub(super) struct Workspace {
    /// `[vectors, stride]`: the vectors minus the common mean, each times the square root of its
    /// weight.
    columns: Vec<f64>,
    /// `[stride]`: the common mean minus the old mean.
    shift: Vec<f64>,
    /// `[stride]`: the old scatter matrix times `shift`.
    product: Vec<f64>,
}

/// Vectors to add to the sums of a position.
struct Fold<'a, I> {
    /// As many as `weights`.
    vectors: I,
    weights: &'a [f64],
    /// The weight in the sums so far.
    folded: f64,
    sums: PositionSums<'a>,
    workspace: &'a mut Workspace,
}

/// The sums of a position, by reference. See [`Sums`](super::sums::Sums).
pub(super) struct PositionSums<'a> {
    pub mean: &'a mut [f64],
    pub third: &'a mut [f64],
    pub fourth: &'a mut f64,
    /// The lower triangle, column by column.
    pub scatter: &'a mut [f64],
}

/// The number of vectors that are added at once. They stay in the cache meanwhile.
const TOGETHER: usize = 64;

impl PositionSums<'_> {
    /// Adds vectors, as many as `weights`. `folded`: the weight in the sums so far.
    pub fn fold<'v>(
        &mut self,
        vectors: impl ExactSizeIterator<Item = &'v [f32]> + Clone,
        weights: &[f64],
        mut folded: f64,
        workspace: &mut Workspace,
    ) {
        let arch = instructions::arch();
        if folded == 0.0 {
            // If new memory is read before it is written, the operating system maps it twice.
            self.scatter.fill(0.0);
        }
        for (number, weights) in weights.chunks(TOGETHER).enumerate() {
            let vectors = vectors.clone().skip(number * TOGETHER).take(weights.len());
            let Self { mean, third, fourth, scatter } = &mut *self;
            let sums = PositionSums { mean, third, fourth, scatter };
            arch.dispatch(Fold { vectors, weights, folded, sums, workspace: &mut *workspace });
            folded += weights.iter().sum::<f64>();
        }
    }
}

impl<'v, I: Iterator<Item = &'v [f32]> + Clone> WithSimd for Fold<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { vectors, weights, folded, sums, workspace } = self;
        let PositionSums { mean, third, fourth, scatter } = sums;
        let Workspace { columns, shift, product } = workspace;
        let d = mean.len();
        debug_assert_eq!(scatter.len(), trapezoid_len(d, d));
        let stride = stride(d);
        let fresh: f64 = weights.iter().sum();
        let total = folded + fresh;

        // At first, `shift` is the mean of the new vectors.
        shift.clear();
        shift.resize(stride, 0.0);
        for (vector, weight) in vectors.clone().zip(weights) {
            shift.iter_mut().zip(vector).for_each(|(s, &v)| *s += weight / fresh * f64::from(v));
        }
        for (shift, mean) in shift.iter_mut().zip(&mut *mean) {
            *shift = (*shift - *mean) * fresh / total;
            *mean += *shift;
        }

        let moved = folded > 0.0;
        columns.clear();
        columns.resize((weights.len() + usize::from(moved)) * stride, 0.0);
        let mut targets = columns.chunks_exact_mut(stride);
        for ((vector, weight), target) in vectors.zip(weights).zip(&mut targets) {
            let root = weight.sqrt();
            let deviations = vector.iter().zip(&*mean).map(|(&v, m)| (f64::from(v) - m) * root);
            target.iter_mut().zip(deviations).for_each(|(t, v)| *t = v);
        }
        if let Some(target) = targets.next() {
            let root = folded.sqrt();
            target.iter_mut().zip(&*shift).for_each(|(t, s)| *t = s * root);
        }

        let trace = diagonal(scatter, d).sum::<f64>();
        product.clear();
        product.resize(stride, 0.0);
        if moved {
            let mut rest = &*scatter;
            for j in 0..d {
                let (column, behind) = rest.split_at(d - j);
                rest = behind;
                multiply(simd, column, j, shift, product);
            }
        }
        add_outer(simd, scatter, d, columns, stride);

        let dot = |a: &[f64]| a.iter().zip(&*shift).map(|(a, s)| a * s).sum::<f64>();
        if moved {
            let squared = dot(shift);
            *fourth += 4.0 * dot(product) + folded * squared * squared - 4.0 * dot(third)
                + 2.0 * trace * squared;
            for ((third, p), s) in third.iter_mut().zip(&*product).zip(&*shift) {
                *third -= 2.0 * p + (trace + folded * squared) * s;
            }
        }
        for (column, weight) in columns.chunks_exact(stride).zip(weights) {
            let squared = squared_length(simd, column);
            *fourth += squared * squared / weight;
            let factor = squared / weight.sqrt();
            third.iter_mut().zip(column).for_each(|(t, y)| *t += factor * y);
        }
    }
}

/// The diagonal of a packed triangle.
fn diagonal(packed: &[f64], d: usize) -> impl Iterator<Item = f64> + '_ {
    (0..d).scan(0, move |start, j| {
        let value = packed[*start];
        *start += d - j;
        Some(value)
    })
}

/// Adds the part of column `j` to `product`, the product of a symmetric matrix with `vector`.
/// `column` begins at the diagonal.
#[inline(always)]
fn multiply<S: Simd>(simd: S, column: &[f64], j: usize, vector: &[f64], product: &mut [f64]) {
    let factor = simd.splat_f64s(vector[j]);
    let (body, tail) = S::as_simd_f64s(column);
    let (vector_body, rest) = S::as_simd_f64s(&vector[j..]).0.split_at(body.len());
    let (product_body, product_rest) =
        S::as_mut_simd_f64s(&mut product[j..]).0.split_at_mut(body.len());
    let mut dot = simd.splat_f64s(0.0);
    for ((c, v), p) in body.iter().zip(vector_body).zip(product_body) {
        dot = simd.mul_add_e_f64s(*c, *v, dot);
        *p = simd.mul_add_e_f64s(*c, factor, *p);
    }
    if !tail.is_empty() {
        let last = padded(tail);
        let c = S::as_simd_f64s(&last).0[0];
        dot = simd.mul_add_e_f64s(c, rest[0], dot);
        product_rest[0] = simd.mul_add_e_f64s(c, factor, product_rest[0]);
    }
    // The loop above has counted the diagonal twice.
    product[j] += simd.reduce_sum_f64s(dot) - column[0] * vector[j];
}

/// Adds the lower triangle of `columns columns^T` to a packed triangle.
#[inline(always)]
fn add_outer<S: Simd>(simd: S, packed: &mut [f64], d: usize, columns: &[f64], stride: usize) {
    let mut tile: Tile = Default::default();
    for left in (0..d).step_by(COLUMNS) {
        let mut top = left;
        while top < d {
            let across = Lines { values: columns, place: left };
            let down = Lines { values: columns, place: top };
            let rows = fill(simd, &mut tile, across, down, d - top, stride);
            let below = d.min(top + rows);
            for (j, sums) in (left..d).zip(&tile) {
                // Skip the elements above the diagonal.
                let first = top.max(j);
                let start = trapezoid_len(d, j) + first - j;
                let target = &mut packed[start..start + below.saturating_sub(first)];
                target.iter_mut().zip(&sums[first - top..]).for_each(|(t, s)| *t += s);
            }
            top += rows;
        }
    }
}

/// The squared length. `numbers` must be a whole number of SIMD vectors.
#[inline(always)]
fn squared_length<S: Simd>(simd: S, numbers: &[f64]) -> f64 {
    let mut sum = simd.splat_f64s(0.0);
    for v in S::as_simd_f64s(numbers).0 {
        sum = simd.mul_add_e_f64s(*v, *v, sum);
    }
    simd.reduce_sum_f64s(sum)
}

/// A part of a SIMD vector, with zeros after it.
#[inline(always)]
fn padded(tail: &[f64]) -> [f64; LANES] {
    let mut last = [0.0; LANES];
    last.iter_mut().zip(tail).for_each(|(l, &v)| *l = v);
    last
}

#[cfg(test)]
mod tests {
    use super::super::sums::{Deviations, Sums};
    use super::*;
    use proptest::prelude::*;
    use pulp::Scalar;

    proptest! {
        #[test]
        fn folding_is_merging(
            d in 1_usize..40, counts in prop::collection::vec(1_usize..20, 1..4), seed in 0_usize..999,
        ) {
            let noise = |i: usize| {
                let bits = ((i + seed) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((bits ^ (bits >> 31)) >> 24 & 0xFFFF) as f32 / 65536.0 + 30.0
            };
            let batches: Vec<(Vec<Vec<f32>>, Vec<f64>)> = counts.iter().enumerate().map(|(b, &count)| {
                let vector = |n: usize| (0..d).map(|c| noise((b * 40 + n) * d + c)).collect();
                ((0..count).map(vector).collect(), (0..count).map(|n| 0.5 + (n % 3) as f64).collect())
            }).collect();
            let sums = |(vectors, weights): &(Vec<Vec<f32>>, Vec<f64>)| {
                Deviations::new(d, vectors.iter().map(Vec::as_slice), weights).sums(weights)
            };
            let mut expected: Sums = sums(&batches[0]);
            batches[1..].iter().for_each(|batch| expected.merge(sums(batch)));
            for plain in [false, true] {
                let (mut mean, mut third, mut fourth) = (vec![0.0; d], vec![0.0; d], 0.0);
                let mut scatter = vec![0.0; trapezoid_len(d, d)];
                let mut folded = 0.0;
                for (vectors, weights) in &batches {
                    let fold = Fold {
                        vectors: vectors.iter().map(Vec::as_slice),
                        weights,
                        folded,
                        sums: PositionSums {
                            mean: &mut mean,
                            third: &mut third,
                            fourth: &mut fourth,
                            scatter: &mut scatter,
                        },
                        workspace: &mut Workspace::default(),
                    };
                    if plain { fold.with_simd(Scalar) } else { instructions::arch().dispatch(fold) }
                    folded += weights.iter().sum::<f64>();
                }
                let close = |a: f64, e: f64, scale: f64| (a - e).abs() <= 1e-11 * scale.max(1.0);
                let spread = expected.fourth.sqrt().max(1.0);
                prop_assert!(close(folded, expected.weight, 1.0));
                prop_assert!(close(fourth, expected.fourth, spread * spread));
                let mut packed = scatter.iter();
                for j in 0..d {
                    prop_assert!(close(mean[j], expected.mean[j], 30.0));
                    prop_assert!(close(third[j], expected.third[j], spread * spread));
                    for i in j..d {
                        prop_assert!(close(*packed.next().unwrap(), expected.scatter[(i, j)], spread));
                    }
                }
            }
        }
    }
}
