//! The interface that programs use: scores by name, predictors, reports, bytes, settings as text.

use std::io::Cursor;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use image::{DynamicImage, ImageFormat};
use padim::dataset::{Category, Sample};
use padim::detector::Predictor;
use padim::evaluation::evaluate;
use padim::gaussian::{GaussianConfig, Shrinkage, Storage};
use padim::line::{DropPolicy, Line, LineConfig, LineResult, Outcome};
use padim::preprocess::{Filter, PreprocessConfig, Resize, decode_bytes};
use padim::scoring::{AnomalyMap, ImageScore, ScoringConfig, Upsampling};
use padim::tiling::TileModels;
use padim::{
    CalibrationConfig, Detector, Error, ImageInput, PadimConfig, Prediction, TiledDetector,
    TiledPadim, TilingConfig, images_in, metrics,
};

use crate::detector::{backbone, config, defective, detector as fitted, good};

fn detector() -> Detector {
    static DETECTOR: OnceLock<Detector> = OnceLock::new();
    DETECTOR.get_or_init(fitted).clone()
}

fn tiled() -> TiledDetector {
    let tiling = TilingConfig::default().with_tile([32, 32]).with_overlap(8);
    let config = config().with_input_size([64, 64]);
    let padim = TiledPadim::new(config, tiling, backbone()).unwrap();
    padim.fit((0..4).map(good)).unwrap()
}

#[test]
fn image_scores_by_name_are_those_of_the_map_and_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let map = detector().predict(defective()).unwrap().anomaly_map;
    let mut falling = map.values().to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let count = falling.len().div_ceil(50);
    let top = falling[..count].iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
    let middle = falling[falling.len() / 2];
    let area = falling.iter().filter(|&&v| v >= middle).count() as f64 / falling.len() as f64;
    let cases = [
        (ImageScore::MaxOfMap, f64::from(map.max())),
        (ImageScore::MeanOfTop { share: 0.02 }, top),
        (ImageScore::AreaAbove { threshold: middle }, area),
    ];
    for (score, expected) in cases {
        let scored = detector().with_image_score(score).unwrap();
        let prediction = scored.predict(defective()).unwrap();
        assert!((f64::from(prediction.image_score) / expected - 1.0).abs() < 1e-5, "{score}");
        scored.save_without_backbone(&path).unwrap();
        let loaded = Detector::load_with_backbone(&path, backbone()).unwrap();
        assert_eq!(loaded.config().scoring.image_score, score);
        assert_eq!(loaded.predict(defective()).unwrap(), prediction);
    }
    let wrong = ImageScore::MeanOfTop { share: 0.0 };
    assert!(matches!(detector().set_image_score(wrong), Err(Error::InvalidConfig { .. })));
}

#[test]
fn a_score_of_ones_own_decides_and_is_refused_by_save() {
    let spread = |map: &AnomalyMap| map.max() - map.min();
    let mut detector = detector();
    detector.set_custom_image_score("spread", spread).unwrap();
    let prediction = detector.predict(defective()).unwrap();
    let map = &prediction.anomaly_map;
    assert_eq!(prediction.image_score, map.max() - map.min());
    // The verdict is that of this score: good images alarm as rarely as was asked for.
    let config = CalibrationConfig::default().with_image_false_alarm_rate(0.2);
    detector.calibrate((100..130).map(good), &config).unwrap();
    let threshold = detector.thresholds().unwrap().image;
    for image in [good(200), good(201), defective()] {
        let prediction = detector.predict(image).unwrap();
        assert_eq!(prediction.is_defective, Some(prediction.image_score >= threshold));
    }
    let error = detector.save_to(Vec::new()).unwrap_err().to_string();
    assert!(error.contains("spread") && error.contains("code"), "{error}");

    let nan = detector.set_custom_image_score("nan", |_| f32::NAN);
    nan.unwrap();
    assert!(matches!(detector.predict(defective()), Err(Error::NotFinite { .. })));
    detector.set_image_score(ImageScore::MaxOfMap).unwrap();
    detector.save_to(Vec::new()).unwrap();
}

fn all(predictor: &dyn Predictor, images: Vec<ImageInput>) -> Vec<Prediction> {
    let mut predictions = Vec::new();
    let mut each = |prediction: padim::Result<Prediction>| {
        predictions.push(prediction?);
        Ok(())
    };
    predictor.predict_each(&mut images.into_iter(), &mut each).unwrap();
    predictions
}

#[test]
fn a_line_takes_detectors_of_both_kinds_and_gives_out_the_pictures() {
    let images = || (0..5).map(|i| ImageInput::from(good(i))).collect::<Vec<_>>();
    let predictors: [Arc<dyn Predictor>; 2] = [Arc::new(detector()), Arc::new(tiled())];
    for predictor in predictors {
        let expected = all(&*predictor, images());
        for keep in [true, false] {
            let (results, received) = channel();
            let sink = move |result: LineResult<usize>| Ok(results.send(result)?);
            let config = LineConfig::default().with_keep_images(keep);
            let line = Line::start(Arc::clone(&predictor), config, sink).unwrap();
            for (i, image) in images().into_iter().enumerate() {
                line.submit(i, image).unwrap();
            }
            line.finish();
            let received: Vec<LineResult<usize>> = received.iter().collect();
            assert_eq!(received.len(), 5);
            for (result, expected) in received.iter().zip(&expected) {
                let Outcome::Predicted(prediction) = &result.outcome else { panic!("{result:?}") };
                assert_eq!(prediction, expected);
                let picture = result.image.as_deref().map(DynamicImage::to_rgb8);
                assert_eq!(picture, keep.then(|| good(result.id as u32)));
            }
        }
    }
}

#[test]
fn images_that_another_kind_of_detector_has_prepared_are_refused() {
    let (whole, tiles) = (detector(), tiled());
    let prepared = Predictor::prepare(&whole, good(1).into(), false).unwrap();
    assert!(prepared.geometry().is_some());
    let error = Predictor::predict_prepared(&tiles, vec![prepared]).remove(0).unwrap_err();
    assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
    let prepared = Predictor::prepare(&tiles, good(1).into(), false).unwrap();
    assert!(prepared.geometry().is_none() && prepared.image().is_none());
    let error = whole.predict_prepared(vec![prepared]).remove(0).unwrap_err();
    assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
}

#[test]
fn what_tiles_do_not_have_is_said() {
    let mut tiles = tiled();
    for error in
        [tiles.explain(good(1)).map(drop).unwrap_err(), tiles.extend([good(1)]).unwrap_err()]
    {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

#[test]
fn a_report_has_the_metrics_of_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, image: image::RgbImage| {
        let path = folder.path().join(name);
        image.save(&path).unwrap();
        path
    };
    let good_files: Vec<_> = (50..56).map(|i| save(&format!("{i}.png"), good(i))).collect();
    let bad = save("bad.png", defective());
    assert_eq!(images_in(folder.path()).unwrap().len(), 7);
    let mut test: Vec<Sample> = good_files.iter().map(|path| Sample::good(path.clone())).collect();
    let mut sample = Sample::good(bad);
    sample.defect = "square".into();
    test.push(sample);
    let category = Category::new("part", vec![], test);

    let mut detector = detector();
    let report = evaluate(&detector, &category).unwrap();
    let images = (50..56).map(good).chain([defective()]);
    let scores: Vec<f32> =
        detector.predict_iter(images).map(|prediction| prediction.unwrap().image_score).collect();
    let truth = [false, false, false, false, false, false, true];
    assert_eq!(report.metrics.image_auroc, metrics::image_auroc(&scores, &truth).ok());
    assert!(report.images.iter().map(|image| image.image_score).eq(scores.iter().copied()));
    assert_eq!(
        (report.metrics.pixel_auroc, report.metrics.aupro),
        (None, None),
        "there are no masks"
    );
    assert!(report.decisions.is_none());

    let lowest = scores[..6].iter().copied().fold(f32::INFINITY, f32::min);
    detector.set_thresholds(Some(padim::Thresholds::fixed(lowest))).unwrap();
    let decisions = evaluate(&detector, &category).unwrap().decisions.unwrap();
    assert_eq!((decisions.detected, decisions.missed), (1, 0));
    assert_eq!((decisions.false_alarms, decisions.accepted), (6, 0));
    // As text and back.
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<padim::evaluation::Report>(&text).unwrap(), report);
}

#[test]
fn encoded_bytes_are_decoded_as_files_are() {
    let mut bytes = Vec::new();
    let picture = DynamicImage::from(defective());
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Jpeg).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.jpg");
    std::fs::write(&path, &bytes).unwrap();
    let detector = detector();
    let expected = detector.predict(&path).unwrap();
    assert_eq!(detector.predict(ImageInput::encoded("part 7", bytes.clone())).unwrap(), expected);

    let half = bytes[..bytes.len() / 2].to_vec();
    let error = detector.predict(ImageInput::encoded("part 7", half.clone())).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    assert!(error.to_string().contains("part 7"), "{error}");
    assert!(matches!(decode_bytes(&half, "part 7"), Err(Error::Decode { .. })));
    assert!(decode_bytes(b"", "nothing").is_err());
}

#[test]
fn images_come_in_many_types() {
    let rgb = good(1);
    let gray = DynamicImage::from(rgb.clone()).to_luma8();
    let deep = DynamicImage::from(rgb.clone()).to_luma16();
    let path = String::from("1.png");
    let inputs: Vec<ImageInput> = vec![
        (&rgb).into(),
        rgb.clone().into(),
        (&gray).into(),
        gray.into(),
        (&deep).into(),
        deep.into(),
        DynamicImage::from(rgb.clone()).to_rgba8().into(),
        (&DynamicImage::from(rgb)).into(),
        (&path).into(),
        path.clone().into(),
        path.as_str().into(),
        std::path::PathBuf::from(path).into(),
    ];
    assert_eq!(inputs.iter().filter(|input| matches!(input, ImageInput::Image(_))).count(), 8);
}

#[test]
fn settings_are_read_from_text_and_lacking_ones_have_their_defaults() {
    let read = |text: &str| serde_json::from_str::<PadimConfig>(text);
    assert_eq!(read("{}").unwrap(), PadimConfig::default());
    assert_eq!(read(r#"{"batch_size": 4}"#).unwrap(), PadimConfig::default().with_batch_size(4));
    let text = r#"{
        "preprocess": {"resize": {"exact": {"height": 256, "width": 320}}, "crop": null, "filter": "lanczos"},
        "gaussian": {"storage": "triangle-f16", "shrinkage": "ledoit-wolf"},
        "scoring": {"image_score": {"mean-of-top": {"share": 0.01}}, "upsampling": "bicubic"}
    }"#;
    let expected = PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default()
                .with_resize("256x320".parse().unwrap())
                .with_crop(None)
                .with_filter("lanczos".parse().unwrap()),
        )
        .with_gaussian(
            GaussianConfig::default()
                .with_storage("triangle-f16".parse().unwrap())
                .with_shrinkage("ledoit-wolf".parse().unwrap()),
        )
        .with_scoring(
            ScoringConfig::default()
                .with_image_score("top:0.01".parse().unwrap())
                .with_upsampling(Upsampling::Bicubic),
        );
    assert_eq!(read(text).unwrap(), expected);
    let again = serde_json::to_string(&expected).unwrap();
    assert_eq!(read(&again).unwrap(), expected);
    let error = read(r#"{"batchsize": 4}"#).unwrap_err().to_string();
    assert!(error.contains("`batchsize`") && error.contains("`batch_size`"), "{error}");

    assert_eq!(
        serde_json::from_str::<LineConfig>(r#"{"drop": "drop-oldest"}"#).unwrap(),
        LineConfig::default().with_drop(DropPolicy::DropOldest)
    );
    assert_eq!(serde_json::from_str::<CalibrationConfig>("{}").unwrap(), Default::default());
}

#[test]
fn names_are_read_as_they_are_written() {
    fn check<T>(values: &[T])
    where
        T: std::str::FromStr<Err = Error> + std::fmt::Display + std::fmt::Debug + PartialEq,
    {
        for value in values {
            assert_eq!(&value.to_string().parse::<T>().unwrap(), value);
        }
        let error = "nonsense".parse::<T>().unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
    }
    check(&[Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos]);
    check(&[Upsampling::Bilinear, Upsampling::Bicubic]);
    check(&[TileModels::Shared, TileModels::PerPosition]);
    check(&[DropPolicy::Wait, DropPolicy::DropOldest, DropPolicy::DropNewest]);
    check(&[Storage::Auto, Storage::FullInverse, Storage::Diagonal]);
    check(&[Shrinkage::None, Shrinkage::Fixed(0.25), Shrinkage::LedoitWolf, Shrinkage::Oas]);
    check(&[Resize::ShortSide(256), Resize::Exact { height: 256, width: 320 }]);
    assert_eq!("square:64".parse::<Resize>().unwrap(), Resize::square(64));
}

#[test]
fn a_warm_detector_says_what_it_holds() {
    let detector = detector();
    detector.warm_up().unwrap();
    let memory = detector.memory();
    assert_eq!(memory.gaussians, detector.model().size_in_bytes());
    assert_eq!(memory.statistics, 0);
    // ResNet18 up to layer3 has 2.8 million weights; the engine has its own form of them.
    assert!(memory.backbone_shared > 20_000_000, "{memory}");
    assert!(memory.backbone_own > 0 && memory.backbone_own < 10_000_000, "{memory}");
    assert_eq!(memory.total(), memory.own() + memory.backbone_shared);
    let extendable = padim::Padim::new(config(), backbone()).unwrap();
    let extendable = extendable.partial_fit((0..4).map(good)).unwrap().finish_extendable().unwrap();
    assert!(extendable.memory().statistics > 0);
    tiled().warm_up().unwrap();
}
