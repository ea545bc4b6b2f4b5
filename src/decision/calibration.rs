//! Thresholds from good images alone: split-conformal calibration (Vovk, Gammerman, Shafer 2005).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::host::all_finite;
use crate::names::builders;

/// The allowed rates of false alarms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CalibrationConfig {
    /// The share of good images that may be called defective, in `(0, 1)`. Default: 0.05. A rate
    /// needs at least `1 / rate - 1` images: 19 for 0.05, 99 for 0.01.
    pub image_false_alarm_rate: f64,
    /// The share of good images' pixels that may be marked, in `(0, 1)`. Default: 0.001.
    pub pixel_false_alarm_rate: f64,
}

builders!(CalibrationConfig {
    with_image_false_alarm_rate: image_false_alarm_rate, f64;
    with_pixel_false_alarm_rate: pixel_false_alarm_rate, f64;
});

impl Default for CalibrationConfig {
    fn default() -> Self {
        Self { image_false_alarm_rate: 0.05, pixel_false_alarm_rate: 0.001 }
    }
}

impl CalibrationConfig {
    /// Checks the rates.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for one that is not above 0 and below 1.
    pub fn validate(&self) -> Result<()> {
        check_rate("image_false_alarm_rate", self.image_false_alarm_rate)?;
        check_rate("pixel_false_alarm_rate", self.pixel_false_alarm_rate)
    }

    /// Checks the rates, and that `count` good images are enough to promise them.
    pub(crate) fn require_images(&self, count: usize) -> Result<()> {
        self.validate()?;
        check_count(count)?;
        alarms(self.image_false_alarm_rate, count).map(drop)
    }
}

pub(super) fn check_rate(field: &'static str, rate: f64) -> Result<()> {
    if rate > 0.0 && rate < 1.0 {
        return Ok(());
    }
    let reason = format!("must be above 0 and below 1, is {rate}");
    Err(Error::config(field, reason))
}

fn check_count(count: usize) -> Result<()> {
    if (1..=MAX_IMAGES).contains(&count) {
        return Ok(());
    }
    let reason = format!("needs the scores of 1 to {MAX_IMAGES} good images, got {count}");
    Err(Error::config("calibration", reason))
}

/// The number of good images that a calibration needs at least, to guarantee a false alarm rate: 19 for 0.05,
/// 99 for 0.01.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a rate that is not above 0 and below 1.
///
/// ```
/// assert_eq!(padim::decision::images_needed(0.01)?, 99);
/// # Ok::<(), padim::Error>(())
/// ```
pub fn images_needed(rate: f64) -> Result<usize> {
    check_rate("false_alarm_rate", rate)?;
    let enough = |count: usize| (rate * (count as f64 + 1.0) * (1.0 + f64::EPSILON)).floor() >= 1.0;
    // The quotient can be off by rounding in either direction.
    let near = (1.0 / rate - 1.0).ceil() as usize;
    Ok((near.saturating_sub(2)..).find(|&count| enough(count)).unwrap_or(near))
}

/// How many of `count` calibration images may reach the threshold, so that at most a share `rate`
/// of new good images does.
fn alarms(rate: f64, count: usize) -> Result<usize> {
    check_rate("image_false_alarm_rate", rate)?;
    let alarms = (rate * (count + 1) as f64 * (1.0 + f64::EPSILON)).floor() as usize;
    if alarms > 0 {
        return Ok(alarms);
    }
    let needed = images_needed(rate)?;
    let reason = format!(
        "{rate} needs at least {needed} good images, there are {count}; give more images, or allow \
         more false alarms"
    );
    Err(Error::config("image_false_alarm_rate", reason))
}

/// The scores of good images that the Gaussians were not fitted with.
///
/// If a new good image and these images are exchangeable (from the same production, in an order
/// that does not matter), its score has each rank among theirs with the same probability. The
/// promises rest only on that, not on the distribution of the scores. They hold on average over
/// calibrations: with `n` images, the rate of a single calibration varies by about
/// `sqrt(rate / n)`.
///
/// ```
/// use padim::decision::Calibration;
///
/// let good: Vec<f32> = (0..99).map(|i| 10.0 + i as f32 / 10.0).collect();
/// let calibration = Calibration::new(good)?;
/// let threshold = calibration.threshold(0.05)?;
/// assert!(threshold > 19.3 && threshold < 19.5);
/// assert_eq!(calibration.p_value(25.0), 0.01); // stranger than all 99
/// assert_eq!(calibration.p_value(5.0), 1.0);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Ascending.
    scores: Vec<f32>,
    cross_fitted: bool,
}

/// More scores would only make files larger.
const MAX_IMAGES: usize = 100_000;

impl Calibration {
    /// Takes the scores of images that the detector was not fitted with.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] if a score is NaN or infinite, [`Error::InvalidConfig`] for no score or
    /// for more than 100,000.
    pub fn new(mut scores: Vec<f32>) -> Result<Self> {
        scores.sort_by(f32::total_cmp);
        let calibration = Self { scores, cross_fitted: false };
        calibration.validate()?;
        Ok(calibration)
    }

    pub(crate) fn cross_fitted(scores: Vec<f32>) -> Result<Self> {
        Ok(Self { cross_fitted: true, ..Self::new(scores)? })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_count(self.scores.len())?;
        if !all_finite(&self.scores) {
            return Err(Error::NotFinite { what: "a calibration score".into() });
        }
        if !self.scores.is_sorted() {
            return Err(Error::config("calibration", "its scores must be in ascending order"));
        }
        Ok(())
    }

    /// The scores, ascending.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// Whether each image was scored by a detector fitted with others of the same set
    /// ([`Padim::fit_calibrated`](crate::Padim::fit_calibrated)). The promised rate is then twice
    /// the requested one; in practice it is about the requested one.
    pub fn is_cross_fitted(&self) -> bool {
        self.cross_fitted
    }

    /// The conformal p-value of a score: `(1 + images with at least this score) / (1 + images)`, in
    /// `(0, 1]`. For a good image, it is at most `p` with a probability of at most `p`, for every
    /// `p`.
    pub fn p_value(&self, score: f32) -> f64 {
        let below = self.scores.partition_point(|&s| s < score);
        (1 + self.scores.len() - below) as f64 / (1 + self.scores.len()) as f64
    }

    /// The lowest threshold at which at most a share `false_alarm_rate` of good images is called
    /// defective: the lowest score with a p-value of at most that rate.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a rate outside of `(0, 1)`, or if there are too few images for
    /// the rate.
    pub fn threshold(&self, false_alarm_rate: f64) -> Result<f32> {
        let count = self.scores.len();
        let above = alarms(false_alarm_rate, count)?;
        Ok(self.scores[count - above.min(count)].next_up())
    }

    /// The percentile `q`, in `[0, 100]`, of the scores, interpolated linearly as NumPy's default.
    /// As a threshold, it calls about `100 - q` percent of the calibration images defective.
    ///
    /// Of **new** good images it calls more defective, because the highest of few scores is lower
    /// than the highest of all that will come. Above percentile 95 of 20 scores lie 9 % of new good
    /// images on average, not 5 %; of 200 scores, 5.4 %. [`threshold`](Self::threshold) keeps its
    /// promise; use a percentile only if an external rule requires it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a `q` outside of `[0, 100]`.
    ///
    /// ```
    /// use padim::Thresholds;
    /// use padim::decision::Calibration;
    ///
    /// let calibration = Calibration::new(vec![15.0, 20.0, 35.0, 40.0, 50.0])?;
    /// assert_eq!(calibration.percentile(40.0)?, 29.0);
    /// let decision = Thresholds::fixed(calibration.percentile(95.0)?);
    /// # Ok::<(), padim::Error>(())
    /// ```
    pub fn percentile(&self, q: f64) -> Result<f32> {
        if !(0.0..=100.0).contains(&q) {
            let reason = format!("must be at least 0 and at most 100, is {q}");
            return Err(Error::config("percentile", reason));
        }
        let last = self.scores.len() - 1;
        let place = q / 100.0 * last as f64;
        let below = (place.floor() as usize).min(last);
        let [low, high] = [below, last.min(below + 1)].map(|i| f64::from(self.scores[i]));
        Ok((low + (high - low) * (place - below as f64)) as f32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    #[test]
    fn too_few_images_are_told_how_many_are_needed() {
        let calibration = Calibration::new(vec![1.0; 98]).unwrap();
        let error = calibration.threshold(0.01).unwrap_err().to_string();
        assert!(error.contains("99 good images") && error.contains("98"), "{error}");
        assert!(Calibration::new(vec![1.0; 99]).unwrap().threshold(0.01).is_ok());
        for rate in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(calibration.threshold(rate).is_err());
        }
        assert!(Calibration::new(vec![]).is_err());
        assert!(Calibration::new(vec![1.0, f32::NAN]).is_err());
    }

    /// The values are `numpy.percentile`'s, of NumPy 2.
    #[test]
    fn percentiles_are_numpys() {
        let calibration = Calibration::new(vec![7.5, -1.0, 3.25, 100.0, 12.0, 0.5, 9.0]).unwrap();
        let numpy = [
            (0.0, -1.0),
            (5.0, -0.55),
            (25.0, 1.875),
            (33.3, 3.2445),
            (50.0, 7.5),
            (90.0, 47.2),
            (95.0, 73.6),
            (99.0, 94.72),
            (100.0, 100.0),
        ];
        for (q, expected) in numpy {
            assert_eq!(calibration.percentile(q).unwrap(), expected, "{q}");
        }
        assert_eq!(Calibration::new(vec![4.0]).unwrap().percentile(95.0).unwrap(), 4.0);
        let extremes = Calibration::new(vec![f32::MIN, f32::MAX]).unwrap();
        assert_eq!(extremes.percentile(50.0).unwrap(), 0.0);
        for q in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(calibration.percentile(q).is_err(), "{q}");
        }
    }

    /// The figures of the documentation: too many new scores lie above a percentile of few scores.
    #[test]
    fn percentiles_call_too_many_good_images_defective() {
        for (images, above) in [(20, 0.0929), (200, 0.0545)] {
            let (mut alarms, mut cases) = (0.0, 0.0);
            for split in 0..4000 {
                let mut random = Random::of(8, split);
                let scores = (0..images).map(|_| random.between(0.0, 1.0) as f32).collect();
                let threshold = Calibration::new(scores).unwrap().percentile(95.0).unwrap();
                for _ in 0..20 {
                    alarms += f64::from(u8::from(random.between(0.0, 1.0) as f32 >= threshold));
                    cases += 1.0;
                }
            }
            assert!((alarms / cases - above).abs() < 0.005, "{images}: {}", alarms / cases);
        }
    }

    proptest! {
        #[test]
        fn the_threshold_is_where_p_values_reach_the_rate(
            scores in prop::collection::vec((-20i8..20).prop_map(f32::from), 1..60),
            rate in 0.01f64..0.99,
        ) {
            let calibration = Calibration::new(scores).unwrap();
            match calibration.threshold(rate) {
                Ok(threshold) => {
                    prop_assert!(calibration.p_value(threshold) <= rate + 1e-12);
                    prop_assert!(calibration.p_value(threshold.next_down()) > rate - 1e-12);
                }
                Err(_) => prop_assert!(calibration.p_value(f32::MAX) > rate),
            }
        }
    }

    /// Over many calibrations, the share of false alarms is what was promised, for any distribution
    /// of the scores.
    #[test]
    fn false_alarms_are_as_rare_as_promised() {
        let exponential = |random: &mut Random| -(1.0 - random.between(0.0, 1.0)).ln() as f32;
        let coarse = |random: &mut Random| random.below(7) as f32;
        for (images, rate) in [(19, 0.05), (60, 0.1), (200, 0.01)] {
            let (mut alarms, mut tied_alarms, mut cases) = (0.0, 0.0, 0.0);
            for split in 0..2000 {
                let mut random = Random::of(7, split);
                let good = |draw: &dyn Fn(&mut Random) -> f32, random: &mut Random| {
                    let scores = (0..images).map(|_| draw(random)).collect();
                    Calibration::new(scores).unwrap().threshold(rate).unwrap()
                };
                let (threshold, tied) =
                    (good(&exponential, &mut random), good(&coarse, &mut random));
                for _ in 0..20 {
                    alarms += f64::from(u8::from(exponential(&mut random) >= threshold));
                    tied_alarms += f64::from(u8::from(coarse(&mut random) >= tied));
                    cases += 1.0;
                }
            }
            // The exact rate: floor(rate (n + 1)) of the n + 1 ranks are alarms.
            let expected = (rate * (images + 1) as f64 + 1e-9).floor() / (images + 1) as f64;
            let observed = alarms / cases;
            // Over 2000 calibrations, not over the tests: the 20 tests of each share a threshold.
            let deviation = (expected * (1.0 - expected) / 2000.0).sqrt();
            assert!((observed - expected).abs() < 3.0 * deviation, "{images} {rate}: {observed}");
            assert!(tied_alarms / cases <= rate + 3.0 * deviation);
        }
    }
}
