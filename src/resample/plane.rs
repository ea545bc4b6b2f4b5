//! Resampling of planes of floating-point numbers.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::taps::Taps;
use crate::instructions;

/// Rows that are narrowed together: a vector has the same column of each.
const TOGETHER: usize = 8;
/// The least rows for one task, to limit its overhead.
const ROWS: usize = 8;

/// Applies `rows` and `columns` to one plane `[rows.input_len, columns.input_len]` of f32. Sums along a
/// row are in f64.
pub(crate) fn resample(plane: &[f32], rows: &Taps, columns: &Taps) -> Vec<f32> {
    debug_assert_eq!(plane.len(), rows.input_len * columns.input_len);
    resample_values(|place| plane[place], rows, columns)
}

/// As [`resample`], for a plane whose values `value` gives by their index.
pub(crate) fn resample_values(
    value: impl Fn(usize) -> f32 + Sync,
    rows: &Taps,
    columns: &Taps,
) -> Vec<f32> {
    let width = columns.output_len();
    let arch = instructions::arch();
    let first = rows.runs.iter().map(|run| run.start).min().unwrap_or(0);
    let end = rows.runs.iter().map(|run| run.start + run.weights.len()).max().unwrap_or(0);
    let mut narrow = vec![0.0; (end - first) * width];
    if narrow.is_empty() {
        return vec![0.0; rows.output_len() * width];
    }
    let groups = narrow.par_chunks_mut(TOGETHER * width).enumerate();
    groups.for_each_init(Vec::new, |columns_of_rows, (number, target)| {
        let first = first + number * TOGETHER;
        arch.dispatch(Narrow { value: &value, first, columns, columns_of_rows, target });
    });
    let mut out = vec![0.0; rows.output_len() * width];
    let lines = rows.runs.par_iter().zip(out.par_chunks_exact_mut(width));
    lines.with_min_len(ROWS).for_each(|(run, target)| {
        let source = &narrow[(run.start - first) * width..];
        arch.dispatch(Column { source, weights: &run.weights, target });
    });
    out
}

/// Narrows up to [`TOGETHER`] rows.
struct Narrow<'a, F> {
    value: &'a F,
    first: usize,
    columns: &'a Taps,
    /// Memory for the rows, column by column.
    columns_of_rows: &'a mut Vec<[f32; TOGETHER]>,
    target: &'a mut [f32],
}

impl<F: Fn(usize) -> f32> WithSimd for Narrow<'_, F> {
    type Output = ();

    // The compiler turns the loops into vector instructions.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { value, first, columns, columns_of_rows, target } = self;
        let (width_in, width) = (columns.input_len, columns.output_len());
        columns_of_rows.resize(width_in, [0.0; TOGETHER]);
        for r in 0..target.len() / width {
            let start = (first + r) * width_in;
            let column = columns_of_rows.iter_mut().enumerate();
            column.for_each(|(x, column)| column[r] = value(start + x));
        }
        for (place, run) in columns.runs.iter().enumerate() {
            let mut sums = [0.0; TOGETHER];
            for (column, &w) in columns_of_rows[run.start..].iter().zip(&run.weights) {
                for r in 0..TOGETHER {
                    sums[r] += f64::from(column[r]) * w;
                }
            }
            let column = target[place..].iter_mut().step_by(width);
            column.zip(sums).for_each(|(value, sum)| *value = sum as f32);
        }
    }
}

/// Computes one output row from narrow rows.
struct Column<'a> {
    source: &'a [f32],
    weights: &'a [f64],
    target: &'a mut [f32],
}

impl WithSimd for Column<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { source, weights, target } = self;
        for (row, &weight) in source.chunks_exact(target.len()).zip(weights) {
            let weight = weight as f32;
            target.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}
