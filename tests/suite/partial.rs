//! Partial fits: merging, saving, extending, forgetting. Also regions and principal components.

use std::sync::Arc;

use image::{DynamicImage, GrayImage, Luma, Rgb};
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::metrics::{self, PixelScores};
use padim::preprocess::{Filter, RegionOfInterest};
use padim::scoring::{AnomalyScorer, ScoringConfig};
use padim::{
    Backbone, Detector, Error, ImageInput, Padim, PadimConfig, PartialFit, ResNet18, Result, image,
};

use crate::detector::{backbone, config, defective, detector, good};
use crate::devices;

fn padim() -> Padim {
    let gaussian = GaussianConfig::default().with_storage(Storage::Triangle(Precision::F32));
    Padim::new(config().with_gaussian(gaussian), backbone()).unwrap()
}

fn shared() -> Arc<dyn Backbone> {
    Arc::new(backbone())
}

/// The largest relative difference between the maps of two detectors.
fn difference(a: &Detector, b: &Detector) -> f32 {
    let images = || [good(1), good(40), defective()];
    let (a, b) = (a.predict_batch(images()).unwrap(), b.predict_batch(images()).unwrap());
    let pairs = a.iter().zip(&b).flat_map(|(a, b)| {
        a.anomaly_map.values().iter().zip(b.anomaly_map.values()).map(|(a, b)| (a / b - 1.0).abs())
    });
    pairs.fold(0.0, f32::max)
}

#[test]
fn shards_merge_to_what_one_fit_gives() {
    let folder = tempfile::tempdir().unwrap();
    let all = padim().fit((0..45).map(good)).unwrap();
    // The statistics of two shards stay vectors, those of the other are sums; the order is changed.
    let shards = [(38, 45), (2, 38), (0, 2)];
    let mut fits = shards.map(|(from, to)| {
        let fit = padim().partial_fit((from..to).map(good)).unwrap();
        let path = folder.path().join(format!("{from}.padim"));
        fit.save(&path).unwrap();
        let loaded = PartialFit::load(&path, shared()).unwrap();
        assert_eq!(loaded.statistics(), fit.statistics());
        loaded
    });
    let mut merged = fits[0].clone();
    for fit in &mut fits[1..] {
        merged.merge(fit.clone()).unwrap();
    }
    assert_eq!(merged.image_count(), 45);
    let difference = difference(&merged.finish().unwrap(), &all);
    assert!(difference < 1e-5, "{difference:.1e}");
}

#[test]
fn a_detector_that_kept_its_state_learns_on_after_loading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("extendable.padim");
    let fit = padim().partial_fit((0..6).map(good)).unwrap();
    let kept = fit.clone().finish_extendable().unwrap();
    assert_eq!(kept.model(), fit.finish().unwrap().model());
    kept.save(&path).unwrap();

    let mut loaded = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(loaded.statistics(), kept.statistics());
    assert_eq!(loaded.predict(defective()).unwrap(), kept.predict(defective()).unwrap());
    loaded.extend((6..45).map(good)).unwrap();
    let all = padim().fit((0..45).map(good)).unwrap();
    assert!(difference(&loaded, &all) < 1e-5, "{}", difference(&loaded, &all));
    loaded.save(&path).unwrap();
    let again = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(again.statistics(), loaded.statistics());
    assert_eq!(again.model(), loaded.model());

    // The statistics of a detector can be loaded as a partial fit, and merged with others.
    let fit = PartialFit::load(&path, shared()).unwrap();
    assert_eq!(fit.image_count(), 45);

    // After an error of an image, the detector is unchanged.
    let before = loaded.clone();
    let bad: [ImageInput; 2] = [good(50).into(), "no such file.png".into()];
    assert!(loaded.extend_with(bad, 0.5, crate::silent).is_err());
    assert_eq!(loaded.statistics(), before.statistics());
    assert_eq!(loaded.model(), before.model());

    // With a tiny forgetting factor, only the new images count.
    loaded.extend_with((60..70).map(good), 1e-9, crate::silent).unwrap();
    let fresh = padim().fit((60..70).map(good)).unwrap();
    assert!(difference(&loaded, &fresh) < 1e-3, "{}", difference(&loaded, &fresh));

    let closed = loaded.without_statistics();
    closed.save(&path).unwrap();
    let mut closed = Detector::load(&path, &devices()[0]).unwrap();
    let error = closed.extend((0..2).map(good)).unwrap_err();
    assert!(matches!(error, Error::NoStatistics), "{error}");
    assert!(matches!(PartialFit::load(&path, shared()), Err(Error::NoStatistics)));
}

#[test]
fn epsilon_can_be_changed_after_the_fit() {
    let fit = padim().partial_fit((0..6).map(good)).unwrap();
    let mut detector = fit.finish_extendable().unwrap();
    let gaussian = detector.config().gaussian.clone().with_epsilon(0.3);
    detector.refit(gaussian.clone()).unwrap();
    assert_eq!(detector.config().gaussian, gaussian);
    let other = Padim::new(config().with_gaussian(gaussian.clone()), backbone());
    let expected = other.unwrap().fit((0..6).map(good)).unwrap();
    assert_eq!(detector.model(), expected.model());

    let impossible = gaussian.with_epsilon(-1.0);
    assert!(detector.refit(impossible).is_err());
    assert_eq!(detector.model(), expected.model());
    assert!(detector.statistics().is_some());
}

#[test]
fn fits_of_other_settings_do_not_merge() {
    let fit = || padim().partial_fit((0..3).map(good)).unwrap();
    let with = |config: PadimConfig| {
        let padim = Padim::new(config, backbone()).unwrap();
        fit().merge(padim.partial_fit((0..3).map(good)).unwrap())
    };
    let error = |result: Result<()>| result.unwrap_err().to_string();
    let channels = config().with_channels(ChannelSelection::random(20, 4));
    assert!(error(with(channels)).contains("channels"));
    let mut preprocess = config();
    preprocess.preprocess.filter = Filter::Lanczos;
    assert!(error(with(preprocess)).contains("preprocessing"));
    let other = ResNet18::untrained(8, &devices()[0]).unwrap();
    let other = Padim::new(config(), other).unwrap().partial_fit((0..3).map(good)).unwrap();
    assert!(matches!(fit().merge(other), Err(Error::BackboneMismatch { .. })));
    let region = RegionOfInterest::polygon([56, 70], &[[0.0, 0.0], [70.0, 0.0], [70.0, 40.0]]);
    let cut = padim().with_region(&region.unwrap()).unwrap();
    let cut = cut.partial_fit((0..3).map(good)).unwrap();
    assert!(error(fit().merge(cut)).contains("regions"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.padim");
    fit().save(&path).unwrap();
    let other: Arc<dyn Backbone> = Arc::new(ResNet18::untrained(8, &devices()[0]).unwrap());
    assert!(matches!(PartialFit::load(&path, other), Err(Error::BackboneMismatch { .. })));
    let error = Detector::load_with_backbone(&path, backbone()).unwrap_err().to_string();
    assert!(error.contains("PartialFit::load"), "{error}");
}

/// The right half of the pictures.
fn right_half() -> RegionOfInterest {
    let mask = GrayImage::from_fn(70, 56, |x, _| Luma([if x >= 35 { 255 } else { 0 }]));
    RegionOfInterest::from_mask(&DynamicImage::from(mask))
}

#[test]
fn outside_the_region_nothing_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("right.padim");
    let whole = padim().fit((0..8).map(good)).unwrap();
    let padim = padim().with_region(&right_half()).unwrap();
    let right = padim.fit((0..8).map(good)).unwrap();
    assert_eq!(right.model().position_count(), 12 * 12 / 2);
    assert!(right.model().size_in_bytes() * 2 == whole.model().size_in_bytes());

    // The receptive field of a network is wide, so a defect on the left also affects scores near the
    // border of the region. A defect on the right is found.
    let with_spot = |x0: u32| {
        let mut image = good(2);
        for (x, y) in (x0..x0 + 9).flat_map(|x| (20..30).map(move |y| (x, y))) {
            image.put_pixel(x, y, Rgb([255, 0, 255]));
        }
        image
    };
    let ordinary = right.predict(good(2)).unwrap();
    let left = right.predict(with_spot(3)).unwrap();
    let seen = right.predict(with_spot(52)).unwrap();
    assert!(left.image_score < seen.image_score);
    assert!(seen.image_score > 2.0 * ordinary.image_score, "{}", seen.image_score);
    let region = right.region().unwrap();
    assert_eq!(region.size(), [48, 48]);
    for (i, (value, inside)) in seen.anomaly_map.values().iter().zip(region.mask()).enumerate() {
        assert_eq!(*inside, i % 48 >= 24);
        assert!(if *inside { *value > 0.0 } else { *value == 0.0 });
    }
    assert_eq!(seen.anomaly_map.max(), seen.image_score);
    // Far from the border, the map equals that without a region.
    let all = whole.predict(with_spot(52)).unwrap();
    assert_eq!(seen.anomaly_map.at(24, 47), all.anomaly_map.at(24, 47));

    right.save(&path).unwrap();
    let loaded = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(loaded.region(), right.region());
    assert_eq!(loaded.predict(with_spot(52)).unwrap(), seen);

    // A metric within the region does not depend on pixels outside.
    let truth: Vec<bool> =
        (0..48 * 48).map(|i| i % 48 > 40 && (20..28).contains(&(i / 48))).collect();
    let flood: Vec<bool> = truth.iter().enumerate().map(|(i, &t)| t || i % 48 < 20).collect();
    let values = seen.anomaly_map.values();
    let score = |truth| {
        let scores = PixelScores::new(values, truth, [48, 48]).unwrap();
        let scores = [scores.within(region.mask()).unwrap()];
        (metrics::pixel_auroc(&scores).unwrap(), metrics::aupro(&scores, 0.3).unwrap())
    };
    assert_eq!(score(&truth), score(&flood));
}

#[test]
fn a_region_without_a_position_is_refused() {
    let corner = RegionOfInterest::polygon([56, 70], &[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
    // The crop removes this region.
    assert!(padim().with_region(&corner.unwrap()).is_err());
}

#[test]
fn a_uniform_map_stays_uniform_up_to_the_region_s_border() {
    let scorer = AnomalyScorer::new(ScoringConfig::default()).unwrap();
    let padim = padim().with_region(&right_half()).unwrap();
    let detector = padim.fit((0..3).map(good)).unwrap();
    let region = detector.region().unwrap();
    let inside = region.positions([12, 12]);
    let distances: Vec<f32> = inside.iter().map(|&i| if i { 3.0 } else { 0.0 }).collect();
    let distances = crate::tensor(distances, [1, 12, 12], &devices()[0]);
    let scored = scorer.score_within(distances, [48, 48], Some(region)).unwrap().remove(0);
    for (value, inside) in scored.map.values().iter().zip(region.mask()) {
        assert!(if *inside { (value - 3.0).abs() < 1e-5 } else { *value == 0.0 });
    }
    let distances = crate::tensor(vec![0.0; 144], [1, 12, 12], &devices()[0]);
    assert!(scorer.score_within(distances, [40, 48], Some(region)).is_err());
}

#[test]
fn shared_principal_components_are_saved_with_the_detector() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pca.padim");
    let all = config().with_channels(ChannelSelection::random(60, 1));
    let padim = || Padim::new(all.clone(), backbone()).unwrap();
    let projected = padim().fit_projection(9, (0..8).map(good)).unwrap();
    let detector = projected.fit((0..8).map(good)).unwrap();
    assert_eq!(detector.model().dimension(), 9);
    let projection = detector.projection().unwrap();
    assert_eq!([projection.components(), projection.channels()], [9, 60]);
    // The rows are orthonormal.
    let rows: Vec<&[f32]> = projection.matrix().chunks(60).collect();
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate() {
            let dot: f32 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
            assert!((dot - if i == j { 1.0 } else { 0.0 }).abs() < 1e-4);
        }
    }
    let prediction = detector.predict(defective()).unwrap();
    assert!(prediction.image_score > 2.0 * detector.predict(good(3)).unwrap().image_score);
    detector.save(&path).unwrap();
    let loaded = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(loaded.projection(), detector.projection());
    assert_eq!(loaded.predict(defective()).unwrap(), prediction);

    // A projection to all components is a rotation, which does not change distances.
    let rotated = padim().fit_projection(60, (0..8).map(good)).unwrap();
    let rotated = rotated.fit((0..8).map(good)).unwrap();
    let plain = padim().fit((0..8).map(good)).unwrap();
    assert!(difference(&rotated, &plain) < 5e-3, "{}", difference(&rotated, &plain));
    assert!(padim().fit_projection(61, (0..8).map(good)).is_err());
}

#[test]
fn every_storage_is_saved_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("storage.padim");
    let fitted = detector();
    let few = fitted.model().image_count() <= fitted.model().dimension();
    assert!(few, "low rank is among what is tried");
    let fine = fitted.with_storage(Storage::Triangle(Precision::F32)).unwrap();
    let names = "full triangle-f32 triangle-f16 low-rank-f32 low-rank-f16 diagonal";
    for storage in names.split(' ').map(|name| name.parse::<Storage>().unwrap()) {
        let converted = fine.clone().with_storage(storage).unwrap();
        assert_eq!(converted.model().storage(), storage);
        converted.save(&path).unwrap();
        let loaded = Detector::load(&path, &devices()[0]).unwrap();
        assert_eq!(loaded.config().gaussian.storage, storage);
        assert_eq!(loaded.model(), converted.model());
        let expected = converted.predict(defective()).unwrap();
        assert_eq!(loaded.predict(defective()).unwrap(), expected, "{storage}");
        if storage != Storage::Diagonal {
            assert!(difference(&converted, &fine) < 4e-3, "{storage}");
        }
    }
}

#[test]
fn a_plan_foresees_sizes_and_refuses_the_impossible() {
    const SIZE: [usize; 2] = [56, 70];
    let plan = padim().memory_plan(SIZE, 8).unwrap();
    let detector = padim().fit((0..8).map(good)).unwrap();
    assert_eq!(plan.model, detector.model().size_in_bytes());
    assert_eq!(plan.storage, detector.model().storage());
    let region = padim().with_region(&right_half()).unwrap().memory_plan(SIZE, 8).unwrap();
    assert_eq!(region.model * 2, plan.model);
    // Memory stops growing with the number of images.
    let at = |images| padim().memory_plan(SIZE, images).unwrap().fit;
    assert!(at(40) > at(8));
    assert_eq!(at(100), at(100_000));

    let open = (config().preprocess).with_crop(None);
    let open = Padim::new(config().with_preprocess(open), backbone()).unwrap();
    let fitted = open.fit((0..8).map(good)).unwrap();
    assert_eq!(open.memory_plan(SIZE, 8).unwrap().model, fitted.model().size_in_bytes());
    assert!(open.memory_plan([0, 70], 8).is_err());
    // Larger images take more memory while they are decoded.
    let large = padim().memory_plan([4000, 5000], 8).unwrap();
    assert!(large.batch >= plan.batch + 3 * 4000 * 5000 && large.model == plan.model);
    let gaussian = GaussianConfig::default().with_components(Some(9));
    let few = Padim::new(config().with_gaussian(gaussian), backbone()).unwrap();
    assert!(few.memory_plan(SIZE, 9).unwrap_err().to_string().contains("9 images"));
}
