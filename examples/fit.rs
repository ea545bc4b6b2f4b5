//! Learns a part from a folder of good images and saves the detector.
//!
//!     cargo run --release --example fit -- --images DIR --out part.padim
//!     cargo run --release --example fit -- --images DIR --calibrate 0.05 --out part.padim

mod common;

use std::path::PathBuf;

use clap::Parser;
use common::{
    DeviceOption, NetworkOptions, Outcome, PictureOptions, RegionOption, Strictness, say,
};
use padim::dataset::{Category, Sample};
use padim::decision::images_needed;
use padim::embedding::ChannelSelection;
use padim::gaussian::Storage;
use padim::preprocess::Levels;
use padim::{CalibrationConfig, Padim, PadimConfig};

/// Fits a detector to the good images of a folder.
#[derive(Parser)]
struct Options {
    /// A folder of images of good parts; subfolders are not read.
    #[arg(long)]
    images: PathBuf,
    /// The detector file to write.
    #[arg(long, default_value = "part.padim")]
    out: PathBuf,
    /// Sets the threshold for this false alarm rate: the fraction of good images that may be called
    /// defective, such as 0.05. A rate needs at least 1 / rate - 1 images.
    #[arg(long, value_name = "RATE")]
    calibrate: Option<f64>,
    /// Other good images for the threshold [default: those of --images, each scored by a fit of others;
    /// the guaranteed rate is then twice as high]
    #[arg(long, value_name = "DIR", requires = "calibrate")]
    more_good: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkOptions,
    /// Channels to use: `all`, `seed:N:COUNT`, or a file of indices
    /// [default: seed:1024:100, seed:1024:550 for wide_resnet50, all for efficientnet_b5]
    #[arg(long, value_parser = common::parse_channels)]
    channels: Option<ChannelSelection>,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    region: RegionOption,
    /// Storage of the Gaussians: auto, full, triangle-f32, triangle-f16, low-rank-f32,
    /// low-rank-f16, principal-f32, principal-f16 or diagonal.
    #[arg(long, default_value = "auto")]
    storage: Storage,
    /// Images per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    #[command(flatten)]
    strictness: Strictness,
    #[command(flatten)]
    on: DeviceOption,
}

/// The most parts into which the images are divided if they also set the threshold.
const FOLDS: usize = 5;

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    let images = common::images_in(&options.images)?;
    let more = options.more_good.as_ref().map(|folder| common::images_in(folder)).transpose()?;
    if let Some(rate) = options.calibrate {
        // Checked before the work, and with the names of the options.
        let (needed, there) = (images_needed(rate)?, more.as_ref().unwrap_or(&images).len());
        if there < needed {
            return Err(format!(
                "--calibrate {rate} needs at least {needed} good images, there are {there}; give more \
                 images, or a higher rate"
            )
            .into());
        }
    }
    let mut preprocess = options.pictures.preprocess();
    if preprocess.levels == Levels::Auto {
        // By all images, not by the first ones only.
        let decode = options.pictures.limits().into();
        let decode = options.pictures.input.files.decode(decode);
        preprocess = preprocess.with_levels(Levels::of_images(&images, decode)?);
    }
    let config = PadimConfig::default()
        .with_preprocess(preprocess)
        .with_channels(options.channels.clone().unwrap_or(options.network.backbone.channels()))
        .with_batch_size(options.batch_size);
    let gaussian = config.gaussian.clone().with_storage(options.storage);
    let backbone = options.network.build(&[1, 2, 3], &options.on.device)?;
    let padim = Padim::new(config.with_gaussian(gaussian), backbone)?;
    let padim = options.region.padim(padim.with_decode_limits(options.pictures.limits()))?;

    let good = images.iter().cloned().map(Sample::good).collect();
    let name = options.images.display().to_string();
    let mut report = Category::new(name, good, Vec::new()).examine(padim.preprocessor())?;
    // There is nothing to test.
    report.warnings.retain(|warning| warning.first.is_some());
    options.strictness.show(&report)?;
    say!("Learning from {} images in {}.", images.len(), options.images.display());
    let folds = FOLDS.min(images.len());
    let in_folds = options.calibrate.filter(|_| more.is_none());
    common::show_plan(images.first().map(|path| &**path), |size| match in_folds {
        Some(_) => padim.calibrated_memory_plan(size, images.len(), folds),
        None => padim.memory_plan(size, images.len()),
    });
    let bar = common::progress_bar("images", images.len() as u64);
    let mut detector = match in_folds {
        Some(rate) => {
            let rates = CalibrationConfig::default().with_image_false_alarm_rate(rate);
            padim.fit_calibrated_with(&images, folds, &rates, common::show_fit(&bar))?
        }
        None => padim.fit_with(&images, common::show_fit(&bar))?,
    };
    bar.finish_and_clear();
    options.strictness.show_input(&detector)?;
    // Saved before the calibration, which may fail at a damaged image.
    detector.save(&options.out)?;
    if let (Some(rate), Some(more)) = (options.calibrate, more) {
        common::calibrate(&mut detector, more, rate)?;
        detector.save(&options.out)?;
    }

    say!("Gaussians: {}", common::describe_model(&detector));
    match detector.thresholds() {
        Some(thresholds) => {
            say!("Images with a score of at least {} are defective.", thresholds.image)
        }
        None => say!("No threshold; --calibrate RATE sets one."),
    }
    let file = options.out.display();
    say!("Saved {file}. Score images, or watch a folder:\n");
    say!("    cargo run --release --example inspect -- --detector {file} --images DIR");
    say!(
        "    cargo run --release --example watch_folder -- --detector {file} --watch DIR --output DIR"
    );
    Ok(())
}
