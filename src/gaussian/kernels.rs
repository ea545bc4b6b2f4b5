//! Kernels for packed rows. Apart from the network, scoring spends most of its time here.
//!
//! The rows of a position are read once for all images of a batch, eight rows at a time. Each image
//! is computed in the same way, so a distance does not depend on the batch.
//!
//! Row `i` begins at column `i`, but SIMD vectors begin at multiples of 16 columns. So the first
//! vector of a row overlaps the end of the row before, which is masked. The last vector overlaps the
//! beginning of the next row, where the components of the image's vector are zero.

// Kernels index several arrays at once, with ranges that the compiler knows.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::Simd;

use super::half::{Number, NumbersRef, PADDING, unpack};
use crate::prefetch::{PAGE, prefetch};

/// Rows that are processed together.
pub const ROWS: usize = 8;
/// Up to this number of images, 16-bit numbers are unpacked again for each image.
const FEW: usize = 2;
/// The number of unpacked numbers that stay in the cache.
const UNPACKED: usize = 4096;

/// The distance between vectors of `d` components. After each column there is room for a group of
/// rows. The padding must be zero.
pub const fn padded(d: usize) -> usize {
    (d + PADDING).next_multiple_of(PADDING)
}

/// The vectors at a position minus the mean, and their results, one per image.
pub struct Images<'a> {
    pub centered: &'a [f32],
    pub result: &'a mut [f32],
    pub padded: usize,
}

/// The operation of a group of rows on vectors `x` and their results `z`. It is a type and not a
/// closure, because the compiler might not compile a closure for the chosen instruction set. Several
/// vectors share the loads of the rows; each result is the same as for one vector alone.
pub trait Step {
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    );
}

/// A group of rows, read from a common column, which is a multiple of [`PADDING`].
pub struct Rows<'a, T> {
    /// The number of the first row.
    pub first: usize,
    column: usize,
    /// All have the same length, a multiple of [`PADDING`]. Entries from `count` on are not rows, and
    /// are not used.
    rows: [&'a [T]; ROWS],
    count: usize,
    /// For the first [`PADDING`] columns: 0 before a row begins, then 1.
    masks: [&'a [f32]; ROWS],
}

impl<T: Number> Rows<'_, T> {
    /// SIMD vector `i` of each row.
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
    pub fn add<S: Simd, const N: usize>(
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

    /// The dot product of each row with each `x[b]`.
    #[inline(always)]
    pub fn dots<S: Simd, const N: usize>(&self, simd: S, x: [&[f32]; N]) -> [[f32; ROWS]; N] {
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
    /// Writes the length of each result, times `scale`.
    #[inline(always)]
    pub fn lengths<S: Simd>(&mut self, simd: S, d: usize, scale: f32, distances: &mut [f32]) {
        for (z, distance) in self.result.chunks_exact_mut(self.padded).zip(distances) {
            z[d..].fill(0.0);
            *distance = scale * squared_length(simd, z).sqrt();
        }
    }

    /// The vector of an image, and its result.
    #[inline(always)]
    pub fn of(&mut self, b: usize) -> (&[f32], &mut [f32]) {
        let x = &self.centered[b * self.padded..(b + 1) * self.padded];
        (x, &mut self.result[b * self.padded..(b + 1) * self.padded])
    }

    #[inline(always)]
    pub fn by_rows<S: Simd, F: Step>(
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

    /// Reads the rows in place for few images; otherwise unpacks them once. At the ends of the array,
    /// they are copied in any case, because the kernels also read numbers before and after them.
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

    /// Applies rows to all images, eight rows at a time. `around`: consecutive rows, with [`PADDING`]
    /// numbers before and after them.
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
                // The row's first column, relative to the group's.
                let inset = first + count - column;
                rows[count] = &around[start - inset..][..width];
                masks[count] = &MASK[PADDING - inset..][..PADDING];
                start += d - first - count;
                count += 1;
            }
            let rows = Rows { first, column, rows, count, masks };
            let vector = |b: usize| &self.centered[b * self.padded..(b + 1) * self.padded];
            // Two images at once, if there are enough registers.
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

/// From index `PADDING - n` on: `n` times 0, then 1.
const MASK: [f32; 2 * PADDING] = {
    let mut mask = [1.0; 2 * PADDING];
    let mut i = 0;
    while i < PADDING {
        mask[i] = 0.0;
        i += 1;
    }
    mask
};

#[inline(always)]
fn squared_length<S: Simd>(simd: S, vector: &[f32]) -> f32 {
    let (vector, _) = S::as_simd_f32s(vector);
    let mut sum = simd.splat_f32s(0.0);
    for z in vector {
        sum = simd.mul_add_e_f32s(*z, *z, sum);
    }
    simd.reduce_sum_f32s(sum)
}
