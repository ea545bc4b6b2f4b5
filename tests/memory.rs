//! Compares the memory of fits and predictions with the plan. Each is measured in a separate process,
//! by the operating system.

use std::path::Path;
use std::process::Command;

use burn::tensor::Device;
use image::{Rgb, RgbImage};
use padim::backbone::ResNetConfig;
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::preprocess::{PreprocessConfig, Resize, ResizeArithmetic, decode_file};
use padim::tiling::TileModels;
use padim::{
    BackboneCache, CalibrationConfig, Detector, ImageInput, Padim, PadimConfig, ResNet18,
    TiledDetector, TiledPadim, TilingConfig, WideResNet50, burn, image,
};

fn picture(i: u64) -> RgbImage {
    RgbImage::from_fn(224, 224, |x, y| {
        Rgb([(x * 3 + i as u32 * 5) as u8, (y * 4) as u8, ((x ^ y) * 2 + i as u32 * 3) as u8])
    })
}

/// The memory of this process in bytes, from the operating system: `VmRSS` is the current value,
/// `VmHWM` the peak.
fn resident(which: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(which))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
}

struct Case {
    name: &'static str,
    network: fn() -> ResNetConfig,
    channels: usize,
    images: usize,
    storage: Storage,
    /// Files of this size instead of drawn pictures.
    files: Option<[usize; 2]>,
    neighborhood: usize,
    arithmetic: ResizeArithmetic,
}

const FIRST: Case = Case {
    name: "vectors are kept",
    network: ResNet18::config,
    channels: 100,
    images: 90,
    storage: Storage::Triangle(Precision::F16),
    files: None,
    neighborhood: 1,
    arithmetic: ResizeArithmetic::Pil,
};

/// The image size of a camera with 20 megapixels.
const LARGE: [usize; 2] = [3648, 5472];

const CASES: [Case; 7] = [
    FIRST,
    Case {
        name: "vectors are summed up",
        network: ResNet18::config,
        channels: 120,
        images: 170,
        storage: Storage::Triangle(Precision::F32),
        ..FIRST
    },
    Case {
        name: "low rank",
        network: ResNet18::config,
        channels: 448,
        images: 60,
        storage: Storage::Auto,
        ..FIRST
    },
    Case {
        name: "the model is the largest, the network is wide",
        network: WideResNet50::config,
        channels: 200,
        images: 24,
        storage: Storage::FullInverse,
        ..FIRST
    },
    Case { name: "files of 20 megapixels", images: 10, files: Some(LARGE), ..FIRST },
    Case {
        name: "files of 20 megapixels, as floating-point numbers",
        images: 10,
        files: Some(LARGE),
        arithmetic: ResizeArithmetic::Float { antialias: true },
        ..FIRST
    },
    Case { name: "the widest window", channels: 20, images: 20, neighborhood: 31, ..FIRST },
];

impl Case {
    fn padim(&self) -> Padim {
        let config = PadimConfig::default()
            .with_preprocess(
                PreprocessConfig::default()
                    .with_resize(Resize::square(224))
                    .with_crop(None)
                    .with_arithmetic(self.arithmetic),
            )
            .with_neighborhood(self.neighborhood)
            .with_channels(ChannelSelection::random(self.channels, 1))
            .with_gaussian(GaussianConfig::default().with_storage(self.storage));
        let network = (self.network)().untrained(0, &Device::flex()).unwrap();
        Padim::new(config, network).unwrap()
    }

    fn size(&self) -> [usize; 2] {
        self.files.unwrap_or([224, 224])
    }

    /// Images that are decoded or drawn when they are needed.
    fn images(&self, count: usize, folder: &Path) -> Vec<ImageInput> {
        let image = |i: usize| match self.files {
            Some(_) => ImageInput::from(&*file(folder, i)),
            None => ImageInput::deferred(i.to_string(), move |_| Ok(picture(i as u64).into())),
        };
        (0..count).map(image).collect()
    }
}

/// One of two files of [`LARGE`] pixels, a PNG and a JPEG.
fn file(folder: &Path, number: usize) -> std::path::PathBuf {
    folder.join(["large.png", "large.jpg"][number % 2])
}

/// Writes the files; called by the parent of the measured processes.
fn write_files(folder: &Path) {
    let [height, width] = LARGE.map(|side| side as u32);
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x / 8) as u8, (y / 8) as u8, 90]));
    (0..2).for_each(|number| image.save(file(folder, number)).unwrap());
}

/// Number of calibration images; their maps together would exceed the plan.
const CALIBRATED: usize = 300;
const FOLDS: usize = 5;

const TILES: [TileModels; 2] = [TileModels::Shared, TileModels::PerPosition];
const FRAME: [usize; 2] = [3072, 4096];
const FRAMES: u64 = 8;

/// A frame in twenty tiles; the network's input has a quarter of a tile's size.
fn tiled(models: TileModels) -> TiledPadim {
    let config = PadimConfig::default().with_preprocess(
        PreprocessConfig::default().with_resize(Resize::square(256)).with_crop(None),
    );
    let tiling =
        TilingConfig::default().with_tile([1024, 1024]).with_overlap(128).with_models(models);
    TiledPadim::new(config, tiling, ResNet18::untrained(0, &Device::flex()).unwrap()).unwrap()
}

/// Frames that are made when they are needed.
fn frames() -> impl ExactSizeIterator<Item = ImageInput> {
    let [height, width] = FRAME.map(|side| side as u32);
    (0..FRAMES as u32).map(move |i| {
        ImageInput::deferred(format!("frame {i}"), move |_| {
            let pixel = |x, y| Rgb([(x / 4 + i * 5) as u8, (y / 3) as u8, ((x ^ y) / 2 + i) as u8]);
            Ok(RgbImage::from_fn(width, height, pixel).into())
        })
    })
}

/// The task of a separate process: prints the difference between its peak memory and its memory at the
/// start.
#[test]
fn measured() {
    let Ok(task) = std::env::var("PADIM_MEMORY_TASK") else { return };
    let parts: Vec<&str> = task.splitn(3, ' ').collect();
    let number = parts[1].parse::<usize>().unwrap();
    let case = &CASES[number];
    let path = Path::new(parts[2]);
    let before = resident("VmRSS").unwrap();
    match parts[0] {
        "decode" => {
            assert!(decode_file(path).is_err());
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
        "fit-tiles" => {
            let detector = tiled(TILES[number]).fit(frames()).unwrap();
            println!("peak {}", resident("VmHWM").unwrap() - before);
            detector.save(path).unwrap();
        }
        "predict-tiles" => {
            let detector = TiledDetector::load(path, &Device::flex()).unwrap();
            println!("loaded {}", resident("VmHWM").unwrap() - before);
            detector.predict_iter(frames().take(3)).for_each(|p| drop(p.unwrap()));
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
        "fifty" => {
            let backbones = BackboneCache::new(&Device::flex());
            let load = |_| Detector::load(path, &backbones).unwrap();
            let detectors: Vec<Detector> = (0..50).map(load).collect();
            detectors.iter().for_each(|detector| drop(detector.predict(picture(1)).unwrap()));
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
        "fit" => {
            let images = case.images(case.images, path.parent().unwrap());
            let detector = case.padim().fit(images).unwrap();
            println!("peak {}", resident("VmHWM").unwrap() - before);
            detector.save(path).unwrap();
        }
        "fit-calibrated" => {
            let images = case.images(case.images, path.parent().unwrap());
            let rates = CalibrationConfig::default();
            case.padim().fit_calibrated(&images, FOLDS, &rates).unwrap();
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
        "calibrate" => {
            let mut detector = Detector::load(path, &Device::flex()).unwrap();
            let images = case.images(CALIBRATED, path.parent().unwrap());
            detector.calibrate(images, &CalibrationConfig::default()).unwrap();
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
        _ => {
            let detector = Detector::load(path, &Device::flex()).unwrap();
            println!("loaded {}", resident("VmHWM").unwrap() - before);
            let count = if case.files.is_some() { 10 } else { 24 };
            for prediction in detector.predict_iter(case.images(count, path.parent().unwrap())) {
                prediction.unwrap();
            }
            println!("peak {}", resident("VmHWM").unwrap() - before);
        }
    }
}

/// Runs a task in a separate process. Returns a function that finds the number after a word of the
/// output.
fn run(task: &str, case: usize, path: &Path) -> impl Fn(&str) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "measured", "--nocapture", "--test-threads", "1"])
        .env("PADIM_MEMORY_TASK", format!("{task} {case} {}", path.display()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    move |word| {
        let behind = text.split(word).nth(1).unwrap_or_else(|| panic!("{text}"));
        behind.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A file of 427 bytes, found by a fuzzer: the reader would reserve 154 MiB for its directory.
#[test]
fn a_tiff_that_claims_a_large_directory_takes_no_memory() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/image/found-tiff-directory");
    if resident("VmHWM").is_none() || !file.exists() {
        println!("SKIPPED: no /proc/self/status to measure memory by, or not in the repository");
        return;
    }
    let peak = run("decode", 0, &file)("peak ");
    println!("{peak} bytes");
    assert!(peak < 4 << 20, "{peak}");
}

/// A sparse file of a gigabyte that begins like a JPEG.
#[test]
fn a_large_file_is_not_read_before_its_limit() {
    if resident("VmHWM").is_none() {
        println!("SKIPPED: this system has no /proc/self/status to measure memory by");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endless.jpg");
    std::fs::write(&path, b"\xFF\xD8\xFF\xE0\0\x10JFIF\0").unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let peak = run("decode", 0, &path)("peak ");
    println!("{peak} bytes");
    assert!(peak < 4 << 20, "{peak}");
}

/// Fifty products in one process, of one backbone: its weights are there once.
#[test]
fn detectors_share_their_backbone() {
    if resident("VmHWM").is_none() {
        println!("SKIPPED: this system has no /proc/self/status to measure memory by");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    run("fit", 0, &path)("peak ");
    let peak = run("fifty", 0, &path)("peak ");
    println!("{peak} bytes");
    assert!(peak < 2_000_000_000, "{peak}");
}

#[test]
fn plans_hold() {
    if resident("VmHWM").is_none() {
        println!("SKIPPED: this system has no /proc/self/status to measure memory by");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    write_files(folder.path());
    let mut wrong = Vec::new();
    let whole = CASES.iter().enumerate().map(|(number, case)| {
        let plan = case.padim().memory_plan(case.size(), case.images).unwrap();
        (case.name, plan, ["fit", "predict"], number)
    });
    let tiles = TILES.iter().enumerate().map(|(number, &models)| {
        let plan = tiled(models).memory_plan(FRAME, FRAMES as usize).unwrap();
        let name = ["tiles with a shared model", "tiles with their own models"][number];
        (name, plan, ["fit-tiles", "predict-tiles"], number)
    });
    for (name, plan, tasks, number) in whole.chain(tiles) {
        println!("{name}: {plan}");
        let [fit, predict] = tasks.map(|task| run(task, number, &path));
        let mut measured = vec![
            ("fit", plan.fit, fit("peak ")),
            ("load", plan.network + plan.model, predict("loaded ")),
            ("predict", plan.predict, predict("peak ")),
        ];
        if name == FIRST.name {
            measured.push(("calibrate", plan.predict, run("calibrate", number, &path)("peak ")));
        }
        if tasks[0] == "fit" && (number < 2) {
            let case = &CASES[number];
            let plan = case.padim().calibrated_memory_plan(case.size(), case.images, FOLDS);
            let plan = plan.unwrap().fit;
            measured.push(("fit, calibrated", plan, run("fit-calibrated", number, &path)("peak ")));
        }
        for (what, planned, measured) in measured {
            let share = measured as f64 / planned as f64;
            println!("  {what}: planned {planned}, measured {measured}, {share:.2} of it");
            // The program itself takes some megabytes: threads, loaded code and buffers. And the
            // allocator keeps some freed memory.
            let own = 24 << 20;
            // The number of large files that are decoded at the same moment is random.
            let least = if name.starts_with("files") && what != "load" { 0.6 } else { 0.8 };
            if share < least || measured as f64 > 1.2 * planned as f64 + f64::from(own) {
                wrong.push(format!("{name}, {what}: {share:.2}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
