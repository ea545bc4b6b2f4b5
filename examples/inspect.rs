//! Scores the images of a folder with a saved detector: scores as CSV, overlays as PNG.
//!
//!     cargo run --release --example inspect -- --detector screw.padim --images DIR --csv scores.csv

mod common;

use std::path::{Path, PathBuf};

use clap::Parser;
use common::{DeviceOption, InputOptions, Network, Outcome, WeightsOption, say, tell};
use padim::gaussian::{Spectrum, Storage};
use padim::preprocess::{decode_file_with, to_rgb8};
use padim::visualize::{ScoreRange, heat_map, overlay, panel, save_png};
use padim::{Detector, Error, Prediction};

/// Scores images with a saved detector.
#[derive(Parser)]
struct Options {
    /// The detector file.
    #[arg(long)]
    detector: PathBuf,
    /// Weights of the network, if the detector was saved without them.
    #[arg(long)]
    weights: Option<WeightsOption>,
    /// The network of these weights.
    #[arg(long, value_enum, default_value = "resnet18")]
    backbone: Network,
    /// A folder of images (including subfolders), or one image.
    #[arg(long)]
    images: PathBuf,
    /// Writes the scores to this file instead of the terminal.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Writes the contribution of each layer to this folder: the picture, the map, then the layers,
    /// with a common color scale. Also prints the contributions at the patch with the highest score.
    #[arg(long)]
    explain: Option<PathBuf>,
    /// Writes an overlay of each image to this folder.
    #[arg(long)]
    overlays: Option<PathBuf>,
    /// First converts the Gaussians to another storage: full, triangle-f32, triangle-f16, low-rank-f32,
    /// low-rank-f16, principal-f32, principal-f16 or diagonal.
    #[arg(long)]
    storage: Option<Storage>,
    /// Saves the detector, after the conversion by --storage.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Prints the condition numbers of the covariances at some positions.
    #[arg(long)]
    spectrum: bool,
    /// Marks images with at least this score, and draws contours at it [default: the detector's
    /// thresholds, if it has been calibrated]
    #[arg(long)]
    threshold: Option<f32>,
    /// The scores at which the overlay's colors begin and end
    /// [default: 0.5 and 1.5 times the threshold, or else of what good images reach in the fit]
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"])]
    range: Option<Vec<f32>>,
    #[command(flatten)]
    input: InputOptions,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    let failures = common::report(run(&Options::parse()));
    if failures > 0 {
        tell!("{failures} image(s) could not be scored or drawn; the column `error` says why");
        std::process::exit(2);
    }
}

/// Prints the condition numbers of the covariances at up to 16 positions.
fn show_spectrum(detector: &Detector) {
    let model = detector.model();
    let [height, width] = model.grid();
    let step = (height * width / 16).max(1);
    tell!("position   effective rank   condition number");
    for position in (0..height * width).step_by(step) {
        if let Some(spectrum) = model.spectrum(position) {
            let Spectrum { effective_rank, condition_number, .. } = spectrum;
            let (row, column) = (position / width, position % width);
            tell!("{row:4},{column:4} {effective_rank:16.1} {condition_number:18.3e}");
        }
    }
}

/// Returns the number of images that could not be scored or drawn.
fn run(options: &Options) -> Outcome<usize> {
    let device = &options.on.device;
    let detector = match &options.weights {
        Some(weights) => {
            let backbone = options.backbone.build(&[1, 2, 3], Some(weights), device)?;
            Detector::load(&options.detector, backbone)?
        }
        None => match Detector::load(&options.detector, device) {
            Err(Error::BackboneNotEmbedded { reason, .. }) => {
                return Err(format!("{reason} (here: --weights FILE --backbone NAME)").into());
            }
            loaded => loaded?,
        },
    };
    let detector = detector.with_decode_limits(options.input.limits());
    let detector = match options.storage {
        Some(storage) => detector.with_storage(storage)?,
        None => detector,
    };
    tell!("Gaussians: {}", common::describe_model(&detector));
    if let Some(peak) = detector.good_peak() {
        tell!("Maps of good images go up to about {peak:.1}.");
    }
    if let Some(path) = &options.save {
        match &options.weights {
            Some(_) => detector.save_without_backbone(path)?,
            None => detector.save(path)?,
        }
    }
    if options.spectrum {
        show_spectrum(&detector);
    }
    let images = common::images_below(&options.images)?;
    if let Some(folder) = &options.overlays {
        common::create_folder(folder)?;
    }

    if let Some(folder) = &options.explain {
        common::create_folder(folder)?;
        for (number, path) in images.iter().enumerate() {
            let target = folder.join(format!("{number:05}_{}.png", common::stem(path)));
            explain(&detector, path, &options.input, &target)?;
        }
        return Ok(0);
    }

    let mut csv = String::from("path,image_score,normalized_score,p_value,above_threshold,error\n");
    let mut failures = 0;
    let bar = common::progress_bar("images", images.len() as u64);
    let inputs = images.iter().map(|path| options.input.image(path));
    for (number, (path, result)) in images.iter().zip(detector.predict_iter(inputs)).enumerate() {
        let name = common::csv_field(&path.display().to_string());
        match result {
            Ok(prediction) => {
                for warning in prediction.input.warnings() {
                    bar.suspend(|| tell!("{}: {warning}", path.display()));
                }
                let Prediction { image_score, normalized_score, .. } = prediction;
                let above = options.threshold.map(|threshold| image_score >= threshold);
                let above = above.or(prediction.is_defective).map_or("".into(), |a| a.to_string());
                let p_value = prediction.p_value.map_or("".into(), |p| p.to_string());
                let written = options.overlays.as_ref().map_or(Ok(()), |folder| {
                    let target = folder.join(format!("{number:05}_{}.png", common::stem(path)));
                    write_overlay(&detector, path, &prediction, options, &target)
                });
                failures += usize::from(written.is_err());
                let error =
                    written.map_or_else(|e| common::csv_field(&common::advice(&e)), |()| "".into());
                csv +=
                    &format!("{name},{image_score},{normalized_score},{p_value},{above},{error}\n");
            }
            Err(error) => {
                failures += 1;
                csv += &format!("{name},,,,,{}\n", common::csv_field(&common::advice(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    match &options.csv {
        Some(path) => {
            std::fs::write(path, csv)
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        None => common::print(format_args!("{csv}")),
    }
    Ok(failures)
}

fn explain(detector: &Detector, path: &Path, input: &InputOptions, target: &Path) -> Outcome {
    let explanation = detector.explain(input.image(path))?;
    let [row, column] = explanation.peak;
    let layers = explanation.layers.iter();
    let layers = layers.map(|layer| format!(", {} {:.2}", layer.layer, layer.at_peak));
    let most = explanation.channels.iter().take(3);
    let most = most.map(|c| format!("{} channel {}: {:.2}", c.layer, c.channel, c.contribution));
    say!(
        "{}: score {}; at row {row}, column {column} of the grid{}; most of all {}",
        path.display(),
        explanation.prediction.image_score,
        layers.collect::<String>(),
        most.collect::<Vec<_>>().join(", ")
    );

    let map = &explanation.prediction.anomaly_map;
    // A share of a score can be small, so the colors begin at 0; a good part does not reach the last one.
    let bright = detector.score_range().map_or(map.max(), |range| range.max);
    let range = ScoreRange { min: 0.0, max: bright.max(map.max()) };
    let preprocessor = detector.preprocessor();
    // The maps of layers refer to the registered image.
    let mut image = decode_file_with(path, input.decode(preprocessor.decode_options()))?;
    if let Some(registration) = detector.registration() {
        image = registration.apply(&image)?.0;
    }
    let mut pictures = vec![preprocessor.crop_picture(&image)?];
    pictures.push(heat_map(map, range));
    pictures.extend(explanation.layers.iter().map(|layer| heat_map(&layer.map, range)));
    save_png(&panel(&pictures.iter().collect::<Vec<_>>()), target)?;
    Ok(())
}

fn write_overlay(
    detector: &Detector,
    path: &Path,
    prediction: &Prediction,
    options: &Options,
    target: &Path,
) -> Outcome {
    let decode = options.input.decode(detector.preprocessor().decode_options());
    let image = decode_file_with(path, decode)?;
    let picture = to_rgb8(&image, &detector.config().preprocess)?;
    let map = prediction.map_in_original()?;
    let own = detector.thresholds().and_then(|decision| decision.pixel);
    let threshold = options.threshold.or(own);
    let range = match (options.range.as_deref(), options.threshold) {
        (Some(&[min, max]), _) => Some(ScoreRange { min, max }),
        (_, Some(threshold)) => Some(ScoreRange::around(threshold)),
        _ => detector.score_range(),
    };
    let own = ScoreRange { min: prediction.anomaly_map.min(), max: map.max() };
    let range = range.unwrap_or(own);
    save_png(&overlay(&picture, &map, range, threshold)?, target)?;
    Ok(())
}
