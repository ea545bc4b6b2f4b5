//! Evaluates PaDiM: data sets x settings x variants x seeds in one run. Prints tables like the paper's,
//! with the published values for comparison.
//!
//!     cargo run --release --example evaluate -- --dataset mvtec:DIR --weights resnet18-f37072fd.pth \
//!         --preset paper --variants table1,table2 --seeds 0..10 --html report.html
//!
//! Finished results are kept in the folder `--out`; an interrupted run continues from there. A kept result
//! is used only if the settings and the contents of all its files are the same.

mod cell;
#[path = "../common/mod.rs"]
mod common;
mod contents;
mod measured;
mod motion;
mod published;
mod report;
mod schedule;
mod source;
mod summary;
mod tables;
mod variant;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use common::{
    DeviceOption, FitInputOptions, Network, NetworkOptions, Outcome, Strictness, say, tell,
};
use padim::dataset::Sample;
use padim::fingerprint::Fingerprint;
use padim::metrics::DEFAULT_FPR_LIMIT;
use padim::preprocess::PreprocessConfig;
use padim::{Backbone, PadimConfig};

use cell::{Cell, Job, Name, Wishes};
use contents::Contents;
use report::{Failure, Report};
use schedule::Budget;
use source::Source;
use tables::Table;
use variant::{Reduction, Variant};

/// Evaluates PaDiM on data sets, with settings and variants of the paper and of other implementations.
#[derive(Parser)]
struct Options {
    /// A data set; can be given several times.
    #[arg(long, required = true, help = format!("A data set: {}", source::SYNTAX))]
    dataset: Vec<Source>,
    /// Evaluates only these categories.
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// The sources of the settings, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "paper")]
    preset: Vec<Preset>,
    #[command(flatten)]
    network: NetworkOptions,
    /// Variants of the embedding, separated by commas [default: table3, the paper's variant for the
    /// network]
    #[arg(long, value_delimiter = ',', default_value = "table3",
        help = format!("Variants, separated by commas: {}{}", variant::SYNTAX, motion::SYNTAX))]
    variants: Vec<String>,
    /// Seeds of the channel draws; with rd:, seeds of the versions of the data. Such as 1,2,3 or 0..10
    /// [default: the preset's seed, 1024 or 0; with rd: 0..5]
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Seeds>,
    /// The false positive rate up to which AUPRO is integrated.
    #[arg(long, default_value_t = DEFAULT_FPR_LIMIT)]
    fpr_limit: f64,
    /// Adds 95 % confidence intervals from this number of bootstrap draws.
    #[arg(long, default_value_t = 0)]
    intervals: usize,
    /// Number of images of each kind (best and worst) in the HTML report, for the first variant and
    /// seed of each category.
    #[arg(long, default_value_t = 4)]
    sheet: usize,
    /// Fits only the first N training images.
    #[arg(long)]
    limit_train: Option<usize>,
    /// Evaluates only N test images, evenly spaced.
    #[arg(long)]
    limit_test: Option<usize>,
    /// Memory limit for all cells that run at once, in gigabytes.
    #[arg(long, default_value_t = 4.0)]
    memory: f64,
    /// Number of cells that run at once, as far as memory allows.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The folder for finished cells.
    #[arg(long, default_value = "padim-evaluation")]
    out: PathBuf,
    /// Also prints results per kind of defect.
    #[arg(long)]
    defects: bool,
    /// Writes everything except pictures to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes a line per cell to this file, as CSV.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Writes the tables to this file, as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Writes a report to this file, as a single HTML page that works offline.
    #[arg(long)]
    html: Option<PathBuf>,
    #[command(flatten)]
    input: FitInputOptions,
    #[command(flatten)]
    strictness: Strictness,
    #[command(flatten)]
    on: DeviceOption,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// Defard et al. 2020.
    Paper,
    /// xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master.
    Xiahaifeng,
    /// anomalib 2.7.
    Anomalib,
}

impl Preset {
    fn name(self) -> &'static str {
        ["paper", "xiahaifeng", "anomalib"][self as usize]
    }

    fn config(self) -> PadimConfig {
        match self {
            Self::Paper => PadimConfig::paper(),
            Self::Xiahaifeng => PadimConfig::xiahaifeng(),
            Self::Anomalib => PadimConfig::anomalib(),
        }
    }

    /// The default seed of the channel draw.
    fn seed(self) -> u64 {
        match self {
            Self::Anomalib => 0,
            _ => 1024,
        }
    }
}

#[derive(Debug, Clone)]
struct Seeds(Vec<u64>);

fn parse_seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || "expected seeds such as 1024, 1,2,3 or 0..10".to_owned();
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let seeds = match text.split_once("..") {
        Some((first, end)) => (number(first)?..number(end)?).take(10_000).collect(),
        None => text.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
    };
    if seeds.is_empty() { Err(wrong()) } else { Ok(Seeds(seeds)) }
}

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    if !(options.memory.is_finite() && options.memory > 0.0) {
        return Err("--memory must be a number of gigabytes above 0".into());
    }
    let kept = options.out.join("cells");
    common::create_folder(&kept)?;
    let (jobs, mut failures) = plan(options)?;
    let cells = run_all(&jobs, options, &kept, &mut failures);

    let rows = summary::rows(&cells, &options.dataset);
    let table = Table::of(&rows);
    if !table.common.is_empty() {
        say!("{}", table.common.join(", "));
    }
    say!("In percent; in brackets what was published, and the difference to it.\n");
    common::print(format_args!("{}", table.for_terminal()));
    if options.defects {
        common::print(format_args!("\n{}", Table::of_defects(&cells).for_terminal()));
    }
    if let Some(path) = &options.csv {
        common::write_text(path, &tables::csv(&cells))?;
    }
    let names: Vec<&str> = options.dataset.iter().map(|source| &*source.text).collect();
    let report = Report::new(names.join(", "), rows, cells, failures);
    if let Some(path) = &options.json {
        common::write_text(path, &report.json()?)?;
    }
    if let Some(path) = &options.markdown {
        common::write_text(path, &report.markdown())?;
    }
    if let Some(path) = &options.html {
        common::write_text(path, &report.html()?)?;
    }
    match report.failures.len() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} cells failed", failed + report.cells.len()).into()),
    }
}

/// What several cells share.
struct Shared<'a> {
    options: &'a Options,
    /// Loaded networks, by their output layers.
    loaded: BTreeMap<Vec<usize>, Arc<dyn Backbone>>,
    contents: Contents,
}

impl Shared<'_> {
    fn with_layers(&mut self, layers: &[usize]) -> Outcome<Arc<dyn Backbone>> {
        if let Some(network) = self.loaded.get(layers) {
            return Ok(network.clone());
        }
        let network = self.options.network.build(layers, &self.options.on.device)?;
        self.loaded.insert(layers.to_vec(), network.clone());
        Ok(network)
    }
}

/// A planned cell, and the name of its file.
type Planned = (Job, String);

/// Plans all cells with the names of their files; returns also the cells that are impossible.
fn plan(options: &Options) -> Outcome<(Vec<Planned>, Vec<Failure>)> {
    let main = options.network.backbone.variant();
    let variants: Vec<Variant> = options
        .variants
        .iter()
        .map(|text| Variant::parse(text, &main))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let variants = without_repetition(variants);
    let (loaded, contents) = Default::default();
    let mut shared = Shared { options, loaded, contents };
    let (mut jobs, mut failures) = (Vec::new(), Vec::new());
    for source in &options.dataset {
        for (own, category) in chosen_categories(source, &options.categories)? {
            let mut shown = None;
            // The first variant and seed of each setting gets a contact sheet.
            for &preset in &options.preset {
                // What the crop hides depends on the preset.
                let report = source.examine(&own, preprocess(options, source, preset))?;
                if shown.as_ref() != Some(&report) {
                    options.strictness.show(&report)?;
                }
                shown = Some(report);
                let mut sheet = options.sheet;
                for variant in &variants {
                    for seed in seeds(options, source, preset, variant) {
                        let name = Name {
                            dataset: source.text.clone(),
                            preset: preset.name().to_owned(),
                            backbone: options.network.backbone.name(),
                            variant: variant.to_string(),
                            category: category.clone(),
                            seed,
                        };
                        let wishes = Wishes {
                            aupro_limit: options.fpr_limit,
                            interval_draws: options.intervals,
                            sheet: std::mem::take(&mut sheet),
                        };
                        let place = (source, own.as_str());
                        let made = job(&mut shared, place, preset, variant, name.clone(), wishes);
                        match made {
                            Ok(job) => jobs.push(job),
                            Err(error) => {
                                tell!("{name}: {error}");
                                failures.push(Failure { name, error: error.to_string() });
                            }
                        }
                    }
                }
            }
        }
    }
    Ok((jobs, failures))
}

fn without_repetition(variants: Vec<Variant>) -> Vec<Variant> {
    let mut kept: Vec<Variant> = Vec::new();
    for variant in variants {
        if !kept.contains(&variant) {
            kept.push(variant);
        }
    }
    kept
}

/// The chosen categories, by their names in the data set and in the tables.
fn chosen_categories(source: &Source, wanted: &[String]) -> Outcome<Vec<(String, String)>> {
    let there = source.categories()?;
    if wanted.is_empty() {
        return Ok(there);
    }
    let chosen: Vec<_> = there.iter().filter(|(_, name)| wanted.contains(name)).cloned().collect();
    if chosen.is_empty() {
        let there = there.into_iter().map(|names| names.1).collect::<Vec<_>>().join(", ");
        return Err(format!("{} has none of the categories; it has {there}", source.text).into());
    }
    Ok(chosen)
}

fn seeds(options: &Options, source: &Source, preset: Preset, variant: &Variant) -> Vec<u64> {
    match (&options.seeds, source.rotated) {
        // The seed chooses the version of the data set; the paper has five versions.
        (None, true) => (0..5).collect(),
        (Some(Seeds(seeds)), true) => seeds.clone(),
        (Some(Seeds(seeds)), false) if variant.is_random() => seeds.clone(),
        _ => vec![preset.seed()],
    }
}

/// How the images of a data set are preprocessed with a preset.
fn preprocess(options: &Options, source: &Source, preset: Preset) -> PreprocessConfig {
    options.input.preprocess(source.preprocess(&preset.config()))
}

fn job(
    shared: &mut Shared<'_>,
    (source, category): (&Source, &str),
    preset: Preset,
    variant: &Variant,
    name: Name,
    wishes: Wishes,
) -> Outcome<Planned> {
    let options = shared.options;
    let config = preset.config();
    let mut category = source.category(category, name.seed, &config)?;
    category.train.truncate(options.limit_train.unwrap_or(usize::MAX));
    if let Some(limit) = options.limit_test {
        category.test = evenly(category.test, limit);
    }
    let draw = if source.rotated { preset.seed() } else { name.seed };
    let channels = variant.channels(&config, draw);
    let config =
        config.with_preprocess(preprocess(options, source, preset)).with_channels(channels);
    let config = variant.motion.config(config);
    let layer_sets = variant.layer_sets();
    let backbones = layer_sets.iter().map(|layers| shared.with_layers(layers));
    let backbones = backbones.collect::<Outcome<_>>()?;
    let Variant { reduction, motion, half, .. } = *variant;
    let (contents, limits) = (shared.contents.of(&category), options.input.limits());
    let job = Job { name, config, backbones, reduction, motion, half, category, limits, wishes };
    let file = file_name(&job.name, job.key(&contents)?);
    Ok((job, file))
}

/// The file name of a cell: a readable part, then the fingerprint of its inputs.
fn file_name(name: &Name, key: Fingerprint) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "+-".contains(c) { c } else { '-' };
    let Name { preset, backbone, variant, category, seed, .. } = name;
    let words = format!("{category} {preset} {backbone} {variant} {seed}");
    let words: String = words.chars().map(plain).take(100).collect();
    format!("{words}-{:.16}.json", key.to_string())
}

fn evenly(samples: Vec<Sample>, limit: usize) -> Vec<Sample> {
    let count = samples.len();
    let kept = |i: usize| i * limit / count.max(1) != (i + 1) * limit / count.max(1);
    samples
        .into_iter()
        .enumerate()
        .filter(|(i, _)| limit >= count || kept(*i))
        .map(|s| s.1)
        .collect()
}

/// Reads the finished cells and runs the others.
fn run_all(
    jobs: &[(Job, String)],
    options: &Options,
    kept: &Path,
    failures: &mut Vec<Failure>,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut missing = Vec::new();
    for (job, file) in jobs {
        let path = kept.join(file);
        match Cell::read(&path) {
            Some(cell) => cells.push(cell),
            None => missing.push((job, path)),
        }
    }
    if !cells.is_empty() {
        tell!("{} of {} cells are there already.", cells.len(), jobs.len());
    }
    let bar = common::progress_bar("evaluating", missing.iter().map(|(job, _)| job.steps()).sum());
    let budget = Budget::new((options.memory * 1e9) as usize);
    let (results, done) = (Mutex::new((cells, Vec::new())), Mutex::new(0));
    schedule::for_each(&missing, options.jobs, |(job, path)| {
        let (result, seconds) = budget.with(job.memory(), || {
            let start = Instant::now();
            let result = job.run(&|images| bar.inc(images)).and_then(|cell| {
                cell.write(path)?;
                Ok(cell)
            });
            (result.map_err(|error| error.to_string()), start.elapsed().as_secs_f64())
        });
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        let outcome = match &result {
            Ok(cell) => short(cell),
            Err(error) => error.clone(),
        };
        let left = bar.eta().as_secs() / 60;
        bar.suspend(|| {
            let (done, all) = (*done, missing.len());
            tell!("[{done}/{all}] {}: {outcome} ({seconds:.1} s; {left} min left)", job.name);
        });
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(cell) => results.0.push(cell),
            // Go on with the other cells, so that a long run is not lost.
            Err(error) => results.1.push(Failure { name: job.name.clone(), error }),
        }
    });
    bar.finish_and_clear();
    let (cells, failed) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.extend(failed);
    // In the planned order.
    let place = |cell: &Cell| jobs.iter().position(|(job, _)| job.name == cell.name);
    let mut cells = cells;
    cells.sort_by_key(place);
    cells
}

/// The main metrics of a cell, in percent.
fn short(cell: &Cell) -> String {
    let metrics = cell::METRICS.iter().take(3).filter_map(|(name, heading)| {
        let value = cell.metrics.get(*name).copied().flatten()?;
        Some(format!("{heading} {:.1}", 100.0 * value))
    });
    let mut text = metrics.collect::<Vec<_>>().join(", ");
    let localized = cell.metrics.get("aupro").copied().flatten().is_some();
    if cell.without_mask > 0 && localized {
        text += &format!(" (of pixels without {} image(s) that have no mask)", cell.without_mask);
    }
    if let Some(first) = cell.failed.first() {
        text += &format!(
            " (without {} image(s) that could not be scored, such as {}: {})",
            cell.failed.len(),
            first.path,
            first.reason
        );
    }
    text
}

impl Network {
    /// The paper's variant for this network.
    fn variant(self) -> Variant {
        let reduction = match self.channel_count() {
            Some(count) => Reduction::Random(count),
            None => Reduction::All,
        };
        Variant::together(vec![1, 2, 3], reduction)
    }
}
