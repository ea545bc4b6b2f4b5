//! The weights of one axis.

use std::ops::Range;

use super::border::Border;
use super::filter::{Filter, cubic};

/// The weights of one axis: output sample `o` is `sum_k weights(o)[k] * input[start(o) + k]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taps {
    pub(super) input_len: usize,
    pub(super) runs: Vec<Run>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) weights: Vec<f64>,
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

    /// The taps of some of the output samples.
    pub fn part(mut self, outputs: Range<usize>) -> Self {
        self.runs = self.runs.drain(outputs).collect();
        self
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
