//! Parts that move: registration, augmentation, neighborhood, pooled Gaussians.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, Rgb, RgbImage};
use padim::detector::{Augmentation, Registration};
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::preprocess::Alignment;
use padim::{Backbone, Detector, Error, Padim, PartialFit, Result, image};

use crate::detector::{backbone, config, defective, detector, good};
use crate::devices;

fn load(path: &Path) -> Result<Detector> {
    Detector::load(path, &devices()[0])
}

/// Draws a key on a table with its head at `degrees`, optionally with a spot on its shaft.
fn key(i: u32, degrees: f64, center: [f64; 2], spot: bool) -> RgbImage {
    let (sin, cos) = degrees.to_radians().sin_cos();
    RgbImage::from_fn(70, 56, |x, y| {
        let (u, v) = (f64::from(x) + 0.5 - center[0], f64::from(y) + 0.5 - center[1]);
        let (s, t) = (u * cos - v * sin, u * sin + v * cos);
        let inside = s.abs() < 20.0 && t.abs() < if s > 12.0 { 7.0 } else { 3.0 };
        if spot && (s + 8.0).hypot(t) < 2.5 {
            return Rgb([255, 40, 40]);
        }
        let noise = ((x * 7 + y * 3 + i * 5) % 6) as u8;
        Rgb([if inside { 60 } else { 200 } + noise; 3])
    })
}

/// Keys in different poses.
fn keys() -> Vec<RgbImage> {
    let key = |i: u32| {
        let shift = f64::from(i % 5) - 2.0;
        key(i, f64::from(i * 47), [35.0 + shift, 28.0 - shift], false)
    };
    (0..12).map(key).collect()
}

fn registered() -> Detector {
    let padim = Padim::new(config(), backbone()).unwrap();
    padim.with_registration(Registration::principal_axis(0.0)).fit(keys()).unwrap()
}

/// A custom registration that only mirrors.
fn mirror(name: &str) -> Registration {
    Registration::new(name, |image| Ok(image.fliph()))
}

#[test]
fn a_registered_part_scores_alike_however_it_lies_and_defects_are_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.padim");
    let fitted = registered();
    fitted.save(&path).unwrap();
    // The built-in registration works directly after loading.
    let detector = load(&path).unwrap();
    assert_eq!(detector.registration().unwrap().name(), "principal axis at 0");
    let fresh = key(3, 77.0, [36.0, 27.0], false);
    assert_eq!(detector.predict(fresh.clone()).unwrap(), fitted.predict(fresh).unwrap());

    let plain = Padim::new(config(), backbone()).unwrap().fit(keys()).unwrap();
    for (degrees, center) in [(20.0, [34.0, 29.0]), (-100.0, [36.0, 28.0]), (165.0, [35.0, 27.0])] {
        let score = |detector: &Detector, spot| {
            detector.predict(key(7, degrees, center, spot)).unwrap().image_score
        };
        let [ratio, plain] =
            [&detector, &plain].map(|detector| score(detector, true) / score(detector, false));
        assert!(ratio > 1.3 && ratio > plain, "{degrees}: {ratio} {plain}");

        // The position of the spot in the original image.
        let prediction = detector.predict(key(7, degrees, center, true)).unwrap();
        let (sin, cos) = f64::to_radians(degrees).sin_cos();
        let [x, y] = [center[0] - 8.0 * cos, center[1] + 8.0 * sin];
        let map = prediction.map_in_original().unwrap();
        assert_eq!(map.size(), [56, 70]);
        let peak =
            (0..56 * 70).max_by(|&a, &b| map.values()[a].total_cmp(&map.values()[b])).unwrap();
        let off = ((peak % 70) as f64 + 0.5 - x).hypot((peak / 70) as f64 + 0.5 - y);
        assert!(off < 9.0, "{degrees}: {off} from {x} {y}");
        // The same, resized (by 52 / 56) and center-cropped to 48x48.
        let map = prediction.map_in_input().unwrap();
        assert_eq!(map.size(), [48, 48]);
        let peak =
            (0..48 * 48).max_by(|&a, &b| map.values()[a].total_cmp(&map.values()[b])).unwrap();
        let [u, v] = [x * 65.0 / 70.0 - 8.0, y * 52.0 / 56.0 - 2.0];
        let off = ((peak % 48) as f64 + 0.5 - u).hypot((peak / 48) as f64 + 0.5 - v);
        assert!(off < 9.0, "{degrees}: {off} from {u} {v}");
    }
    let error = detector.predict(RgbImage::from_pixel(70, 56, Rgb([9; 3]))).unwrap_err();
    assert!(error.to_string().contains("number 0: no part"), "{error}");
}

#[test]
fn a_registration_of_ones_own_must_be_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mirrored.padim");
    let padim = Padim::new(config(), backbone()).unwrap();
    let mirrored = || (0..8).map(|i| DynamicImage::from(good(i)).fliph());
    let detector = padim.clone().with_registration(mirror("mirror")).fit(mirrored()).unwrap();
    let expected = detector.predict(defective()).unwrap();
    // Registration comes before all other steps, in fits and predictions.
    let plain = padim.fit((0..8).map(good)).unwrap();
    assert_eq!(detector.model(), plain.model());
    let flipped = DynamicImage::from(defective()).fliph();
    assert_eq!(detector.predict(flipped).unwrap(), plain.predict(defective()).unwrap());
    assert_eq!(expected.alignment, None);

    detector.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert!(loaded.registration().unwrap().is_missing());
    let missing = |error: Error| {
        assert!(
            matches!(&error, Error::RegistrationMissing { name, .. } if name == "mirror"),
            "{error}"
        );
    };
    missing(loaded.predict(defective()).unwrap_err());
    missing(loaded.explain(defective()).unwrap_err());
    let tensor = crate::tensor(vec![0.0; 3 * 48 * 48], [3, 48, 48], &devices()[0]);
    missing(loaded.predict(tensor.clone()).unwrap_err());
    missing(loaded.predict_tensor(tensor.unsqueeze()).unwrap_err());
    let error = loaded.clone().with_registration(mirror("other")).unwrap_err().to_string();
    assert!(error.contains("\"other\"") && error.contains("\"mirror\""), "{error}");
    assert!(plain.with_registration(mirror("mirror")).is_err());

    // A detector that was loaded without its registration can be saved again, unchanged.
    let again = folder.path().join("again.padim");
    loaded.save(&again).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
    let loaded = loaded.with_registration(mirror("mirror")).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), expected);
}

#[test]
fn fits_in_parts_know_their_registration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.padim");
    let padim = Padim::new(config(), backbone()).unwrap();
    let mirrored = padim.clone().with_registration(mirror("mirror"));
    let part = |padim: &Padim| padim.partial_fit((0..4).map(good)).unwrap();
    part(&mirrored).save(&path).unwrap();
    let shared: Arc<dyn Backbone> = Arc::new(backbone());
    let mut loaded = PartialFit::load(&path, shared).unwrap();
    let error = loaded.extend((4..8).map(good)).unwrap_err();
    assert!(matches!(error, Error::RegistrationMissing { .. }), "{error}");
    assert_eq!(loaded.image_count(), 4);
    assert!(loaded.merge(part(&padim)).unwrap_err().to_string().contains("registrations"));
    let mut loaded = loaded.with_registration(mirror("mirror")).unwrap();
    loaded.extend((4..8).map(good)).unwrap();
    loaded.merge(part(&mirrored)).unwrap();
    assert_eq!(loaded.image_count(), 12);
}

#[test]
fn an_alignment_of_ones_own_moves_images_and_maps() {
    // Moves the point 6 pixels right of the center and 4 above it to the center.
    let shift = Registration::aligning("shift", |image| {
        let [x, y] = [image.width(), image.height()].map(|side| f64::from(side) / 2.0);
        Ok(Alignment { center: [x + 6.0, y - 4.0], degrees: 0.0 })
    });
    let padim = Padim::new(config(), backbone()).unwrap();
    let detector = padim.with_registration(shift.clone()).fit((0..8).map(good)).unwrap();
    let prediction = detector.predict(defective()).unwrap();
    assert_eq!(prediction.alignment, Some(Alignment { center: [41.0, 24.0], degrees: 0.0 }));
    let (moved, alignment) = shift.apply(&defective().into()).unwrap();
    assert_eq!(alignment, prediction.alignment);
    let moved = moved.to_rgb8();
    assert_eq!(moved.get_pixel(20, 30), defective().get_pixel(26, 26));
    let (here, there) = (prediction.map_in_original().unwrap(), prediction.geometry);
    assert_eq!(there.original_size(), [56, 70]);
    // A map that is moved by whole pixels and back.
    let mut unmoved = prediction;
    unmoved.alignment = None;
    let unmoved = unmoved.map_in_original().unwrap();
    for (x, y) in [(30, 20), (40, 28), (20, 30)] {
        let (a, b) = (here.at(y, x).unwrap(), unmoved.at(y + 4, x - 6).unwrap());
        assert!((a - b).abs() < 1e-4 * b, "{a} {b}");
    }
}

#[test]
fn augmentation_fits_with_copies_and_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turned.padim");
    let augmentation = Augmentation::default().with_copies(2).with_degrees(8.0);
    let plain = Padim::new(config(), backbone()).unwrap();
    let turning = config().with_augmentation(Some(augmentation.clone()));
    let padim = Padim::new(turning.clone(), backbone()).unwrap();
    let mut totals = Vec::new();
    let detector = padim
        .fit_with((0..8).map(good), |progress| {
            totals.push(progress.total);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(detector.model().image_count(), 24);
    assert_eq!(totals[0], Some(24));
    let (few, many) = (padim.memory_plan([56, 70], 8), plain.memory_plan([56, 70], 24));
    let (few, many) = (few.unwrap(), many.unwrap());
    assert_eq!(
        (few.statistics, few.model, few.storage),
        (many.statistics, many.model, many.storage)
    );
    // While a copy is made, its original is also in memory.
    assert!(few.batch > many.batch);
    let copies = augmentation.apply((0..8).map(good)).unwrap();
    assert_eq!(plain.fit(copies).unwrap().model(), detector.model());
    assert_eq!(padim.fit((0..8).map(good)).unwrap().model(), detector.model());

    detector.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.config(), &turning);
    assert_eq!(loaded.predict(defective()).unwrap(), detector.predict(defective()).unwrap());

    // After augmentation, rotated images have lower scores.
    let turn = Alignment { center: [35.0, 28.0], degrees: 5.0 };
    let turned = turn.apply(&good(3).into()).unwrap();
    let strangeness = |detector: &Detector| {
        let score = |image: DynamicImage| detector.predict(image).unwrap().image_score;
        score(turned.clone()) / score(good(3).into())
    };
    let plain = plain.fit((0..8).map(good)).unwrap();
    assert!(strangeness(&detector) < 0.5 * strangeness(&plain));

    // Copies are made from the registered image, so the mirror comes before the shifts.
    let both = padim.with_registration(mirror("mirror"));
    let mirrored = (0..8).map(|i| DynamicImage::from(good(i)).fliph());
    assert_eq!(both.fit(mirrored).unwrap().model(), detector.model());
    let mistake = augmentation.with_degrees(200.0);
    let mistake = config().with_augmentation(Some(mistake));
    assert!(Padim::new(mistake, backbone()).is_err());
}

#[test]
fn a_shifted_image_is_near_the_gaussians_around() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("near.padim");
    let near = config().with_neighborhood(3);
    let plain = detector();
    let detector = Padim::new(near, backbone()).unwrap().fit((0..8).map(good)).unwrap();
    assert_eq!(detector.model(), plain.model());
    // A shift by about one position of the grid.
    let shift = Alignment { center: [39.0, 28.0], degrees: 0.0 };
    let shifted = shift.apply(&good(3).into()).unwrap();
    let score = |detector: &Detector, image: &DynamicImage| {
        detector.predict(image.clone()).unwrap().image_score
    };
    assert!(score(&detector, &defective().into()) > score(&detector, &good(3).into()));
    let [forgiving, strict] =
        [&detector, &plain].map(|detector| detector.predict(shifted.clone()).unwrap().anomaly_map);
    let pairs = forgiving.values().iter().zip(strict.values());
    assert!(pairs.clone().all(|(a, b)| *a <= b * (1.0 + 1e-5)));
    let [forgiving, strict] = [forgiving, strict].map(|map| map.values().iter().sum::<f32>());
    assert!(forgiving < 0.98 * strict, "{forgiving} {strict}");

    detector.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.config().neighborhood, 3);
    let expected = detector.predict(defective()).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), expected);
    let changed = plain.clone().with_neighborhood(3).unwrap();
    assert_eq!(changed.predict(defective()).unwrap(), expected);
    assert!(plain.with_neighborhood(4).is_err());

    // The contributions of channels are relative to the nearest Gaussian.
    let explanation = loaded.explain(defective()).unwrap();
    assert_eq!(explanation.prediction, expected);
    for (i, value) in expected.anomaly_map.values().iter().enumerate() {
        let sum: f32 = explanation.layers.iter().map(|layer| layer.map.values()[i]).sum();
        assert!((sum - value).abs() < 2e-3 * expected.image_score, "{sum} {value}");
    }
}

#[test]
fn a_pooled_detector_is_small_and_does_all_that_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pooled.padim");
    let gaussian = GaussianConfig::default().with_pooled(true);
    let pooled = config().with_gaussian(gaussian);
    let padim = Padim::new(pooled.clone(), backbone()).unwrap();
    let images = || (0..8).map(good);
    let detector = padim.fit(images()).unwrap();
    let own = crate::detector::detector().with_storage(detector.model().storage()).unwrap();
    assert_eq!(detector.model().size_in_bytes() * 12 * 12, own.model().size_in_bytes());
    assert_eq!(padim.memory_plan([56, 70], 8).unwrap().model, detector.model().size_in_bytes());
    let predictions = detector.predict_batch(images().chain([defective()])).unwrap();
    let worst = predictions[..8].iter().map(|p| p.image_score).fold(0.0, f32::max);
    assert!(predictions[8].image_score > worst);
    detector.save_without_backbone(&path).unwrap();
    let loaded = Detector::load_with_backbone(&path, backbone()).unwrap();
    assert_eq!((loaded.config(), loaded.model()), (&pooled, detector.model()));
    assert_eq!(loaded.predict_batch(images().chain([defective()])).unwrap(), predictions);
    assert_eq!(loaded.explain(defective()).unwrap().prediction, predictions[8]);
    for storage in [Storage::FullInverse, Storage::Triangle(Precision::F32), Storage::Diagonal] {
        let converted = detector.clone().with_storage(storage).unwrap();
        converted.save_without_backbone(&path).unwrap();
        let loaded = Detector::load_with_backbone(&path, backbone()).unwrap();
        assert_eq!(loaded.predict(defective()).unwrap(), converted.predict(defective()).unwrap());
    }

    // Partial fits that are saved, merged and extended.
    let mut part = padim.partial_fit((0..5).map(good)).unwrap();
    part.save(&path).unwrap();
    let mut loaded = PartialFit::load(&path, Arc::new(backbone())).unwrap();
    assert_eq!(loaded.statistics(), part.statistics());
    part.merge(padim.partial_fit((5..8).map(good)).unwrap()).unwrap();
    loaded.extend((5..8).map(good)).unwrap();
    let mut kept = loaded.finish_extendable().unwrap();
    kept.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.statistics(), kept.statistics());
    for detector in [part.finish().unwrap(), loaded] {
        let score = detector.predict(defective()).unwrap().image_score;
        assert!((score / predictions[8].image_score - 1.0).abs() < 1e-3, "{score}");
    }
    let larger = pooled.gaussian.clone().with_epsilon(0.1);
    kept.refit(larger).unwrap();
    let error = kept.refit(GaussianConfig::default()).unwrap_err().to_string();
    assert!(error.contains("pooled"), "{error}");
    kept.extend_with((8..10).map(good), 0.5, crate::silent).unwrap();
    let plain = Padim::new(config(), backbone()).unwrap();
    let mut plain = plain.partial_fit((0..3).map(good)).unwrap();
    let error = plain.merge(padim.partial_fit((0..3).map(good)).unwrap());
    assert!(error.unwrap_err().to_string().contains("pooled"));
    assert!(Padim::new(pooled.with_neighborhood(3), backbone()).is_err());
}
