//! Many first predictions at once inside rayon's pool, with more threads than cores. A detector
//! prepares data at its first use; this must not deadlock.
//!
//! Each case has a time limit, after which the whole program ends with an error.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use padim::burn::tensor::Device;
use padim::embedding::ChannelSelection;
use padim::line::{Line, LineConfig, Outcome};
use padim::preprocess::{PreprocessConfig, Resize};
use padim::{
    Backbone, Detector, EfficientNetB5, Padim, PadimConfig, Prediction, ResNet18, TiledDetector,
    TiledPadim, TilingConfig, Weights, WideResNet50, image, line,
};
use rayon::prelude::*;

const THREADS: usize = 8;
const AT_ONCE: usize = 3 * THREADS;
const LIMIT: Duration = Duration::from_secs(180);

fn part(i: usize) -> RgbImage {
    RgbImage::from_fn(80, 80, |x, y| Rgb([(x * 3) as u8 + i as u8, (y * 2) as u8, (x + y) as u8]))
}

fn config() -> PadimConfig {
    let preprocess = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
    let channels = ChannelSelection::random(50, 1);
    PadimConfig::default().with_preprocess(preprocess).with_channels(channels)
}

/// Runs a case in the common pool, within the time limit.
fn within_limit(name: &'static str, case: impl FnOnce() + Send) {
    static POOL: Once = Once::new();
    POOL.call_once(|| {
        rayon::ThreadPoolBuilder::new().num_threads(THREADS).build_global().unwrap();
    });
    let done = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&done);
    let begin = Instant::now();
    std::thread::spawn(move || {
        while begin.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(100));
            if watched.load(Ordering::SeqCst) {
                return;
            }
        }
        eprintln!("{name}: STUCK, not done after {LIMIT:?}");
        std::process::exit(3);
    });
    case();
    done.store(true, Ordering::SeqCst);
    println!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
}

/// Runs first predictions of detectors; each round loads a new detector.
fn predict_at_once<D: Sync>(
    rounds: usize,
    load: impl Fn() -> D,
    predict: impl Fn(&D, usize) -> Prediction + Sync,
) {
    let expected: Vec<Prediction> = {
        let detector = load();
        (0..AT_ONCE).map(|i| predict(&detector, i)).collect()
    };
    for _ in 0..rounds {
        let (detector, predict, expected) = (load(), &predict, &expected);
        let done = AtomicUsize::new(0);
        rayon::scope(|scope| {
            for (i, expected) in expected.iter().enumerate() {
                let (detector, done) = (&detector, &done);
                scope.spawn(move |_| {
                    assert_eq!(&predict(detector, i), expected);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(done.into_inner(), AT_ONCE);
        let detector = load();
        (0..60_usize).into_par_iter().with_max_len(1).for_each(|i| {
            let i = i % AT_ONCE;
            assert_eq!(&predict(&detector, i), &expected[i]);
        });
    }
}

fn first_predictions(rounds: usize, backbone: impl Backbone + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.padim");
    Padim::new(config(), backbone).unwrap().fit((0..6).map(part)).unwrap().save(&file).unwrap();
    let load = || Detector::load(&file, &Device::flex()).unwrap();
    predict_at_once(rounds, load, |detector, i| detector.predict(part(i)).unwrap());
}

#[test]
fn resnet18() {
    let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
    within_limit("ResNet18", || first_predictions(12, backbone));
}

#[test]
fn wide_resnet50() {
    let backbone = WideResNet50::untrained(1, &Device::flex()).unwrap();
    within_limit("WideResNet50", || first_predictions(4, backbone));
}

#[test]
fn efficientnet_b5() {
    let backbone = EfficientNetB5::untrained(1, &Device::flex()).unwrap();
    within_limit("EfficientNetB5", || first_predictions(2, backbone));
}

#[test]
fn tiles() {
    within_limit("tiles", || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiles.padim");
        let tiling = TilingConfig::default().with_tile([48, 48]).with_overlap(16);
        let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
        let padim = TiledPadim::new(config(), tiling, backbone).unwrap();
        padim.fit((0..4).map(part)).unwrap().save(&file).unwrap();
        let load = || TiledDetector::load(&file, &Device::flex()).unwrap();
        predict_at_once(6, load, |detector, i| detector.predict(part(i)).unwrap());
    });
}

/// Several fits with one unused backbone, and predictions at the same time.
#[test]
fn fits() {
    within_limit("fits", || {
        for _ in 0..6 {
            let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
            let padim = Padim::new(config(), backbone).unwrap();
            let fits: Vec<Detector> = (0..THREADS)
                .into_par_iter()
                .with_max_len(1)
                .map(|_| padim.fit((0..6).map(part)).unwrap())
                .collect();
            assert!(fits.iter().all(|detector| detector.model() == fits[0].model()));
        }
    });
}

/// Two lines and many predictions in the pool share one unused detector.
#[test]
fn lines() {
    within_limit("lines", || {
        let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
        let fitted = Padim::new(config(), backbone).unwrap().fit((0..6).map(part)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.padim");
        fitted.save(&file).unwrap();
        let expected = fitted.predict_batch((0..AT_ONCE).map(part)).unwrap();
        for _ in 0..6 {
            let detector = Arc::new(Detector::load(&file, &Device::flex()).unwrap());
            let lines = [0, 1].map(|_| {
                let expected = expected.clone();
                let sink = move |result: line::LineResult<usize>| match result.outcome {
                    Outcome::Predicted(prediction) if prediction == expected[result.id] => Ok(()),
                    other => Err(format!("{other:?}").into()),
                };
                Line::start(Arc::clone(&detector), LineConfig::default(), sink).unwrap()
            });
            rayon::scope(|scope| {
                for i in 0..AT_ONCE {
                    let (detector, lines, expected) = (&detector, &lines, &expected);
                    scope.spawn(move |_| {
                        lines[i % 2].submit(i, part(i)).unwrap();
                        assert_eq!(detector.predict(part(i)).unwrap(), expected[i]);
                    });
                }
            });
            for line in lines {
                let statistics = line.finish().statistics;
                assert_eq!(statistics.predicted, AT_ONCE as u64 / 2);
                assert_eq!(statistics.sink_failures, 0);
            }
        }
    });
}

/// Every thread of the pool waits for room in a line, so the line's network must not need the pool.
#[test]
fn submissions_from_the_pool() {
    within_limit("submissions from the pool", || {
        let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
        let detector = Padim::new(config(), backbone).unwrap().fit((0..6).map(part)).unwrap();
        let small = LineConfig::default().with_queue(1).with_decoders(1).with_batch(2);
        let line = Line::start(Arc::new(detector), small, |_| Ok(())).unwrap();
        (0..100_usize).into_par_iter().with_max_len(1).for_each(|i| {
            line.submit(i, part(i)).unwrap();
        });
        assert_eq!(line.finish().statistics.predicted, 100);
    });
}
