//! The settings for maps and scores.

use serde::{Deserialize, Serialize};

use super::image_score::ImageScore;
use super::normalization::ScoreNormalization;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::names::named;
use crate::resample::Border;

/// The method that enlarges the grid of distances to the input size (as torch, `align_corners` false).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Upsampling {
    /// Linear between the centers of the patches.
    Bilinear,
    /// Cubic with `a = -0.75`, as torch. Values can be lower than the smallest distance.
    Bicubic,
}

named!(
    Upsampling,
    "upsampling",
    [("bilinear", Upsampling::Bilinear), ("bicubic", Upsampling::Bicubic)]
);

/// Gaussian smoothing of the enlarged map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blur {
    /// Standard deviation in pixels of the network's input. Default: 4 (paper: 4). The kernel is
    /// truncated at `4 * sigma`.
    pub sigma: f64,
    /// The padding beyond the edge of the map. Default: reflection that repeats the edge sample, as
    /// scipy (anomalib: without repeating it).
    pub border: Border,
}

impl Default for Blur {
    fn default() -> Self {
        Self { sigma: 4.0, border: Border::EdgeRepeated }
    }
}

/// The settings for maps and scores. Stored with every detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScoringConfig {
    /// Default: bilinear (paper: bicubic).
    pub upsampling: Upsampling,
    /// Default: sigma 4 (paper: the same), or no smoothing.
    pub blur: Option<Blur>,
    /// Default: the maximum of the smoothed map (paper: "the maximum of the map").
    pub image_score: ImageScore,
    /// The normalization of image scores to a common range. Default: none (paper: the same).
    pub normalization: ScoreNormalization,
}

builders!(ScoringConfig {
    with_upsampling: upsampling, Upsampling;
    with_blur: blur, Option<Blur>;
    with_image_score: image_score, ImageScore;
    with_normalization: normalization, ScoreNormalization;
});

impl Default for ScoringConfig {
    fn default() -> Self {
        Self {
            upsampling: Upsampling::Bilinear,
            blur: Some(Blur::default()),
            image_score: ImageScore::MaxOfMap,
            normalization: ScoreNormalization::None,
        }
    }
}

/// The largest allowed `sigma`, in pixels. Larger values would make a map constant.
const MAX_SIGMA: f64 = 1000.0;

impl ScoringConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first invalid setting and the reason.
    pub fn validate(&self) -> Result<()> {
        self.normalization.validate()?;
        self.image_score.validate()?;
        match self.blur {
            Some(Blur { sigma, .. }) if !(sigma > 0.0 && sigma <= MAX_SIGMA) => {
                let reason = format!("must be above 0 and at most {MAX_SIGMA} pixels, got {sigma}");
                Err(Error::config("blur", reason))
            }
            _ => Ok(()),
        }
    }
}
