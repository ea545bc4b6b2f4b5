//! Converts files of other programs: weights to a small safetensors file, and a fitted PaDiM of
//! anomalib to a detector. Needs no Python; nothing in a pickle is executed.
//!
//!     cargo run --release --example convert -- weights --weights resnet18-f37072fd.pth \
//!         --precision f16 --out resnet18-trunk.safetensors
//!     cargo run --release --example convert -- anomalib --checkpoint model.ckpt --out part.padim

mod common;

use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Parser, Subcommand, ValueEnum};
use common::{InputOptions, Network, Outcome, WeightsOption, parts, say};
use image::DynamicImage;
use padim::Backbone;
use padim::anomalib::AnomalibCheckpoint;
use padim::backbone::WeightPrecision;
use padim::gaussian::Storage;
use padim::preprocess::{PreprocessConfig, Preprocessor, decode_file_with};

/// Converts weights of networks, and fitted models of anomalib.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Writes the weights that a network needs from a checkpoint (.pth, .safetensors) to a safetensors
    /// file.
    Weights(Weights),
    /// Converts a fitted PaDiM of anomalib (model.ckpt, or a state dict) to a detector.
    Anomalib(Anomalib),
}

#[derive(clap::Args)]
struct Weights {
    /// The checkpoint, with torchvision's tensor names.
    #[arg(long)]
    weights: PathBuf,
    /// The network of the checkpoint.
    #[arg(long, value_enum, default_value = "resnet18")]
    backbone: Network,
    /// Needed maps, among the network's three maps; weights of later layers are left out.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    maps: Vec<usize>,
    /// The type of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// A picture on which f16 is compared with the source [default: a drawn one]
    #[arg(long)]
    picture: Option<PathBuf>,
    #[command(flatten)]
    input: InputOptions,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Precision {
    F32,
    F16,
}

#[derive(clap::Args)]
struct Anomalib {
    /// The checkpoint of anomalib.
    #[arg(long)]
    checkpoint: PathBuf,
    /// The network's input size in pixels, such as 256,256 [default: from the checkpoint, or else a
    /// square that fits its number of positions]
    #[arg(long, value_delimiter = ',', num_args = 1, value_names = ["HEIGHT,WIDTH"])]
    input_size: Option<Vec<usize>>,
    /// The layers of the embedding [default: from the checkpoint, or else all layers in it]
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Storage of the Gaussians: full, triangle-f32 or triangle-f16.
    #[arg(long, default_value = "triangle-f32")]
    storage: Storage,
    /// The detector file to write.
    #[arg(long)]
    out: PathBuf,
}

fn main() {
    common::report(match Options::parse().what {
        What::Weights(options) => weights(&options),
        What::Anomalib(options) => anomalib(options),
    });
}

fn weights(options: &Weights) -> Outcome {
    let Weights { weights, backbone, maps, precision, picture, input, out } = options;
    let target = match precision {
        Precision::F32 => WeightPrecision::F32,
        Precision::F16 => WeightPrecision::F16,
    };
    let written = backbone.convert(maps, [weights, out], target)?;
    say!("{}", written.origin);
    let before = std::fs::metadata(weights).map_err(|e| format!("{}: {e}", weights.display()))?;
    say!("{} tensors, {} bytes of {}", written.tensors, written.bytes, before.len());

    let device = Device::default();
    let networks = [weights, out]
        .map(|file| backbone.build(maps, Some(&WeightsOption::File(file.clone())), &device));
    let [source, converted] = networks;
    let (source, converted) = (source?, converted?);
    say!("fingerprint {}", converted.fingerprint());
    if source.fingerprint() == converted.fingerprint() {
        say!("the same network as the source");
        return Ok(());
    }
    say!("the source's is {}", source.fingerprint());
    let picture = match picture {
        Some(path) => decode_file_with(path, input.decode(input.limits().into()))?,
        None => DynamicImage::ImageRgb8(parts::draw(1, Some(parts::Defect::Scratch)).0),
    };
    for (layer, change) in changes(&*source, &*converted, &picture)? {
        say!("{layer}: changed by at most {change:.1e} of its largest value");
    }
    Ok(())
}

/// For each map, the largest difference between two networks, relative to the map's largest value.
fn changes(
    source: &dyn Backbone,
    converted: &dyn Backbone,
    picture: &DynamicImage,
) -> Outcome<Vec<(String, f32)>> {
    let preprocessor = Preprocessor::new(PreprocessConfig::default(), source.normalization())?;
    let values = preprocessor.process(picture)?.values;
    let input = burn::tensor::TensorData::new(values, [1, 3, 224, 224]);
    let input = burn::tensor::Tensor::from_data(input, &source.device());
    let [expected, actual] = [source.forward(input.clone())?, converted.forward(input)?];
    let maps = expected.maps().iter().zip(actual.maps());
    let change = |(expected, actual): (&burn::tensor::Tensor<4>, &burn::tensor::Tensor<4>)| {
        let largest: f32 = expected.clone().abs().max().into_scalar();
        let difference: f32 = (expected.clone() - actual.clone()).abs().max().into_scalar();
        difference / largest
    };
    let names = source.layers().iter().map(|layer| layer.name.clone());
    Ok(names.zip(maps.map(change)).collect())
}

fn anomalib(options: Anomalib) -> Outcome {
    let Anomalib { checkpoint, input_size, layers, storage, out } = options;
    let mut checkpoint = AnomalibCheckpoint::read(checkpoint)?;
    if let Some(size) = input_size {
        let &[height, width] = size.as_slice() else {
            return Err("the input size takes a height and a width, such as 256,256".into());
        };
        checkpoint = checkpoint.with_input_size([height, width]);
    }
    if let Some(layers) = layers {
        checkpoint = checkpoint.with_layers(layers);
    }
    if checkpoint.preprocess().is_none() {
        say!("the file does not tell the preprocessing: a square, not cropped, is assumed");
    }
    say!("network: {:?}", checkpoint.network());
    say!("anomalib's scores: {:?}", checkpoint.scores());
    let (scores, pixels) = (*checkpoint.scores(), checkpoint.scores().pixel_normalization());

    let detector = checkpoint.into_detector(&Device::default())?;
    // The storage changes distances by less than 0.1 %, so the thresholds stay valid.
    let detector = detector.with_storage(storage)?.with_thresholds(scores.thresholds())?;
    detector.save(&out)?;
    let config = detector.config();
    say!("preprocessing: {:?}", config.preprocess);
    say!("normalization of image scores: {:?}", config.scoring.normalization);
    say!("normalization of maps, which stay distances: {pixels:?}");
    match detector.thresholds() {
        Some(decision) => say!("thresholds: {decision:?}"),
        None => say!("no thresholds: anomalib has none that hold for distances"),
    }
    say!("Gaussians: {}", common::describe_model(&detector));
    say!("fingerprint {}", detector.backbone_fingerprint());
    Ok(())
}
