//! Evaluating a detector: what is done although images fail, masks are missing, or metrics are undefined.

use std::path::{Path, PathBuf};

use padim::dataset::{Category, MaskFile, Sample};
use padim::evaluation::{Metric, Report, evaluate, evaluate_each};
use padim::image::{DynamicImage, GrayImage, Luma};
use padim::preprocess::RegionOfInterest;
use padim::{Error, Padim};
use std::ops::ControlFlow;

use crate::detector::{backbone, config, defective, detector, good};

fn save(folder: &Path, name: &str, image: impl Into<DynamicImage>) -> PathBuf {
    let path = folder.join(name);
    image.into().save(&path).unwrap();
    path
}

/// Good images.
fn goods(folder: &Path) -> Vec<Sample> {
    (2..6).map(|i| Sample::good(save(folder, &format!("{i}.png"), good(i)))).collect()
}

/// A defective image, perhaps with a mask of its defect.
fn spot(folder: &Path, name: &str, with_mask: bool) -> Sample {
    let path = save(folder, name, defective());
    let inside = |x, y| (20..36).contains(&x) && (24..40).contains(&y);
    let mask = GrayImage::from_fn(70, 56, |x, y| Luma([if inside(x, y) { 255 } else { 0 }]));
    let mask = with_mask.then(|| MaskFile::Picture(save(folder, &format!("mask-of-{name}"), mask)));
    Sample::new(path, "spot", mask)
}

fn undefined(report: &Report) -> Vec<Metric> {
    report.metrics.undefined.iter().map(|undefined| undefined.metric).collect()
}

#[test]
fn an_image_that_fails_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut test = goods(folder);
    test.push(spot(folder, "spot.png", true));
    let whole = evaluate(&detector(), &Category::new("part", vec![], test.clone())).unwrap();
    assert!(whole.failed.is_empty() && whole.metrics.undefined.is_empty());
    assert_eq!(whole.metrics.image_auroc, Some(1.0));
    assert!(whole.metrics.f1.unwrap().f1 == 1.0 && whole.metrics.pixel_auroc.unwrap() > 0.9);

    // In between, so that the images behind it must find their own predictions.
    let cut = folder.join("cut.png");
    let bytes = std::fs::read(&test[1].path).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    test.insert(2, Sample::good(cut.clone()));
    let category = Category::new("part", vec![], test);
    let mut seen = Vec::new();
    let report = evaluate_each(&detector(), &category, |image| {
        seen.push((image.prediction.is_some(), image.truth.is_some()));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    let expected: Vec<_> = (0..6).map(|i| (i != 2, i != 2)).collect();
    assert_eq!(seen, expected);
    assert_eq!((&report.images, &report.metrics), (&whole.images, &whole.metrics));
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].path, cut);
    assert!(report.failed[0].reason.contains("cut.png"), "{}", report.failed[0].reason);

    let broken = Category::new("part", vec![], vec![Sample::good(cut)]);
    assert!(matches!(evaluate(&detector(), &broken), Err(Error::Decode { .. })));
}

#[test]
fn metrics_that_the_images_do_not_define_are_named() {
    use Metric::{Aupro, ImageAuroc, ImageF1Max, PixelAuroc};
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let report = |test: Vec<Sample>| evaluate(&detector(), &Category::new("part", vec![], test));
    let none = report(vec![]).unwrap();
    assert_eq!(undefined(&none), [ImageAuroc, ImageF1Max, PixelAuroc, Aupro]);
    let only_good = report(goods(folder)).unwrap();
    assert_eq!(undefined(&only_good), [ImageAuroc, ImageF1Max, PixelAuroc, Aupro]);
    let text = only_good.metrics.undefined[2].to_string();
    assert_eq!(text, "pixel_auroc is undefined: there is no defective image");
    let only_bad = report(vec![spot(folder, "a.png", true)]).unwrap();
    assert_eq!(undefined(&only_bad), [ImageAuroc]);
    assert!(only_bad.metrics.f1.is_some() && only_bad.metrics.pixel_auroc.is_some());
    let no_masks = [goods(folder), vec![spot(folder, "b.png", false)]].concat();
    let no_masks = report(no_masks).unwrap();
    assert_eq!(undefined(&no_masks), [PixelAuroc, Aupro]);
    assert!(no_masks.metrics.undefined[1].reason.contains("mask"));
    assert_eq!(no_masks.without_mask, 1);
    let text = serde_json::to_string(&no_masks).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), no_masks);
}

#[test]
fn localization_takes_the_defective_images_that_have_masks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let report = |more: Vec<Sample>| {
        let test = [goods(folder), vec![spot(folder, "a.png", true)], more].concat();
        evaluate(&detector(), &Category::new("part", vec![], test)).unwrap()
    };
    let alone = report(vec![]);
    let mixed = report(vec![spot(folder, "b.png", false)]);
    assert_eq!((alone.without_mask, mixed.without_mask), (0, 1));
    assert_eq!(mixed.metrics.pixel_auroc, alone.metrics.pixel_auroc);
    assert_eq!(mixed.metrics.aupro, alone.metrics.aupro);
    assert_eq!(mixed.images.len(), 6);

    // A mask that cannot be read: the image keeps its score.
    let damaged = spot(folder, "c.png", true);
    std::fs::write(folder.join("mask-of-c.png"), b"no picture").unwrap();
    let damaged = report(vec![damaged]);
    assert_eq!((damaged.images.len(), damaged.failed.len(), damaged.without_mask), (6, 1, 1));
    assert!(damaged.failed[0].reason.contains("mask-of-c.png"), "{}", damaged.failed[0].reason);
    assert_eq!(damaged.metrics.aupro, alone.metrics.aupro);
}

#[test]
fn only_the_region_of_interest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let test = [goods(folder), vec![spot(folder, "a.png", true)]].concat();
    let category = Category::new("part", vec![], test);
    let left =
        RegionOfInterest::polygon([56, 70], &[[0.0, 0.0], [40.0, 0.0], [40.0, 56.0], [0.0, 56.0]]);
    let padim = Padim::new(config(), backbone()).unwrap().with_region(&left.unwrap()).unwrap();
    let detector = padim.fit((0..8).map(good)).unwrap();
    let report = evaluate(&detector, &category).unwrap();
    let predictions = detector.predict_batch(&category.test).unwrap();
    let defective: Vec<bool> = category.test.iter().map(Sample::is_defective).collect();
    let truth = |sample: &Sample| sample.truth(detector.preprocessor(), [48, 48]).unwrap();
    let truth: Vec<Vec<bool>> = category.test.iter().map(truth).collect();
    let metrics = |region| {
        padim::evaluation::Metrics::of(&predictions, &defective, Some(&truth), region).unwrap()
    };
    let region = detector.region().unwrap().mask();
    assert_eq!(report.metrics, metrics(Some(region)));
    assert_ne!(report.metrics, metrics(None));
}
