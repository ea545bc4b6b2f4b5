//! Separable linear resampling: every resize, upsampling and blur of this crate is a pair of
//! [`Taps`], one for the rows and one for the columns.
//!
//! An output sample is a weighted sum of a run of input samples, and the weights depend on the axis
//! alone. So one type serves PIL's antialiased image resizing, torch's interpolation of score maps
//! and the Gaussian blur, and a chain of them along an axis collapses into one ([`Taps::then`]).

use crate::names::named;
use std::f64::consts::PI;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The kernel with which images are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The nearest sample.
    Nearest,
    /// The mean of the covered samples.
    Box,
    /// Triangle of radius 1.
    Bilinear,
    /// Cubic of radius 2 (`a = -0.5` with antialiasing as in PIL, `-0.75` without as in torch).
    Bicubic,
    /// Windowed sinc of radius 3.
    Lanczos,
}

named!(
    Filter,
    "filter",
    [
        ("nearest", Filter::Nearest),
        ("box", Filter::Box),
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("lanczos", Filter::Lanczos)
    ]
);

impl Filter {
    fn radius(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(x, -0.5),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// How a blur continues a map beyond its border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Border {
    /// `c b a | a b c | c b a`: mirrored, the edge sample repeated (scipy's `reflect`, numpy's
    /// `symmetric`).
    EdgeRepeated,
    /// `c b | a b c | b a`: mirrored about the edge sample, which is not repeated (torch's, kornia's
    /// and numpy's `reflect`).
    EdgeNotRepeated,
}

named!(
    Border,
    "border",
    [("edge-repeated", Border::EdgeRepeated), ("edge-not-repeated", Border::EdgeNotRepeated)]
);

impl Border {
    /// The index of the sample for position `i`, which may be outside an axis of `len` samples.
    pub(crate) fn source(self, i: i64, len: usize) -> usize {
        let n = len as i64;
        let mirrored = match self {
            Self::EdgeRepeated => {
                let i = i.rem_euclid(2 * n);
                if i < n { i } else { 2 * n - 1 - i }
            }
            Self::EdgeNotRepeated if n == 1 => 0,
            Self::EdgeNotRepeated => {
                let i = i.rem_euclid(2 * n - 2);
                if i < n { i } else { 2 * n - 2 - i }
            }
        };
        mirrored as usize
    }
}

/// The weights of one axis: output sample `o` is `sum_k weights(o)[k] * input[start(o) + k]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taps {
    input_len: usize,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, PartialEq)]
struct Run {
    start: usize,
    weights: Vec<f64>,
}

impl Taps {
    /// Resizing by an antialiased filter, as PIL and torchvision (`antialias=True`) do it: when
    /// shrinking, the kernel is stretched over the samples that an output sample covers.
    pub fn antialiased(filter: Filter, input_len: usize, output_len: usize) -> Self {
        if filter == Filter::Nearest {
            return Self::nearest_center(input_len, output_len);
        }
        let scale = input_len as f64 / output_len as f64;
        let stretch = scale.max(1.0);
        let radius = filter.radius() * stretch;
        let runs = (0..output_len).map(|o| {
            let center = (o as f64 + 0.5) * scale;
            // Truncation toward zero and the half sample are PIL's; they decide which samples count.
            let start = (center - radius + 0.5).max(0.0) as usize;
            let end = ((center + radius + 0.5) as usize).min(input_len);
            let mut weights: Vec<f64> = (start..end)
                .map(|i| filter.weight((i as f64 - center + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            Run { start, weights }
        });
        Self { input_len, runs: runs.collect() }
    }

    /// Interpolation without antialiasing, as torch's `interpolate(align_corners=False)` does it.
    /// Filters that torch does not have without antialiasing fall back to the antialiased ones.
    pub fn interpolating(filter: Filter, input_len: usize, output_len: usize) -> Self {
        let scale = input_len as f64 / output_len as f64;
        let last = input_len as i64 - 1;
        let runs = (0..output_len).map(|o| {
            let center = (o as f64 + 0.5) * scale - 0.5;
            let cell = center.floor();
            let offset = center - cell;
            let cell = cell as i64;
            let taps: Vec<(i64, f64)> = match filter {
                Filter::Bicubic => {
                    (-1..=2).map(|k| (cell + k, cubic(offset - k as f64, -0.75))).collect()
                }
                _ => vec![(cell, 1.0 - offset), (cell + 1, offset)],
            };
            Run::gather(taps.into_iter().map(|(i, w)| (i.clamp(0, last) as usize, w)))
        });
        match filter {
            Filter::Bilinear | Filter::Bicubic => Self { input_len, runs: runs.collect() },
            _ => Self::antialiased(filter, input_len, output_len),
        }
    }

    /// Linear interpolation at any positions of an axis, each multiplied by a factor: `samples` are
    /// pairs of position and factor. The first sample is at position 0. Positions beyond an end
    /// take its sample.
    pub fn at(input_len: usize, samples: impl Iterator<Item = (f64, f64)>) -> Self {
        let last = input_len - 1;
        let runs = samples.map(|(place, factor)| {
            let place = place.clamp(0.0, last as f64);
            let cell = place as usize;
            let offset = place - cell as f64;
            let taps = [(cell, 1.0 - offset), ((cell + 1).min(last), offset)];
            Run::gather(taps.into_iter().map(|(i, w)| (i, w * factor)))
        });
        Self { input_len, runs: runs.collect() }
    }

    /// The nearest sample by center, as PIL finds it (it adds up the step, rounding each time).
    fn nearest_center(input_len: usize, output_len: usize) -> Self {
        let step = input_len as f64 / output_len as f64;
        let runs = std::iter::successors(Some(step * 0.5), |position| Some(position + step))
            .take(output_len)
            .map(|position| Run {
                start: (position as usize).min(input_len - 1),
                weights: vec![1.0],
            });
        Self { input_len, runs: runs.collect() }
    }

    /// Gaussian blur with standard deviation `sigma` in samples, truncated at four standard deviations.
    pub fn gaussian(sigma: f64, border: Border, len: usize) -> Self {
        let radius = (4.0 * sigma + 0.5) as i64;
        let kernel: Vec<f64> =
            (-radius..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
        let sum: f64 = kernel.iter().sum();
        let runs = (0..len as i64).map(|o| {
            Run::gather(
                (-radius..=radius)
                    .zip(&kernel)
                    .map(|(k, weight)| (border.source(o + k, len), weight / sum)),
            )
        });
        Self { input_len: len, runs: runs.collect() }
    }

    /// The taps that equal `self` followed by `next`.
    pub fn then(&self, next: &Self) -> Self {
        debug_assert_eq!(self.output_len(), next.input_len);
        let runs = next.runs.iter().map(|outer| {
            Run::gather(outer.weights.iter().zip(&self.runs[outer.start..]).flat_map(
                |(&outer_weight, inner)| {
                    inner
                        .weights
                        .iter()
                        .enumerate()
                        .map(move |(k, weight)| (inner.start + k, outer_weight * weight))
                },
            ))
        });
        Self { input_len: self.input_len, runs: runs.collect() }
    }

    pub fn output_len(&self) -> usize {
        self.runs.len()
    }

    /// The weights as a row-major matrix `[output_len, input_len]`.
    pub fn matrix(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.output_len() * self.input_len];
        for (run, row) in self.runs.iter().zip(matrix.chunks_exact_mut(self.input_len)) {
            let row = &mut row[run.start..run.start + run.weights.len()];
            row.iter_mut().zip(&run.weights).for_each(|(target, &weight)| *target = weight as f32);
        }
        matrix
    }

    /// PIL's fixed-point weights: 22 fractional bits, rounded half away from zero.
    fn fixed_point(&self) -> Vec<(usize, Vec<i32>)> {
        self.runs
            .iter()
            .map(|run| {
                let weights = run.weights.iter().map(|w| (w * FIXED_ONE).round() as i32);
                (run.start, weights.collect())
            })
            .collect()
    }
}

impl Run {
    /// A dense run from weights in any order. Weights of the same sample are added.
    fn gather(taps: impl Iterator<Item = (usize, f64)> + Clone) -> Self {
        let start = taps.clone().map(|(i, _)| i).min().unwrap_or(0);
        let end = taps.clone().map(|(i, _)| i + 1).max().unwrap_or(0);
        let mut weights = vec![0.0; end - start];
        for (i, weight) in taps {
            weights[i - start] += weight;
        }
        Self { start, weights }
    }
}

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

const FIXED_BITS: u32 = 22;
const FIXED_ONE: f64 = (1 << FIXED_BITS) as f64;

/// Applies `rows` and `columns` to an interleaved picture of `C` channels of 8 bits, in PIL's own
/// arithmetic: fixed point, the columns first, rounded to 8 bits between the passes, and without a
/// pass if the size stays the same.
pub(crate) fn resample_u8<const C: usize>(pixels: &[u8], rows: &Taps, columns: &Taps) -> Vec<u8> {
    let (width_in, width) = (columns.input_len, columns.output_len());
    debug_assert_eq!(pixels.len(), rows.input_len * width_in * C);

    let narrow = if width_in == width {
        pixels.to_vec()
    } else {
        let runs = columns.fixed_point();
        let mut narrow = vec![0; rows.input_len * width * C];
        narrow.par_chunks_exact_mut(width * C).zip(pixels.par_chunks_exact(width_in * C)).for_each(
            |(target, source)| {
                for ((start, weights), pixel) in runs.iter().zip(target.chunks_exact_mut(C)) {
                    let mut sum = [ROUNDING; C];
                    for (sample, &w) in source[start * C..].chunks_exact(C).zip(weights) {
                        (0..C).for_each(|c| sum[c] += i32::from(sample[c]) * w);
                    }
                    (0..C).for_each(|c| pixel[c] = from_fixed(sum[c]));
                }
            },
        );
        narrow
    };
    if rows.input_len == rows.output_len() {
        return narrow;
    }

    let stride = width * C;
    let mut out = vec![0; rows.output_len() * stride];
    let runs = rows.fixed_point();
    out.par_chunks_exact_mut(stride).zip(&runs).for_each_init(
        || vec![0_i32; stride],
        |sums, (target, (start, weights))| {
            sums.fill(ROUNDING);
            for (source, &w) in narrow[start * stride..].chunks_exact(stride).zip(weights) {
                sums.iter_mut().zip(source).for_each(|(sum, &x)| *sum += i32::from(x) * w);
            }
            target.iter_mut().zip(sums.iter()).for_each(|(t, &sum)| *t = from_fixed(sum));
        },
    );
    out
}

const ROUNDING: i32 = 1 << (FIXED_BITS - 1);

fn from_fixed(sum: i32) -> u8 {
    (sum >> FIXED_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one output sample at a time, in f64.
    fn apply_naively(taps: &Taps, input: &[f64]) -> Vec<f64> {
        let sample = |run: &Run| {
            run.weights.iter().enumerate().map(|(k, w)| w * input[run.start + k]).sum::<f64>()
        };
        taps.runs.iter().map(sample).collect()
    }

    #[test]
    fn borders_mirror_as_named_however_far_out() {
        let letters =
            |border: Border| -> Vec<usize> { (-4..7).map(|i| border.source(i, 3)).collect() };
        assert_eq!(letters(Border::EdgeRepeated), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0][..].to_vec());
        assert_eq!(letters(Border::EdgeNotRepeated), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(Border::EdgeNotRepeated.source(-9, 1), 0);
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_stay_inside(
            input in 1_usize..90, output in 1_usize..90, sigma in 0.3_f64..6.0,
        ) {
            use Filter::*;
            let all = [Nearest, Box, Bilinear, Bicubic, Lanczos]
                .map(|f| Taps::antialiased(f, input, output)).into_iter()
                .chain([Bilinear, Bicubic].map(|f| Taps::interpolating(f, input, output)))
                .chain([Border::EdgeRepeated, Border::EdgeNotRepeated]
                    .map(|b| Taps::gaussian(sigma, b, input)));
            for taps in all {
                for run in &taps.runs {
                    prop_assert!((run.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    prop_assert!(run.start + run.weights.len() <= input);
                }
            }
        }

        #[test]
        fn a_composition_is_one_step_after_the_other(
            input in 1_usize..30, output in 1_usize..60, sigma in 0.3_f64..5.0,
        ) {
            let first = Taps::interpolating(Filter::Bicubic, input, output);
            let second = Taps::gaussian(sigma, Border::EdgeRepeated, output);
            let signal: Vec<f64> = (0..input).map(|i| ((i * i * 7) % 23) as f64 - 11.0).collect();
            let apart = apply_naively(&second, &apply_naively(&first, &signal));
            let together = apply_naively(&first.then(&second), &signal);
            for (a, b) in apart.iter().zip(&together) {
                prop_assert!((a - b).abs() < 1e-10);
            }
        }

        #[test]
        fn a_plane_is_its_columns_then_its_rows(h in 1_usize..12, w in 1_usize..12) {
            let rows = Taps::interpolating(Filter::Bilinear, h, 9);
            let columns = Taps::gaussian(1.5, Border::EdgeNotRepeated, w);
            let plane: Vec<f32> = (0..h * w).map(|i| ((i * 31) % 17) as f32).collect();
            let fast = resample(&plane, &rows, &columns);
            let narrow: Vec<Vec<f64>> = plane.chunks(w)
                .map(|row| apply_naively(&columns, &row.iter().map(|&x| x.into()).collect::<Vec<_>>()))
                .collect();
            for x in 0..w {
                let column: Vec<f64> = narrow.iter().map(|row| row[x]).collect();
                for (y, expected) in apply_naively(&rows, &column).into_iter().enumerate() {
                    prop_assert!((f64::from(fast[y * w + x]) - expected).abs() < 1e-4);
                }
            }
        }
    }
}
