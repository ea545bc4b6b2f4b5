//! A large picture in tiles: draws cloth, fits good pieces, finds the flaws in another piece, and
//! writes pictures in which you can look for seams between tiles.
//!
//!     cargo run --release --example tiles

mod common;

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use common::{DeviceOption, Outcome, say};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use padim::tiling::TileModels;
use padim::visualize::{ScoreRange, heat_map, overlay, save_png};
use padim::{ImageInput, PadimConfig, ResNet18, TiledDetector, TiledPadim, TilingConfig, Weights};

/// Draws cloth, fits PaDiM to tiles of it and finds flaws.
#[derive(Parser)]
struct Options {
    /// ResNet18 weights with torchvision's names [default: the bundled weights]
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Height of the pictures in pixels.
    #[arg(long, default_value_t = 3072)]
    height: u32,
    /// Width of the pictures in pixels.
    #[arg(long, default_value_t = 4096)]
    width: u32,
    /// Side of a tile in pixels.
    #[arg(long, default_value_t = 512)]
    tile: usize,
    /// Overlap of neighboring tiles in pixels.
    #[arg(long, default_value_t = 128)]
    overlap: usize,
    /// Side of the network's input for a tile, in pixels.
    #[arg(long, default_value_t = 256)]
    input: usize,
    /// Fits a model per tile position, instead of one for all tiles.
    #[arg(long)]
    per_position: bool,
    /// Number of good pictures for the fit.
    #[arg(long, default_value_t = 6)]
    train: u32,
    /// Memory limit for the fit in megabytes. With a model per position, pictures may then be read
    /// several times.
    #[arg(long)]
    megabytes: Option<usize>,
    /// The folder for pictures and the detector.
    #[arg(long, default_value = "tiles-out")]
    output: PathBuf,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    common::report(run(&Options::parse()));
}

fn run(options: &Options) -> Outcome {
    let begin = Instant::now();
    let device = &options.on.device;
    let weights = options.weights.as_ref().map_or(Weights::Bundled, Weights::from);
    let backbone = ResNet18::load(weights, device)?;
    let tiling = TilingConfig::default()
        .with_tile([options.tile; 2])
        .with_overlap(options.overlap)
        .with_models(if options.per_position {
            TileModels::PerPosition
        } else {
            TileModels::Shared
        });
    let config = PadimConfig::default().with_input_size([options.input; 2]);
    let padim = TiledPadim::new(config, tiling, backbone)?;
    let (height, width) = (options.height, options.width);
    let size = [height as usize, width as usize];
    let count = tiling.origins(size)?.len();
    say!("{count} tiles of {0}x{0} pixels in a picture of {height}x{width}.", options.tile);
    say!("Planned: {}.", padim.memory_plan(size, options.train as usize)?);

    // A picture is drawn when it is needed, so that at most two are in memory.
    let good = (0..options.train).map(|seed| {
        ImageInput::deferred(format!("picture {seed}"), move |_| {
            Ok(cloth([height, width], seed).into())
        })
    });
    let bar = common::progress_bar("images", options.train.into());
    let start = Instant::now();
    let detector = match options.megabytes {
        Some(megabytes) => padim.fit_within_with(megabytes << 20, good, common::show_fit(&bar))?,
        None => padim.fit_with(good, common::show_fit(&bar))?,
    };
    bar.finish_and_clear();
    report("Fitted", start);

    let image = cloth([height, width], 1000);
    let flaws = flaws([height, width]);
    let spoilt = spoil(image.clone(), &flaws);
    let start = Instant::now();
    let clean = detector.predict(image)?;
    report("Predicted a good picture", start);
    let start = Instant::now();
    let prediction = detector.predict(spoilt.clone())?;
    report("Predicted one with flaws", start);
    say!("Scores {:.2} and {:.2}.", clean.image_score, prediction.image_score);

    common::create_folder(&options.output)?;
    let threshold = 1.05 * clean.image_score;
    let map = &prediction.anomaly_map;
    let [rows, columns] = map.size().map(|side| side as u32);
    let picture = resize(&spoilt, columns, rows, FilterType::Triangle);
    if let Some(range) = ScoreRange::of([map, &clean.anomaly_map]) {
        let over = overlay(&picture, map, range, Some(threshold))?;
        save_png(&over, options.output.join("overlay.png"))?;
    }
    // The color range of the good picture itself, so that steps between tiles would be visible.
    if let Some(range) = ScoreRange::of([&clean.anomaly_map]) {
        save_png(&heat_map(&clean.anomaly_map, range), options.output.join("good_map.png"))?;
    }

    let decision = padim::Thresholds::fixed(threshold).with_pixel_threshold(threshold);
    let detector = detector.with_thresholds(Some(decision.with_smallest_area(100)))?;
    for defect in detector.anomaly_regions(&prediction)?.iter().take(8) {
        let padim::decision::AnomalyRegion { top, left, height, width, peak, .. } = defect;
        say!("  row {top}, column {left}: {height}x{width} pixels, up to {peak:.2}");
    }
    for Flaw { x, y, radius, .. } in &flaws {
        say!("  drawn about row {y:.0}, column {x:.0}, radius {radius:.0}");
    }
    let file = options.output.join("cloth.padim");
    detector.save(&file)?;
    let again = TiledDetector::load(&file, device)?.predict(spoilt)?;
    say!("Saved and loaded: score {:.2} and {:.2}.", prediction.image_score, again.image_score);
    report("All of it", begin);
    say!("Look at overlay.png and good_map.png in {}.", options.output.display());
    Ok(())
}

/// Prints the time and the peak memory of the process so far (only on Linux).
fn report(what: &str, start: Instant) {
    let peak = common::memory("VmHWM")
        .map_or("unknown".to_owned(), |bytes| format!("{} kB", bytes / 1024));
    say!("{what}: {:.1} s; peak of memory so far {peak}.", start.elapsed().as_secs_f64());
}

/// Draws woven threads of uneven thickness, with the same statistics everywhere.
fn cloth([height, width]: [u32; 2], seed: u32) -> RgbImage {
    let noise = |x: u32, y: u32, salt: u32| {
        let mut z = x.wrapping_mul(0x9E37_79B1)
            ^ y.wrapping_mul(0x85EB_CA77)
            ^ (seed * 8 + salt).wrapping_mul(0xC2B2_AE3D);
        z = (z ^ (z >> 15)).wrapping_mul(0x2C1B_3C6D);
        z = (z ^ (z >> 12)).wrapping_mul(0x297A_2D39);
        (z >> 8) as f32 / (1 << 24) as f32
    };
    let bow = |i: u32| (i as f32 * std::f32::consts::TAU / 16.0).sin();
    let thickness = |i: u32, salt: u32| 18.0 + 10.0 * noise(i / 16, 0, salt);
    let warp: Vec<f32> = (0..width).map(|x| thickness(x, 1) * bow(x)).collect();
    let weft: Vec<f32> = (0..height).map(|y| thickness(y, 2) * bow(y)).collect();
    RgbImage::from_fn(width, height, |x, y| {
        let over = (x / 16 + y / 16) % 2 == 0;
        let thread = if over { warp[x as usize] } else { weft[y as usize] };
        let light = 120.0 + thread + 24.0 * (noise(x, y, 3) - 0.5);
        Rgb([light, 0.95 * light, 0.8 * light].map(|v| v.clamp(0.0, 255.0) as u8))
    })
}

struct Flaw {
    x: f32,
    y: f32,
    radius: f32,
    kind: fn(f32, f32) -> f32,
    color: [f32; 3],
}

/// A stain, a hole, and a pulled thread. The stain is at the corner of four tiles of the default size.
fn flaws([height, width]: [u32; 2]) -> [Flaw; 3] {
    let (w, h) = (width as f32, height as f32);
    let dark = [40.0, 38.0, 36.0];
    [
        Flaw {
            x: 448.0,
            y: 448.0,
            radius: 60.0,
            kind: |x, y| 0.6 * (1.0 - x.hypot(y)),
            color: dark,
        },
        Flaw {
            x: 0.6 * w,
            y: 0.4 * h,
            radius: 24.0,
            kind: |x, y| f32::from(u8::from(x.hypot(y) < 1.0)),
            color: [12.0, 10.0, 9.0],
        },
        Flaw {
            x: 0.75 * w,
            y: 0.8 * h,
            radius: 400.0,
            kind: |x, y| (1.0 - 90.0 * (y - 0.1 * (5.0 * x).sin()).abs()) * (1.0 - x.abs()),
            color: [235.0, 230.0, 210.0],
        },
    ]
}

fn spoil(mut image: RgbImage, flaws: &[Flaw]) -> RgbImage {
    for Flaw { x, y, radius, kind, color } in flaws {
        let span = |center: f32, side: u32| {
            let end = (center + radius).clamp(0.0, side as f32) as u32;
            (center - radius).clamp(0.0, side as f32) as u32..end
        };
        for (px, py) in span(*x, image.width())
            .flat_map(|px| span(*y, image.height()).map(move |py| (px, py)))
            .collect::<Vec<_>>()
        {
            let part = kind((px as f32 - x) / radius, (py as f32 - y) / radius).clamp(0.0, 1.0);
            let pixel = image.get_pixel_mut(px, py);
            for (value, color) in pixel.0.iter_mut().zip(color) {
                *value = (f32::from(*value) * (1.0 - part) + color * part) as u8;
            }
        }
    }
    image
}
