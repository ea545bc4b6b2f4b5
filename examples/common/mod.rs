//! Common code of the examples: the progress bar, option parsing and evaluation.
#![allow(dead_code, unused_imports)]

mod images;
mod options;
pub mod parts;
mod print;

pub use images::{images_below, images_in};
pub use options::{FitInputOptions, InputOptions, NetworkOptions, PictureOptions, RegionOption};
pub use print::{advice, print, print_error, report};
pub(crate) use print::{say, tell};

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
use padim::dataset::IntakeReport;
use padim::detector::{FitProgress, FitStage, MemoryPlan};
use padim::embedding::ChannelSelection;
use padim::scoring::AnomalyMap;
use padim::visualize::{ScoreRange, heat_map, mask_picture, overlay, panel};
use padim::weights::TorchvisionNetwork;
use padim::{
    Backbone, CalibrationConfig, Detector, EfficientNetB5, ImageInput, ResNet18, Weights,
    WideResNet50,
};

/// A result whose error is a readable sentence.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The options of data sets.
#[derive(Debug, Clone, clap::Args)]
pub struct IntakeOptions {
    /// A name of folders or labels that means good, beside good, ok, normal, pass and others. May be given
    /// several times.
    #[arg(long = "good", value_name = "NAME")]
    pub good_names: Vec<String>,
    #[command(flatten)]
    pub strictness: Strictness,
}

/// What becomes of warnings.
#[derive(Debug, Clone, clap::Args)]
pub struct Strictness {
    /// Makes warnings about the data set errors.
    #[arg(long)]
    pub strict: bool,
}

impl Strictness {
    /// Prints what a data set gave to stderr; with `--strict`, warnings are errors.
    pub fn show(&self, report: &IntakeReport) -> Outcome {
        tell!("{report}");
        if self.strict {
            report.require_no_warning()?;
        }
        Ok(())
    }

    /// Prints what a fit noticed about its images to stderr; with `--strict`, warnings are errors.
    pub fn show_input(&self, detector: &Detector) -> Outcome {
        tell_input(detector);
        let mut warnings = detector.input_summary().into_iter().flat_map(|s| &s.warnings);
        match warnings.next() {
            Some(first) if self.strict => Err(format!("{}: {}", first.first, first.text).into()),
            _ => Ok(()),
        }
    }
}

/// The memory of this process in bytes, only on Linux: `VmRSS` is the current value, `VmHWM` the peak.
pub fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// A progress bar with the remaining time, on stderr; hidden if stderr is not a terminal.
pub fn progress_bar(message: &'static str, total: u64) -> ProgressBar {
    let template = "{msg:12} {wide_bar:.cyan} {pos}/{len}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style).with_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows the progress of a fit in a progress bar.
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

/// Prints what a fit noticed about its images to stderr, if there is anything beside their number.
pub fn tell_input(detector: &Detector) {
    let Some(summary) = detector.input_summary() else { return };
    if summary.deep > 0 || summary.transparent > 0 || !summary.warnings.is_empty() {
        tell!("{}", advice(summary));
    }
}

/// Shows the memory that a fit of these image files will take. Usually, all have the same size.
pub fn show_plan(first: Option<&Path>, plan: impl FnOnce([usize; 2]) -> padim::Result<MemoryPlan>) {
    let size = first.map_or(Ok([1, 1]), padim::preprocess::image_size);
    match size.and_then(plan) {
        Ok(plan) => say!("Memory plan: {plan}"),
        Err(error) => say!("No memory plan: {error}"),
    }
}

/// Sets thresholds by good images that were not used for the fit, with a progress bar.
pub fn calibrate<I>(detector: &mut Detector, images: Vec<I>, rate: f64) -> padim::Result<()>
where
    I: Into<ImageInput>,
{
    let config = CalibrationConfig::default().with_image_false_alarm_rate(rate);
    let bar = progress_bar("thresholds", images.len() as u64);
    detector.calibrate_with(images, &config, show_fit(&bar))?;
    bar.finish_and_clear();
    Ok(())
}

/// The argument `--device`.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceOption {
    /// The device: auto, cpu, cuda, metal, vulkan, webgpu or wgpu; cuda:1 is the second CUDA device.
    #[arg(long, default_value = "auto", value_parser = padim::device::device_named)]
    pub device: Device,
}

/// The networks of the crate.
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
    /// The number of channels that the paper draws; `None` if it uses all channels.
    pub fn channel_count(self) -> Option<usize> {
        match self {
            Self::ResNet18 => Some(100),
            Self::WideResNet50 => Some(550),
            Self::EfficientNetB5 => None,
        }
    }

    /// The paper's number of channels, drawn with the seed of xiahaifeng's implementation.
    pub fn channels(self) -> ChannelSelection {
        match self.channel_count() {
            Some(count) => ChannelSelection::random(count, 1024),
            None => ChannelSelection::All,
        }
    }

    /// The name as an option's value.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Builds the network with the given maps as output, counted from 1.
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

    /// Writes the weights that the given maps need from one file to another.
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
                // Block 0 gives an error message later.
                let block = |&map: &usize| *config.blocks.get(map.wrapping_sub(1)).unwrap_or(&0);
                let blocks: Vec<usize> = maps.iter().map(block).collect();
                Config::Efficient(config.with_blocks(blocks))
            }
        }
    }

    /// The weights of the option, or the default weights; `None` for untrained weights.
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

/// The value of `--weights`: a file with torchvision's names (.pth or .safetensors), or one of three
/// words. The default is `bundled` for ResNet18, and `torchvision` for other networks.
#[derive(Debug, Clone)]
pub enum WeightsOption {
    /// `bundled`: the weights inside the crate.
    Bundled,
    /// `torchvision`: ImageNet weights, if this machine has them.
    Torchvision,
    /// `untrained`: random weights with seed 0.
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

/// Parses `all`, `seed:N:COUNT`, or a file of indices separated by commas or white space.
pub fn parse_channels(text: &str) -> Result<ChannelSelection, String> {
    if text == "all" || text.starts_with("seed:") {
        return text.parse().map_err(|error: padim::Error| error.to_string());
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

/// The storage and the size of a detector's Gaussians.
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

/// Image, ground truth, map and overlay side by side. The contour is drawn at the threshold.
pub fn result_panel(
    picture: &RgbImage,
    truth: Option<&[bool]>,
    map: &AnomalyMap,
    range: ScoreRange,
    threshold: Option<f32>,
) -> padim::Result<RgbImage> {
    let heat = heat_map(map, range);
    let over = overlay(picture, map, range, threshold)?;
    match truth {
        Some(truth) => {
            let truth = mask_picture(truth, map.size())?;
            Ok(panel(&[picture, &truth, &heat, &over]))
        }
        None => Ok(panel(&[picture, &heat, &over])),
    }
}

/// The name of a file without folder and extension, shortened for use in another file name. It need not
/// be unique.
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
