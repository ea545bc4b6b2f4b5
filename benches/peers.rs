//! Measures the tasks that `scripts/compare-peers` compares with other implementations, in the same
//! way: some warm-up runs, then the median. Prints one JSON object with milliseconds per task.
//!
//!     cargo bench --bench peers -- [--network resnet18|wide_resnet50] [--weights FILE] [--images DIR]
//!     cargo bench --bench peers -- --pictures FILE.jpg
//!
//! Without weights, the network is untrained; without images, they are synthetic. Neither changes the
//! time. `--pictures` measures, instead of a network, the way of a large picture to the network's input.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use image::{Rgb, RgbImage};
use padim::backbone::ResNetConfig;
use padim::embedding::ChannelSelection;
use padim::preprocess::{
    JpegDecoder, Normalization, PreprocessConfig, Preprocessor, Resize, decode_file,
};
use padim::{Backbone, Padim, PadimConfig, ResNet18, WideResNet50};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet18")]
    network: String,
    #[arg(long)]
    weights: Option<PathBuf>,
    /// PNG files of good parts.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Number of images for the fit.
    #[arg(long, default_value_t = 200)]
    fit: usize,
    /// A large JPEG file: measures how long it takes to become network input.
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// Cargo passes this option to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

const SIDE: usize = 224;

/// The normalized images `[3, SIDE, SIDE]`.
fn images(folder: Option<&Path>, count: usize) -> Outcome<Vec<Vec<f32>>> {
    let preprocessor = Preprocessor::new(PreprocessConfig::default(), Normalization::IMAGENET)?;
    let mut files: Vec<PathBuf> = match folder {
        Some(folder) => std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?,
        None => Vec::new(),
    };
    files.sort();
    let picture = |i: usize| match files.get(i) {
        Some(file) => decode_file(file),
        None => Ok(RgbImage::from_fn(256, 256, |x, y| {
            let shade = |k: u32| ((x * k + y * (5 - k) + 7 * i as u32) % 256) as u8;
            Rgb([shade(1), shade(2), shade(3)])
        })
        .into()),
    };
    (0..count).map(|i| Ok(preprocessor.process(&picture(i)?)?.values)).collect()
}

fn tensor(images: &[Vec<f32>], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(images.concat(), [images.len(), 3, SIDE, SIDE]), device)
}

/// The pixels of a normalized image.
fn pixels(values: &[f32]) -> RgbImage {
    let Normalization { mean, std } = Normalization::IMAGENET;
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let place = y as usize * SIDE + x as usize;
        Rgb([0, 1, 2]
            .map(|c| ((values[c * SIDE * SIDE + place] * std[c] + mean[c]) * 255.0).round() as u8))
    })
}

/// The median time. Making inputs and dropping results does not count.
fn median_ms<I, T>(
    runs: usize,
    input: impl Fn() -> I,
    mut work: impl FnMut(I) -> Outcome<T>,
) -> Outcome<f64> {
    for _ in 0..runs.min(3) {
        work(input())?;
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let input = input();
        let start = Instant::now();
        let result = work(input)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[(runs - 1) / 2] + times[runs / 2]) / 2.0)
}

/// From a picture, or its file, to the network's input, in milliseconds.
fn pictures(file: &Path) -> Outcome<serde_json::Map<String, serde_json::Value>> {
    let mut works = serde_json::Map::new();
    let preprocessor = |config| Preprocessor::new(config, Normalization::IMAGENET);
    let whole = preprocessor(PreprocessConfig::default())?;
    let picture = decode_file(file)?;
    let megapixels = (f64::from(picture.width()) * f64::from(picture.height()) / 1e6).round();
    let mut report = |work: String, ms: f64| works.insert(work, ms.into());
    let of_picture = |image| median_ms(25, || &image, |image| Ok(whole.process(image)?));
    report(format!("frame-{megapixels}mp"), of_picture(picture.to_rgb8().into())?);
    report(format!("gray-frame-{megapixels}mp"), of_picture(picture.to_luma8().into())?);
    let of_file = |config: PreprocessConfig| {
        let detector = Padim::new(
            PadimConfig::default().with_preprocess(config),
            ResNet18::untrained(0, &Device::flex())?,
        )?
        .fit([0, 1].map(|shade| RgbImage::from_pixel(300, 300, Rgb([shade; 3]))))?;
        median_ms(9, || file, |file| Ok(detector.prepare(file)?))
    };
    let scaled = PreprocessConfig::default().with_jpeg_scaling(true);
    report(format!("jpeg-{megapixels}mp-rust"), of_file(scaled.clone())?);
    report(format!("jpeg-{megapixels}mp-rust-whole"), of_file(PreprocessConfig::default())?);
    let turbo = scaled.with_jpeg_decoder(JpegDecoder::Turbo);
    if turbo.validate().is_ok() {
        report(format!("jpeg-{megapixels}mp"), of_file(turbo.clone())?);
        report(format!("jpeg-{megapixels}mp-whole"), of_file(turbo.with_jpeg_scaling(false))?);
    }
    Ok(works)
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    if let Some(file) = &options.pictures {
        println!("{}", serde_json::Value::from(pictures(file)?));
        return Ok(());
    }
    let (name, network, channels): (_, ResNetConfig, _) = match &*options.network {
        "resnet18" => ("r18", ResNet18::config(), 100),
        "wide_resnet50" => ("wr50", WideResNet50::config(), 550),
        other => return Err(format!("no network is called {other}").into()),
    };
    let device = Device::flex();
    let backbone = || match &options.weights {
        Some(file) => network.load(file, &device),
        None => network.untrained(0, &device),
    };
    let all = images(options.images.as_deref(), options.fit.max(32))?;
    let mut works = serde_json::Map::new();
    let mut report = |work: &str, ms: f64| works.insert(format!("{name}-{work}"), ms.into());

    let whole = backbone()?;
    for (batch, runs) in [(1, 25), (8, 9)] {
        let input = || tensor(&all[..batch], &device);
        let ms = median_ms(runs, input, |images| Ok(whole.forward(images)?))?;
        report(&format!("backbone-b{batch}"), ms);
    }
    drop(whole);

    let preprocess = PreprocessConfig::default().with_resize(Resize::square(SIDE)).with_crop(None);
    let config = PadimConfig::default()
        .with_preprocess(preprocess)
        .with_channels(ChannelSelection::random(channels, 1024));
    let padim = Padim::new(config, backbone()?)?;
    let single = |image: &Vec<f32>| {
        Tensor::<3>::from_data(TensorData::new(image.clone(), [3, SIDE, SIDE]), &device)
    };
    let fit: Vec<Tensor<3>> = all[..options.fit].iter().map(single).collect();
    // As for the peers: the network is warmed up, and the fit is timed once.
    padim.fit(fit[..8.min(fit.len())].iter().cloned())?;
    let start = Instant::now();
    let detector = padim.fit(fit.iter().cloned())?;
    report(&format!("fit{}", options.fit), start.elapsed().as_secs_f64() * 1e3);
    drop(fit);

    for (batch, runs) in [(1, 25), (8, 9), (32, 4)] {
        let input = || tensor(&all[..batch], &device);
        let ms = median_ms(runs, input, |images| Ok(detector.predict_tensor(images)?))?;
        report(&format!("pipeline-b{batch}"), ms);
    }
    drop(detector);

    let folder = tempfile::tempdir()?;
    let files: Vec<PathBuf> =
        (0..options.fit).map(|i| folder.path().join(format!("{i:03}.png"))).collect();
    for (file, values) in files.iter().zip(&all) {
        pixels(values).save(file)?;
    }
    let start = Instant::now();
    padim.fit(&files)?;
    report(&format!("fit{}-files", options.fit), start.elapsed().as_secs_f64() * 1e3);
    println!("{}", serde_json::Value::from(works));
    Ok(())
}
