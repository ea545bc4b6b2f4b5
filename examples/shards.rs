//! Fits shards of a data set in several processes and merges their files, as on several machines.
//! Then extends the detector with more images and a forgetting factor.
//!
//!     cargo run --release --example shards
//!     cargo run --release --example shards -- --images DIR --weights resnet18-f37072fd.pth

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;
use common::parts::{Defect, SIDE, draw};
use common::{FitInputOptions, Outcome, say};
use padim::{Backbone, Detector, ImageInput, Padim, PadimConfig, PartialFit, ResNet18, Weights};

/// Fits shards in separate processes, merges them, and compares the result with one fit of all images.
#[derive(Parser)]
struct Options {
    /// A folder of images of good parts [default: images that this program draws]
    #[arg(long)]
    images: Option<PathBuf>,
    /// ResNet18 weights with torchvision's names [default: the bundled weights]
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Number of processes.
    #[arg(long, default_value_t = 3)]
    shards: usize,
    /// The folder for the shards' files and the detector.
    #[arg(long, default_value = "shards-out")]
    output: PathBuf,
    #[command(flatten)]
    input: FitInputOptions,
    /// The shard of a worker process. Set by the program itself.
    #[arg(long, hide = true)]
    worker: Option<usize>,
}

const DRAWINGS: u64 = 60;

fn main() {
    common::report(run(&Options::parse()));
}

fn backbone(options: &Options) -> Outcome<Arc<dyn Backbone>> {
    let device = Device::default();
    let weights = options.weights.as_ref().map_or(Weights::Bundled, Weights::from);
    Ok(Arc::new(ResNet18::load(weights, &device)?))
}

/// The images of a shard: every `shards`-th image.
fn shard(options: &Options, number: usize) -> Outcome<Vec<ImageInput>> {
    let all: Vec<ImageInput> = match &options.images {
        Some(folder) => common::images_in(folder)?.into_iter().map(ImageInput::from).collect(),
        None => (0..DRAWINGS).map(|seed| draw(seed, None).0.into()).collect(),
    };
    Ok(all.into_iter().skip(number).step_by(options.shards).collect())
}

fn shard_file(options: &Options, number: usize) -> PathBuf {
    options.output.join(format!("shard-{number}.padim"))
}

fn run(options: &Options) -> Outcome {
    if options.shards == 0 {
        return Err("--shards must be at least 1".into());
    }
    let config = match options.images {
        Some(_) => PadimConfig::default(),
        None => PadimConfig::default().with_input_size([SIDE as usize; 2]),
    };
    let preprocess = options.input.preprocess(config.preprocess.clone());
    let padim = Padim::new(config.with_preprocess(preprocess), backbone(options)?)?
        .with_decode_limits(options.input.limits());
    if let Some(number) = options.worker {
        let fit = padim.partial_fit(shard(options, number)?)?;
        fit.save(shard_file(options, number))?;
        say!("  process {}: {} images", std::process::id(), fit.image_count());
        return Ok(());
    }

    common::create_folder(&options.output)?;
    let start = Instant::now();
    let program = std::env::current_exe()?;
    let workers: Vec<_> = (0..options.shards)
        .map(|number| {
            let arguments = std::env::args_os().skip(1);
            let number = number.to_string();
            Command::new(&program).args(arguments).args(["--worker", &number]).spawn()
        })
        .collect::<Result<_, _>>()?;
    for mut worker in workers {
        if !worker.wait()?.success() {
            return Err("a worker failed".into());
        }
    }
    let backbone = backbone(options)?;
    // The order does not matter: the model is the same up to rounding.
    let mut fit = PartialFit::load(shard_file(options, options.shards - 1), Arc::clone(&backbone))?;
    for number in 0..options.shards - 1 {
        fit.merge(PartialFit::load(shard_file(options, number), Arc::clone(&backbone))?)?;
    }
    let images = fit.image_count();
    let mut merged = fit.finish_extendable()?;
    say!("{} shards, {images} images: {:.1} s", options.shards, start.elapsed().as_secs_f64());

    let everything: Vec<ImageInput> = (0..options.shards)
        .map(|number| shard(options, number))
        .collect::<Outcome<Vec<_>>>()?
        .concat();
    let probes: Vec<ImageInput> = match options.images {
        Some(_) => everything.iter().take(8).cloned().collect(),
        None => (0..8).map(|seed| draw(900 + seed, Some(Defect::Scratch)).0.into()).collect(),
    };
    let alone = padim.fit(everything)?;
    compare("merged and fitted at once", &merged, &alone, &probes)?;

    // The detector's file has the statistics, so the loaded detector can be extended.
    let file = options.output.join("merged.padim");
    merged.save(&file)?;
    let mut loaded = Detector::load(&file, &Device::default())?;
    loaded.set_decode_limits(options.input.limits());
    compare("saved and loaded", &loaded, &merged, &probes)?;
    describe(&file, &loaded)?;
    let more = || shard(options, 0);
    loaded.extend_with(more()?, 0.9, |_| ControlFlow::Continue(()))?;
    merged.extend_with(more()?, 0.9, |_| ControlFlow::Continue(()))?;
    say!("Learnt on, old images at 0.9 of their weight: {}", loaded.model().image_count());
    compare("learnt on after loading and before", &loaded, &merged, &probes)?;
    let closed = loaded.without_statistics();
    closed.save(&file)?;
    describe(&file, &closed)
}

fn describe(file: &Path, detector: &Detector) -> Outcome {
    let with = if detector.statistics().is_some() { "with" } else { "without" };
    let bytes = std::fs::metadata(file)?.len() as f64 / 1e6;
    say!("{}: {bytes:.1} MB, network included, {with} what it knows of its images", file.display());
    Ok(())
}

fn compare(what: &str, a: &Detector, b: &Detector, probes: &[ImageInput]) -> Outcome {
    let mut worst = 0.0_f32;
    let pairs = a.predict_iter(probes.to_vec()).zip(b.predict_iter(probes.to_vec()));
    for (a, b) in pairs {
        let (a, b) = (a?, b?);
        for (a, b) in a.anomaly_map.values().iter().zip(b.anomaly_map.values()) {
            worst = worst.max((a / b - 1.0).abs());
        }
    }
    say!("{what}: maps differ by {worst:.1e} of themselves at most");
    Ok(())
}
