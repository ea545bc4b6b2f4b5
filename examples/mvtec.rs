//! Fits and evaluates PaDiM on one category, or on all categories, of a folder in the layout of MVTec
//! AD.
//!
//!     cargo run --release --example mvtec -- --data DIR --weights resnet18-f37072fd.pth

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use common::{DeviceOption, IntakeOptions, Network, Outcome, WeightsOption};
use padim::dataset::{Category, Dataset, Mvtec};
use padim::embedding::ChannelSelection;
use padim::evaluation::Metrics;
use padim::gaussian::{GaussianConfig, Shrinkage, Storage};
use padim::preprocess::{
    Filter, InputRegion, PreprocessConfig, RegionOfInterest, Resize, decode_file,
};
use padim::scoring::{Blur, ScoringConfig, Upsampling};
use padim::visualize::{ScoreRange, contact_sheet, save_png};
use padim::{Padim, PadimConfig, Prediction};
use serde_json::json;

/// Fits PaDiM to the good images of a folder in MVTec AD's layout and evaluates it on the test images.
#[derive(Parser)]
struct Options {
    /// A category (with train/good, test/<defect>, ground_truth/<defect>), or a folder of them.
    #[arg(long)]
    data: PathBuf,
    /// The network.
    #[arg(long, value_enum, default_value = "resnet18")]
    backbone: Network,
    /// The weights: FILE (.pth or .safetensors with torchvision's names), bundled (inside the crate),
    /// torchvision (ImageNet weights on this machine) or untrained [default: bundled for resnet18, else
    /// torchvision]
    #[arg(long)]
    weights: Option<WeightsOption>,
    /// Layers to use: an increasing list of 1, 2 and 3.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    layers: Vec<usize>,
    /// Channels to use: `all`, `seed:N:COUNT`, or a file of indices
    /// [default: seed:1024:100, seed:1024:550 for wide_resnet50, all for efficientnet_b5]
    #[arg(long, value_parser = common::parse_channels)]
    channels: Option<ChannelSelection>,
    /// Resize to `short:N` (the short side) or `square:N`, in pixels.
    #[arg(long, default_value = "short:256")]
    resize: Resize,
    /// The resizing filter: bilinear, bicubic or lanczos.
    #[arg(long, default_value = "bilinear")]
    filter: Filter,
    /// The side of the center crop in pixels, or `none`.
    #[arg(long, value_parser = parse_crop, default_value = "224")]
    crop: Crop,
    /// Upsampling of the map: bilinear or bicubic.
    #[arg(long, default_value = "bilinear")]
    upsampling: Upsampling,
    /// Standard deviation of the map's blur in pixels; 0 for none.
    #[arg(long, default_value_t = 4.0)]
    sigma: f64,
    /// The epsilon that is added to the variances.
    #[arg(long, default_value_t = 0.01)]
    epsilon: f64,
    /// Shrinkage of the covariances toward a multiple of the identity: none, a number in 0..=1,
    /// ledoit-wolf or oas.
    #[arg(long, default_value = "none")]
    shrinkage: Shrinkage,
    /// Number of principal components to keep: `N` separately at each position, `shared:N` common to
    /// all positions.
    #[arg(long, value_parser = parse_components)]
    pca: Option<Components>,
    /// Storage of the Gaussians: auto, full, triangle-f32, triangle-f16, low-rank-f32,
    /// low-rank-f16, principal-f32, principal-f16 or diagonal.
    #[arg(long, default_value = "auto")]
    storage: Storage,
    /// A mask image of the region of interest: only its bright pixels are scored.
    #[arg(long)]
    region: Option<PathBuf>,
    /// Fits only the first N training images.
    #[arg(long)]
    limit_train: Option<usize>,
    /// Images per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Writes the metrics to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the score of each test image to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Writes a panel for each test image (image, truth, map, overlay) to this folder.
    #[arg(long)]
    panels: Option<PathBuf>,
    /// Saves each detector in this folder, as <category>.padim. For a single category, it can also be
    /// the name of the file, ending in .padim.
    #[arg(long)]
    save: Option<PathBuf>,
    #[command(flatten)]
    intake: IntakeOptions,
    #[command(flatten)]
    on: DeviceOption,
    /// Scores with 16-bit arithmetic, if the device supports it.
    #[arg(long)]
    half: bool,
}

#[derive(Debug, Clone, Copy)]
struct Crop(Option<usize>);

#[derive(Debug, Clone, Copy)]
enum Components {
    Shared(usize),
    OfEachPosition(usize),
}

fn parse_components(text: &str) -> Result<Components, String> {
    let number = |text: &str| text.parse().map_err(|_| "expected N or shared:N".to_owned());
    match text.strip_prefix("shared:") {
        Some(count) => number(count).map(Components::Shared),
        None => number(text).map(Components::OfEachPosition),
    }
}

fn parse_crop(text: &str) -> Result<Crop, String> {
    match text {
        "none" => Ok(Crop(None)),
        _ => text.parse().map(|n| Crop(Some(n))).map_err(|_| "expected pixels, or none".to_owned()),
    }
}

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    let device = &options.on.device;
    let backbone = options.backbone.build(&options.layers, options.weights.as_ref(), device)?;
    let config = PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default()
                .with_resize(options.resize)
                .with_crop(options.crop.0)
                .with_filter(options.filter),
        )
        .with_channels(options.channels.clone().unwrap_or(options.backbone.channels()))
        .with_gaussian(
            GaussianConfig::default()
                .with_epsilon(options.epsilon)
                .with_shrinkage(options.shrinkage)
                .with_components(match options.pca {
                    Some(Components::OfEachPosition(count)) => Some(count),
                    _ => None,
                })
                .with_storage(options.storage),
        )
        .with_scoring(ScoringConfig::default().with_upsampling(options.upsampling).with_blur(
            (options.sigma != 0.0).then(|| Blur { sigma: options.sigma, ..Blur::default() }),
        ))
        .with_batch_size(options.batch_size);
    let mut padim = Padim::new(config, backbone)?;
    if let Some(region) = &options.region {
        padim = padim.with_region(&RegionOfInterest::from_mask(&decode_file(region)?))?;
    }

    let names = options.intake.good_names.iter();
    let dataset = names.fold(Mvtec::new(&options.data), Mvtec::with_good_name);
    let categories = dataset.categories()?;
    let mut failures = 0;
    let mut results = serde_json::Map::new();
    let mut scores = String::from("path,image_score\n");
    let mut table = format!("{:20}{HEADINGS}\n", "category");
    for name in &categories {
        let run = || -> Outcome<(Category, CategoryResult)> {
            let category = dataset.category(name)?;
            options.intake.show(&category.examine(padim.preprocessor())?)?;
            let result = run_category(&padim, &category, options, categories.len() > 1)?;
            Ok((category, result))
        };
        let (category, result) = match run() {
            Ok(done) => done,
            Err(error) => {
                // Go on with the other categories, so that a long run is not lost.
                eprintln!("{name}: {error}");
                failures += 1;
                continue;
            }
        };
        let Metrics { image_auroc, f1, pixel_auroc, aupro, .. } = result.evaluation;
        let show = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
        writeln!(
            table,
            "{:20}{:>12}{:>12}{:>8}{:>8}{:>8.1}{:>12.1}",
            category.name,
            format!("{image_auroc:.4}"),
            show(pixel_auroc),
            show(aupro),
            format!("{:.4}", f1.f1),
            result.fit_seconds,
            result.predict_seconds
        )?;
        let entry = json!({
            "image_auroc": image_auroc, "pixel_auroc": pixel_auroc, "aupro": aupro,
            "image_f1_max": f1.f1, "threshold": f1.threshold,
            "train_images": result.train_images, "storage": result.storage.to_string(),
            "model_bytes": result.model_bytes, "test_images": category.test.len(),
            "fit_seconds": result.fit_seconds, "predict_seconds": result.predict_seconds,
        });
        for (image, score) in category.test.iter().zip(&result.scores) {
            writeln!(scores, "{},{score}", common::csv_field(&image.path.display().to_string()))?;
        }
        results.insert(category.name, entry);
    }
    print!("{table}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!({ "categories": results }))?;
        common::write_text(path, &(text + "\n"))?;
    }
    if let Some(path) = &options.csv {
        common::write_text(path, &scores)?;
    }
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} of {} categories failed", categories.len()).into()),
    }
}

const HEADINGS: &str = " image AUROC pixel AUROC   AUPRO   F1max   fit s   predict s";

struct CategoryResult {
    scores: Vec<f32>,
    evaluation: Metrics,
    fit_seconds: f64,
    predict_seconds: f64,
    train_images: usize,
    storage: Storage,
    model_bytes: usize,
}

fn run_category(
    padim: &Padim,
    category: &Category,
    options: &Options,
    several: bool,
) -> Outcome<CategoryResult> {
    let train =
        &category.train[..options.limit_train.unwrap_or(usize::MAX).min(category.train.len())];
    // Usually, all images of a category have the same size.
    let size =
        train.first().map_or(Ok([1, 1]), |sample| padim::preprocess::image_size(&sample.path));
    match size.and_then(|size| padim.memory_plan(size, train.len())) {
        Ok(plan) => println!("Memory plan: {plan}"),
        Err(error) => println!("No memory plan: {error}"),
    }
    let start = Instant::now();
    let bar = common::progress_bar("images", train.len() as u64);
    let detector = match options.pca {
        Some(Components::Shared(count)) => padim
            .clone()
            .fit_projection_with(count, train, common::show_fit(&bar))?
            .fit_with(train, common::show_fit(&bar))?,
        _ => padim.fit_with(train, common::show_fit(&bar))?,
    };
    bar.finish_and_clear();
    let fit_seconds = start.elapsed().as_secs_f64();
    let (storage, model_bytes) = (detector.model().storage(), detector.model().size_in_bytes());
    println!("Gaussians of {} images: {}", train.len(), common::describe_model(&detector));
    let detector = if options.half { detector.with_half_precision()? } else { detector };
    if let Some(target) = &options.save {
        let is_file = !several && target.extension().is_some_and(|e| e == "padim");
        let path = if is_file {
            target.clone()
        } else {
            common::create_folder(target)?;
            target.join(format!("{}.padim", category.name))
        };
        detector.save(&path)?;
        println!("Saved {}", path.display());
    }

    let start = Instant::now();
    let bar = common::progress_bar("test images", category.test.len() as u64);
    let predictions: Vec<Prediction> = detector
        .predict_iter(&category.test)
        .inspect(|_| bar.inc(1))
        .collect::<padim::Result<_>>()?;
    bar.finish_and_clear();
    let predict_seconds = start.elapsed().as_secs_f64();

    let defective: Vec<bool> = category.test.iter().map(|image| image.is_defective()).collect();
    let masks = if category.has_masks() {
        let preprocessor = detector.preprocessor();
        let images = category.test.iter().zip(&predictions);
        let truth = images.map(|(image, p)| image.truth(preprocessor, p.anomaly_map.size()));
        Some(truth.collect::<padim::Result<Vec<_>>>()?)
    } else {
        None
    };
    let region = detector.region().map(InputRegion::mask);
    let evaluation = Metrics::of(&predictions, &defective, masks.as_deref(), region)?;

    if let Some(folder) = &options.panels {
        let folder = folder.join(&category.name);
        write_panels(&detector, category, &predictions, masks.as_deref(), &evaluation, &folder)?;
    }
    let scores = predictions.iter().map(|p| p.image_score).collect();
    Ok(CategoryResult {
        scores,
        evaluation,
        fit_seconds,
        predict_seconds,
        train_images: train.len(),
        storage,
        model_bytes,
    })
}

fn write_panels(
    detector: &padim::Detector,
    category: &Category,
    predictions: &[Prediction],
    masks: Option<&[Vec<bool>]>,
    evaluation: &Metrics,
    folder: &Path,
) -> Outcome {
    common::create_folder(folder)?;
    let maps = predictions.iter().map(|p| &p.anomaly_map);
    let Some(range) = ScoreRange::of(maps) else { return Ok(()) };
    let mut first_of_each = Vec::new();
    let mut last_defect = None;
    for (i, (image, prediction)) in category.test.iter().zip(predictions).enumerate() {
        let picture = image.picture(detector.preprocessor())?;
        let truth = masks.map(|masks| masks[i].as_slice());
        let map = &prediction.anomaly_map;
        let panel = common::result_panel(&picture, truth, map, range, evaluation.f1.threshold)?;
        let defect: String = image.defect.chars().take(50).collect();
        let name = format!("{defect}_{i:05}_{}.png", common::stem(&image.path));
        save_png(&panel, folder.join(name))?;
        if last_defect != Some(&image.defect) {
            last_defect = Some(&image.defect);
            first_of_each.push(panel);
        }
    }
    save_png(&contact_sheet(&first_of_each), folder.join("overview.png"))?;
    println!("Wrote {} panels to {}", predictions.len(), folder.display());
    Ok(())
}
