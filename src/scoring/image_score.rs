//! The score of an image, computed from its map.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::map::max;
use crate::error::{Error, Result};

/// The definition of an image's score by its map.
///
/// Text form, for command lines: `max`, `max-before-blur`, `top:0.01`, `area:17.5`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ImageScore {
    /// The maximum of the final, smoothed map (as in the paper).
    MaxOfMap,
    /// The maximum of the enlarged map before smoothing.
    MaxBeforeBlur,
    /// The mean of the highest pixels of the final map. More stable than the maximum if good images
    /// have single high pixels.
    MeanOfTop {
        /// The fraction of the pixels, in `(0, 1]`. At least one pixel is used.
        share: f64,
    },
    /// The fraction of the final map's pixels at or above a threshold, in `[0, 1]`. For large, weak
    /// defects.
    AreaAbove {
        /// The threshold, a distance.
        threshold: f32,
    },
}

impl ImageScore {
    pub(super) fn validate(self) -> Result<()> {
        match self {
            Self::MeanOfTop { share } if !(share > 0.0 && share <= 1.0) => {
                let reason = format!("the share must be above 0 and at most 1, got {share}");
                Err(Error::config("image_score", reason))
            }
            Self::AreaAbove { threshold } if !threshold.is_finite() => {
                let reason = format!("the threshold must be finite, got {threshold}");
                Err(Error::config("image_score", reason))
            }
            _ => Ok(()),
        }
    }

    /// The score of a map. `values`: the pixels inside the region; for
    /// [`MaxBeforeBlur`](Self::MaxBeforeBlur), of the map before smoothing.
    pub(crate) fn of(self, values: impl Iterator<Item = f32>) -> f32 {
        match self {
            Self::MaxOfMap | Self::MaxBeforeBlur => max(values),
            Self::MeanOfTop { share } => {
                let mut values: Vec<f32> = values.collect();
                let count =
                    ((share * values.len() as f64).ceil() as usize).clamp(1, values.len().max(1));
                if count < values.len() {
                    values.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
                    values.truncate(count);
                }
                // Sort, so that rounding does not depend on the order after the selection.
                values.sort_unstable_by(f32::total_cmp);
                (values.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64) as f32
            }
            Self::AreaAbove { threshold } => {
                let (mut above, mut all) = (0_usize, 0_usize);
                for value in values {
                    all += 1;
                    above += usize::from(value >= threshold);
                }
                (above as f64 / all.max(1) as f64) as f32
            }
        }
    }
}

impl fmt::Display for ImageScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxOfMap => f.pad("max"),
            Self::MaxBeforeBlur => f.pad("max-before-blur"),
            Self::MeanOfTop { share } => write!(f, "top:{share}"),
            Self::AreaAbove { threshold } => write!(f, "area:{threshold}"),
        }
    }
}

impl FromStr for ImageScore {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match (text, text.split_once(':')) {
            ("max", _) => Some(Self::MaxOfMap),
            ("max-before-blur", _) => Some(Self::MaxBeforeBlur),
            (_, Some(("top", share))) => share.parse().ok().map(|share| Self::MeanOfTop { share }),
            (_, Some(("area", threshold))) => {
                threshold.parse().ok().map(|threshold| Self::AreaAbove { threshold })
            }
            _ => None,
        };
        let parsed = parsed.ok_or_else(|| {
            let reason =
                format!("expected max, max-before-blur, top:SHARE or area:THRESHOLD, got {text:?}");
            Error::config("image_score", reason)
        })?;
        parsed.validate().map(|()| parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let scores = [
            ImageScore::MaxOfMap,
            ImageScore::MaxBeforeBlur,
            ImageScore::MeanOfTop { share: 0.25 },
            ImageScore::AreaAbove { threshold: 17.5 },
        ];
        for score in scores {
            assert_eq!(score.to_string().parse::<ImageScore>().unwrap(), score);
        }
        for wrong in ["mean", "top:", "top:0", "top:1.5", "area:NaN", "area"] {
            assert!(wrong.parse::<ImageScore>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn scores_are_what_is_defined(
            values in prop::collection::vec(-50.0_f32..50.0, 1..60), share in 0.001_f64..=1.0,
            threshold in -60.0_f32..60.0,
        ) {
            let mut falling = values.clone();
            falling.sort_by(|a, b| b.total_cmp(a));
            let count = ((share * values.len() as f64).ceil() as usize).max(1);
            let mean = falling[..count].iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
            let of = |score: ImageScore| score.of(values.iter().copied());
            let top = of(ImageScore::MeanOfTop { share });
            prop_assert!((f64::from(top) - mean).abs() < 1e-4, "{top} {mean}");
            prop_assert_eq!(of(ImageScore::MaxOfMap), falling[0]);
            let above = values.iter().filter(|&&v| v >= threshold).count();
            let area = above as f32 / values.len() as f32;
            let actual = of(ImageScore::AreaAbove { threshold });
            prop_assert!((actual - area).abs() < 1e-6);
        }
    }
}
