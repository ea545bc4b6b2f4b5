//! Finds and localizes defects in images after seeing only good ones: the PaDiM method (Defard,
//! Setkov, Loesch, Audigier 2020, [arXiv 2011.08785](https://arxiv.org/abs/2011.08785)) on the
//! [Burn](https://burn.dev) framework.
//!
//! Fit it on images of good parts: at each place of the picture, it learns how a patch looks there. For a
//! new image it computes an anomaly map, which is high where a patch looks unusual, and a score.
//!
//! ```
//! use padim::burn::tensor::Device;
//! use padim::image::{Rgb, RgbImage};
//! use padim::{Detector, Padim, PadimConfig, ResNet18, Weights};
//!
//! # fn main() -> padim::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("stripes.padim");
//! let device = Device::flex();
//! // Or the path of a file, such as "resnet18-f37072fd.pth".
//! let backbone = ResNet18::load(Weights::Bundled, &device)?;
//! let config = PadimConfig::default().with_input_size([64, 64]);
//!
//! // Or the paths of files: `padim::images_in("photos/good")?`.
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
//! # From an image to a decision
//!
//! Each step has a module of its own, and can be used alone.
//!
//! | step | module and type | result |
//! |---|---|---|
//! | decode, resize, crop, normalize | [`preprocess::Preprocessor`] | `[3, height, width]` |
//! | features of a frozen network | [`Backbone`]: [`ResNet18`], [`WideResNet50`], [`EfficientNetB5`], or your own | [`backbone::FeatureMaps`] |
//! | one vector per patch | [`embedding::PatchEmbedder`] | `[batch, dimension, grid_height, grid_width]` |
//! | mean and covariance per position | [`gaussian::GaussianEstimator`], [`gaussian::GaussianModel`] | distances `[batch, grid_height, grid_width]` |
//! | map and score | [`scoring::AnomalyScorer`] | [`scoring::AnomalyMap`], score |
//! | thresholds, from good images alone | [`Thresholds`], [`decision::Calibration`] | p-values, [`decision::AnomalyRegion`]s |
//! | all steps | [`Padim`], after the fit [`Detector`] | [`Prediction`] |
//! | all steps for large images, in tiles | [`TiledPadim`], after the fit [`TiledDetector`] | [`Prediction`] |
//!
//! [`persistence`] saves and loads detectors. [`dataset`], [`metrics`], [`evaluation`], [`mod@line`] and
//! [`visualize`] are tools beside these steps; the steps do not depend on them. [`anomalib`] reads detectors
//! that anomalib has fitted.
//!
//! # Devices and features
//!
//! Burn chooses the backend at run time by its `Device`; cargo features decide which backends are compiled:
//! `flex` (default, CPU, pure Rust), `ndarray`, `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`. This library
//! takes a `&Device`. [`device::devices`] lists those of this machine, and [`device::device_named`] finds
//! one, such as `"auto"` or `"cuda:1"`. All steps from the network to the map run on the device.
//!
//! [`Weights::Bundled`] are part of this crate; [`Weights`] also finds torchvision's on this machine. The
//! crate uses the network only with the feature `download`, and only if `Weights::fetch` is called.
//!
//! # What it does not do
//!
//! It does not train networks. PaDiM compares each place of a picture with the same place in others, so
//! parts should lie where they lay in the good images. Where they do not, [`detector::Registration`], [`detector::Augmentation`], [`PadimConfig::neighborhood`] and
//! [`gaussian::GaussianConfig::pooled`] help.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]
// Allowed in `prefetch` only.
#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

// In the order in which the data flows: a module uses only modules above it. A test reads the imports.
pub mod fingerprint;

pub mod error;

mod names;

mod caught;
mod files;
mod instructions;
mod latest;

mod host;
mod once;
mod threads;

pub mod device;
mod ordered;
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

// The crates whose types are part of this crate's interface, in the versions that fit.
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

/// The code of the documents, compiled and run with the other documentation tests.
#[cfg(doctest)]
mod documents {
    macro_rules! documents {
        ($($name:ident: $path:literal,)*) => {
            $(
                #[doc = include_str!(concat!("../", $path))]
                struct $name;
            )*
        };
    }

    documents! {
        Readme: "README.md",
        AddingABackbone: "docs/adding-a-backbone.md",
        AddingAStorage: "docs/adding-a-storage.md",
        Deployment: "docs/deployment.md",
        Devices: "docs/devices.md",
        FilesOfOthers: "docs/files-of-others.md",
        Input: "docs/input.md",
        LargeImages: "docs/large-images.md",
        Memory: "docs/memory.md",
        MovingParts: "docs/moving-parts.md",
        Programs: "docs/programs.md",
        RunningLine: "docs/running-line.md",
        TheWeights: "docs/weights.md",
    }
}
