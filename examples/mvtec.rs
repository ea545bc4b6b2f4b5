//! Fits and evaluates PaDiM on one category, or on all categories, of a folder in the layout of MVTec
//! AD.
//!
//!     cargo run --release --example mvtec -- --data DIR --weights resnet18-f37072fd.pth
//!
//! What can be done is done: a test image that cannot be read is a row with an error, metrics that the test
//! images do not define are named with the reason, and a category that fails does not stop the others. The
//! exit code is 0 if all was done, 2 if a test image or a category failed, and 1 if nothing could begin.

mod common;

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use common::{
    DeviceOption, IntakeOptions, NetworkOptions, Outcome, PictureOptions, RegionOption, say, tell,
};
use padim::dataset::{Category, Dataset, Mvtec};
use padim::embedding::ChannelSelection;
use padim::evaluation::{Report, evaluate_each};
use padim::gaussian::{GaussianConfig, Shrinkage, Storage};
use padim::scoring::{AnomalyMap, Blur, ScoringConfig, Upsampling};
use padim::visualize::{ScoreRange, contact_sheet, save_png};
use padim::{Detector, Padim, PadimConfig};
use serde_json::{Map, Value, json};

/// Fits PaDiM to the good images of a folder in MVTec AD's layout and evaluates it on the test images.
#[derive(Parser)]
struct Options {
    /// A category (with train/good, test/<defect>, ground_truth/<defect>), or a folder of them.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    network: NetworkOptions,
    /// Layers to use: an increasing list of 1, 2 and 3.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    layers: Vec<usize>,
    /// Channels to use: `all`, `seed:N:COUNT`, or a file of indices
    /// [default: seed:1024:100, seed:1024:550 for wide_resnet50, all for efficientnet_b5]
    #[arg(long, value_parser = common::parse_channels)]
    channels: Option<ChannelSelection>,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    region: RegionOption,
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
    /// Fits only the first N training images.
    #[arg(long)]
    limit_train: Option<usize>,
    /// Images per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Writes the metrics to this file, with what is undefined and what failed.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the score of each test image, or its error, to this file.
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

fn main() {
    let failures = common::report(run(&Options::parse()));
    if failures > 0 {
        tell!("{failures} test image(s) or categories failed; the messages above say why");
        std::process::exit(2);
    }
}

/// Returns the number of categories and test images that failed.
fn run(options: &Options) -> Outcome<usize> {
    let backbone = options.network.build(&options.layers, &options.on.device)?;
    let config = PadimConfig::default()
        .with_preprocess(options.pictures.preprocess())
        .with_channels(options.channels.clone().unwrap_or(options.network.backbone.channels()))
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
    let padim = Padim::new(config, backbone)?.with_decode_limits(options.pictures.limits());
    let padim = options.region.padim(padim)?;

    let names = options.intake.good_names.iter();
    let dataset = names.fold(Mvtec::new(&options.data), Mvtec::with_good_name);
    let categories = dataset.categories()?;
    let mut failures = 0;
    let mut results = Results::default();
    for name in &categories {
        let run = || -> Outcome<(Category, CategoryResult)> {
            let category = dataset.category(name)?;
            options.intake.strictness.show(&category.examine(padim.preprocessor())?)?;
            let result = run_category(&padim, &category, options, categories.len() > 1)?;
            Ok((category, result))
        };
        match run() {
            Ok((category, result)) => {
                failures += result.failures;
                results.add(&category, &result)?;
            }
            Err(error) => {
                // Go on with the other categories, so that a long run is not lost.
                let error = common::advice(&error);
                tell!("{name}: {error}");
                failures += 1;
                results.failed.insert(name.clone(), error.into());
            }
        }
        // Each time, so that a run that is killed leaves what it had.
        results.write(options)?;
    }
    common::print(format_args!("{:20}{HEADINGS}\n{}", "category", results.table));
    common::print(format_args!("{}", results.remarks));
    Ok(failures)
}

const HEADINGS: &str = " image AUROC pixel AUROC   AUPRO   F1max   fit s   predict s";

/// The output for all categories.
#[derive(Default)]
struct Results {
    categories: Map<String, Value>,
    /// The errors of categories that failed.
    failed: Map<String, Value>,
    rows: String,
    table: String,
    /// What is not in the table, and why.
    remarks: String,
}

impl Results {
    fn add(&mut self, category: &Category, result: &CategoryResult) -> Outcome {
        let Report { metrics, images, failed, without_mask, .. } = &result.report;
        let name = &category.name;
        let show = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
        let f1 = metrics.f1.as_ref();
        writeln!(
            self.table,
            "{name:20}{:>12}{:>12}{:>8}{:>8}{:>8.1}{:>12.1}",
            show(metrics.image_auroc),
            show(metrics.pixel_auroc),
            show(metrics.aupro),
            show(f1.map(|f1| f1.f1)),
            result.fit_seconds,
            result.predict_seconds
        )?;
        for undefined in &metrics.undefined {
            writeln!(self.remarks, "{name}: {undefined}")?;
        }
        if *without_mask > 0 && metrics.pixel_auroc.is_some() {
            writeln!(
                self.remarks,
                "{name}: {without_mask} defective image(s) have no usable mask; pixel AUROC and AUPRO are \
                 those of the others"
            )?;
        }
        if !failed.is_empty() {
            writeln!(self.remarks, "{name}: {} test image(s) failed", failed.len())?;
        }
        let undefined = metrics.undefined.iter();
        let undefined: Map<String, Value> =
            undefined.map(|u| (u.metric.to_string(), u.reason.clone().into())).collect();
        let entry = json!({
            "image_auroc": metrics.image_auroc, "pixel_auroc": metrics.pixel_auroc,
            "aupro": metrics.aupro, "image_f1_max": f1.map(|f1| f1.f1),
            "threshold": f1.map(|f1| f1.threshold), "undefined": undefined,
            "failed_images": failed, "without_mask": without_mask,
            "train_images": result.train_images, "storage": result.storage.to_string(),
            "model_bytes": result.model_bytes, "test_images": category.test.len(),
            "fit_seconds": result.fit_seconds, "predict_seconds": result.predict_seconds,
        });
        self.categories.insert(name.clone(), entry);

        let mut images = images.iter().peekable();
        for sample in &category.test {
            let image = images.next_if(|image| image.path == sample.path);
            let score = image.map_or(String::new(), |image| image.image_score.to_string());
            let failed = failed.iter().find(|failed| failed.path == sample.path);
            let error = failed.map_or("", |failed| &*failed.reason);
            let path = common::csv_field(&sample.path.display().to_string());
            writeln!(self.rows, "{path},{score},{}", common::csv_field(error))?;
        }
        Ok(())
    }

    fn write(&self, options: &Options) -> Outcome {
        if let Some(path) = &options.json {
            let all = json!({ "categories": self.categories, "failed": self.failed });
            common::write_text(path, &(serde_json::to_string_pretty(&all)? + "\n"))?;
        }
        if let Some(path) = &options.csv {
            common::write_text(path, &format!("path,image_score,error\n{}", self.rows))?;
        }
        Ok(())
    }
}

struct CategoryResult {
    report: Report,
    /// The number of test images that failed, and one more if the panels did.
    failures: usize,
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
    let first = train.first().map(|sample| &*sample.path);
    common::show_plan(first, |size| padim.memory_plan(size, train.len()));
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
    options.intake.strictness.show_input(&detector)?;
    say!("Gaussians of {} images: {}", train.len(), common::describe_model(&detector));
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
        say!("Saved {}", path.display());
    }

    let start = Instant::now();
    let bar = common::progress_bar("test images", category.test.len() as u64);
    let mut pictures = Vec::new();
    let report = evaluate_each(&detector, category, |image| {
        bar.inc(1);
        if let (Some(prediction), true) = (image.prediction, options.panels.is_some()) {
            pictures.push(Picture {
                place: image.done - 1,
                map: prediction.anomaly_map.clone(),
                truth: image.truth.map(<[bool]>::to_vec),
            });
        }
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let predict_seconds = start.elapsed().as_secs_f64();
    for failed in &report.failed {
        tell!("{}: {}", category.name, common::advice(&failed.reason));
    }
    let mut failures = report.failed.len();
    if let Some(folder) = &options.panels {
        let folder = folder.join(&category.name);
        let threshold = report.metrics.f1.map(|f1| f1.threshold);
        // The scores are kept even if the pictures cannot be written.
        if let Err(error) = write_panels(&detector, category, &pictures, threshold, &folder) {
            tell!("{}: the panels are not complete: {error}", category.name);
            failures += 1;
        }
    }
    let train_images = train.len();
    Ok(CategoryResult {
        report,
        failures,
        fit_seconds,
        predict_seconds,
        train_images,
        storage,
        model_bytes,
    })
}

/// What is drawn of a test image.
struct Picture {
    /// The index of the image.
    place: usize,
    map: AnomalyMap,
    truth: Option<Vec<bool>>,
}

fn write_panels(
    detector: &Detector,
    category: &Category,
    pictures: &[Picture],
    threshold: Option<f32>,
    folder: &Path,
) -> Outcome {
    common::create_folder(folder)?;
    let maps = pictures.iter().map(|picture| &picture.map);
    let Some(range) = ScoreRange::of(maps) else { return Ok(()) };
    let mut first_of_each = Vec::new();
    let mut last_defect = None;
    for Picture { place, map, truth } in pictures {
        let image = &category.test[*place];
        let picture = image.picture(detector.preprocessor())?;
        let panel = common::result_panel(&picture, truth.as_deref(), map, range, threshold)?;
        let defect: String = image.defect.chars().take(50).collect();
        let name = format!("{defect}_{place:05}_{}.png", common::stem(&image.path));
        save_png(&panel, folder.join(name))?;
        if last_defect != Some(&image.defect) {
            last_defect = Some(&image.defect);
            first_of_each.push(panel);
        }
    }
    save_png(&contact_sheet(&first_of_each), folder.join("overview.png"))?;
    say!("Wrote {} panels to {}", pictures.len(), folder.display());
    Ok(())
}
