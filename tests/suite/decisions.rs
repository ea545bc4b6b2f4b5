//! Thresholds from good images, and decisions of a detector with them.

use padim::detector::FitStage;
use padim::gaussian::{GaussianConfig, Storage};
use padim::{CalibrationConfig, Detector, Error, ImageInput, Padim, Thresholds, image};
use std::ops::ControlFlow;

use crate::detector::{backbone, config, defective, good as shade};
use crate::devices;
use image::RgbImage;

/// Good images of one kind, so that the images of fit and calibration are exchangeable.
pub fn good(i: u32) -> RgbImage {
    let mut image = shade(i % 8);
    image::imageops::colorops::brighten_in_place(&mut image, (i * 11 % 7) as i32);
    image
}

fn detector() -> Detector {
    let padim = Padim::new(config(), backbone()).unwrap();
    padim.fit((0..20).map(good)).unwrap()
}

fn calibrated() -> Detector {
    let mut detector = detector();
    detector.calibrate((20..59).map(good), &CalibrationConfig::default()).unwrap();
    detector
}

#[test]
fn a_calibrated_detector_decides_and_says_where() {
    let detector = calibrated();
    let decision = detector.thresholds().unwrap();
    let calibration = decision.calibration.as_ref().unwrap();
    assert_eq!((calibration.scores().len(), calibration.is_cross_fitted()), (39, false));

    let prediction = detector.predict(defective()).unwrap();
    assert_eq!(prediction.is_defective, Some(true));
    assert_eq!(prediction.p_value, Some(1.0 / 40.0));
    assert_eq!(prediction.normalized_score, 1.0);
    let defects = detector.anomaly_regions(&prediction).unwrap();
    let strangest = defects[0];
    // The defect is at rows 24..40 and columns 20..36; its surroundings have high scores, too.
    let (bottom, right) = (strangest.top + strangest.height, strangest.left + strangest.width);
    assert!(strangest.top <= 28 && bottom >= 36, "{strangest:?}");
    assert!(strangest.left <= 24 && right >= 32, "{strangest:?}");
    assert!(strangest.mean <= strangest.peak && strangest.area <= 56 * 70);

    // 0.05 * 40 = 2 of the 39 images may reach the threshold.
    let good_ones = detector.predict_batch((20..59).map(good)).unwrap();
    let alarms = good_ones.iter().filter(|p| p.is_defective == Some(true)).count();
    assert!(alarms <= 2, "{alarms}");
    let at_threshold = good_ones.iter().filter(|p| p.normalized_score < 0.5).count();
    assert_eq!(at_threshold + alarms, good_ones.len());

    let decision = decision.clone().with_smallest_area(56 * 70 + 1);
    let strict = detector.clone().with_thresholds(Some(decision)).unwrap();
    assert!(strict.anomaly_regions(&prediction).unwrap().is_empty());
    let silent = detector.with_thresholds(None).unwrap();
    assert!(silent.anomaly_regions(&prediction).unwrap_err().to_string().contains("calibrate"));
    assert_eq!(silent.predict(defective()).unwrap().p_value, None);
    let nan = silent.with_thresholds(Some(Thresholds::fixed(f32::NAN)));
    assert!(matches!(nan, Err(Error::InvalidConfig { field: "threshold", .. })));
}

#[test]
fn decisions_are_saved_and_go_when_scores_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    let detector = calibrated();
    detector.save(&path).unwrap();
    let loaded = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(loaded.thresholds(), detector.thresholds());
    let images = || [good(3), defective()];
    assert_eq!(loaded.predict_batch(images()).unwrap(), detector.predict_batch(images()).unwrap());

    let converted = loaded.with_storage(Storage::Diagonal).unwrap();
    assert_eq!(converted.thresholds(), None);
    let padim = Padim::new(config(), backbone()).unwrap();
    let fit = padim.partial_fit((0..8).map(good)).unwrap();
    let mut open = fit.finish_extendable().unwrap();
    let config = CalibrationConfig::default();
    open.calibrate((8..30).map(good), &config).unwrap();
    let mut again = open.clone();
    open.extend([good(40)]).unwrap();
    assert_eq!(open.thresholds(), None);
    again.refit(GaussianConfig::default().with_epsilon(0.02)).unwrap();
    assert_eq!(again.thresholds(), None);
}

#[test]
fn what_cannot_be_promised_is_refused_and_changes_nothing() {
    let mut detector = calibrated();
    let before = detector.thresholds().cloned();
    let strict = CalibrationConfig::default().with_image_false_alarm_rate(0.01);
    let error = detector.calibrate((8..20).map(good), &strict).unwrap_err().to_string();
    assert!(error.contains("99 good images") && error.contains("12"), "{error}");
    let none = detector.calibrate(Vec::<ImageInput>::new(), &Default::default());
    assert!(matches!(none, Err(Error::InvalidConfig { .. })));
    assert!(detector.calibrate(["missing.png"], &Default::default()).is_err());
    assert_eq!(detector.thresholds().cloned(), before);
}

#[test]
fn few_images_are_fitted_and_calibrated_with_at_once() {
    let padim = Padim::new(config(), backbone()).unwrap();
    let images: Vec<_> = (0..24).map(good).collect();
    let mut stages = Vec::new();
    let calibrated = padim
        .fit_calibrated_with(&images, 4, &CalibrationConfig::default(), |p| {
            stages.push((p.stage, p.done));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(stages.contains(&(FitStage::Calibrating, 24)));
    let decision = calibrated.thresholds().unwrap();
    assert!(decision.calibration.as_ref().unwrap().is_cross_fitted());
    // The Gaussians are fitted to all images.
    let plain = padim.fit(images.clone()).unwrap();
    let (ours, theirs) =
        (calibrated.predict(defective()).unwrap(), plain.predict(defective()).unwrap());
    let difference = (ours.image_score - theirs.image_score).abs();
    assert!(difference < 1e-3 * theirs.image_score, "{difference}");
    assert_eq!(ours.is_defective, Some(true));
    for folds in [0, 1, 25] {
        let refused = padim.fit_calibrated(&images, folds, &Default::default());
        assert!(matches!(refused, Err(Error::InvalidConfig { field: "folds", .. })));
    }
}
