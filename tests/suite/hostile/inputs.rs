//! Unusual paths, images and sets of images, through the whole interface.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, ImageFormat};
use padim::decision::Calibration;
use padim::gaussian::Storage;
use padim::preprocess::{PreprocessConfig, Resize, decode_file};
use padim::scoring::AnomalyMap;
use padim::{
    CalibrationConfig, Detector, Error, ImageInput, Padim, PartialFit, Result, image, visualize,
};

use super::checks::{self, Squares};
use super::seeds::{pickled, safetensors, tensors};
use super::{squares_config, tiny};
use crate::devices;

/// Paths that are not valid UTF-8.
#[cfg(unix)]
#[test]
fn paths_may_hold_any_bytes() {
    use padim::dataset::{Dataset, Folder, Mvtec};
    use std::os::unix::ffi::OsStrExt;

    let odd = std::ffi::OsStr::from_bytes(b"\xFF \xC3\x28\n\x01'\"");
    let root = tempfile::tempdir().unwrap();
    let category = root.path().join("all").join(odd);
    let file = |folder: &str, number: u8| {
        let folder = category.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut name = odd.to_owned();
        name.push(format!("{number}.png"));
        let path = folder.join(name);
        tiny(number).save_with_format(&path, ImageFormat::Png).unwrap();
        path
    };
    let good: Vec<PathBuf> = (0..5).map(|i| file("train/good", i)).collect();
    let bent = file("test/bent", 5);
    file("test/good", 6);
    let mask = category.join("ground_truth/bent").join(bent.file_name().unwrap());
    std::fs::create_dir_all(mask.parent().unwrap()).unwrap();
    std::fs::copy(&bent, &mask).unwrap();

    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let detector = padim.fit(&good).unwrap();
    let expected = detector.predict(&bent).unwrap();
    let model = category.join(odd);
    detector.save_without_backbone(&model).unwrap();
    let loaded = Detector::load_with_backbone(&model, Squares::new()).unwrap();
    assert_eq!(loaded.predict(&bent).unwrap(), expected);
    padim.partial_fit(&good).unwrap().save(&model).unwrap();
    assert_eq!(PartialFit::load(&model, Arc::new(Squares::new())).unwrap().image_count(), 5);
    std::fs::write(&model, safetensors()).unwrap();
    checks::network().load(&model, &devices()[0]).unwrap();
    std::fs::write(&model, checks::checkpoint(&pickled(&tensors()))).unwrap();
    checks::network().load(&model, &devices()[0]).unwrap();
    let picture =
        visualize::heat_map(&expected.anomaly_map, visualize::ScoreRange { min: 0.0, max: 1.0 });
    visualize::save_png(&picture, &model).unwrap();
    assert!(decode_file(&model).is_ok());

    let mvtec = Mvtec::new(root.path().join("all"));
    let names = mvtec.categories().unwrap();
    let listed = mvtec.category(&names[0]).unwrap();
    let folder = Folder::new("odd", category.join("train/good"))
        .with_defects(category.join("test/bent"))
        .with_masks(category.join("ground_truth"));
    for found in [listed, folder.category("odd").unwrap()] {
        assert!(found.has_masks());
        let detector = padim.fit(&found.train).unwrap();
        for sample in &found.test {
            detector.predict(sample).unwrap();
            sample.truth(detector.preprocessor(), [8, 8]).unwrap();
        }
    }
    for missing in [category.join("\u{FFFD}"), "nul\0byte".into(), "".into()] {
        assert!(matches!(detector.predict(missing.as_path()), Err(Error::Io { .. })));
        assert!(matches!(Detector::load(&missing, &devices()[0]), Err(Error::Io { .. })));
    }
    for unwritable in [PathBuf::from("nul\0byte"), "".into(), "/".into(), "..".into()] {
        let error = detector.save_without_backbone(&unwritable).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}

#[test]
fn images_that_cannot_be_used_are_named_with_what_is_wrong() {
    let device = &devices()[0];
    let float = |value: f32| {
        let pixel = image::Rgb([0.5, value, 0.5]);
        DynamicImage::ImageRgb32F(image::ImageBuffer::from_pixel(9, 8, pixel))
    };
    let rgba = image::ImageBuffer::from_pixel(9, 8, image::Rgba([f32::NEG_INFINITY; 4]));
    let tensor = |value: f32, shape: [usize; 3]| {
        ImageInput::from(crate::tensor(vec![value; shape.iter().product()], shape, device))
    };
    let cases: Vec<(ImageInput, &str)> = vec![
        (DynamicImage::new_rgb8(0, 0).into(), "no pixels"),
        (DynamicImage::new_luma8(0, 5).into(), "no pixels"),
        (DynamicImage::new_rgba16(5, 0).into(), "no pixels"),
        (float(f32::NAN).into(), "NaN"),
        (float(f32::INFINITY).into(), "NaN or infinite"),
        (DynamicImage::ImageRgba32F(rgba).into(), "NaN or infinite"),
        (tensor(f32::NAN, [3, 8, 8]), "NaN"),
        (tensor(f32::INFINITY, [3, 8, 8]), "NaN or infinite"),
        (tensor(f32::MAX, [3, 8, 8]), "NaN or infinite"),
        (tensor(0.0, [1, 8, 8]), "[3, height, width]"),
        (tensor(0.0, [3, 0, 8]), "[3, height, width]"),
        (tensor(0.0, [3, 8, 12]), "[8, 8]"),
        ("missing.png".into(), "missing.png"),
        (Path::new(env!("CARGO_MANIFEST_DIR")).into(), "read"),
        (Path::new(file!()).into(), "decode"),
    ];
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let detector = padim.fit((0..4).map(tiny)).unwrap();
    let before = detector.predict(tiny(5)).unwrap();
    for (input, part) in cases {
        let error = detector.predict(input.clone()).unwrap_err().to_string();
        println!("predict: {error}");
        assert!(error.contains(part), "{input:?}: {error}");
        // Other images of the batch are not affected.
        let batch = [tiny(5).into(), input.clone(), tiny(5).into()];
        let results: Vec<_> = detector.predict_iter(batch).collect();
        assert!(results[1].is_err() && results.len() == 3);
        assert_eq!(results[0].as_ref().unwrap(), &before);
        assert_eq!(results[2].as_ref().unwrap(), &before);
        let images = || [tiny(0).into(), tiny(1).into(), input.clone()];
        let error = padim.fit(images()).unwrap_err().to_string();
        println!("fit: {error}");
        assert!(error.contains(part) || part == "read", "{input:?}: {error}");
        // Three images are enough for this rate.
        let rates = CalibrationConfig::default().with_image_false_alarm_rate(0.5);
        let decided = detector.clone().calibrate(images(), &rates);
        assert!(decided.unwrap_err().to_string().contains(part), "{input:?}");
        assert!(padim.clone().fit_projection(2, images()).is_err());
        let mut fit = padim.partial_fit((0..3).map(tiny)).unwrap();
        assert!(fit.extend(images()).is_err() && fit.image_count() == 3, "{input:?}");
        let mut open = fit.finish_extendable().unwrap();
        let score = open.predict(tiny(5)).unwrap();
        assert!(open.extend_with(images(), 0.5, crate::silent).is_err());
        assert_eq!(open.predict(tiny(5)).unwrap(), score);
    }
    // One pixel is a valid image, and so is a long row of pixels.
    for [width, height] in [[1, 1], [20_000, 1], [1, 20_000]] {
        assert!(detector.predict(DynamicImage::new_rgb8(width, height)).is_ok());
    }
    let config = squares_config(Storage::Auto).with_preprocess(
        PreprocessConfig::default().with_crop(Some(8)).with_resize(Resize::ShortSide(8)),
    );
    let padim = Padim::new(config, Squares::new()).unwrap();
    let line = DynamicImage::new_rgb8(20_000, 1);
    let error = padim.fit([line.clone(), line]).unwrap_err().to_string();
    assert!(error.contains("exact size"), "{error}");
}

#[test]
fn empty_sets_and_sets_of_one_are_errors_that_say_so() {
    use padim::metrics::*;
    let none = Vec::<ImageInput>::new;
    let one = || [tiny(1)];
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let detector = padim.fit((0..4).map(tiny)).unwrap();
    let mut open = padim.partial_fit((0..4).map(tiny)).unwrap().finish_extendable().unwrap();
    let mut fit = padim.partial_fit(one()).unwrap();
    assert_eq!(fit.image_count(), 1);
    let config = CalibrationConfig::default();
    let pixels = |truth: &'static [bool]| PixelScores::new(&[1.0], truth, [1, 1]).unwrap();
    let (normal, defective) = ([pixels(&[false])], [pixels(&[true])]);
    let outcomes: Vec<(&str, Result<()>, &str)> = vec![
        ("fit none", padim.fit(none()).map(drop), "at least 2 training images, got 0"),
        ("fit one", padim.fit(one()).map(drop), "at least 2 training images, got 1"),
        ("partial fit of none", padim.partial_fit(none()).map(drop), "got 0"),
        ("finish one", fit.clone().finish().map(drop), "got 1"),
        ("extend by none", fit.extend(none()), "got 0"),
        ("open extend by none", open.extend(none()), "got 0"),
        ("components of none", padim.clone().fit_projection(2, none()).map(drop), "got 0"),
        ("calibrate with none", detector.clone().calibrate(none(), &config), "good images, got 0"),
        (
            "calibrate with one",
            detector.clone().calibrate(one(), &config),
            "needs at least 19 good images",
        ),
        ("folds of none", padim.fit_calibrated(&none(), 2, &config).map(drop), "got 0"),
        ("folds of one", padim.fit_calibrated(&one(), 2, &config).map(drop), "got 1"),
        ("no calibration scores", Calibration::new(vec![]).map(drop), "got 0"),
        ("AUROC of none", image_auroc(&[], &[]).map(drop), "no defective image"),
        ("AUROC of one", image_auroc(&[1.0], &[true]).map(drop), "no good image"),
        ("ROC of none", image_roc_curve(&[], &[], 10).map(drop), "no defective image"),
        ("F1 of none", image_f1_max(&[], &[]).map(drop), "no defective image"),
        ("precision of none", image_average_precision(&[], &[]).map(drop), "no defective image"),
        (
            "recall of none",
            image_threshold_at_recall(&[], &[], 0.5).map(drop),
            "no defective image",
        ),
        ("other lengths", image_auroc(&[1.0], &[]).map(drop), "1 labels"),
        ("NaN scores", image_auroc(&[f32::NAN, 1.0], &[true, false]).map(drop), "NaN"),
        ("pixels of none", pixel_auroc(&[]).map(drop), "no defective pixel"),
        ("one normal pixel", pixel_auroc(&normal).map(drop), "no defective pixel"),
        ("one defective pixel", pixel_auroc(&defective).map(drop), "no normal pixel"),
        ("pixel ROC of none", pixel_roc_curve(&[], 10).map(drop), "no defective pixel"),
        ("pixel F1 of none", pixel_f1_max(&[]).map(drop), "no defective pixel"),
        ("pixel precision of none", pixel_average_precision(&[]).map(drop), "no defective pixel"),
        (
            "pixel recall of none",
            pixel_threshold_at_recall(&[], 0.5).map(drop),
            "no defective pixel",
        ),
        ("AUPRO of none", aupro(&[], 0.3).map(drop), "no defective"),
        ("AUPRO of one", aupro(&defective, 0.3).map(drop), "no normal pixel"),
        ("PRO of none", pro_curve(&[], 10).map(drop), "no defective"),
        ("draws of none", Bootstrap::default().interval(0, |_| Ok(1.0)).map(drop), "image"),
        ("a map of none", AnomalyMap::new([0, 0], vec![]).map(drop), "at least one"),
    ];
    for (name, outcome, part) in outcomes {
        let error = outcome.err().map(|error| error.to_string());
        println!("{name}: {}", error.as_deref().unwrap_or("no error"));
        assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{name}: {error:?}");
    }
    // These calls succeed.
    assert_eq!(detector.predict_batch(none()).unwrap(), []);
    assert_eq!(detector.predict_batch(one()).unwrap().len(), 1);
    assert_eq!(fit.image_count(), 1);
    assert_eq!(image_f1_max(&[1.0], &[true]).unwrap().f1, 1.0);
    assert!(visualize::ScoreRange::of([]).is_none());
    assert_eq!(visualize::panel(&[]).dimensions().0, 0);
    assert_eq!(visualize::contact_sheet(&[]).dimensions().1, 0);
    assert!(PixelScores::new(&[], &[], [0, 0]).is_ok());
    assert!(connected_regions(&[], [0, 0]).unwrap().areas().is_empty());
    let map = AnomalyMap::new([1, 1], vec![1.0]).unwrap();
    assert_eq!(map.at(usize::MAX, 0), None);
}
