//! The settings as they stand in files.

use serde::{Deserialize, Serialize};

use crate::detector::{Augmentation, Padim, PadimConfig, Registration, StoredRegistration};
use crate::embedding::ChannelSelection;
use crate::gaussian::{CovarianceDivisor, GaussianConfig, Shrinkage, Storage};
use crate::preprocess::PreprocessConfig;
use crate::scoring::ScoringConfig;

/// The settings that there were at first. bincode tells fields by their places alone, so those that came
/// later stand in sections of their own.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct FirstSettings {
    preprocess: PreprocessConfig,
    channels: ChannelSelection,
    gaussian: FirstGaussianSettings,
    scoring: ScoringConfig,
    batch_size: usize,
}

#[derive(Clone, Serialize, Deserialize)]
struct FirstGaussianSettings {
    epsilon: f64,
    divisor: CovarianceDivisor,
    shrinkage: Shrinkage,
    components: Option<usize>,
    storage: Storage,
}

/// The settings for parts that move.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MovingSection {
    augmentation: Option<Augmentation>,
    neighbourhood: usize,
    pub pooled: bool,
    pub registration: Option<StoredRegistration>,
}

impl MovingSection {
    /// As it was before there was any such setting.
    pub const NONE: Self =
        Self { augmentation: None, neighbourhood: 1, pooled: false, registration: None };

    pub fn of(padim: &Padim) -> Self {
        let PadimConfig { augmentation, neighbourhood, gaussian, .. } = &padim.config;
        Self {
            augmentation: augmentation.clone(),
            neighbourhood: *neighbourhood,
            pooled: gaussian.pooled,
            registration: padim.registration.as_ref().map(Registration::stored),
        }
    }
}

impl FirstSettings {
    pub fn of(config: &PadimConfig) -> Self {
        let PadimConfig { preprocess, channels, gaussian, scoring, batch_size, .. } =
            config.clone();
        let GaussianConfig { epsilon, divisor, shrinkage, components, storage, .. } = gaussian;
        let gaussian = FirstGaussianSettings { epsilon, divisor, shrinkage, components, storage };
        Self { preprocess, channels, gaussian, scoring, batch_size }
    }

    pub fn with(self, moving: MovingSection) -> PadimConfig {
        let Self { preprocess, channels, gaussian, scoring, batch_size } = self;
        let FirstGaussianSettings { epsilon, divisor, shrinkage, components, storage } = gaussian;
        let MovingSection { augmentation, neighbourhood, pooled, .. } = moving;
        let gaussian = GaussianConfig { epsilon, divisor, shrinkage, components, storage, pooled };
        PadimConfig {
            preprocess,
            channels,
            gaussian,
            scoring,
            batch_size,
            augmentation,
            neighbourhood,
        }
    }
}
