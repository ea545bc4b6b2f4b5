//! The distances of a position: what scoring spends its time on besides the network.
//!
//! Every form but the diagonal is a list of packed rows that are read once for all images of a
//! batch, eight at a time. Each image is treated alike, whatever the batch around it.
//!
//! Row `i` begins at column `i`. Vectors of numbers begin at whole columns of 16, so the first one of a
//! row holds the end of the row before, which is put to zero, and the last one the beginning of the row
//! behind, which falls on components that do not count.

// Kernels walk several arrays in step, by indices that the compiler knows.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use pulp::{Simd, WithSimd};

use super::storage::{Storage, trapezoid_rows};
use crate::embedding::PatchVectors;
use crate::prefetch::{PAGE, prefetch};

/// Rows that are worked on together.
const ROWS: usize = 8;
/// A multiple of the lanes of every instruction set.
const PADDING: usize = 16;
/// For so many images, numbers are unpacked again for each.
const FEW: usize = 2;
/// So many unpacked numbers stay near the processor.
const UNPACKED: usize = 4096;

/// Numbers of either precision.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumbersRef<'a> {
    F32(&'a [f32]),
    /// The bits of half precision numbers.
    F16(&'a [u16]),
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
    /// Unpacked rows, with room around them.
    rows: Vec<f32>,
}

/// The Gaussian of a position, and the vectors to be measured.
pub(super) struct Position<'a> {
    pub storage: Storage,
    pub mean: &'a [f32],
    /// Of all positions.
    pub numbers: NumbersRef<'a>,
    /// Where those of this one stand.
    pub range: Range<usize>,
    pub scale: f32,
    pub vectors: &'a dyn PatchVectors,
    /// Where the vectors are to be found. More than one where several share a Gaussian, or look for the
    /// nearest one: its rows are then read once for all.
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
        let Workspace { centred, result, rows } = workspace;
        centred.resize(distances.len() * padded, 0.0);
        for (b, centred) in centred.chunks_exact_mut(padded).enumerate() {
            let (centred, behind) = centred.split_at_mut(d);
            behind.fill(0.0);
            vectors.write(b % batch, places[b / batch], centred);
            centred.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
        }
        result.clear();
        result.resize(distances.len() * padded, 0.0);
        let mut images = Images { centred, result, padded };
        match storage {
            Storage::Triangle(_) => images.by_rows::<S, Whiten>(simd, numbers, range, d, rows),
            Storage::LowRank(_) => {
                for b in 0..distances.len() {
                    let (x, z) = images.of(b);
                    z.copy_from_slice(x);
                }
                let correction = range.end - storage.correction(d)..range.end;
                let range = range.start..correction.start;
                images.by_rows::<S, Remove>(simd, numbers, range, d, rows);
                if let NumbersRef::F16(bits) = numbers
                    && !correction.is_empty()
                {
                    images.correct(simd, &bits[correction], d, rows);
                }
            }
            Storage::Principal(_) => images.by_rows::<S, Project>(simd, numbers, range, d, rows),
            Storage::Diagonal | Storage::Auto => {
                if let NumbersRef::F32(all) = numbers {
                    let inverse_deviations = &all[range];
                    for b in 0..distances.len() {
                        let (x, z) = images.of(b);
                        for ((z, x), w) in z.iter_mut().zip(x).zip(inverse_deviations) {
                            *z = x * w;
                        }
                    }
                }
            }
            Storage::FullInverse => {
                if let NumbersRef::F32(all) = numbers {
                    let inverse = &all[range];
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
        for (z, distance) in images.result.chunks_exact_mut(padded).zip(distances) {
            z[d..].fill(0.0);
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

/// What a group of rows does to vectors `x` and to their results `z`. Types instead of closures, which
/// the compiler might leave outside of what is compiled for the CPU at hand. Several vectors at once
/// share the loads of the rows; each is treated as if it were alone.
trait Step {
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    );
}

/// A group of rows, from a column that is a multiple of [`PADDING`] on, and what a row holds there
/// before it begins.
struct Rows<'a, T> {
    /// The number of the first row.
    first: usize,
    column: usize,
    /// All of one length, a multiple of [`PADDING`]. Those from `count` on are not there, and hold
    /// anything.
    rows: [&'a [T]; ROWS],
    count: usize,
    /// For the first [`PADDING`] columns: 0 where a row has not begun, then 1.
    masks: [&'a [f32]; ROWS],
}

/// The rows are columns of `W`: `z += W x`, the part of these columns.
struct Whiten;

impl Step for Whiten {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = [[0.0; ROWS]; N];
        for (factors, x) in factors.iter_mut().zip(x) {
            factors.copy_from_slice(&x[rows.first..rows.first + ROWS]);
        }
        rows.add(simd, factors, z);
    }
}

/// `z -= Y^T Y x`, the part of these rows, which are [`LARGEST`] times `Y`.
struct Remove;

impl Step for Remove {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = rows.dots(simd, x);
        for factor in factors.iter_mut().flatten() {
            *factor *= -1.0 / (LARGEST * LARGEST);
        }
        rows.add(simd, factors, z);
    }
}

/// `z = R x`, these rows.
struct Project;

impl Step for Project {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        for (z, dots) in z.into_iter().zip(rows.dots(simd, x)) {
            // There are as many rows as columns at most, so there is room.
            z[rows.first..rows.first + ROWS].copy_from_slice(&dots);
        }
    }
}

impl<T: Number> Rows<'_, T> {
    /// The vectors `i` of all rows.
    #[inline(always)]
    fn column<S: Simd>(&self, simd: S, i: usize) -> [S::f32s; ROWS] {
        let range = i * S::F32_LANES..(i + 1) * S::F32_LANES;
        let mut column = [simd.splat_f32s(0.0); ROWS];
        for k in 0..ROWS {
            let numbers = &self.rows[k][range.clone()];
            prefetch(&numbers[0], PAGE);
            column[k] = T::load::<S>(numbers);
            if i < PADDING / S::F32_LANES {
                let mask = S::as_simd_f32s(&self.masks[k][range.clone()]).0[0];
                column[k] = simd.mul_f32s(column[k], mask);
            }
        }
        column
    }

    /// `targets[b] += sum_k factors[b][k] * row k`.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(
        &self,
        simd: S,
        factors: [[f32; ROWS]; N],
        targets: [&mut [f32]; N],
    ) {
        let n = self.rows[0].len() / S::F32_LANES;
        let mut splats = [[simd.splat_f32s(0.0); ROWS]; N];
        for b in 0..N {
            for k in 0..ROWS {
                splats[b][k] = simd.splat_f32s(factors[b][k]);
            }
        }
        let targets = targets.map(|target| S::as_mut_simd_f32s(&mut target[self.column..]).0);
        let targets = targets.map(|target| &mut target[..n]);
        for i in 0..n {
            let column = self.column(simd, i);
            for b in 0..N {
                let mut sum = targets[b][i];
                for k in 0..ROWS {
                    sum = simd.mul_add_e_f32s(splats[b][k], column[k], sum);
                }
                targets[b][i] = sum;
            }
        }
    }

    /// The dot products of each row with `x[b]`.
    #[inline(always)]
    fn dots<S: Simd, const N: usize>(&self, simd: S, x: [&[f32]; N]) -> [[f32; ROWS]; N] {
        let n = self.rows[0].len() / S::F32_LANES;
        let x = x.map(|x| &S::as_simd_f32s(&x[self.column..]).0[..n]);
        let mut sums = [[simd.splat_f32s(0.0); ROWS]; N];
        for i in 0..n {
            let column = self.column(simd, i);
            for b in 0..N {
                for k in 0..ROWS {
                    sums[b][k] = simd.mul_add_e_f32s(column[k], x[b][i], sums[b][k]);
                }
            }
        }
        let mut dots = [[0.0; ROWS]; N];
        for b in 0..N {
            for k in 0..self.count {
                dots[b][k] = simd.reduce_sum_f32s(sums[b][k]);
            }
        }
        dots
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
    fn correct<S: Simd>(&mut self, simd: S, bits: &[u16], d: usize, buffer: &mut Vec<f32>) {
        buffer.resize(buffer.len().max(2 * self.padded), 0.0);
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
        range: Range<usize>,
        d: usize,
        buffer: &mut Vec<f32>,
    ) {
        match numbers {
            NumbersRef::F32(all) => self.rows_of::<S, F, f32>(simd, all, range, d, buffer),
            NumbersRef::F16(all) => self.rows_of::<S, F, u16>(simd, all, range, d, buffer),
        }
    }

    /// Takes the rows from where they are for few images; for many they are unpacked once. That at the
    /// ends of the array there is nothing around them is another reason to copy them.
    #[inline(always)]
    fn rows_of<S: Simd, F: Step, T: Number>(
        &mut self,
        simd: S,
        all: &[T],
        range: Range<usize>,
        d: usize,
        buffer: &mut Vec<f32>,
    ) {
        let around = range.start.checked_sub(PADDING).map(|start| start..range.end + PADDING);
        let around = around.and_then(|around| all.get(around));
        match around.filter(|_| T::IS_F32 || self.result.len() <= FEW * self.padded) {
            Some(around) => self.groups::<S, F, T>(simd, around, 0..d, d),
            None => self.unpacked::<S, F, T>(simd, &all[range], d, buffer),
        }
    }

    /// Unpacks some rows at a time and applies them to all images.
    #[inline(always)]
    fn unpacked<S: Simd, F: Step, T: Number>(
        &mut self,
        simd: S,
        packed: &[T],
        d: usize,
        buffer: &mut Vec<f32>,
    ) {
        let mut rest = packed;
        let mut first = 0;
        while !rest.is_empty() {
            let mut count = ROWS;
            let length = |rows: usize| rows * (d - first) - rows * (rows - 1) / 2;
            while first + count + ROWS <= d && length(count + ROWS) <= UNPACKED {
                count += ROWS;
            }
            let (rows, behind) = rest.split_at(length(count.min(d - first)).min(rest.len()));
            rest = behind;
            buffer.resize(buffer.len().max(rows.len() + 2 * PADDING), 0.0);
            unpack(rows, &mut buffer[PADDING..]);
            buffer[PADDING + rows.len()..][..PADDING].copy_from_slice(&[0.0; PADDING]);
            let around = &buffer[..rows.len() + 2 * PADDING];
            self.groups::<S, F, f32>(simd, around, first..d.min(first + count), d);
            first += count;
        }
    }

    /// Applies rows to all images, eight at a time. `around` holds them behind each other, with
    /// [`PADDING`] numbers before and behind them.
    #[inline(always)]
    fn groups<S: Simd, F: Step, T: Number>(
        &mut self,
        simd: S,
        around: &[T],
        range: Range<usize>,
        d: usize,
    ) {
        let end = around.len() - PADDING;
        let mut start = PADDING;
        for first in range.step_by(ROWS) {
            if start >= end {
                break;
            }
            let column = first / PADDING * PADDING;
            let width = (d - column).next_multiple_of(PADDING);
            let mut rows = [&around[start - (first - column)..][..width]; ROWS];
            let mut masks = [&MASK[..PADDING]; ROWS];
            let mut count = 0;
            while count < ROWS && first + count < d && start < end {
                // How many columns the row begins behind the first one of its vector.
                let inset = first + count - column;
                rows[count] = &around[start - inset..][..width];
                masks[count] = &MASK[PADDING - inset..][..PADDING];
                start += d - first - count;
                count += 1;
            }
            let rows = Rows { first, column, rows, count, masks };
            let vector = |b: usize| &self.centred[b * self.padded..(b + 1) * self.padded];
            // Two at once where there are registers for it.
            let together = if S::REGISTER_COUNT >= 32 { 2 } else { 1 };
            let groups = self.result.chunks_mut(together * self.padded).enumerate();
            for (group, results) in groups {
                let b = group * together;
                if results.len() == 2 * self.padded {
                    let (left, right) = results.split_at_mut(self.padded);
                    F::apply(simd, &rows, [vector(b), vector(b + 1)], [left, right]);
                } else {
                    F::apply(simd, &rows, [vector(b)], [results]);
                }
            }
        }
    }
}

/// From place `PADDING - n` on: `n` times 0, then 1.
const MASK: [f32; 2 * PADDING] = {
    let mut mask = [1.0; 2 * PADDING];
    let mut i = 0;
    while i < PADDING {
        mask[i] = 0.0;
        i += 1;
    }
    mask
};

/// Unpacks numbers that are read in order, from position to position.
#[inline(always)]
fn unpack<T: Number>(packed: &[T], target: &mut [f32]) {
    const CHUNK: usize = 32;
    let chunks = packed.chunks_exact(CHUNK);
    let rest = chunks.remainder();
    let (whole, end) = target.split_at_mut(packed.len() - rest.len());
    for (chunk, target) in chunks.zip(whole.chunks_exact_mut(CHUNK)) {
        prefetch(&chunk[0], PAGE);
        if T::IS_F32 {
            prefetch(&chunk[CHUNK / 2], PAGE);
        }
        target.iter_mut().zip(chunk).for_each(|(t, v)| *t = v.unpack());
    }
    end.iter_mut().zip(rest).for_each(|(t, v)| *t = v.unpack());
}

/// A number as it is kept.
trait Number: Copy {
    const IS_F32: bool = false;

    fn unpack(self) -> f32;

    /// As many numbers as a vector has lanes.
    #[inline(always)]
    fn load<S: Simd>(numbers: &[Self]) -> S::f32s {
        // The compiler makes vector instructions of this.
        let mut values = [0.0; PADDING];
        for i in 0..S::F32_LANES {
            values[i] = numbers[i].unpack();
        }
        S::as_simd_f32s(&values).0[0]
    }
}

impl Number for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    fn unpack(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(numbers: &[Self]) -> S::f32s {
        S::as_simd_f32s(numbers).0[0]
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
    use crate::embedding::DenseVectors;
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
            half in any::<bool>(), alone in any::<bool>(), seed in 0_usize..999,
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
            // Other positions' numbers around them, which must not count, or nothing.
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
                if plain { position.with_simd(Scalar) } else { Arch::new().dispatch(position) }
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
