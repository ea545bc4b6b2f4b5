//! Normalization of image scores to a common range.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The normalization of image scores to a common range, so that they can be compared. It keeps their
/// order, except for clamped scores. Maps stay distances; use [`apply`](Self::apply) to normalize
/// their values, too.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum ScoreNormalization {
    /// The distance itself, as in the paper.
    None,
    /// `(score - min) / (max - min)`. xiahaifeng uses the extremes of all maps of the test set.
    MinMax {
        /// The score that becomes 0.
        min: f32,
        /// The score that becomes 1.
        max: f32,
    },
    /// `(score - threshold) / (max - min) + 0.5`, clamped to `[0, 1]`: the threshold becomes 0.5
    /// (anomalib).
    AroundThreshold {
        /// The score that becomes 0.5.
        threshold: f32,
        /// The smallest score of the images from which the normalization was computed.
        min: f32,
        /// The largest score of these images.
        max: f32,
    },
}

impl ScoreNormalization {
    /// The normalized score.
    pub fn apply(&self, score: f32) -> f32 {
        match *self {
            Self::None => score,
            Self::MinMax { min, max } => (score - min) / (max - min),
            Self::AroundThreshold { threshold, min, max } => {
                ((score - threshold) / (max - min) + 0.5).clamp(0.0, 1.0)
            }
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let fine = match *self {
            Self::None => true,
            Self::MinMax { min, max } => (max - min).is_finite() && min < max,
            Self::AroundThreshold { threshold, min, max } => {
                threshold.is_finite() && (max - min).is_finite() && min < max
            }
        };
        if fine {
            return Ok(());
        }
        let reason = format!("needs finite numbers and min below max, got {self:?}");
        Err(Error::config("normalization", reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_out_where_the_names_say() {
        let min_max = ScoreNormalization::MinMax { min: 10.0, max: 30.0 };
        assert_eq!([10.0, 20.0, 30.0, 50.0].map(|s| min_max.apply(s)), [0.0, 0.5, 1.0, 2.0]);
        let threshold =
            ScoreNormalization::AroundThreshold { threshold: 15.0, min: 10.0, max: 30.0 };
        assert_eq!([15.0, 25.0, 99.0, -9.0].map(|s| threshold.apply(s)), [0.5, 1.0, 1.0, 0.0]);
        assert_eq!(ScoreNormalization::None.apply(7.5), 7.5);
    }

    #[test]
    fn ranges_that_divide_by_zero_are_refused() {
        assert!(ScoreNormalization::MinMax { min: 1.0, max: 1.0 }.validate().is_err());
        assert!(ScoreNormalization::MinMax { min: f32::NAN, max: 1.0 }.validate().is_err());
        let nan = ScoreNormalization::AroundThreshold { threshold: f32::NAN, min: 0.0, max: 1.0 };
        assert!(nan.validate().is_err());
    }
}
