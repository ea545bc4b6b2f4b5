//! The distances of some vectors from one Gaussian.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::forms::Measured;
use super::half::NumbersRef;
use super::kernels::{Images, padded};
use super::storage::Storage;
use crate::embedding::PatchVectors;

/// Buffers that a thread reuses for other positions.
#[derive(Default)]
pub struct Workspace {
    /// `[batch, padded]`
    centered: Vec<f32>,
    /// `[batch, padded]`
    result: Vec<f32>,
    /// Unpacked rows, with padding.
    rows: Vec<f32>,
}

/// A Gaussian, and the vectors whose distances from it are computed.
pub struct Position<'a> {
    pub storage: Storage,
    pub mean: &'a [f32],
    /// The numbers of all Gaussians.
    pub numbers: NumbersRef<'a>,
    /// The range of this Gaussian's numbers.
    pub range: Range<usize>,
    pub scale: f32,
    pub vectors: &'a dyn PatchVectors,
    /// The places of the vectors in the grid. There are several if positions share a Gaussian or
    /// search for the nearest: the Gaussian's rows are then read once for all of them.
    pub places: &'a [usize],
    /// `[places, batch]`
    pub distances: &'a mut [f32],
    pub workspace: &'a mut Workspace,
}

impl WithSimd for Position<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { storage, mean, numbers, range, scale, vectors, places, .. } = self;
        let Self { distances, workspace, .. } = self;
        let d = mean.len();
        let batch = distances.len() / places.len();
        let padded = padded(d);
        let Workspace { centered, result, rows } = workspace;
        centered.resize(distances.len() * padded, 0.0);
        for (b, centered) in centered.chunks_exact_mut(padded).enumerate() {
            let (centered, behind) = centered.split_at_mut(d);
            behind.fill(0.0);
            vectors.write(b % batch, places[b / batch], centered);
            centered.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
        }
        result.clear();
        result.resize(distances.len() * padded, 0.0);
        let images = Images { centered, result, padded };
        let buffer = rows;
        storage.measure(simd, Measured { images, numbers, range, d, scale, distances, buffer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::DenseVectors;
    use crate::gaussian::half::{LARGEST, Number, PADDING, to_half};
    use crate::gaussian::storage::{Precision, trapezoid_rows};
    use crate::instructions;
    use proptest::prelude::*;
    use pulp::Scalar;

    /// The definition of each form's distance, in f64. `x`: a vector minus the mean.
    fn naively(storage: Storage, numbers: &[f32], x: &[f64], scale: f64) -> f64 {
        let d = x.len();
        let packed = &numbers[..numbers.len() - storage.correction(d)];
        let rows: Vec<Vec<f64>> = trapezoid_rows(packed, d)
            .enumerate()
            .map(|(i, row)| {
                let values = row.iter().map(|&v| f64::from(v));
                std::iter::repeat_n(0.0, i).chain(values).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let largest = f64::from(LARGEST);
        let z: Vec<f64> = match storage {
            Storage::Triangle(_) => {
                (0..d).map(|i| (0..rows.len()).map(|j| rows[j][i] * x[j]).sum()).collect()
            }
            Storage::Principal(_) => rows.iter().map(|row| dot(row, x)).collect(),
            _ => {
                let mut z = x.to_vec();
                for row in &rows {
                    let t = dot(row, x) / (largest * largest);
                    z.iter_mut().zip(row).for_each(|(z, y)| *z -= t * y);
                }
                let extra: Vec<f64> =
                    numbers[packed.len()..].iter().map(|&v| f64::from(v) / largest).collect();
                if let Some((q, c)) = extra.split_at_checked(d).filter(|(_, c)| !c.is_empty()) {
                    let t = dot(q, x);
                    z.iter_mut().zip(c).for_each(|(z, c)| *z += t * c);
                }
                z
            }
        };
        scale * dot(&z, &z).sqrt()
    }

    proptest! {
        #[test]
        fn vector_instructions_and_plain_ones_do_what_is_defined(
            d in 1_usize..70, rows in 1_usize..70, batch in 1_usize..6, form in 0_usize..3,
            half in any::<bool>(), alone in any::<bool>(), seed in 0_usize..999,
        ) {
            let precision = if half { Precision::F16 } else { Precision::F32 };
            let (storage, rows) = match form {
                0 => (Storage::Triangle(precision), d),
                1 => (Storage::LowRank(precision), rows.min(d)),
                _ => (Storage::Principal(precision), rows.min(d)),
            };
            let noise = |i: usize| {
                let bits = ((i + seed) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((bits ^ (bits >> 31)) >> 24 & 0xFFFF) as f32 / 65536.0 - 0.5
            };
            // A low rank form has smaller numbers.
            let count = storage.numbers(d, rows).unwrap();
            let size = if form == 1 { LARGEST / 40.0 } else { LARGEST };
            let values: Vec<f32> = (0..count).map(|i| noise(i) * size).collect();
            let mut bits = vec![0; count];
            to_half(&values, &mut bits);
            // The numbers of other positions around them must have no effect. Or there are none
            // around them.
            let lead = if alone { 0 } else { PADDING + 3 };
            let among = |own: &[f32]| -> Vec<f32> {
                let others = || (0..lead).map(|i| noise(i + 500) * LARGEST);
                others().chain(own.iter().copied()).chain(others()).collect()
            };
            let exact: Vec<f32> = if half { bits.iter().map(|b| b.unpack()).collect() } else { values.clone() };
            let all = among(&values);
            let mut all_bits = vec![0; all.len()];
            to_half(&all, &mut all_bits);
            let numbers = if half { NumbersRef::F16(&all_bits) } else { NumbersRef::F32(&all) };
            let mean: Vec<f32> = (0..d).map(|i| noise(i + 7000)).collect();
            let vectors: Vec<f32> = (0..batch * d).map(|i| noise(9000 + i) * 3.0).collect();
            let dense = DenseVectors::at_one_place(vectors.clone(), d);
            let measure = |plain: bool| {
                let mut distances = vec![0.0; batch];
                let position = Position {
                    storage,
                    mean: &mean,
                    numbers,
                    range: lead..lead + count,
                    scale: 0.25,
                    vectors: &dense,
                    places: &[0],
                    distances: &mut distances,
                    workspace: &mut Workspace::default(),
                };
                if plain { position.with_simd(Scalar) } else { instructions::arch().dispatch(position) }
                distances
            };
            let (plain, fast) = (measure(true), measure(false));
            for b in 0..batch {
                let x: Vec<f64> = (0..d)
                    .map(|c| f64::from(vectors[b * d + c] - mean[c]))
                    .collect();
                let expected = naively(storage, &exact, &x, 0.25);
                for actual in [plain[b], fast[b]] {
                    let error = (f64::from(actual) - expected).abs() / expected.max(1e-3);
                    prop_assert!(error < 1e-4, "{storage} {actual} {expected}");
                }
            }
        }
    }
}
