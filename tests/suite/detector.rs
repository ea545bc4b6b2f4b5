//! Fits and predictions: every kind of input, every kind of mistake.

use image::{DynamicImage, Rgb, RgbImage};
use padim::backbone::ResNet;
use padim::detector::FitStage;
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::preprocess::{PreprocessConfig, Resize};
use padim::{Detector, Error, ImageInput, Padim, PadimConfig, ResNet18, image};
use std::ops::ControlFlow;

use crate::{devices, tensor};

pub fn good(i: u32) -> RgbImage {
    RgbImage::from_fn(70, 56, |x, y| {
        Rgb([(x * 3 + i * 5) as u8, (y * 4) as u8, ((x ^ y) * 2 + i * 3) as u8])
    })
}

pub fn defective() -> RgbImage {
    let mut image = good(2);
    for (x, y) in (20..36).flat_map(|x| (24..40).map(move |y| (x, y))) {
        image.put_pixel(x, y, Rgb([255, 0, 255]));
    }
    image
}

pub fn config() -> PadimConfig {
    PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default().with_resize(Resize::ShortSide(52)).with_crop(Some(48)),
        )
        .with_channels(ChannelSelection::random(20, 3))
        .with_batch_size(3)
}

pub fn backbone() -> ResNet {
    ResNet18::untrained(7, &devices()[0]).unwrap()
}

pub fn detector() -> Detector {
    Padim::new(config(), backbone()).unwrap().fit((0..8).map(good)).unwrap()
}

#[test]
fn a_defect_is_found_where_it_is() {
    let prediction = detector().predict(defective()).unwrap();
    assert!(prediction.image_score > 2.0 * detector().predict(good(3)).unwrap().image_score);
    let map = prediction.map_in_original().unwrap();
    assert_eq!(map.size(), [56, 70]);
    let peak = (0..56 * 70).max_by(|&a, &b| map.values()[a].total_cmp(&map.values()[b])).unwrap();
    let (y, x) = (peak / 70, peak % 70);
    assert!((16..48).contains(&y) && (12..44).contains(&x), "peak at {y}, {x}");
    assert_eq!(map.at(0, 0), Some(0.0), "the crop has cut the corner away");
    assert_eq!(prediction.anomaly_map.max(), prediction.image_score);
}

/// As if each of the last images had been left out of the fit, as a fit without it tells.
#[test]
fn the_peak_of_good_images_is_that_of_images_left_out() {
    let fit = |images: &[u32]| {
        let images = images.iter().copied().map(good);
        Padim::new(config(), backbone()).unwrap().fit(images).unwrap()
    };
    let all: Vec<u32> = (0..40).map(|i| i * i % 97).collect();
    let peak = fit(&all).good_peak().unwrap();
    let left_out = (32..40).map(|k| {
        let others: Vec<u32> = all.iter().copied().filter(|&i| i != all[k]).collect();
        fit(&others).predict(good(all[k])).unwrap().anomaly_map.max()
    });
    let expected = left_out.reduce(f32::max).unwrap();
    assert!((peak - expected).abs() < 0.05 * expected, "{peak} {expected}");
    assert_eq!(fit(&[1, 2]).good_peak(), None);
}

#[test]
fn a_good_part_does_not_glow() {
    let detector = detector();
    let range = detector.score_range().unwrap();
    assert_eq!(range.max, 1.5 * detector.good_peak().unwrap());
    let change = |image: RgbImage| {
        let dynamic = DynamicImage::from(image.clone());
        let prediction = detector.predict(&dynamic).unwrap();
        let over = detector.overlay(&dynamic, &prediction).unwrap();
        let changes = image.as_raw().iter().zip(over.as_raw()).map(|(a, b)| a.abs_diff(*b));
        changes.max().unwrap()
    };
    let (of_good, of_defective) = (change(good(4)), change(defective()));
    assert!(of_good < 40 && of_defective > 120, "{of_good} {of_defective}");
}

#[test]
fn files_images_and_tensors_score_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let detector = detector();
    let expected = detector.predict(defective()).unwrap();
    for name in ["a.png", "b.bmp", "c.tif", "d.webp", "misnamed.jpg"] {
        let path = folder.path().join(name);
        let format = match name {
            "misnamed.jpg" => image::ImageFormat::Png,
            _ => image::ImageFormat::from_path(&path).unwrap(),
        };
        DynamicImage::from(defective()).save_with_format(&path, format).unwrap();
        assert_eq!(detector.predict(&path).unwrap(), expected, "{name}");
    }
    let jpeg = folder.path().join("e.jpg");
    defective().save(&jpeg).unwrap();
    let lossy = detector.predict(jpeg).unwrap().image_score;
    assert!((lossy / expected.image_score - 1.0).abs() < 0.2);

    let input = detector.preprocessor().process(&defective().into()).unwrap();
    let input = tensor(input.values, [3, 48, 48], &devices()[0]);
    let prediction = detector.predict(input.clone()).unwrap();
    assert_eq!(prediction.anomaly_map, expected.anomaly_map);
    let batch = detector.predict_tensor(input.unsqueeze()).unwrap();
    assert_eq!(batch[0].anomaly_map, expected.anomaly_map);
}

#[test]
fn a_score_does_not_depend_on_the_batch() {
    let detector = detector();
    let images = || (0..7).map(good).chain([defective()]);
    let together = detector.predict_batch(images()).unwrap();
    for (image, expected) in images().zip(together) {
        assert_eq!(detector.predict(image).unwrap(), expected);
    }
}

#[test]
fn progress_tells_everything_once() {
    let mut seen = Vec::new();
    let padim = Padim::new(config(), backbone()).unwrap();
    padim
        .fit_with((0..8).map(good), |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    let of = |stage| seen.iter().filter(move |p| p.stage == stage).map(|p| (p.done, p.total));
    let embedded: Vec<_> = of(FitStage::Embedding).collect();
    assert_eq!(embedded, [(3, Some(8)), (6, Some(8)), (8, Some(8))]);
    assert_eq!(of(FitStage::Factorizing).next_back(), Some((144, Some(144))));
}

#[test]
fn too_few_images_are_an_error() {
    let padim = Padim::new(config(), backbone()).unwrap();
    for count in [0, 1] {
        let error = padim.fit((0..count).map(good)).unwrap_err();
        assert!(
            matches!(error, Error::TooFewImages { count: c, .. } if c == count as usize),
            "{error}"
        );
    }
}

#[test]
fn a_bad_image_is_named_and_spares_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.png");
    std::fs::write(&broken, b"\x89PNG\r\n\x1a\n and then nothing").unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, b"not an image").unwrap();
    let missing = folder.path().join("missing.png");

    let padim = Padim::new(config(), backbone()).unwrap();
    let mut images: Vec<ImageInput> = (0..4).map(|i| good(i).into()).collect();
    images.insert(2, (&broken).into());
    let error = padim.fit(images).unwrap_err().to_string();
    assert!(error.contains("broken.png"), "{error}");

    let detector = detector();
    let nan = tensor(vec![f32::NAN; 3 * 48 * 48], [3, 48, 48], &devices()[0]);
    let wrong_size = tensor(vec![0.0; 3 * 32 * 48], [3, 32, 48], &devices()[0]);
    let grey = tensor(vec![0.0; 48 * 48], [1, 48, 48], &devices()[0]);
    let inputs: Vec<ImageInput> = vec![
        good(1).into(),
        (&broken).into(),
        nan.into(),
        (&text).into(),
        wrong_size.into(),
        (&missing).into(),
        grey.into(),
        RgbImage::new(0, 0).into(),
        defective().into(),
    ];
    let results: Vec<_> = detector.predict_iter(inputs).collect();
    assert_eq!(results.len(), 9);
    let expected = [
        None,
        Some("broken.png"),
        Some("NaN"),
        Some("notes.txt"),
        Some("[48, 48]"),
        Some("missing.png"),
        Some("[1, 48, 48]"),
        Some("number 7"),
        None,
    ];
    for (result, expected) in results.iter().zip(expected) {
        match (result, expected) {
            (Ok(_), None) => (),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(results[8].as_ref().unwrap(), &detector.predict(defective()).unwrap());
}

#[test]
fn images_that_become_different_sizes_are_refused_with_advice() {
    let preprocess = (config().preprocess).with_crop(None);
    let padim = Padim::new(config().with_preprocess(preprocess), backbone()).unwrap();
    let images = [good(0), RgbImage::new(90, 56)];
    let error = padim.fit(images).unwrap_err().to_string();
    assert!(error.contains("number 1") && error.contains("use a crop"), "{error}");
}

#[test]
fn tensors_of_another_size_than_the_fitted_are_refused() {
    let detector = detector();
    // 46 and 48 pixels give the same grid, so the size itself must be compared.
    for shape in [[1, 3, 46, 48], [1, 1, 48, 48], [1, 3, 96, 96]] {
        let images = tensor(vec![0.0; shape.iter().product()], shape, &devices()[0]);
        let error = detector.predict_tensor(images).unwrap_err();
        assert!(matches!(error, Error::ShapeMismatch { .. }), "{shape:?}: {error}");
    }
}

#[test]
fn impossible_settings_are_refused() {
    let preprocess = |f: fn(&mut PreprocessConfig)| {
        let mut config = config();
        f(&mut config.preprocess);
        config
    };
    let cases = [
        (preprocess(|p| p.crop = Some(53)), "crop"),
        (preprocess(|p| p.crop = Some(0)), "crop"),
        (preprocess(|p| p.resize = Resize::square(0)), "resize"),
        (preprocess(|p| p.resize = Resize::ShortSide(1 << 20)), "resize"),
        (config().with_channels(ChannelSelection::random(449, 0)), "channels"),
        (config().with_batch_size(0), "batch_size"),
    ];
    for (config, field) in cases {
        match Padim::new(config, backbone()) {
            Err(Error::InvalidConfig { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn one_detector_serves_many_threads() {
    let detector = detector();
    let expected = detector.predict(defective()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(detector.predict(defective()).unwrap(), expected));
        }
    });
}

#[test]
fn a_pool_of_one_thread_does() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let expected = detector().predict(defective()).unwrap();
    pool.install(|| assert_eq!(detector().predict(defective()).unwrap(), expected));
}

#[test]
fn contributions_add_up_to_the_scores() {
    let storages = [
        Storage::FullInverse,
        Storage::Triangle(Precision::F32),
        Storage::Triangle(Precision::F16),
        Storage::LowRank(Precision::F32),
        Storage::LowRank(Precision::F16),
        Storage::Principal(Precision::F32),
        Storage::Diagonal,
    ];
    for storage in storages {
        let gaussian = GaussianConfig::default()
            .with_storage(storage)
            .with_components(matches!(storage, Storage::Principal(_)).then_some(6));
        let padim = Padim::new(config().with_gaussian(gaussian), backbone()).unwrap();
        let detector = padim.fit((0..8).map(good)).unwrap();
        let explanation = detector.explain(defective()).unwrap();
        let prediction = detector.predict(defective()).unwrap();
        assert_eq!(explanation.prediction, prediction);
        let map = prediction.anomaly_map;
        for (i, expected) in map.values().iter().enumerate() {
            let sum: f32 = explanation.layers.iter().map(|layer| layer.map.values()[i]).sum();
            assert!((sum - expected).abs() < 2e-3 * map.max(), "{storage}: {sum} {expected}");
        }
        let at_peak: f32 = explanation.layers.iter().map(|layer| layer.at_peak).sum();
        let channels: f32 = explanation.channels.iter().map(|c| c.contribution).sum();
        assert!((at_peak - channels).abs() < 1e-3 * at_peak, "{storage}: {at_peak} {channels}");
        assert_eq!(explanation.channels.len(), 20);
        assert_eq!(explanation.layers.len(), 3);
        // The patches of the spot are in rows 4 to 9 and columns 3 to 7 of a 12x12 grid.
        let [row, column] = explanation.peak;
        assert!((3..10).contains(&row) && (2..9).contains(&column), "{row} {column}");
    }
    let padim = Padim::new(config(), backbone()).unwrap();
    let shared = padim.fit_projection(4, (0..8).map(good)).unwrap();
    let detector = shared.fit((0..8).map(good)).unwrap();
    assert!(matches!(
        detector.explain(defective()),
        Err(Error::InvalidConfig { field: "projection", .. })
    ));
    assert!(detector.explain("missing.png").is_err());
}
