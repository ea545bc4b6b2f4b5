//! Resampling of planes of floating-point numbers.

use rayon::prelude::*;

use super::taps::Taps;

/// Applies `rows` and `columns` to one plane `[rows.input_len, columns.input_len]` of f32.
pub(crate) fn resample(plane: &[f32], rows: &Taps, columns: &Taps) -> Vec<f32> {
    let (width_in, width) = (columns.input_len, columns.output_len());
    debug_assert_eq!(plane.len(), rows.input_len * width_in);
    // The least rows for one task, to limit its overhead.
    const ROWS: usize = 8;
    let mut narrow = vec![0.0; rows.input_len * width];
    let lines = plane.par_chunks_exact(width_in).zip(narrow.par_chunks_exact_mut(width));
    lines.with_min_len(ROWS).for_each(|(source, target)| {
        for (run, value) in columns.runs.iter().zip(target) {
            let window = &source[run.start..run.start + run.weights.len()];
            *value =
                window.iter().zip(&run.weights).map(|(&x, w)| f64::from(x) * w).sum::<f64>() as f32;
        }
    });
    let mut out = vec![0.0; rows.output_len() * width];
    let lines = rows.runs.par_iter().zip(out.par_chunks_exact_mut(width));
    lines.with_min_len(ROWS).for_each(|(run, target)| {
        for (source, &weight) in narrow[run.start * width..].chunks_exact(width).zip(&run.weights) {
            let weight = weight as f32;
            target.iter_mut().zip(source).for_each(|(t, s)| *t += weight * s);
        }
    });
    out
}
