//! The distances of a position: what scoring spends its time on besides the network.
//!
//! Every form but the diagonal is a list of packed rows that are read once for all images of a
//! batch, eight at a time. Each image is treated alike, whatever the batch around it.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use pulp::{Simd, WithSimd};

use super::storage::{Storage, trapezoid_rows};

/// Rows that are worked on together.
const ROWS: usize = 8;
/// A multiple of the lanes of every instruction set.
const PADDING: usize = 16;

/// Numbers of either precision.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumbersRef<'a> {
    F32(&'a [f32]),
    /// The bits of half precision numbers.
    F16(&'a [u16]),
}

impl<'a> NumbersRef<'a> {
    /// The numbers without the last `count`, and these.
    fn split_last(self, count: usize) -> (Self, Self) {
        match self {
            Self::F32(values) => {
                let (head, tail) = values.split_at(values.len() - count);
                (NumbersRef::F32(head), NumbersRef::F32(tail))
            }
            Self::F16(bits) => {
                let (head, tail) = bits.split_at(bits.len() - count);
                (NumbersRef::F16(head), NumbersRef::F16(tail))
            }
        }
    }
}

/// The length at which vectors of `d` components lie behind each other, so that a group of rows has
/// room behind each column. What is behind the components must be zero.
const fn padded(d: usize) -> usize {
    (d + PADDING).next_multiple_of(PADDING)
}

/// Buffers that a thread reuses from position to position.
#[derive(Default)]
pub(super) struct Workspace {
    /// `[batch, padded]`
    centred: Vec<f32>,
    /// `[batch, padded]`
    result: Vec<f32>,
    /// `[ROWS, padded]`
    rows: Vec<f32>,
}

/// The Gaussian of a position, and the vectors to be measured.
pub(super) struct Position<'a> {
    pub storage: Storage,
    pub mean: &'a [f32],
    pub numbers: NumbersRef<'a>,
    pub scale: f32,
    /// Vector `b` begins at `first + b * stride`.
    pub vectors: &'a [f32],
    pub first: usize,
    pub stride: usize,
    /// One a vector.
    pub distances: &'a mut [f32],
    pub workspace: &'a mut Workspace,
}

impl WithSimd for Position<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { storage, mean, numbers, scale, vectors, first, stride, distances, workspace } =
            self;
        let d = mean.len();
        let padded = padded(d);
        let Workspace { centred, result, rows } = workspace;
        centred.resize(distances.len() * padded, 0.0);
        for (b, centred) in centred.chunks_exact_mut(padded).enumerate() {
            let vector = &vectors[first + b * stride..][..d];
            let (centred, behind) = centred.split_at_mut(d);
            behind.fill(0.0);
            centred.iter_mut().zip(vector).zip(mean).for_each(|((c, x), m)| *c = x - m);
        }
        result.clear();
        result.resize(distances.len() * padded, 0.0);
        rows.resize(ROWS * padded, 0.0);
        let mut images = Images { centred, result, padded };
        match storage {
            Storage::Triangle(_) => images.by_rows::<S, Whiten>(simd, numbers, d, rows),
            Storage::LowRank(_) => {
                for b in 0..distances.len() {
                    let (x, z) = images.of(b);
                    z.copy_from_slice(x);
                }
                let (rounded, correction) = numbers.split_last(storage.correction(d));
                images.by_rows::<S, Remove>(simd, rounded, d, rows);
                if let NumbersRef::F16(bits) = correction {
                    images.correct(simd, bits, d, rows);
                }
            }
            Storage::Principal(_) => images.by_rows::<S, Project>(simd, numbers, d, rows),
            Storage::Diagonal | Storage::Auto => {
                if let NumbersRef::F32(inverse_deviations) = numbers {
                    for b in 0..distances.len() {
                        let (x, z) = images.of(b);
                        for ((z, x), w) in z.iter_mut().zip(x).zip(inverse_deviations) {
                            *z = x * w;
                        }
                    }
                }
            }
            Storage::FullInverse => {
                if let NumbersRef::F32(inverse) = numbers {
                    for (b, distance) in distances.iter_mut().enumerate() {
                        let (x, _) = images.of(b);
                        let mut squared = 0.0;
                        for (row, x_i) in inverse.chunks_exact(d).zip(x) {
                            let dot: f64 =
                                row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                            squared += dot * f64::from(*x_i);
                        }
                        // Rounding can make it negative; what is no number must stay none.
                        *distance = if squared < 0.0 { 0.0 } else { squared.sqrt() as f32 };
                    }
                }
                return;
            }
        }
        for (z, distance) in images.result.chunks_exact(padded).zip(distances) {
            *distance = scale * squared_length(simd, z).sqrt();
        }
    }
}

/// The vectors of a position, less the mean, and what becomes of them.
struct Images<'a> {
    centred: &'a [f32],
    result: &'a mut [f32],
    padded: usize,
}

/// What a group of rows does to vectors `x`, from column `start` on, and to their results `z`. Types
/// instead of closures, which the compiler might leave outside of what is compiled for the CPU at
/// hand. Several vectors at once share the loads of the rows; each is treated as if it were alone.
trait Step {
    fn apply<S: Simd, const N: usize>(
        simd: S,
        rows: &[f32],
        start: usize,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    );
}

/// The rows are columns of `W`: `z += W x`, the part of these columns.
struct Whiten;

impl Step for Whiten {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(
        simd: S,
        rows: &[f32],
        start: usize,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = [[0.0; ROWS]; N];
        for (factors, x) in factors.iter_mut().zip(x) {
            factors.copy_from_slice(&x[start..start + ROWS]);
        }
        add_rows(simd, rows, factors, z, start);
    }
}

/// `z -= Y^T Y x`, the part of these rows, which are [`LARGEST`] times `Y`.
struct Remove;

impl Step for Remove {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(
        simd: S,
        rows: &[f32],
        start: usize,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = dots(simd, rows, start, x);
        for factor in factors.iter_mut().flatten() {
            *factor *= -1.0 / (LARGEST * LARGEST);
        }
        add_rows(simd, rows, factors, z, start);
    }
}

/// `z = R x`, these rows.
struct Project;

impl Step for Project {
    #[inline(always)]
    fn apply<S: Simd, const N: usize>(
        simd: S,
        rows: &[f32],
        start: usize,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        for (z, dots) in z.into_iter().zip(dots(simd, rows, start, x)) {
            // There are as many rows as columns at most, so there is room.
            z[start..start + ROWS].copy_from_slice(&dots);
        }
    }
}

impl Images<'_> {
    /// The vector of an image, and its result.
    #[inline(always)]
    fn of(&mut self, b: usize) -> (&[f32], &mut [f32]) {
        let x = &self.centred[b * self.padded..(b + 1) * self.padded];
        (x, &mut self.result[b * self.padded..(b + 1) * self.padded])
    }

    /// Adds the correction `c (q x)`: `bits` are those of `q` and of `c`, each [`LARGEST`] times.
    #[inline(always)]
    fn correct<S: Simd>(&mut self, simd: S, bits: &[u16], d: usize, buffer: &mut [f32]) {
        let (q, c) = buffer[..2 * self.padded].split_at_mut(self.padded);
        for (target, bits) in [(&mut *q, &bits[..d]), (&mut *c, &bits[d..])] {
            target.fill(0.0);
            target.iter_mut().zip(bits).for_each(|(t, v)| *t = v.unpack());
        }
        let (q, _) = S::as_simd_f32s(q);
        let (c, _) = S::as_simd_f32s(c);
        for b in 0..self.result.len() / self.padded {
            let (x, z) = self.of(b);
            let (x, _) = S::as_simd_f32s(x);
            let mut sum = simd.splat_f32s(0.0);
            for (x, q) in x.iter().zip(q) {
                sum = simd.mul_add_e_f32s(*x, *q, sum);
            }
            let amount = simd.reduce_sum_f32s(sum) / (LARGEST * LARGEST);
            let amount = simd.splat_f32s(amount);
            let (z, _) = S::as_mut_simd_f32s(z);
            for (z, c) in z.iter_mut().zip(c) {
                *z = simd.mul_add_e_f32s(amount, *c, *z);
            }
        }
    }

    #[inline(always)]
    fn by_rows<S: Simd, F: Step>(
        &mut self,
        simd: S,
        numbers: NumbersRef<'_>,
        d: usize,
        buffer: &mut [f32],
    ) {
        match numbers {
            NumbersRef::F32(packed) => self.groups::<S, F, f32>(simd, packed, d, buffer),
            NumbersRef::F16(packed) => self.groups::<S, F, u16>(simd, packed, d, buffer),
        }
    }

    /// Unpacks the rows eight at a time, side by side on a common window of columns with zeros where
    /// a row has none, and applies them to all images.
    #[inline(always)]
    fn groups<S: Simd, F: Step, T: Number>(
        &mut self,
        simd: S,
        packed: &[T],
        d: usize,
        buffer: &mut [f32],
    ) {
        let mut rest = packed;
        let mut start = 0;
        while !rest.is_empty() {
            let window = (d - start).next_multiple_of(PADDING);
            for (k, target) in buffer[..ROWS * window].chunks_exact_mut(window).enumerate() {
                let length = (d - start).saturating_sub(k).min(rest.len());
                let (row, behind) = rest.split_at(length);
                rest = behind;
                // Zeros before and behind the row are within these, whose lengths are constant.
                target[..PADDING].copy_from_slice(&[0.0; PADDING]);
                target[window - PADDING..].copy_from_slice(&[0.0; PADDING]);
                if length == 0 {
                    target.fill(0.0);
                }
                for (t, v) in target[k..].iter_mut().zip(row) {
                    *t = v.unpack();
                }
            }
            let rows = &buffer[..ROWS * window];
            let vector = |b: usize| &self.centred[b * self.padded..(b + 1) * self.padded];
            // Two at once where there are registers for it.
            let together = if S::REGISTER_COUNT >= 32 { 2 } else { 1 };
            let groups = self.result.chunks_mut(together * self.padded).enumerate();
            for (group, results) in groups {
                let b = group * together;
                if results.len() == 2 * self.padded {
                    let (first, second) = results.split_at_mut(self.padded);
                    F::apply(simd, rows, start, [vector(b), vector(b + 1)], [first, second]);
                } else {
                    F::apply(simd, rows, start, [vector(b)], [results]);
                }
            }
            start += ROWS;
        }
    }
}

/// A number as it is kept.
trait Number: Copy {
    fn unpack(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn unpack(self) -> f32 {
        // Changes nothing, but keeps the compiler from calling the C library to copy a short row.
        self + 0.0
    }
}

impl Number for u16 {
    /// The bits of a half precision number that is zero, or finite and not subnormal. Written out, as
    /// this becomes a few vector instructions on every CPU.
    #[inline(always)]
    fn unpack(self) -> f32 {
        // 2^112: the difference of the biases.
        const EXPONENTS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(self);
        let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * EXPONENTS;
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }
}

/// The bits of the half precision numbers that are nearest. Subnormal ones become zero: beside the
/// largest number of a position, which is near [`LARGEST`], they are nothing.
pub(super) fn to_half(values: &[f32], bits: &mut [u16]) {
    bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values);
    for bits in bits {
        if *bits & 0x7C00 == 0 {
            *bits = 0;
        }
    }
}

/// What makes up for the rounding of a low rank form's rows along a direction `q` of length 1:
/// writes the bits of `q` and of `c = Y^T Y q - share q`, where `share q` would be right.
pub(super) fn correct_low_rank(rounded: &[u16], direction: &[f64], share: f64, bits: &mut [u16]) {
    let d = direction.len();
    let largest = f64::from(LARGEST);
    let mut product: Vec<f64> = direction.iter().map(|q| -share * q).collect();
    for (i, row) in trapezoid_rows(rounded, d).enumerate() {
        let values = || row.iter().map(|bits| f64::from(bits.unpack()) / largest);
        let dot: f64 = values().zip(&direction[i..]).map(|(y, q)| y * q).sum();
        product[i..].iter_mut().zip(values()).for_each(|(p, y)| *p += dot * y);
    }
    let scaled: Vec<f32> = direction.iter().chain(&product).map(|v| (v * largest) as f32).collect();
    to_half(&scaled, bits);
}

/// Numbers are scaled so that the largest of a position is at most this and about half as large at
/// least: near the top of the range of half precision numbers, far from its bottom.
pub(super) const LARGEST: f32 = 32768.0;

/// The vectors of a window from column `start` on, and the rows of a group.
#[inline(always)]
fn vectors<S: Simd>(rows: &[f32]) -> ([&[S::f32s]; ROWS], usize) {
    let (rows, _) = S::as_simd_f32s(rows);
    let n = rows.len() / ROWS;
    let (r0, rest) = rows.split_at(n);
    let (r1, rest) = rest.split_at(n);
    let (r2, rest) = rest.split_at(n);
    let (r3, rest) = rest.split_at(n);
    let (r4, rest) = rest.split_at(n);
    let (r5, rest) = rest.split_at(n);
    let (r6, rest) = rest.split_at(n);
    ([r0, r1, r2, r3, r4, r5, r6, &rest[..n]], n)
}

/// `targets[b] += sum_k factors[b][k] * rows[k]`, from column `start` on.
#[inline(always)]
fn add_rows<S: Simd, const N: usize>(
    simd: S,
    rows: &[f32],
    factors: [[f32; ROWS]; N],
    targets: [&mut [f32]; N],
    start: usize,
) {
    let (rows, n) = vectors::<S>(rows);
    let mut splats = [[simd.splat_f32s(0.0); ROWS]; N];
    for b in 0..N {
        for k in 0..ROWS {
            splats[b][k] = simd.splat_f32s(factors[b][k]);
        }
    }
    let targets = targets.map(|target| &mut S::as_mut_simd_f32s(&mut target[start..]).0[..n]);
    for i in 0..n {
        let mut sums = [simd.splat_f32s(0.0); N];
        for b in 0..N {
            sums[b] = targets[b][i];
        }
        for k in 0..ROWS {
            let row = rows[k][i];
            for b in 0..N {
                sums[b] = simd.mul_add_e_f32s(splats[b][k], row, sums[b]);
            }
        }
        for b in 0..N {
            targets[b][i] = sums[b];
        }
    }
}

/// The dot products of each row with `x[b]` from column `start` on.
#[inline(always)]
fn dots<S: Simd, const N: usize>(
    simd: S,
    rows: &[f32],
    start: usize,
    x: [&[f32]; N],
) -> [[f32; ROWS]; N] {
    let (rows, n) = vectors::<S>(rows);
    let x = x.map(|x| &S::as_simd_f32s(&x[start..]).0[..n]);
    let mut sums = [[simd.splat_f32s(0.0); ROWS]; N];
    for i in 0..n {
        for k in 0..ROWS {
            let row = rows[k][i];
            for b in 0..N {
                sums[b][k] = simd.mul_add_e_f32s(row, x[b][i], sums[b][k]);
            }
        }
    }
    let mut dots = [[0.0; ROWS]; N];
    for b in 0..N {
        for k in 0..ROWS {
            dots[b][k] = simd.reduce_sum_f32s(sums[b][k]);
        }
    }
    dots
}

#[inline(always)]
fn squared_length<S: Simd>(simd: S, vector: &[f32]) -> f32 {
    let (vector, _) = S::as_simd_f32s(vector);
    let mut sum = simd.splat_f32s(0.0);
    for z in vector {
        sum = simd.mul_add_e_f32s(*z, *z, sum);
    }
    simd.reduce_sum_f32s(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulp::{Arch, Scalar};

    #[test]
    fn every_half_precision_number_is_unpacked() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_normal() || bits == 0 {
                assert_eq!(bits.unpack(), half.to_f32(), "{bits:#x}");
            }
        }
        let values = [0.0, 1.0, -0.3, 6e-5, -3e-6, 65504.0];
        let mut bits = [0; 6];
        to_half(&values, &mut bits);
        let unpacked = bits.map(Number::unpack);
        assert_eq!(unpacked[..2], [0.0, 1.0]);
        assert_eq!(unpacked[3..], [0.0, 0.0, 65504.0], "subnormal ones are zero");
        assert!((unpacked[2] + 0.3).abs() < 1e-4);
    }

    /// The definition, in f64: what each form makes of a centred vector.
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
            half in any::<bool>(), seed in 0_usize..999,
        ) {
            let precision = if half { super::super::Precision::F16 } else { super::super::Precision::F32 };
            let (storage, rows) = match form {
                0 => (Storage::Triangle(precision), d),
                1 => (Storage::LowRank(precision), rows.min(d)),
                _ => (Storage::Principal(precision), rows.min(d)),
            };
            let noise = |i: usize| {
                let bits = ((i + seed) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((bits ^ (bits >> 31)) >> 24 & 0xFFFF) as f32 / 65536.0 - 0.5
            };
            // Of a low rank form the rows are short, and the correction is small.
            let count = storage.numbers(d, rows).unwrap();
            let size = if form == 1 { LARGEST / 40.0 } else { LARGEST };
            let values: Vec<f32> = (0..count).map(|i| noise(i) * size).collect();
            let mut bits = vec![0; count];
            to_half(&values, &mut bits);
            let exact: Vec<f32> = if half { bits.iter().map(|b| b.unpack()).collect() } else { values.clone() };
            let numbers = if half { NumbersRef::F16(&bits) } else { NumbersRef::F32(&values) };
            let mean: Vec<f32> = (0..d).map(|i| noise(i + 7000)).collect();
            let stride = d + 3;
            let mut vectors = vec![0.0; batch * stride];
            for b in 0..batch {
                (0..d).for_each(|c| vectors[b * stride + c] = noise(9000 + b * d + c) * 3.0);
            }
            let measure = |plain: bool| {
                let mut distances = vec![0.0; batch];
                let position = Position {
                    storage,
                    mean: &mean,
                    numbers,
                    scale: 0.25,
                    vectors: &vectors,
                    first: 0,
                    stride,
                    distances: &mut distances,
                    workspace: &mut Workspace::default(),
                };
                if plain { position.with_simd(Scalar) } else { Arch::new().dispatch(position) }
                distances
            };
            let (plain, fast) = (measure(true), measure(false));
            for b in 0..batch {
                let x: Vec<f64> = (0..d)
                    .map(|c| f64::from(vectors[b * stride + c] - mean[c]))
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
