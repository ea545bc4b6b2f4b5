//! What the examples share: the progress bar, option parsing and evaluation.
#![allow(dead_code)]

pub mod parts;

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;
use clap::ValueEnum;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use padim::backbone::{ConvertedWeights, EfficientNetConfig, ResNetConfig, WeightPrecision};
use padim::detector::{FitProgress, FitStage};
use padim::embedding::ChannelSelection;
use padim::metrics::{self, PixelScores};
use padim::scoring::AnomalyMap;
use padim::visualize::{ScoreRange, heat_map, mask_picture, overlay, panel};
use padim::weights::TorchvisionNetwork;
use padim::{Backbone, Detector, EfficientNetB5, Prediction, ResNet18, Weights, WideResNet50};

/// Whatever goes wrong in an example ends in a sentence for a person.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The result, or else the error's sentence on stderr and exit code 1.
pub fn report<T>(outcome: Outcome<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(1)
    })
}

/// How the names of files end that may hold images.
pub const IMAGE_EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];

/// The memory of this process in bytes, where the system tells (Linux): `VmRSS` now, `VmHWM` at most so far.
pub fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// A bar with the time left, on stderr, hidden where that is no terminal.
pub fn progress_bar(message: &'static str, total: u64) -> ProgressBar {
    let template = "{msg:12} {wide_bar:.cyan} {pos}/{len}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style).with_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows a fit as a bar.
pub fn show_fit(bar: &ProgressBar) -> impl FnMut(FitProgress) -> ControlFlow<()> + '_ {
    |progress| {
        bar.set_message(match progress.stage {
            FitStage::Projecting => "components",
            FitStage::Embedding => "images",
            FitStage::Factorizing => "covariances",
            FitStage::Calibrating => "thresholds",
            _ => "",
        });
        bar.set_length(progress.total.unwrap_or(progress.done) as u64);
        bar.set_position(progress.done as u64);
        ControlFlow::Continue(())
    }
}

/// The argument `--device`.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceOption {
    /// Where to compute: auto, cpu, cuda, metal, vulkan, webgpu or wgpu; the second one as cuda:1.
    #[arg(long, default_value = "auto", value_parser = padim::device::device_named)]
    pub device: Device,
}

/// The networks that come with the crate, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    #[value(name = "resnet18")]
    ResNet18,
    #[value(name = "wide_resnet50")]
    WideResNet50,
    #[value(name = "efficientnet_b5")]
    EfficientNetB5,
}

impl Network {
    /// The number of channels that the paper draws, if it does not take all.
    pub fn channel_count(self) -> Option<usize> {
        match self {
            Self::ResNet18 => Some(100),
            Self::WideResNet50 => Some(550),
            Self::EfficientNetB5 => None,
        }
    }

    /// These, drawn as the best-known implementation does.
    pub fn channels(self) -> ChannelSelection {
        match self.channel_count() {
            Some(count) => ChannelSelection::random(count, 1024),
            None => ChannelSelection::All,
        }
    }

    /// Its name as an option.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// The network giving out some of its three maps, counted from 1.
    pub fn build(
        self,
        maps: &[usize],
        weights: Option<&WeightsOption>,
        device: &Device,
    ) -> padim::Result<Arc<dyn Backbone>> {
        let weights = self.weights(weights);
        Ok(match self.config(maps) {
            Config::Residual(config) => Arc::new(match weights {
                Some(weights) => config.load(weights, device)?,
                None => config.untrained(0, device)?,
            }),
            Config::Efficient(config) => Arc::new(match weights {
                Some(weights) => config.load(weights, device)?,
                None => config.untrained(0, device)?,
            }),
        })
    }

    /// Writes what some of its maps need of a file of weights to another file.
    pub fn convert(
        self,
        maps: &[usize],
        [weights, target]: [&Path; 2],
        precision: WeightPrecision,
    ) -> padim::Result<ConvertedWeights> {
        match self.config(maps) {
            Config::Residual(config) => config.convert(weights, target, precision),
            Config::Efficient(config) => config.convert(weights, target, precision),
        }
    }

    fn config(self, maps: &[usize]) -> Config {
        match self {
            Self::ResNet18 => Config::Residual(ResNet18::config().with_layers(maps)),
            Self::WideResNet50 => Config::Residual(WideResNet50::config().with_layers(maps)),
            Self::EfficientNetB5 => {
                let config = EfficientNetB5::config();
                // A block 0 is refused in words.
                let block = |&map: &usize| *config.blocks.get(map.wrapping_sub(1)).unwrap_or(&0);
                let blocks: Vec<usize> = maps.iter().map(block).collect();
                Config::Efficient(config.with_blocks(blocks))
            }
        }
    }

    /// The weights that were asked for, or the ones that are there without asking; none for untrained
    /// ones.
    fn weights(self, option: Option<&WeightsOption>) -> Option<Weights> {
        let torchvision = || {
            Weights::torchvision(match self {
                Self::ResNet18 => TorchvisionNetwork::ResNet18,
                Self::WideResNet50 => TorchvisionNetwork::WideResNet50,
                Self::EfficientNetB5 => TorchvisionNetwork::EfficientNetB5,
            })
        };
        match option {
            Some(WeightsOption::File(path)) => Some(path.into()),
            Some(WeightsOption::Untrained) => None,
            Some(WeightsOption::Bundled) => Some(Weights::Bundled),
            None if self == Self::ResNet18 => Some(Weights::Bundled),
            Some(WeightsOption::Torchvision) | None => Some(torchvision()),
        }
    }
}

/// What `--weights` takes: a file in torchvision's layout, .pth or .safetensors, or one of three words.
/// Without it ResNet18 takes `bundled`, the others `torchvision`.
#[derive(Debug, Clone)]
pub enum WeightsOption {
    /// `bundled`: those inside the crate.
    Bundled,
    /// `torchvision`: ImageNet's, where this machine has them.
    Torchvision,
    /// `untrained`: random ones of seed 0.
    Untrained,
    File(PathBuf),
}

impl From<OsString> for WeightsOption {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("bundled") => Self::Bundled,
            Some("torchvision") => Self::Torchvision,
            Some("untrained") => Self::Untrained,
            _ => Self::File(text.into()),
        }
    }
}

/// The description of a network.
enum Config {
    Residual(ResNetConfig),
    Efficient(EfficientNetConfig),
}

/// `all`, `seed:N:COUNT`, or a file of indices separated by commas or white space.
pub fn parse_channels(text: &str) -> Result<ChannelSelection, String> {
    if text == "all" {
        return Ok(ChannelSelection::All);
    }
    if let Some(draw) = text.strip_prefix("seed:") {
        let parts = draw.split_once(':').and_then(|(seed, count)| {
            Some(ChannelSelection::random(count.parse().ok()?, seed.parse().ok()?))
        });
        return parts.ok_or_else(|| "expected seed:N:COUNT, such as seed:1024:100".to_owned());
    }
    let content = std::fs::read_to_string(text).map_err(|e| {
        format!("expected `all`, `seed:N:COUNT` or a file of indices; cannot read {text}: {e}")
    })?;
    content
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().map_err(|_| format!("{text} holds {word:?}, which is no index")))
        .collect::<Result<_, _>>()
        .map(ChannelSelection::Indices)
}

/// The metrics of a test set.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    pub image_auroc: f64,
    pub f1: metrics::F1Max,
    /// Where there are masks.
    pub pixel_auroc: Option<f64>,
    pub aupro: Option<f64>,
}

/// The form and the size of a detector's Gaussians.
pub fn describe_model(detector: &Detector) -> String {
    let model = detector.model();
    let [height, width] = model.grid();
    let inside = match model.position_count() {
        all if all == height * width => String::new(),
        count => format!(" ({count} inside the region)"),
    };
    format!(
        "{} of {height}x{width} positions{inside} and {} dimensions, {:.1} MB",
        model.storage(),
        model.dimension(),
        model.size_in_bytes() as f64 / 1e6
    )
}

/// Compares predictions with the truth, where a region is given inside of it: whether each image is defective, and where.
pub fn evaluate(
    predictions: &[Prediction],
    defective: &[bool],
    masks: Option<&[Vec<bool>]>,
    region: Option<&[bool]>,
) -> padim::Result<Evaluation> {
    let scores: Vec<f32> = predictions.iter().map(|p| p.image_score).collect();
    let pixels: Option<Vec<PixelScores<'_>>> = masks
        .map(|masks| {
            let maps = predictions.iter().map(|p| &p.anomaly_map);
            let scores = maps.zip(masks).map(|(map, truth)| {
                let scores = PixelScores::new(map.values(), truth, map.size())?;
                region.map_or(Ok(scores), |region| scores.within(region))
            });
            scores.collect()
        })
        .transpose()?;
    Ok(Evaluation {
        image_auroc: metrics::image_auroc(&scores, defective)?,
        f1: metrics::image_f1_max(&scores, defective)?,
        pixel_auroc: pixels.as_deref().map(metrics::pixel_auroc).transpose()?,
        aupro: pixels
            .as_deref()
            .map(|pixels| metrics::aupro(pixels, metrics::DEFAULT_FPR_LIMIT))
            .transpose()?,
    })
}

/// Image, truth, map and overlay side by side. The contour is drawn at the threshold.
pub fn result_panel(
    picture: &RgbImage,
    truth: Option<&[bool]>,
    map: &AnomalyMap,
    range: ScoreRange,
    threshold: f32,
) -> padim::Result<RgbImage> {
    let heat = heat_map(map, range);
    let over = overlay(picture, map, range, Some(threshold))?;
    match truth {
        Some(truth) => {
            let truth = mask_picture(truth, map.size())?;
            Ok(panel(&[picture, &truth, &heat, &over]))
        }
        None => Ok(panel(&[picture, &heat, &over])),
    }
}

/// The name of a file without its folder and extension, for a person, and short enough for the name of
/// another file. Two files can have the same one.
pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().chars().take(50).collect()
}

pub fn create_folder(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder)
        .map_err(|e| format!("cannot make the folder {}: {e}", folder.display()).into())
}

pub fn write_text(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

/// A field of a CSV file (RFC 4180).
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
