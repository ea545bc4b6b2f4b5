//! All settings that affect scores.

use serde::{Deserialize, Serialize};

use super::augmentation::Augmentation;
use crate::embedding::ChannelSelection;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianConfig, reach};
use crate::names::builders;
use crate::preprocess::{
    Alpha, ExifOrientation, Levels, PreprocessConfig, Resize, ResizeArithmetic,
};
use crate::resample::{Border, Filter};
use crate::scoring::{Blur, ImageScore, ScoreNormalization, ScoringConfig, Upsampling};

/// All settings of PaDiM except the backbone and its layers. Stored with every detector.
///
/// The default has the settings of a common Python implementation (xiahaifeng), but the network sees the
/// whole picture, and resizing is bilinear. [`paper`](Self::paper), [`xiahaifeng`](Self::xiahaifeng) and
/// [`anomalib`](Self::anomalib) have the settings of the sources with these names.
///
/// ```
/// use padim::PadimConfig;
/// use padim::embedding::ChannelSelection;
///
/// let config = PadimConfig::paper().with_channels(ChannelSelection::random(550, 1024));
/// config.validate()?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PadimConfig {
    /// Preprocessing of images. Default: the whole picture to 224x224, bilinear (paper: 256x256, center
    /// crop of 224, bicubic).
    pub preprocess: PreprocessConfig,
    /// Selected channels. Default: 100 at random with seed 1024 (paper: 100 for ResNet18, 550 for
    /// Wide-ResNet-50-2).
    pub channels: ChannelSelection,
    /// Estimation of the Gaussians. Default: epsilon 0.01, divisor `N - 1` (paper: the same).
    pub gaussian: GaussianConfig,
    /// Maps and scores. Default: bilinear, Gaussian blur of sigma 4, maximum (paper: the same, but
    /// bicubic).
    pub scoring: ScoringConfig,
    /// Number of images that go through the network at once. Default: 8. A larger batch is faster and
    /// takes more memory; it does not change the method.
    pub batch_size: usize,
    /// More images for the fit: rotated, shifted and mirrored copies. Default: `None` (paper: the
    /// same).
    pub augmentation: Option<Augmentation>,
    /// Side of the window of positions with whose Gaussians each patch is compared; the smallest
    /// distance counts. An odd number up to 31, where 1 is only the patch's own position. Default: 1
    /// (paper: the same).
    ///
    /// It tolerates shifts of up to `neighborhood / 2` positions (for residual networks, a position is
    /// 4 pixels of the network's input). Scoring takes about `neighborhood * neighborhood` times as
    /// long. Defects that look like a neighboring position are missed.
    pub neighborhood: usize,
}

builders!(PadimConfig {
    with_preprocess: preprocess, PreprocessConfig;
    with_channels: channels, ChannelSelection;
    with_gaussian: gaussian, GaussianConfig;
    with_scoring: scoring, ScoringConfig;
    with_batch_size: batch_size, usize;
    with_augmentation: augmentation, Option<Augmentation>;
    with_neighborhood: neighborhood, usize;
});

impl Default for PadimConfig {
    fn default() -> Self {
        Self {
            preprocess: PreprocessConfig::default(),
            channels: ChannelSelection::random(100, 1024),
            gaussian: GaussianConfig::default(),
            scoring: ScoringConfig::default(),
            batch_size: 8,
            augmentation: None,
            neighborhood: 1,
        }
    }
}

impl PadimConfig {
    /// The paper's settings (Defard et al. 2020) for MVTec AD.
    pub fn paper() -> Self {
        Self {
            preprocess: PreprocessConfig {
                resize: Resize::square(256),
                crop: Some(224),
                filter: Filter::Bicubic,
                alpha: Alpha::Drop,
                orientation: ExifOrientation::Ignore,
                ..PreprocessConfig::default()
            },
            scoring: ScoringConfig { upsampling: Upsampling::Bicubic, ..ScoringConfig::default() },
            ..Self::default()
        }
    }

    /// The settings of xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master. That code also
    /// normalizes the maps of a test set to `[0, 1]`; for this, use [`ScoreNormalization::MinMax`].
    pub fn xiahaifeng() -> Self {
        Self {
            preprocess: PreprocessConfig {
                resize: Resize::ShortSide(256),
                crop: Some(224),
                filter: Filter::Lanczos,
                levels: Levels::Pil,
                alpha: Alpha::Drop,
                orientation: ExifOrientation::Ignore,
                ..PreprocessConfig::default()
            },
            ..Self::default()
        }
    }

    /// The settings of anomalib 2.7. It draws its channels with an arbitrary torch seed; here, it is 0.
    /// It also normalizes scores, see [`ScoreNormalization::AroundThreshold`].
    pub fn anomalib() -> Self {
        Self {
            preprocess: PreprocessConfig {
                resize: Resize::square(256),
                crop: None,
                filter: Filter::Bilinear,
                arithmetic: ResizeArithmetic::Float { antialias: true },
                alpha: Alpha::Drop,
                orientation: ExifOrientation::Ignore,
                ..PreprocessConfig::default()
            },
            channels: ChannelSelection::RandomTorch { count: 100, seed: 0 },
            gaussian: GaussianConfig { epsilon: 0.01001, ..GaussianConfig::default() },
            scoring: ScoringConfig {
                upsampling: Upsampling::Bilinear,
                blur: Some(Blur { sigma: 4.0, border: Border::EdgeNotRepeated }),
                image_score: ImageScore::MaxOfMap,
                normalization: ScoreNormalization::None,
            },
            ..Self::default()
        }
    }

    /// Sets the network's input size to `[height, width]` pixels: images are resized to it and not
    /// cropped.
    #[must_use]
    pub fn with_input_size(self, [height, width]: [usize; 2]) -> Self {
        let resize = Resize::Exact { height, width };
        Self { preprocess: PreprocessConfig { resize, crop: None, ..self.preprocess }, ..self }
    }

    /// Checks all settings that can be checked without a backbone.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first invalid setting and the reason.
    pub fn validate(&self) -> Result<()> {
        self.preprocess.validate()?;
        self.gaussian.validate()?;
        self.scoring.validate()?;
        self.augmentation.as_ref().map_or(Ok(()), Augmentation::validate)?;
        if reach(self.neighborhood)? > 0 && self.gaussian.pooled {
            let reason = "has no effect on pooled Gaussians, which are the same everywhere; use 1";
            return Err(Error::config("neighborhood", reason));
        }
        if self.batch_size == 0 || self.batch_size > 4096 {
            let reason = format!("must be in 1..=4096 images, got {}", self.batch_size);
            return Err(Error::config("batch_size", reason));
        }
        Ok(())
    }
}
