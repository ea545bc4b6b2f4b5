//! Every setting that decides a score.

use serde::{Deserialize, Serialize};

use super::augmentation::Augmentation;
use crate::embedding::ChannelSelection;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianConfig, reach};
use crate::preprocess::{PreprocessConfig, Resize, ResizeArithmetic, SixteenBitGray};
use crate::resample::{Border, Filter};
use crate::scoring::{Blur, ImageScore, ScoreNormalization, ScoringConfig, Upsampling};

/// All settings of PaDiM but the backbone and its layers. Stored with every detector.
///
/// The default agrees with the common implementation in Python (xiahaifeng), with bilinear resizing;
/// [`paper`](Self::paper), [`xiahaifeng`](Self::xiahaifeng) and [`anomalib`](Self::anomalib) are the
/// settings of the sources that they are named after.
///
/// ```
/// use padim::PadimConfig;
/// use padim::embedding::ChannelSelection;
///
/// let config = PadimConfig { channels: ChannelSelection::random(550, 1024), ..PadimConfig::paper() };
/// config.validate()?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PadimConfig {
    /// How images become network input. Default: short side to 256, center crop of 224, bilinear
    /// (paper: 256x256, crop 224, bicubic).
    pub preprocess: PreprocessConfig,
    /// Which channels are kept. Default: 100 at random with seed 1024 (paper: 100 for ResNet18, 550
    /// for Wide-ResNet-50-2).
    pub channels: ChannelSelection,
    /// How the Gaussians are estimated. Default: epsilon 0.01, divisor `N - 1` (paper: the same).
    pub gaussian: GaussianConfig,
    /// How maps and scores are made. Default: bilinear, Gaussian blur of sigma 4, maximum (paper:
    /// bicubic, the rest the same).
    pub scoring: ScoringConfig,
    /// How many images go through the network at once. Default: 8. It trades memory for speed and
    /// has no part in the method.
    pub batch_size: usize,
    /// More images for the fit: turned, shifted and mirrored copies. Default: `None` (paper: the same).
    pub augmentation: Option<Augmentation>,
    /// Each patch is compared with the Gaussians of so many rows and columns of positions around its own,
    /// and the smallest distance counts: an odd number up to 31. 1 is its own position alone. Default: 1
    /// (paper: the same).
    ///
    /// It forgives shifts of up to `neighborhood / 2` positions (of 4 pixels of the network's input for
    /// residual networks), and takes about as many times longer to score as there are positions in
    /// the window. Defects that look like a neighboring place are forgiven, too.
    pub neighborhood: usize,
}

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
                filter: Filter::Bicubic,
                ..PreprocessConfig::default()
            },
            scoring: ScoringConfig { upsampling: Upsampling::Bicubic, ..ScoringConfig::default() },
            ..Self::default()
        }
    }

    /// The settings of xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master. It then
    /// brings the maps of a test set to `[0, 1]`, for which [`ScoreNormalization::MinMax`] is.
    pub fn xiahaifeng() -> Self {
        Self {
            preprocess: PreprocessConfig {
                filter: Filter::Lanczos,
                sixteen_bit_gray: SixteenBitGray::ClipAt255,
                ..PreprocessConfig::default()
            },
            ..Self::default()
        }
    }

    /// The settings of anomalib 2.7. It draws its channels with an arbitrary seed of torch, here 0,
    /// and normalises scores, see [`ScoreNormalization::AroundThreshold`].
    pub fn anomalib() -> Self {
        Self {
            preprocess: PreprocessConfig {
                resize: Resize::square(256),
                crop: None,
                filter: Filter::Bilinear,
                arithmetic: ResizeArithmetic::Float { antialias: true },
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

    /// The same for network input of `[height, width]` pixels: images are resized to it, and nothing is cut
    /// away.
    #[must_use]
    pub fn with_input_size(self, [height, width]: [usize; 2]) -> Self {
        let resize = Resize::Exact { height, width };
        Self { preprocess: PreprocessConfig { resize, crop: None, ..self.preprocess }, ..self }
    }

    /// Checks all settings that can be checked without a backbone.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first setting that cannot be, and why.
    pub fn validate(&self) -> Result<()> {
        self.preprocess.validate()?;
        self.gaussian.validate()?;
        self.scoring.validate()?;
        self.augmentation.as_ref().map_or(Ok(()), Augmentation::validate)?;
        if reach(self.neighborhood)? > 0 && self.gaussian.pooled {
            let reason = "pooled Gaussians are the same everywhere, so none is nearer; use 1";
            return Err(Error::config("neighborhood", reason));
        }
        if self.batch_size == 0 || self.batch_size > 4096 {
            let reason = format!("must be in 1..=4096 images, got {}", self.batch_size);
            return Err(Error::config("batch_size", reason));
        }
        Ok(())
    }
}
