//! PIL's arithmetic for pictures of 8 bits: weights of 22 fractional bits, and sums rounded to 8 bits.

use super::taps::Taps;

const BITS: u32 = 22;
/// Added to a sum, so that it is rounded to the nearest integer.
pub const ROUNDING: i32 = 1 << (BITS - 1);

/// Rows of a picture that are processed together.
pub const TOGETHER: usize = 4;

/// A run of input samples with their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedRun {
    pub start: usize,
    pub weights: Vec<i32>,
}

impl FixedRun {
    /// The weights, rounded half away from zero, without most zeros at the ends. No run starts before an
    /// earlier one if those of the taps do not, as in a resize.
    pub fn all(taps: &Taps) -> Vec<Self> {
        let run = |(start, weights): (usize, &[f64])| {
            let weights =
                weights.iter().map(|weight| (weight * f64::from(1 << BITS)).round() as i32);
            let weights: Vec<i32> = weights.collect();
            let first = weights.iter().position(|&w| w != 0).unwrap_or(0);
            let end = weights.iter().rposition(|&w| w != 0).map_or(first, |last| last + 1);
            Self { start: start + first, weights: weights[first..end].to_vec() }
        };
        let mut runs: Vec<Self> = taps.runs.iter().map(|r| run((r.start, &r.weights))).collect();
        // A run that has lost zeros may start after the next one.
        let mut latest = usize::MAX;
        for run in runs.iter_mut().rev() {
            let zeros = run.start.saturating_sub(latest);
            run.weights.splice(..0, std::iter::repeat_n(0, zeros));
            run.start -= zeros;
            latest = run.start;
        }
        runs
    }

    /// The end of the samples.
    pub fn end(&self) -> usize {
        self.start + self.weights.len()
    }
}

/// The 8-bit value of a sum that includes [`ROUNDING`].
#[inline(always)]
pub fn from_fixed(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}
