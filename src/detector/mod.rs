//! The whole method behind two types: [`Padim`] before the fit, [`Detector`] after it.

mod augmentation;
mod batches;
mod calibrate;
mod change;
mod config;
mod devices;
mod explain;
mod fit;
mod fitted;
mod gather;
mod padim;
mod partial_fit;
mod parts;
mod plan;
mod prediction;
mod prepared;
mod progress;
mod registration;
mod tiled;

pub use augmentation::Augmentation;
pub use config::PadimConfig;
pub use explain::{ChannelContribution, Explanation, LayerContribution};
pub use fitted::Detector;
pub use padim::Padim;
pub use partial_fit::PartialFit;
pub use plan::MemoryPlan;
pub use prediction::Prediction;
pub use prepared::PreparedImage;
pub use progress::{FitProgress, FitStage};
pub use registration::Registration;
pub use tiled::{TiledDetector, TiledPadim};

pub(crate) use registration::StoredRegistration;
