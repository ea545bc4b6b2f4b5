//! The whole method in two types: [`Padim`] before a fit, [`Detector`] after it.

mod augmentation;
mod batches;
mod calibrate;
mod change;
mod config;
mod custom_score;
mod devices;
mod explain;
mod fit;
mod fitted;
mod gather;
mod good_peak;
mod input_summary;
mod memory;
mod padim;
mod partial_fit;
mod parts;
mod plan;
mod prediction;
mod predictor;
mod prepared;
mod progress;
mod registration;
mod tiled;

pub use augmentation::Augmentation;
pub use config::PadimConfig;
pub use explain::{ChannelContribution, Explanation, LayerContribution};
pub use fitted::Detector;
pub use input_summary::{InputSummary, WarnedImages};
pub use memory::DetectorMemory;
pub use padim::Padim;
pub use partial_fit::PartialFit;
pub use plan::MemoryPlan;
pub use prediction::Prediction;
pub use predictor::Predictor;
pub use prepared::PreparedImage;
pub use progress::{FitProgress, FitStage};
pub use registration::Registration;
pub use tiled::{TiledDetector, TiledPadim};

pub(crate) use good_peak::LastImages;
pub(crate) use registration::StoredRegistration;
