//! Equivalent settings give equal results, and mistakes are found before the work begins.

use std::error::Error as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use image::DynamicImage;
use padim::backbone::{FeatureMaps, LayerInfo, ResNet};
use padim::detector::{Augmentation, FitProgress, FitStage, Registration};
use padim::embedding::ChannelSelection;
use padim::fingerprint::Fingerprint;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::preprocess::{DecodeLimits, Filter, PreprocessConfig, Resize, decode_file};
use padim::tiling::TileModels;
use padim::{
    Backbone, CalibrationConfig, Detector, Error, ImageInput, Padim, PadimConfig, PartialFit,
    Prediction, Result, TiledDetector, TiledPadim, TilingConfig, burn, dataset, image,
};

use crate::detector::{backbone, config, defective, detector, good};
use crate::devices;

/// A backbone that counts its runs.
#[derive(Debug)]
struct Counting(ResNet, Arc<AtomicUsize>);

impl Backbone for Counting {
    fn layers(&self) -> &[LayerInfo] {
        self.0.layers()
    }
    fn device(&self) -> Device {
        self.0.device()
    }
    fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.forward(images)
    }
}

/// PaDiM with these settings, and a function that returns the number of network runs.
fn counting(config: PadimConfig) -> (Padim, impl Fn() -> usize) {
    let runs = Arc::new(AtomicUsize::new(0));
    let padim = Padim::new(config, Counting(backbone(), runs.clone())).unwrap();
    (padim, move || runs.swap(0, Ordering::SeqCst))
}

fn extendable(images: u32) -> Detector {
    let padim = Padim::new(config(), backbone()).unwrap();
    padim.partial_fit((0..images).map(good)).unwrap().finish_extendable().unwrap()
}

fn reloaded(detector: &Detector) -> Detector {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    detector.save(&path).unwrap();
    Detector::load(&path, &devices()[0]).unwrap()
}

#[test]
fn a_converted_detector_keeps_its_storage_when_it_learns_on() {
    let storage = Storage::Triangle(Precision::F32);
    let converted = extendable(6).with_storage(storage).unwrap();
    let mut kept = converted.clone();
    let mut loaded = reloaded(&converted);
    for detector in [&mut kept, &mut loaded] {
        detector.extend((6..9).map(good)).unwrap();
        assert_eq!(detector.model().storage(), storage);
        assert_eq!(detector.config().gaussian.storage, storage);
    }
    assert_eq!(kept.predict(defective()).unwrap(), loaded.predict(defective()).unwrap());
}

#[test]
fn gaussians_are_pooled_where_the_settings_say_so() {
    let gaussian = |pooled| GaussianConfig::default().with_pooled(pooled);
    let padim = |pooled| Padim::new(config().with_gaussian(gaussian(pooled)), backbone()).unwrap();
    let model = |pooled| padim(pooled).fit((0..8).map(good)).unwrap().model().clone();
    for pooled in [false, true] {
        let detector = padim(pooled).with_gaussians(model(pooled), [48, 48]).unwrap();
        let loaded = reloaded(&detector);
        assert_eq!(loaded.predict(defective()).unwrap(), detector.predict(defective()).unwrap());
        let error = padim(pooled).with_gaussians(model(!pooled), [48, 48]).unwrap_err();
        assert!(error.to_string().contains("pooled"), "{error}");
    }
}

#[test]
fn a_normalization_goes_with_the_threshold_that_it_is_around() {
    let calibrated = || {
        let mut detector = extendable(8);
        detector.calibrate((8..30).map(good), &CalibrationConfig::default()).unwrap();
        detector
    };
    type Change = (&'static str, fn(Detector) -> Detector);
    let changes: [Change; 5] = [
        ("neighborhood", |d| d.with_neighborhood(3).unwrap()),
        ("storage", |d| d.with_storage(Storage::Diagonal).unwrap()),
        ("extend", |mut d| {
            d.extend((30..34).map(good)).unwrap();
            d
        }),
        ("refit", |mut d| {
            d.refit(GaussianConfig::default().with_epsilon(0.1)).unwrap();
            d
        }),
        ("no decision", |d| d.with_thresholds(None).unwrap()),
    ];
    for (what, change) in changes {
        let changed = change(calibrated());
        assert_eq!(changed.thresholds(), None, "{what}");
        for detector in [&changed, &reloaded(&changed)] {
            let prediction = detector.predict(defective()).unwrap();
            assert_eq!(prediction.normalized_score, prediction.image_score, "{what}");
        }
    }
    // After setting another threshold, the normalized score is 0.5 there.
    let detector = calibrated();
    let score = detector.predict(good(3)).unwrap().image_score;
    let decision = detector.thresholds().unwrap().clone().with_image(score);
    let moved = detector.with_thresholds(Some(decision)).unwrap();
    for detector in [&moved, &reloaded(&moved)] {
        let prediction = detector.predict(good(3)).unwrap();
        assert_eq!((prediction.image_score, prediction.normalized_score), (score, 0.5));
    }
}

#[test]
fn what_cannot_be_is_said_before_the_network_runs() {
    let rates = CalibrationConfig::default();
    let (padim, runs) = counting(config());
    let images = |count: u32| (0..count).map(good).collect::<Vec<_>>();

    let error = padim.fit_calibrated(&images(3), 2, &rates).unwrap_err();
    assert_eq!(runs(), 0, "three images in two folds: {error}");
    let error = padim.fit_calibrated(&images(12), 4, &rates).unwrap_err();
    assert!(error.to_string().contains("19"), "{error}");
    assert_eq!(runs(), 0, "twelve images for a rate of 0.05: {error}");

    let error = padim.fit(images(1)).unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 1, .. }), "{error}");
    assert_eq!(runs(), 0, "{error}");

    let low_rank = GaussianConfig::default().with_storage(Storage::LowRank(Precision::F32));
    let (few, few_runs) = counting(config().with_gaussian(low_rank));
    let error = few.fit(images(21)).unwrap_err();
    assert_eq!(few_runs(), 0, "{error}");

    let fit = padim.partial_fit(images(6)).unwrap();
    let mut detector = fit.finish_extendable().unwrap();
    runs();
    for keep in [2.0, 0.0, f64::NAN] {
        let error = detector.extend_with(images(4), keep, crate::silent).unwrap_err();
        assert!(
            matches!(error, Error::InvalidConfig { field: "forgetting_factor", .. }),
            "{error}"
        );
        assert_eq!(runs(), 0, "{error}");
    }
    let error = detector.calibrate(images(18), &rates).unwrap_err();
    assert!(error.to_string().contains("19"), "{error}");
    assert_eq!(runs(), 0, "{error}");
    let mut closed = padim.fit(images(6)).unwrap();
    runs();
    assert!(matches!(closed.extend(images(4)), Err(Error::NoStatistics)));
    assert_eq!(runs(), 0);
}

#[test]
fn progress_never_passes_its_total() {
    let augmentation = Some(Augmentation::default().with_copies(2));
    let padim = Padim::new(config().with_augmentation(augmentation), backbone()).unwrap();
    let images: Vec<_> = (0..20).map(good).collect();
    let mut seen: Vec<FitProgress> = Vec::new();
    padim
        .fit_calibrated_with(&images, 4, &CalibrationConfig::default(), |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    for stage in [FitStage::Embedding, FitStage::Calibrating] {
        let of_stage: Vec<_> = seen.iter().filter(|p| p.stage == stage).collect();
        let total = of_stage[0].total.unwrap();
        assert!(of_stage.iter().all(|p| p.total == Some(total) && p.done <= total), "{of_stage:?}");
        assert!(of_stage.windows(2).all(|pair| pair[0].done < pair[1].done), "{of_stage:?}");
        assert_eq!(of_stage.last().unwrap().done, total, "{of_stage:?}");
    }
}

#[test]
fn what_a_file_holds_decides_what_its_error_advises() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let padim = Padim::new(config(), backbone()).unwrap();
    let device = &devices()[0];

    padim.partial_fit((0..4).map(good)).unwrap().save(&path).unwrap();
    for error in [
        Detector::load(&path, device).unwrap_err(),
        Detector::load_with_backbone(&path, backbone()).unwrap_err(),
        TiledDetector::load(&path, device).unwrap_err(),
    ] {
        assert!(error.to_string().contains("`PartialFit::load`"), "{error}");
    }
    assert_eq!(PartialFit::load(&path, Arc::new(backbone())).unwrap().image_count(), 4);

    padim.fit((0..4).map(good)).unwrap().save_without_backbone(&path).unwrap();
    let error = TiledDetector::load(&path, device).unwrap_err();
    assert!(error.to_string().contains("`Detector::load"), "{error}");

    let tiling = TilingConfig::default().with_tile([48, 48]).with_overlap(16);
    let preprocess = PreprocessConfig::default().with_resize(Resize::square(48)).with_crop(None);
    let tiled = TiledPadim::new(config().with_preprocess(preprocess), tiling, backbone());
    let tiled = tiled.unwrap().fit((0..3).map(good)).unwrap();
    tiled.save_without_backbone(&path).unwrap();
    for error in [
        Detector::load(&path, device).unwrap_err(),
        PartialFit::load(&path, Arc::new(backbone())).unwrap_err(),
    ] {
        assert!(error.to_string().contains("`TiledDetector::load"), "{error}");
    }
}

#[test]
fn damage_is_told_as_damage_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    detector().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let header_end = crate::sections::header_end(&whole);
    // Damage in the weights of the first convolution, in the Gaussians and in the header.
    for at in [header_end + 40, whole.len() - 100, header_end / 2, 21] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        std::fs::write(&path, damaged).unwrap();
        let error = Detector::load(&path, &devices()[0]).unwrap_err();
        assert!(matches!(error, Error::InvalidDetectorFile { .. }), "byte {at}: {error}");
        assert!(error.to_string().contains("checksum"), "byte {at}: {error}");
    }
}

fn panicking() -> ImageInput {
    ImageInput::deferred("camera 3", |_| -> Result<DynamicImage> { panic!("the cable is loose") })
}

#[test]
fn an_image_that_panics_is_an_error_of_its_own() {
    let detector = detector();
    let told = |error: &Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Panicked { .. }), "{error:?}");
        assert!(text.contains("camera 3") && text.contains("the cable is loose"), "{text}");
    };
    told(&detector.predict(panicking()).unwrap_err());
    told(&detector.prepare(panicking()).unwrap_err());
    told(&detector.explain(panicking()).unwrap_err());
    let images = || [good(1).into(), panicking(), good(2).into(), good(3).into()];
    let results: Vec<Result<Prediction>> = detector.predict_iter(images()).collect();
    assert_eq!(results.len(), 4);
    told(results[1].as_ref().unwrap_err());
    for (i, place) in [(1, 0), (2, 2), (3, 3)] {
        assert_eq!(results[place].as_ref().unwrap(), &detector.predict(good(i)).unwrap());
    }
    let padim = Padim::new(config(), backbone()).unwrap();
    told(&padim.fit(images()).unwrap_err());
    let upside = Registration::new("upside", |_| panic!("the cable is loose"));
    let registered = padim.with_registration(upside).fit([good(1), good(2)]);
    assert!(matches!(registered, Err(Error::Panicked { .. })), "{registered:?}");
}

#[derive(Debug)]
struct Broken(LayerInfo);

impl Backbone for Broken {
    fn layers(&self) -> &[LayerInfo] {
        std::slice::from_ref(&self.0)
    }
    fn device(&self) -> Device {
        devices().remove(0)
    }
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(["broken"])
    }
    fn forward(&self, _: Tensor<4>) -> Result<FeatureMaps> {
        panic!("out of memory")
    }
}

#[test]
fn a_backbone_that_panics_is_an_error() {
    let layer = LayerInfo { name: "only".into(), channels: 3, stride: 4 };
    let config = config().with_channels(ChannelSelection::All);
    let error = Padim::new(config, Broken(layer)).unwrap().fit([good(1), good(2)]);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Panicked { .. }), "{error:?}");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
fn an_image_is_scored_by_who_has_prepared_it() {
    let bicubic = (config().preprocess).with_filter(Filter::Bicubic);
    let fitted = |preprocess: &PreprocessConfig| {
        let config = config().with_preprocess(preprocess.clone());
        Padim::new(config, backbone()).unwrap().fit((0..8).map(good)).unwrap()
    };
    let (a, b) = (fitted(&config().preprocess), fitted(&bicubic));
    let prepared = |detector: &Detector| vec![detector.prepare(defective()).unwrap()];
    let error = b.predict_prepared(prepared(&a)).remove(0).unwrap_err();
    assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
    assert!(error.to_string().contains("prepared"), "{error}");
    // A detector with the same preparation can score it, here the same detector after loading.
    let expected = a.predict(defective()).unwrap();
    assert_eq!(reloaded(&a).predict_prepared(prepared(&a)).remove(0).unwrap(), expected);
    let turned = Padim::new(config(), backbone())
        .unwrap()
        .with_registration(Registration::new("turned", |image| Ok(image.rotate180())))
        .fit((0..8).map(good))
        .unwrap();
    assert!(turned.predict_prepared(prepared(&a)).remove(0).is_err());
}

#[test]
fn an_error_says_its_source_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.png");
    std::fs::write(&text, b"some text").unwrap();
    let missing = folder.path().join("missing.png");
    for error in [
        decode_file(&text).unwrap_err(),
        decode_file(&missing).unwrap_err(),
        Detector::load(&missing, &devices()[0]).unwrap_err(),
    ] {
        let text = error.to_string();
        if let Some(source) = error.source() {
            assert!(!text.contains(&source.to_string()), "{text}; its source: {source}");
        }
    }
}

#[test]
fn limits_reach_images_that_are_made_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..4).map(|i| folder.path().join(format!("{i}.png"))).collect();
    for (i, file) in (0..).zip(&files) {
        good(i).save(file).unwrap();
    }
    let low = DecodeLimits { max_pixels: 100, ..DecodeLimits::default() };
    let refused = |error: Error| assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
    let padim = || Padim::new(config(), backbone()).unwrap().with_decode_limits(low);

    let pose = dataset::Pose {
        resized: 52,
        filter: Filter::Bilinear,
        degrees: 3.0,
        top: 1,
        left: 2,
        side: 48,
    };
    let samples: Vec<dataset::Sample> = files
        .iter()
        .map(|file| {
            let mut sample = dataset::Sample::good(file.clone());
            sample.pose = Some(pose.clone());
            sample
        })
        .collect();
    refused(padim().fit(&samples).unwrap_err());
    let copies = Augmentation::default().with_copies(1);
    refused(padim().fit(copies.apply(&files).unwrap()).unwrap_err());
}

/// With pooled Gaussians, one image is enough for tiles.
#[test]
fn one_image_is_enough_for_pooled_tiles() {
    let preprocess = PreprocessConfig::default().with_resize(Resize::square(48)).with_crop(None);
    let gaussian = GaussianConfig::default().with_pooled(true);
    let config = config().with_preprocess(preprocess).with_gaussian(gaussian);
    let tiling = TilingConfig::default()
        .with_tile([48, 48])
        .with_overlap(16)
        .with_models(TileModels::PerPosition);
    let padim = TiledPadim::new(config, tiling, backbone()).unwrap();
    assert!(padim.fit([good(1)]).unwrap().predict(good(2)).is_ok());
    assert!(matches!(padim.fit(Vec::<DynamicImage>::new()), Err(Error::TooFewImages { .. })));
}

/// A single fold is never factorized, so it may have fewer images than components.
#[test]
fn a_plan_with_folds_asks_nothing_of_a_fold() {
    let gaussian = GaussianConfig::default().with_components(Some(4));
    let padim = Padim::new(config().with_gaussian(gaussian), backbone()).unwrap();
    let images: Vec<_> = (0..20).map(good).collect();
    padim.fit_calibrated(&images, 10, &CalibrationConfig::default()).unwrap();
    let plan = padim.memory_plan([56, 70], 20).unwrap();
    let folds = padim.calibrated_memory_plan([56, 70], 20, 10).unwrap();
    assert!(folds.fit > plan.fit && folds.predict == plan.predict);
}
