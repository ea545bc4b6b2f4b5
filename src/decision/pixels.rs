//! The exact threshold for pixels, in little memory.

use super::calibration::check_rate;
use crate::error::{Error, Result};

/// The highest pixel scores of good images: only as many as are needed to find the threshold.
pub(crate) struct HighestPixels {
    rate: f64,
    /// The number of scores that must be kept for the announced number of pixels.
    keep: usize,
    /// The number of pixels so far.
    seen: usize,
    /// The highest scores so far, and some lower ones that are removed later.
    scores: Vec<f32>,
    /// Scores up to this are not needed: `keep` scores already reach it.
    floor: f32,
}

impl HighestPixels {
    /// For `pixels` pixels of good images. A share `rate` of them may be marked.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a rate outside of `(0, 1)`.
    pub fn new(rate: f64, pixels: usize) -> Result<Self> {
        check_rate("pixel_false_alarm_rate", rate)?;
        let keep = (rate * pixels as f64).floor() as usize + 1;
        Ok(Self { rate, keep, seen: 0, scores: Vec::new(), floor: f32::NEG_INFINITY })
    }

    /// Adds the scores of a map, or only those inside `region`.
    pub fn add(&mut self, map: &[f32], region: Option<&[bool]>) {
        for (place, &score) in map.iter().enumerate() {
            if region.is_none_or(|region| region[place]) {
                self.seen += 1;
                if score > self.floor {
                    self.scores.push(score);
                }
            }
        }
        // Only from time to time, so that each score is selected a few times at most.
        if self.scores.len() > 2 * self.keep + map.len() {
            self.cut(self.keep);
        }
    }

    /// Keeps the `count` highest scores, and sets `floor` to the lowest of them. `count` must not
    /// exceed the number of scores.
    fn cut(&mut self, count: usize) {
        let (_, lowest, _) = self.scores.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
        self.floor = *lowest;
        self.scores.truncate(count);
    }

    /// The lowest threshold that at most a share `rate` of all pixels reach.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] if there was no pixel.
    pub fn threshold(mut self) -> Result<f32> {
        let above = (self.rate * self.seen as f64).floor() as usize;
        let count = (above + 1).min(self.scores.len());
        if count == 0 {
            return Err(Error::TooFewImages { count: 0 });
        }
        self.cut(count);
        Ok(self.floor.next_up())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reference: sorts all pixels.
    pub fn sorted_threshold(mut pixels: Vec<f32>, rate: f64) -> f32 {
        pixels.sort_by(f32::total_cmp);
        let above = (rate * pixels.len() as f64).floor() as usize;
        pixels[pixels.len() - 1 - above].next_up()
    }

    proptest! {
        #[test]
        fn so_many_pixels_are_marked(
            maps in prop::collection::vec(
                prop::collection::vec((-20i8..20).prop_map(f32::from), 7), 1..20),
            region in prop::collection::vec(any::<bool>(), 7),
            whole in any::<bool>(),
            rate in 0.01f64..0.99,
        ) {
            let inside = |place: usize| whole || region[place];
            let pixels: Vec<f32> = maps.iter().flat_map(|map| {
                map.iter().enumerate().filter(|(place, _)| inside(*place)).map(|(_, v)| *v)
            }).collect();
            let mut highest = HighestPixels::new(rate, pixels.len()).unwrap();
            for map in &maps {
                highest.add(map, (!whole).then_some(&*region));
            }
            prop_assert!(highest.scores.len() <= 2 * highest.keep + 7);
            if pixels.is_empty() {
                prop_assert!(highest.threshold().is_err());
                return Ok(());
            }
            let threshold = highest.threshold().unwrap();
            prop_assert_eq!(threshold, sorted_threshold(pixels.clone(), rate));
            let marked = |t: f32| pixels.iter().filter(|p| **p >= t).count() as f64;
            prop_assert!(marked(threshold) <= rate * pixels.len() as f64);
            prop_assert!(marked(threshold.next_down()) > rate * pixels.len() as f64 - 1.0);
        }
    }

    #[test]
    fn impossible_rates_are_refused() {
        for rate in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(HighestPixels::new(rate, 100).is_err(), "{rate}");
        }
    }
}
