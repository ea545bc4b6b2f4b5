//! A histogram of pixel scores, for more pixels than fit into memory.

use crate::error::{Error, Result};
use crate::ordered::{self, key};

/// Counts pixels by their scores, in bins with a relative width of about 1/2,000.
pub(crate) struct PixelHistogram {
    counts: Vec<u64>,
    total: u64,
}

/// The leading bits of a score that select its bin: sign, exponent and 11 bits of the mantissa.
const BITS: u32 = 20;

impl PixelHistogram {
    pub fn new() -> Self {
        Self { counts: vec![0; 1 << BITS], total: 0 }
    }

    /// Adds scores, which must be finite.
    pub fn add(&mut self, scores: &[f32]) {
        scores.iter().for_each(|&score| self.counts[bin(score)] += 1);
        self.total += scores.len() as u64;
    }

    /// The lowest start of a bin that at most this share of the pixels reach.
    pub fn threshold(&self, rate: f64) -> Result<f32> {
        let mut left = (rate * self.total as f64).floor() as u64;
        for (bin, &count) in self.counts.iter().enumerate().rev() {
            match left.checked_sub(count) {
                Some(rest) => left = rest,
                None => return Ok(begin(bin + 1)),
            }
        }
        Err(Error::TooFewImages { count: 0 })
    }
}

/// The bin of a score, which rises with the score.
fn bin(score: f32) -> usize {
    (key(score) >> (32 - BITS)) as usize
}

/// The lowest score of a bin.
fn begin(bin: usize) -> f32 {
    ordered::score((bin as u32) << (32 - BITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decision::pixels::tests::sorted_threshold;

    #[test]
    fn no_pixels_have_no_threshold() {
        assert!(matches!(PixelHistogram::new().threshold(0.5), Err(Error::TooFewImages { .. })));
    }

    proptest! {
        #[test]
        fn close_above_the_exact_threshold(
            pixels in prop::collection::vec(-3e4f32..3e4, 1..60),
            rate in 0.01f64..0.99,
        ) {
            let mut histogram = PixelHistogram::new();
            pixels.chunks(7).for_each(|part| histogram.add(part));
            let found = histogram.threshold(rate).unwrap();
            let exact = sorted_threshold(pixels.clone(), rate);
            let marked = pixels.iter().filter(|p| **p >= found).count() as f64;
            prop_assert!(marked <= rate * pixels.len() as f64);
            // `exact` is the next float above a score, and `found` may be this score itself.
            prop_assert!(found >= exact.next_down(), "{} {}", found, exact);
            prop_assert!(f64::from(found - exact) <= 5e-4 * f64::from(exact.abs()) + 1e-30);
        }
    }
}
