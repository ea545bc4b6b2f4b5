//! Computes a threshold from good images alone and checks its guarantee: it counts the false alarms
//! over many random splits of the good images that are not used for the fit. For comparison, it also
//! shows the false alarms of a percentile of their scores, which has no guarantee.
//!
//!     cargo run --release --example thresholds -- --data DIR --weights FILE --save part.padim

mod common;

use std::path::PathBuf;

use clap::Parser;
use common::parts::Random;
use common::{DeviceOption, NetworkOptions, Outcome, PictureOptions, Strictness, say};
use padim::dataset::{Mvtec, Sample};
use padim::decision::{Calibration, images_needed};
use padim::{Padim, PadimConfig};

/// Fits a part of a category's good images, and calibrates with the others.
#[derive(Parser)]
struct Options {
    /// A category in MVTec AD's layout.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    network: NetworkOptions,
    /// Number of training images for the fit; the others and the good test images are for calibration
    /// [default: all]
    #[arg(long)]
    fit: Option<usize>,
    /// False alarm rates: the fractions of good images that may be classified as defective.
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.02,0.05,0.1,0.2")]
    rates: Vec<f64>,
    /// Number of random splits of the good images: one half calibrates, the other half is tested.
    #[arg(long, default_value_t = 200)]
    splits: u64,
    /// Calibrates with all good images that are not used for the fit, at the first rate that their
    /// number can guarantee, and saves the detector.
    #[arg(long)]
    save: Option<PathBuf>,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    strictness: Strictness,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    let backbone = options.network.build(&[1, 2, 3], &options.on.device)?;
    let config = PadimConfig::default().with_channels(options.network.backbone.channels());
    let preprocess = options.pictures.preprocess();
    let padim = Padim::new(config.with_preprocess(preprocess), backbone)?
        .with_decode_limits(options.pictures.limits());
    let category = Mvtec::open(&options.data)?;
    options.strictness.show(&category.examine(padim.preprocessor())?)?;
    let fitted = options.fit.unwrap_or(category.train.len()).min(category.train.len());
    let (train, spare) = category.train.split_at(fitted);
    let (defective, good): (Vec<&Sample>, Vec<&Sample>) =
        category.test.iter().partition(|image| image.is_defective());
    let good: Vec<&Sample> = spare.iter().chain(good).collect();

    let bar = common::progress_bar("images", train.len() as u64);
    let mut detector = padim.fit_with(train, common::show_fit(&bar))?;
    bar.finish_and_clear();
    options.strictness.show_input(&detector)?;
    let scores = |images: &[&Sample]| -> padim::Result<Vec<f32>> {
        detector.predict_iter(images.iter().copied()).map(|p| Ok(p?.image_score)).collect()
    };
    let (good_scores, defective_scores) = (scores(&good)?, scores(&defective)?);
    say!(
        "{}: fitted with {} images; {} other good ones, {} defective ones; {} splits into halves\n",
        category.name,
        train.len(),
        good.len(),
        defective.len(),
        options.splits
    );
    say!("                                                            as a percentile");
    say!("promised   exact  observed  within two deviations   found  observed   found");
    for &rate in &options.rates {
        show(rate, &good_scores, &defective_scores, options.splits);
    }

    if let Some(path) = &options.save {
        let able = |rate: &&f64| images_needed(**rate).is_ok_and(|needed| good.len() >= needed);
        let rate = *options.rates.iter().find(able).ok_or("too few good images for --rates")?;
        common::calibrate(&mut detector, good, rate)?;
        detector.save(path)?;
        say!("\nSaved {}, calibrated for {rate}.", path.display());
    }
    Ok(())
}

/// Prints a line of the table: the guaranteed and the observed rate.
fn show(rate: f64, good: &[f32], defective: &[f32], splits: u64) {
    let half = good.len() / 2;
    let tested = good.len() - half;
    let (mut alarms, mut found) = (Vec::new(), 0.0);
    let mut by_percentile = [0.0; 2];
    for split in 0..splits {
        let order = shuffled(good.len(), split);
        let (calibration, test) = order.split_at(half);
        let calibration: Vec<f32> = calibration.iter().map(|&i| good[i]).collect();
        let thresholds = Calibration::new(calibration)
            .and_then(|c| Ok([c.threshold(rate)?, c.percentile(100.0 * (1.0 - rate))?]));
        let [threshold, percentile] = match thresholds {
            Ok(thresholds) => thresholds,
            Err(error) => {
                say!("{rate:8.3}   {error}");
                return;
            }
        };
        let share = |count: usize, all: usize| count as f64 / all.max(1) as f64;
        let alarm = |t: f32| share(test.iter().filter(|&&i| good[i] >= t).count(), tested);
        let hit = |t: f32| share(defective.iter().filter(|&&s| s >= t).count(), defective.len());
        alarms.push(alarm(threshold));
        found += hit(threshold) / splits as f64;
        by_percentile[0] += alarm(percentile) / splits as f64;
        by_percentile[1] += hit(percentile) / splits as f64;
    }
    // A new good score has one of `half + 1` ranks among the calibration scores, equally likely. This
    // fraction of the ranks gives an alarm.
    let places = (half + 1) as f64;
    let exact = (rate * places + 1e-9).floor() / places;
    let observed = alarms.iter().sum::<f64>() / splits as f64;
    // The variance of a rate over the tested images, where the threshold varies with the calibration
    // images.
    let variance = exact * (1.0 - exact) * (1.0 / tested as f64 + 1.0 / places);
    let near = |share: &&f64| (**share - exact).abs() <= 2.0 * variance.sqrt() + 1e-9;
    let inside = alarms.iter().filter(near).count() as f64 / splits as f64;
    say!(
        "{rate:8.3}{exact:8.3}{observed:10.3}{:21.0} %{:6.0} %{:10.3}{:6.0} %",
        100.0 * inside,
        100.0 * found,
        by_percentile[0],
        100.0 * by_percentile[1]
    );
}

/// A random permutation of `0..count` by a seed (Fisher-Yates).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, (random.next() * (last + 1) as f32) as usize);
    }
    order
}
