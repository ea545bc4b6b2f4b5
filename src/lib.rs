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
//! use padim::{Detector, Padim, PadimConfig, ResNet18, Weights};
//! use padim::preprocess::{PreprocessConfig, Resize};
//!
//! # fn main() -> padim::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("stripes.padim");
//! let device = Device::flex();
//! // Or the path of a file, such as "resnet18-f37072fd.pth".
//! let backbone = ResNet18::load(Weights::Bundled, &device)?;
//! let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
//! let config = PadimConfig::default().with_preprocess(small);
//!
//! let part = |i: u32| RgbImage::from_fn(80, 80, move |x, _| Rgb([(x * 3 + i) as u8; 3]));
//! let detector = Padim::new(config, backbone)?.fit((0..10).map(part))?;
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
//! | a threshold, from good images alone | [`Thresholds`], [`Calibration`] | p-values, [`AnomalyRegion`]s |
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
//! not, [`Registration`], [`Augmentation`], [`PadimConfig::neighborhood`] and
//! [`GaussianConfig::pooled`] help.

#![warn(missing_docs)]
// Allowed in `prefetch` only.
#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

// In the order in which the data flows; a module uses only what stands above it.
pub mod fingerprint;

pub mod error;

mod names;

mod caught;
mod files;
mod latest;

mod host;
mod once;
mod threads;

pub mod device;
mod prefetch;
mod random;
mod regions;
mod resample;

pub mod preprocess;

pub mod weights;

mod engine;

pub mod backbone;

pub mod embedding;

pub mod gaussian;

pub mod scoring;

pub mod tiling;

pub mod decision;

pub mod detector;

pub mod persistence;

pub mod anomalib;

pub mod dataset;
pub mod line;
pub mod metrics;
pub mod visualize;

pub mod evaluation;

// The crates whose types stand in this one's interface, so that their versions always fit.
pub use {burn, image, nalgebra};

pub use backbone::{Backbone, EfficientNetB5, ResNet18, WideResNet50};
pub use dataset::images_in;
pub use decision::{CalibrationConfig, Thresholds};
pub use detector::{
    Detector, Padim, PadimConfig, PartialFit, Prediction, TiledDetector, TiledPadim,
};
pub use error::{Error, Result};
pub use persistence::BackboneCache;
pub use preprocess::ImageInput;
pub use tiling::TilingConfig;
pub use weights::Weights;

#[cfg(test)]
#[path = "../tests/common/golden.rs"]
mod golden;

/// The README's code, compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
