//! Measures images per second on each device, by batch size; with `--stages`, also the time of each
//! stage. Prints a line of JSON for each device and batch. `scripts/bench_torch.py` measures the same
//! in PyTorch.
//!
//!     cargo bench --bench devices --features vulkan -- [--device vulkan] [--network wide_resnet50]
//!
//! The program can be copied to a machine without Rust:
//! `cargo bench --bench devices --features cuda,vulkan,autotune,fusion --no-run` prints its path. On
//! CUDA, the first run of each batch size takes minutes (`first_s`); `CUBECL_AUTOTUNE_LEVEL=minimal`
//! shortens this. Weights are untrained and images are synthetic; this does not change the time.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use padim::backbone::{FeatureMaps, ResNetConfig};
use padim::device::{DeviceInfo, devices};
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::preprocess::{PreprocessConfig, Resize};
use padim::scoring::{AnomalyScorer, ScoringConfig};
use padim::{Backbone, Detector, Padim, PadimConfig, ResNet18, WideResNet50};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Options {
    /// Measures only devices whose names begin with this [default: all]
    #[arg(long, default_value = "")]
    device: String,
    #[arg(long, default_value = "resnet18")]
    network: String,
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
    batches: Vec<usize>,
    /// Side of the images in pixels.
    #[arg(long, default_value_t = 224)]
    side: usize,
    /// Number of images for the fit.
    #[arg(long, default_value_t = 200)]
    fit: usize,
    /// Each figure is measured for at least this number of seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Also measures each stage.
    #[arg(long)]
    stages: bool,
    /// Also measures 16-bit arithmetic.
    #[arg(long)]
    half: bool,
    /// Cargo passes this option to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The median time in milliseconds, after three warm-up runs.
    fn median_ms<T>(&self, mut work: impl FnMut() -> Outcome<T>) -> Outcome<f64> {
        self.median_ms_of(|| (), |()| work())
    }

    /// As `median_ms`, for work on an input; the time to make the input does not count.
    fn median_ms_of<I, T>(
        &self,
        mut ready: impl FnMut() -> I,
        mut work: impl FnMut(I) -> Outcome<T>,
    ) -> Outcome<f64> {
        for _ in 0..3 {
            work(ready())?;
        }
        let (begin, mut times) = (Instant::now(), Vec::new());
        while times.len() < 5 || begin.elapsed().as_secs_f64() < self.seconds {
            let input = ready();
            let start = Instant::now();
            work(input)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn images(&self, count: usize) -> TensorData {
        let value = |i: usize| ((i * 7919) % 1013) as f32 / 500.0 - 1.0;
        let shape = [count, 3, self.side, self.side];
        TensorData::new((0..shape.iter().product()).map(value).collect::<Vec<f32>>(), shape)
    }
}

/// Waits until a device has finished all its work.
fn wait(device: &Device) -> Outcome<()> {
    Ok(device.sync()?)
}

fn measure(options: &Options, info: &DeviceInfo) -> Outcome<()> {
    let device = &info.device;
    let (network, channels): (ResNetConfig, _) = match &*options.network {
        "resnet18" => (ResNet18::config(), 100),
        "wide_resnet50" => (WideResNet50::config(), 550),
        other => return Err(format!("no network is called {other}").into()),
    };
    let config = PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default().with_resize(Resize::square(options.side)).with_crop(None),
        )
        .with_channels(ChannelSelection::random(channels, 1024))
        .with_batch_size(32);
    let padim = Padim::new(config.clone(), network.untrained(0, device)?)?;
    let good = || {
        (0..options.fit).map(|i| {
            let noise = |p: usize| ((p * (i + 3) * 7919) % 1013) as f32 / 500.0 - 1.0;
            let shape = [3, options.side, options.side];
            let values: Vec<f32> = (0..shape.iter().product()).map(noise).collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), device)
        })
    };
    padim.fit(good().take(8))?;
    let start = Instant::now();
    let detector = padim.fit(good())?;
    let fit = start.elapsed().as_secs_f64();

    for &batch in &options.batches {
        let input = options.images(batch);
        let images = || input.clone();
        let predict = |detector: &Detector, images| {
            Ok(detector.predict_tensor(Tensor::<4>::from_data(images, device))?)
        };
        // The first run compiles kernels; with the feature `autotune`, it also tries them.
        let start = Instant::now();
        predict(&detector, images())?;
        let first = start.elapsed().as_secs_f64();
        let whole = options.median_ms_of(images, |images| predict(&detector, images))?;
        let half = match options.half.then(|| detector.clone().with_half_precision()) {
            None => None,
            Some(Ok(half)) => Some(options.median_ms_of(images, |images| predict(&half, images))?),
            Some(Err(error)) => {
                eprintln!("{}: {error}", info.name);
                None
            }
        };
        let per_second = |ms: f64| 1e3 * batch as f64 / ms;
        let usage = device.memory_pool_usage().map(|usage| usage.bytes_reserved as f64 / 1e6);
        let mut line = serde_json::json!({
            "device": info.name,
            "description": info.description,
            "network": options.network,
            "batch": batch,
            "fit_s": fit,
            "first_s": first,
            "images_per_s": per_second(whole),
            "images_per_s_f16": half.map(per_second),
            "ms": whole,
            "device_MB": usage,
        });
        if options.stages {
            line["stages_ms"] = stages(options, &detector, &network.untrained(0, device)?, batch)?;
        }
        println!("{line}");
    }
    Ok(())
}

/// Measures each stage separately and waits for the device after it, so the sum exceeds the total time.
fn stages(
    options: &Options,
    detector: &Detector,
    backbone: &dyn Backbone,
    batch: usize,
) -> Outcome<serde_json::Value> {
    let device = &backbone.device();
    let layers: Vec<usize> = backbone.layers().iter().map(|layer| layer.channels).collect();
    let embedder = PatchEmbedder::new(&layers, &detector.config().channels)?;
    let scorer = AnomalyScorer::new(ScoringConfig::default())?;
    let (model, size) = (detector.model(), [options.side; 2]);
    let input = options.images(batch);
    let upload = |images| Tensor::<4>::from_data(images, device);
    let there = upload(input.clone());
    let maps: FeatureMaps = backbone.forward(there.clone())?;
    let embedding = embedder.embed(&maps)?;
    let distances = model.mahalanobis_distance(embedding.clone())?;
    Ok(serde_json::json!({
        "upload": options.median_ms_of(|| input.clone(), |images| {
            let images = upload(images);
            wait(device)?;
            Ok(images)
        })?,
        "backbone": options.median_ms(|| {
            let maps = backbone.forward(there.clone())?;
            wait(device)?;
            Ok(maps)
        })?,
        "embedding": options.median_ms(|| {
            let embedding = embedder.embed(&maps)?;
            wait(device)?;
            Ok(embedding)
        })?,
        "distances": options.median_ms(|| Ok(model.mahalanobis_distance(embedding.clone())?))?,
        "maps": options.median_ms(|| Ok(scorer.score(distances.clone(), size)?))?,
    }))
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    let all = devices();
    let chosen = all.iter().filter(|info| info.name.starts_with(&options.device));
    let mut none = true;
    for info in chosen {
        none = false;
        measure(&options, info)?;
    }
    match none {
        true => Err(padim::device::device_named(&options.device)
            .err()
            .map_or("none".into(), |e| e.into())),
        false => Ok(()),
    }
}
