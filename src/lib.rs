//! Finds and localises defects in images after seeing only good ones: the PaDiM method (Defard,
//! Setkov, Loesch, Audigier 2020, [arXiv 2011.08785](https://arxiv.org/abs/2011.08785)) on the
//! [Burn](https://burn.dev) framework.
//!
//! Show it images of good parts; it learns at each place of the picture what a patch looks like
//! there. For a new image it gives an anomaly map, high where a patch is strange, and a score.
//!
//! ```
//! use padim::burn::tensor::Device;
//! use padim::image::{Rgb, RgbImage};
//! use padim::{Detector, Padim, PadimConfig, PreprocessConfig, ResNet18, Resize, Weights};
//!
//! # fn main() -> padim::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("stripes.padim");
//! let device = Device::flex();
//! // Or the path of a file, such as "resnet18-f37072fd.pth".
//! let backbone = ResNet18::load(Weights::Bundled, &device)?;
//! let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
//! let config = PadimConfig { preprocess: small, ..Default::default() };
//!
//! let part = |i: u32| RgbImage::from_fn(80, 80, move |x, _| Rgb([(x * 3 + i) as u8; 3]));
//! let detector = Padim::new(config, backbone)?.fit((0..10).map(part), |_progress| ())?;
//!
//! let mut scratched = part(4);
//! (20..60).for_each(|i| scratched.put_pixel(i, i, Rgb([255, 0, 0])));
//! let prediction = detector.predict(scratched)?;
//! assert!(prediction.image_score > detector.predict(part(4))?.image_score);
//!
//! detector.save(&file)?; // everything that decides a score, the weights included
//! let again = Detector::load(&file, &device)?;
//! # Ok(())
//! # }
//! ```
//!
//! # The way of the data
//!
//! | step | type | gives |
//! |---|---|---|
//! | decode, resize, crop, normalise | [`Preprocessor`] | `[3, height, width]` |
//! | a frozen network's features | [`Backbone`]: [`ResNet18`], [`WideResNet50`], [`EfficientNetB5`], or your own | [`FeatureMaps`] |
//! | one vector per patch | [`PatchEmbedder`] | `[batch, dimension, grid_height, grid_width]` |
//! | mean and covariance per position | [`GaussianEstimator`] -> [`GaussianModel`] | distances `[batch, grid_height, grid_width]` |
//! | map and score | [`AnomalyScorer`] | [`AnomalyMap`], score |
//! | a threshold, from good images alone | [`Decision`], [`Calibration`] | p-values, [`Defect`]s |
//! | all of it | [`Padim`] -> [`Detector`] | [`Prediction`] |
//! | the same for large images, in tiles | [`TiledPadim`] -> [`TiledDetector`] | [`Prediction`] |
//!
//! Each step is public and can be used alone. [`metrics`], [`dataset`], [`mod@line`] and
//! [`visualize`] hang off the side: the steps do not know them.
//!
//! # Devices and features
//!
//! Burn chooses the backend at run time by its `Device`; cargo features decide which are compiled
//! in: `flex` (default, pure-Rust CPU), `ndarray`, `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`. The
//! library takes a `&Device`; [`devices`] lists those of this machine, and [`device_named`] finds one, such
//! as `"auto"` or `"cuda:1"`. From the network to the map, everything is computed on it.
//!
//! [`Weights::Bundled`] lie in this crate; [`Weights`] also finds torchvision's on this machine. With the feature `download`, and only
//! then, this crate uses the network, and only when `Weights::fetch` is called.
//!
//! # What it does not do
//!
//! It does not train networks and does not read EXIF rotation. PaDiM compares each place of a picture
//! with the same place in others, so parts should lie where they lay in the good images; where they do
//! not, [`Registration`], [`Augmentation`], [`PadimConfig::neighbourhood`] and
//! [`GaussianConfig::pooled`] help.

#![warn(missing_docs)]
// Allowed in `prefetch` only.
#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

// In the order in which the data flows; a module uses only what stands above it.
mod caught;
mod error;
mod files;
mod fingerprint;
mod host;
mod latest;
mod once;
mod threads;

mod device;
mod prefetch;
mod random;
mod regions;
mod resample;

mod preprocess;

mod weights;

mod backbone;

mod embedding;

mod gaussian;

mod scoring;

mod tiling;

mod decision;

mod detector;

mod persistence;

mod anomalib;

pub mod dataset;
pub mod line;
pub mod metrics;
pub mod visualize;

// The crates whose types stand in this one's interface, so that their versions always fit.
pub use {burn, image, nalgebra};

pub use anomalib::{AnomalibCheckpoint, AnomalibScores};
pub use backbone::{
    Backbone, BackboneMemory, BackboneSnapshot, ConvertedWeights, EfficientNet, EfficientNetB5,
    EfficientNetConfig, EfficientNetStage, FeatureMaps, LayerInfo, ResNet, ResNet18, ResNetBlock,
    ResNetConfig, WeightPrecision, WideResNet50,
};
pub use decision::{Calibration, CalibrationConfig, Decision, Defect};
pub use detector::{
    Augmentation, ChannelContribution, Detector, Explanation, FitProgress, FitStage, ImageInput,
    LayerContribution, MemoryPlan, OpenImage, Padim, PadimConfig, PartialFit, Prediction,
    PreparedImage, Registration, TiledDetector, TiledPadim,
};
pub use device::{DeviceInfo, device_named, devices};
pub use embedding::{ChannelSelection, PatchEmbedder, Projection};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use gaussian::{
    CovarianceDivisor, GaussianConfig, GaussianEstimator, GaussianModel, GaussianStatistics,
    Precision, Shrinkage, Spectrum, Storage,
};
pub use preprocess::{
    Alignment, DecodeLimits, ImageGeometry, InputRegion, Normalization, PreprocessConfig,
    PreprocessedImage, Preprocessor, RegionOfInterest, Resize, ResizeArithmetic, SixteenBitGrey,
    decode_file, decode_file_with, image_size, to_rgb8,
};
pub use resample::{Border, Filter};
pub use scoring::{
    AnomalyMap, AnomalyScorer, Blur, ImageScore, ScoreNormalization, ScoredMap, ScoringConfig,
    Upsampling,
};

pub use tiling::{TileModels, TilingConfig};

#[cfg(feature = "download")]
pub use weights::FetchProgress;
pub use weights::{PublishedWeights, TorchvisionNetwork, Weights};

#[cfg(test)]
#[path = "../tests/common/golden.rs"]
mod golden;

/// The README's code, compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
