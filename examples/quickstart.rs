//! The whole method on drawn images: draws pictures of a machined part, fits good ones, finds the
//! defects in others, and writes the results as pictures.
//!
//!     cargo run --release --example quickstart

mod common;

use std::path::PathBuf;

use clap::Parser;
use common::parts::{DEFECTS, SIDE, draw};
use common::{DeviceOption, Outcome, say};
use padim::evaluation::Metrics;
use padim::visualize::{ScoreRange, contact_sheet, save_png};
use padim::{Detector, Padim, PadimConfig, ResNet18, Weights};

/// Draws parts with and without defects, fits PaDiM to good parts and finds the defects.
#[derive(Parser)]
struct Options {
    /// ResNet18 weights with torchvision's names [default: the bundled weights]
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Number of good parts for the fit.
    #[arg(long, default_value_t = 80)]
    train: u64,
    /// The folder for pictures and the detector.
    #[arg(long, default_value = "quickstart-out")]
    output: PathBuf,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    let device = &options.on.device;
    let weights = options.weights.as_ref().map_or(Weights::Bundled, Weights::from);
    let backbone = ResNet18::load(weights, device)?;
    let config = PadimConfig::default().with_input_size([SIDE as usize; 2]);

    say!("Learning from {} good parts.", options.train);
    let bar = common::progress_bar("images", options.train);
    let good = (0..options.train).map(|seed| draw(seed, None).0);
    let detector = Padim::new(config, backbone)?.fit_with(good, common::show_fit(&bar))?;
    bar.finish_and_clear();

    let seeds = 10_000..10_000 + 24_u64;
    let kinds = [None].into_iter().chain(DEFECTS.map(Some));
    let mut tests = Vec::new();
    for kind in kinds {
        let count = if kind.is_none() { 24 } else { 6 };
        tests.extend(seeds.clone().take(count).map(|seed| (kind, draw(seed, kind))));
    }
    say!("Testing {} parts, {} of them with defects.", tests.len(), tests.len() - 24);
    let images = tests.iter().map(|(_, (image, _))| image.clone());
    let predictions = detector.predict_batch(images)?;

    let defective: Vec<bool> = tests.iter().map(|(kind, _)| kind.is_some()).collect();
    let masks: Vec<Vec<bool>> = tests.iter().map(|(_, (_, mask))| mask.clone()).collect();
    let evaluation = Metrics::of(&predictions, &defective, Some(&masks), None)?;
    let shown = |value: Option<f64>| value.map_or("undefined".into(), |v| format!("{v:.4}"));
    say!("image AUROC {}", shown(evaluation.image_auroc));
    say!("pixel AUROC {}", shown(evaluation.pixel_auroc));
    say!("AUPRO       {}", shown(evaluation.aupro));
    let threshold = evaluation.f1.map(|f1| f1.threshold);
    if let Some(padim::metrics::F1Max { f1, threshold, .. }) = evaluation.f1 {
        say!("best F1     {f1:.4} at a score of {threshold:.2}");
    }

    common::create_folder(&options.output)?;
    let maps = predictions.iter().map(|p| &p.anomaly_map);
    let Some(range) = ScoreRange::of(maps) else { return Ok(()) };
    let mut sheet = Vec::new();
    for (i, ((kind, (image, mask)), prediction)) in tests.iter().zip(&predictions).enumerate() {
        let map = &prediction.anomaly_map;
        let panel = common::result_panel(image, Some(mask), map, range, threshold)?;
        let name = kind.map_or("Good".to_owned(), |kind| format!("{kind:?}"));
        save_png(&panel, options.output.join(format!("{i:02}_{name}.png")))?;
        if i % 6 == 0 && (i == 0 || kind.is_some()) {
            sheet.push(panel);
        }
    }
    save_png(&contact_sheet(&sheet), options.output.join("overview.png"))?;

    let file = options.output.join("parts.padim");
    detector.save(&file)?;
    let loaded = Detector::load(&file, device)?;
    let again = loaded.predict(tests[30].1.0.clone())?;
    say!("Saved and loaded: score {} and {}.", predictions[30].image_score, again.image_score);
    say!(
        "Look at {} (part, truth, map, overlay); a panel of each part is beside it.",
        options.output.join("overview.png").display()
    );
    Ok(())
}
