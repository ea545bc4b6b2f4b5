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
        let batch = distances.len();
        // A window of padded length fits behind each column.
        let padded = (d + PADDING).next_multiple_of(PADDING);
        let Workspace { centred, result, rows } = workspace;
        for buffer in [&mut *centred, result] {
            buffer.clear();
            buffer.resize(batch * padded, 0.0);
        }
        rows.clear();
        rows.resize(ROWS * padded, 0.0);
        for (b, target) in centred.chunks_exact_mut(padded).enumerate() {
            let vector = &vectors[first + b * stride..][..d];
            for ((t, v), m) in target.iter_mut().zip(vector).zip(mean) {
                *t = v - m;
            }
        }
        match storage {
            Storage::Triangle(_) => {
                for_row_groups(numbers, d, rows, |rows, window, start| {
                    let images = centred.chunks_exact(padded).zip(result.chunks_exact_mut(padded));
                    for (x, z) in images {
                        let factors = std::array::from_fn(|k| x[start + k]);
                        add_rows(simd, rows, factors, &mut z[start..start + window]);
                    }
                });
            }
            Storage::LowRank(_) => {
                result.copy_from_slice(centred);
                for_row_groups(numbers, d, rows, |rows, window, start| {
                    let images = centred.chunks_exact(padded).zip(result.chunks_exact_mut(padded));
                    for (x, z) in images {
                        let dots = dots(simd, rows, &x[start..start + window]);
                        add_rows(simd, rows, dots.map(|v| -v), &mut z[start..start + window]);
                    }
                });
            }
            Storage::Principal(_) => {
                for_row_groups(numbers, d, rows, |rows, window, start| {
                    let images = centred.chunks_exact(padded).zip(result.chunks_exact_mut(padded));
                    for (x, z) in images {
                        let dots = dots(simd, rows, &x[start..start + window]);
                        // As many rows as columns at most, so there is room.
                        z[start..start + ROWS].copy_from_slice(&dots);
                    }
                });
            }
            Storage::Diagonal | Storage::Auto => {
                if let NumbersRef::F32(inverse_deviations) = numbers {
                    let images = centred.chunks_exact(padded).zip(result.chunks_exact_mut(padded));
                    for (x, z) in images {
                        for ((z, x), w) in z.iter_mut().zip(x).zip(inverse_deviations) {
                            *z = x * w;
                        }
                    }
                }
            }
            Storage::FullInverse => {
                if let NumbersRef::F32(inverse) = numbers {
                    for (x, distance) in centred.chunks_exact(padded).zip(&mut *distances) {
                        let mut squared = 0.0;
                        for (row, x_i) in inverse.chunks_exact(d).zip(x) {
                            let dot: f64 =
                                row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                            squared += dot * f64::from(*x_i);
                        }
                        *distance = squared.max(0.0).sqrt() as f32;
                    }
                }
                return;
            }
        }
        for (z, distance) in result.chunks_exact(padded).zip(distances) {
            *distance = scale * squared_length(simd, z).sqrt();
        }
    }
}

/// Gives packed rows eight at a time to `work`: in f32, side by side on a common window of columns
/// with zeros where a row has none, with the window's length and its first column.
#[inline(always)]
fn for_row_groups(
    numbers: NumbersRef<'_>,
    d: usize,
    buffer: &mut [f32],
    mut work: impl FnMut(&[f32], usize, usize),
) {
    match numbers {
        NumbersRef::F32(packed) => groups(packed, d, buffer, &mut work, |row, target| {
            target.copy_from_slice(row);
        }),
        NumbersRef::F16(packed) => groups(packed, d, buffer, &mut work, |row, target| {
            row.reinterpret_cast::<f16>().convert_to_f32_slice(target);
        }),
    }
}

#[inline(always)]
fn groups<T>(
    packed: &[T],
    d: usize,
    buffer: &mut [f32],
    work: &mut impl FnMut(&[f32], usize, usize),
    unpack: impl Fn(&[T], &mut [f32]),
) {
    let mut rows = trapezoid_rows(packed, d);
    let mut start = 0;
    loop {
        let window = (d.saturating_sub(start)).next_multiple_of(PADDING);
        let mut count = 0;
        for (k, target) in buffer.chunks_exact_mut(window.max(1)).take(ROWS).enumerate() {
            let Some(row) = rows.next() else {
                target.fill(0.0);
                continue;
            };
            target[..k].fill(0.0);
            unpack(row, &mut target[k..k + row.len()]);
            target[k + row.len()..].fill(0.0);
            count += 1;
        }
        if count == 0 {
            return;
        }
        work(&buffer[..ROWS * window], window, start);
        start += ROWS;
    }
}

/// `target += sum_k factors[k] * rows[k]`.
#[inline(always)]
fn add_rows<S: Simd>(simd: S, rows: &[f32], factors: [f32; ROWS], target: &mut [f32]) {
    let (target, _) = S::as_mut_simd_f32s(target);
    let length = target.len();
    let (rows, _) = S::as_simd_f32s(rows);
    let rows: [&[S::f32s]; ROWS] = std::array::from_fn(|k| &rows[k * length..(k + 1) * length]);
    let factors = factors.map(|f| simd.splat_f32s(f));
    for (i, target) in target.iter_mut().enumerate() {
        let mut sum = *target;
        for k in 0..ROWS {
            sum = simd.mul_add_e_f32s(factors[k], rows[k][i], sum);
        }
        *target = sum;
    }
}

/// The dot product of each row with `vector`.
#[inline(always)]
fn dots<S: Simd>(simd: S, rows: &[f32], vector: &[f32]) -> [f32; ROWS] {
    let (vector, _) = S::as_simd_f32s(vector);
    let length = vector.len();
    let (rows, _) = S::as_simd_f32s(rows);
    let rows: [&[S::f32s]; ROWS] = std::array::from_fn(|k| &rows[k * length..(k + 1) * length]);
    let mut sums = [simd.splat_f32s(0.0); ROWS];
    for (i, x) in vector.iter().enumerate() {
        for k in 0..ROWS {
            sums[k] = simd.mul_add_e_f32s(rows[k][i], *x, sums[k]);
        }
    }
    sums.map(|sum| simd.reduce_sum_f32s(sum))
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
