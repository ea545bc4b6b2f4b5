#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]
//! padim
mod backbone;
mod detector;
mod embedding;
mod error;
mod files;
mod gaussian;
mod host;
mod persistence;
mod preprocess;
mod resample;
mod scoring;

pub use backbone::{Backbone, BackboneSnapshot, FeatureMaps, Fingerprint, LayerInfo, ResNet, ResNet18, ResNetBlock, ResNetConfig, WideResNet50};
pub use embedding::{ChannelSelection, PatchEmbedder};
pub use error::{Error, Result};
pub use gaussian::{CovarianceDivisor, GaussianConfig, GaussianEstimator, GaussianModel};
pub use preprocess::{ImageGeometry, Normalization, PreprocessConfig, PreprocessedImage, Preprocessor, Resize, ResizeArithmetic, SixteenBitGrey, decode_file, to_rgb8};
pub use resample::{Border, Filter};
pub use scoring::{AnomalyMap, AnomalyScorer, Blur, ImageScore, ScoreNormalization, ScoredMap, ScoringConfig, Upsampling};
pub use detector::{Detector, FitProgress, FitStage, ImageInput, Padim, PadimConfig, Prediction};
