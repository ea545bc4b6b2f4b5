//! Compares the storages of the Gaussians on real images: size, errors of the distance relative to f64,
//! and metrics. Prints a table in Markdown.
//!
//!     cargo run --release --example storages -- --data screw --weights resnet18-f37072fd.pth

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use common::{DeviceOption, NetworkOptions, Outcome, PictureOptions, say};
use nalgebra::{DMatrix, DVector};
use padim::dataset::Mvtec;
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::gaussian::{GaussianConfig, GaussianModel, Precision, Shrinkage, Storage};
use padim::metrics::{self, PixelScores};
use padim::preprocess::{Normalization, Preprocessor};
use padim::scoring::AnomalyScorer;
use padim::{Padim, PadimConfig};

/// Compares the storages of the Gaussians on a category in MVTec AD's layout.
#[derive(Parser)]
struct Options {
    /// A category (with train/good, test/<defect>, ground_truth/<defect>).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    network: NetworkOptions,
    /// Channels to use: `all`, `seed:N:COUNT`, or a file of indices.
    #[arg(long, value_parser = common::parse_channels)]
    channels: Option<ChannelSelection>,
    /// Fits only the first N training images.
    #[arg(long)]
    limit_train: Option<usize>,
    /// Compares only these storages, such as triangle-f32,triangle-f16.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Storage>,
    /// Number of positions at which distances are compared with f64.
    #[arg(long, default_value_t = 49)]
    positions: usize,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    common::report(run(&Options::parse()));
}

/// The Gaussian of a position in f64; `factor` is the Cholesky factor of the covariance.
struct Exact {
    position: usize,
    mean: DVector<f64>,
    factor: DMatrix<f64>,
}

impl Exact {
    fn distance(&self, vector: impl Iterator<Item = f32>) -> f64 {
        let vector = DVector::from_iterator(self.mean.len(), vector.map(f64::from)) - &self.mean;
        self.factor.solve_lower_triangular(&vector).map_or(f64::NAN, |z| z.norm())
    }
}

/// The measurements for a storage.
struct Column {
    model: GaussianModel,
    fit_seconds: f64,
    distance_seconds: f64,
    errors: Vec<f64>,
    scores: Vec<f32>,
    maps: Vec<Vec<f32>>,
}

fn run(options: &Options) -> Outcome {
    let device = &options.on.device;
    let backbone = options.network.build(&[1, 2, 3], device)?;
    let config = PadimConfig::default()
        .with_channels(options.channels.clone().unwrap_or(options.network.backbone.channels()));
    let preprocess = options.pictures.preprocess();
    let config = config.with_preprocess(preprocess);
    let category = Mvtec::open(&options.data)?;
    let count = options.limit_train.unwrap_or(usize::MAX).min(category.train.len());
    let train = &category.train[..count];
    let padim = Padim::new(config.clone(), Arc::clone(&backbone))?
        .with_decode_limits(options.pictures.limits());
    let bar = common::progress_bar("images", count as u64);
    let fit = padim.partial_fit_with(train, common::show_fit(&bar))?;
    bar.finish_and_clear();

    let statistics = fit.statistics();
    let dimension = statistics.dimension();
    let (f32, f16) = (Precision::F32, Precision::F16);
    let mut storages = vec![Storage::FullInverse, Storage::Triangle(f32), Storage::Triangle(f16)];
    if count <= dimension {
        storages.extend([Storage::LowRank(f32), Storage::LowRank(f16)]);
    }
    storages.push(Storage::Diagonal);
    storages.retain(|storage| options.only.is_empty() || options.only.contains(storage));
    if storages.is_empty() {
        return Err("none of the storages of --only fits the number of images".into());
    }
    let settings = |storage, shrinkage| {
        GaussianConfig::default().with_storage(storage).with_shrinkage(shrinkage)
    };
    let mut columns = Vec::new();
    for storage in storages {
        let start = Instant::now();
        let model = statistics.model(&settings(storage, Shrinkage::None))?;
        columns.push(Column {
            model,
            fit_seconds: start.elapsed().as_secs_f64(),
            distance_seconds: 0.0,
            errors: Vec::new(),
            scores: Vec::new(),
            maps: Vec::new(),
        });
    }
    let automatic = statistics.model(&settings(Storage::Auto, Shrinkage::None))?;
    let chosen = automatic.storage();
    drop(automatic);
    let [height, width] = columns[0].model.grid();
    let places = height * width;
    let exact: Vec<Exact> = (0..options.positions)
        .filter_map(|i| {
            let position =
                i * places / options.positions + i % width.min(places / options.positions);
            let (mean, covariance) = statistics.gaussian(&config.gaussian, position)?;
            Some(Exact { position, mean, factor: covariance.cholesky()?.unpack() })
        })
        .collect();

    let normalization: Normalization = backbone.normalization();
    let preprocessor = Preprocessor::new(config.preprocess.clone(), normalization)?
        .with_decode_limits(options.pictures.limits());
    let embedder: &PatchEmbedder = padim.embedder();
    let scorer = AnomalyScorer::new(config.scoring.clone())?;
    let mut masks = Vec::new();
    let mut size = [0, 0];
    let bar = common::progress_bar("test images", category.test.len() as u64);
    for image in &category.test {
        let input = preprocessor.process(&image.open_with(preprocessor.decode_options())?)?;
        size = input.geometry.input_size();
        let shape = [1, 3, size[0], size[1]];
        let tensor = Tensor::<4>::from_data(TensorData::new(input.values, shape), device);
        let embedding = embedder.embed(&backbone.forward(tensor)?)?;
        let values: Vec<f32> = embedding.clone().into_data().try_into_vec()?;
        let expected: Vec<f64> = exact
            .iter()
            .map(|e| e.distance((0..dimension).map(|c| values[c * places + e.position])))
            .collect();
        for column in &mut columns {
            let start = Instant::now();
            let distances = column.model.mahalanobis_distance(embedding.clone())?;
            column.distance_seconds += start.elapsed().as_secs_f64();
            let own: Vec<f32> = distances.clone().into_data().try_into_vec()?;
            for (e, expected) in exact.iter().zip(&expected) {
                column.errors.push((f64::from(own[e.position]) / expected - 1.0).abs());
            }
            let scored = scorer.score(distances, size)?.remove(0);
            column.scores.push(scored.image_score);
            column.maps.push(scored.map.values().to_vec());
        }
        masks.push(image.truth(&preprocessor, size)?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let defective: Vec<bool> = category.test.iter().map(|image| image.is_defective()).collect();
    say!(
        "{}, {:?}, {count} training images, {dimension} dimensions, {} test images. \
         `auto` takes {chosen}.\n",
        category.name,
        options.network.backbone,
        category.test.len()
    );
    say!(
        "| storage | MB | factorize s | distance ms | typical error | worst error | image AUROC \
         | pixel AUROC | AUPRO |\n|---|---|---|---|---|---|---|---|---|"
    );
    for mut column in columns {
        column.errors.sort_by(f64::total_cmp);
        let median = column.errors[column.errors.len() / 2];
        let worst = column.errors[column.errors.len() - 1];
        let pixels = column.maps.iter().zip(&masks);
        let pixels: Vec<PixelScores<'_>> = pixels
            .map(|(map, mask)| PixelScores::new(map, mask, size))
            .collect::<padim::Result<_>>()?;
        say!(
            "| {} | {:.1} | {:.1} | {:.1} | {median:.1e} | {worst:.1e} | {:.5} | {:.5} | {:.5} |",
            column.model.storage(),
            column.model.size_in_bytes() as f64 / 1e6,
            column.fit_seconds,
            column.distance_seconds * 1e3 / category.test.len() as f64,
            metrics::image_auroc(&column.scores, &defective)?,
            metrics::pixel_auroc(&pixels)?,
            metrics::aupro(&pixels, metrics::DEFAULT_FPR_LIMIT)?,
        );
    }
    Ok(())
}
