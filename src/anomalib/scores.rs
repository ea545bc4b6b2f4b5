//! anomalib's post-processing: thresholds and normalized scores.

use super::settings::Settings;
use crate::backbone::Checkpoint;
use crate::decision::Thresholds;
use crate::scoring::ScoreNormalization;

/// anomalib's thresholds, and the score ranges of its normalization. `None` for missing values.
///
/// anomalib normalizes a score to `(score - threshold) / (max - min) + 0.5`, clamped to `[0, 1]`. An
/// image or pixel is defective if this is **above** one minus the sensitivity. If one of the two
/// thresholds is missing, anomalib uses the other one; if both are missing, the middle of the range.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AnomalibScores {
    /// The threshold of the image score.
    pub image_threshold: Option<f32>,
    /// The threshold of the anomaly map.
    pub pixel_threshold: Option<f32>,
    /// Smallest and largest image score.
    pub image_range: Option<[f32; 2]>,
    /// Smallest and largest value of the anomaly maps.
    pub pixel_range: Option<[f32; 2]>,
    /// Sensitivity for images, 0 to 1. Default: 0.5.
    pub image_sensitivity: f32,
    /// Sensitivity for pixels, 0 to 1. Default: 0.5.
    pub pixel_sensitivity: f32,
    /// Whether scores are normalized. Default: `true`.
    pub normalizes: bool,
    /// Whether scores are compared with thresholds. Default: `true`.
    pub decides: bool,
    /// Whether one threshold replaces the other if that is missing. Default: `true`.
    pub matches: bool,
}

impl AnomalibScores {
    /// Reads the tensors of the post-processor. `prefix`: the prefix of the model's tensors, which are
    /// stored next to them.
    pub(super) fn new(tensors: &Checkpoint, prefix: &str, settings: &Settings) -> Self {
        let beside = prefix.strip_suffix("model.").unwrap_or(prefix);
        let value = |name: &str| {
            let value = tensors.scalar(&format!("{beside}post_processor.{name}"));
            value.filter(|value| value.is_finite())
        };
        let range = |min, max| Some([value(min)?, value(max)?]);
        Self {
            image_threshold: value("_image_threshold"),
            pixel_threshold: value("_pixel_threshold"),
            image_range: range("image_min", "image_max"),
            pixel_range: range("pixel_min", "pixel_max"),
            image_sensitivity: settings.sensitivities[0],
            pixel_sensitivity: settings.sensitivities[1],
            normalizes: settings.normalizes,
            decides: settings.decides,
            matches: settings.matches,
        }
    }

    /// anomalib's normalization of image scores. [`ScoreNormalization::None`] if anomalib does not
    /// normalize.
    pub fn normalization(&self) -> ScoreNormalization {
        let threshold =
            self.threshold(self.image_threshold, self.pixel_threshold, self.image_range);
        Self::around(threshold, self.usable(self.image_range))
    }

    /// anomalib's normalization of anomaly maps. Detectors do not use it: their maps are distances.
    pub fn pixel_normalization(&self) -> ScoreNormalization {
        let threshold =
            self.threshold(self.pixel_threshold, self.image_threshold, self.pixel_range);
        Self::around(threshold, self.usable(self.pixel_range))
    }

    /// anomalib's thresholds, converted to distances; `None` if anomalib does not use thresholds, or
    /// does not normalize scores.
    pub fn thresholds(&self) -> Option<Thresholds> {
        let image = Self::limit(self.normalization(), self.image_sensitivity);
        let decision = Thresholds::fixed(image.filter(|_| self.decides)?);
        Some(match Self::limit(self.pixel_normalization(), self.pixel_sensitivity) {
            Some(pixel) => decision.with_pixel_threshold(pixel),
            None => decision,
        })
    }

    fn threshold(
        &self,
        own: Option<f32>,
        other: Option<f32>,
        range: Option<[f32; 2]>,
    ) -> Option<f32> {
        let middle = range.map(|[min, max]| (max + min) / 2.0);
        own.or(other.filter(|_| self.matches)).or(middle)
    }

    fn usable(&self, range: Option<[f32; 2]>) -> Option<[f32; 2]> {
        range.filter(|[min, max]| self.normalizes && min < max && (max - min).is_finite())
    }

    fn around(threshold: Option<f32>, range: Option<[f32; 2]>) -> ScoreNormalization {
        match (threshold, range) {
            (Some(threshold), Some([min, max])) => {
                ScoreNormalization::AroundThreshold { threshold, min, max }
            }
            _ => ScoreNormalization::None,
        }
    }

    /// The smallest distance that counts as defective.
    fn limit(normalization: ScoreNormalization, sensitivity: f32) -> Option<f32> {
        let ScoreNormalization::AroundThreshold { threshold, min, max } = normalization else {
            return None;
        };
        // With a sensitivity of 0, nothing is defective, because normalized scores are at most 1.
        let limit = threshold + (0.5 - sensitivity) * (max - min);
        (sensitivity > 0.0 && limit.is_finite()).then(|| limit.next_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> AnomalibScores {
        AnomalibScores {
            image_threshold: Some(12.0),
            pixel_threshold: Some(8.0),
            image_range: Some([4.0, 20.0]),
            pixel_range: Some([1.0, 21.0]),
            image_sensitivity: 0.5,
            pixel_sensitivity: 0.5,
            normalizes: true,
            decides: true,
            matches: true,
        }
    }

    #[test]
    fn the_threshold_itself_is_good() {
        let decision = scores().thresholds().unwrap();
        assert!(decision.image > 12.0 && decision.image < 12.00001);
        assert!(decision.pixel.is_some_and(|t| t > 8.0 && t < 8.00001));
        assert_eq!(scores().normalization().apply(12.0), 0.5);
        assert_eq!(scores().pixel_normalization().apply(18.0), 1.0);
    }

    /// The reference is anomalib's own comparison.
    #[test]
    fn a_sensitivity_moves_the_threshold() {
        for sensitivity in [0.01_f32, 0.25, 0.5, 0.8, 1.0] {
            let scores = AnomalibScores { image_sensitivity: sensitivity, ..scores() };
            let threshold = scores.thresholds().unwrap().image;
            for score in (0..120).map(|i| i as f32 * 0.25 + 0.01) {
                let expected = scores.normalization().apply(score) > 1.0 - sensitivity;
                assert_eq!(score >= threshold, expected, "{score} at {sensitivity}");
            }
        }
        assert!(AnomalibScores { image_sensitivity: 0.0, ..scores() }.thresholds().is_none());
    }

    #[test]
    fn a_threshold_that_is_lacking_is_replaced() {
        let threshold = |scores: AnomalibScores| match scores.normalization() {
            ScoreNormalization::AroundThreshold { threshold, .. } => threshold,
            other => panic!("{other:?}"),
        };
        let without = AnomalibScores { image_threshold: None, ..scores() };
        assert_eq!(threshold(without), 8.0, "the other one");
        assert_eq!(threshold(AnomalibScores { matches: false, ..without }), 12.0, "the middle");
        assert_eq!(threshold(AnomalibScores { pixel_threshold: None, ..without }), 12.0);
    }

    #[test]
    fn what_is_not_normalised_is_not_decided() {
        for scores in [
            AnomalibScores { normalizes: false, ..scores() },
            AnomalibScores { image_range: None, ..scores() },
            AnomalibScores { image_range: Some([3.0, 3.0]), ..scores() },
        ] {
            assert_eq!(scores.normalization(), ScoreNormalization::None);
            assert!(scores.thresholds().is_none());
        }
        let undecided = AnomalibScores { decides: false, ..scores() };
        assert!(undecided.thresholds().is_none());
        assert_ne!(undecided.normalization(), ScoreNormalization::None);
        let without = AnomalibScores { pixel_range: None, ..scores() };
        assert_eq!(without.thresholds().unwrap().pixel, None);
    }
}
