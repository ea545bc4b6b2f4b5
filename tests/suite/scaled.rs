//! JPEG files that are decoded at a part of their size (`PreprocessConfig::jpeg_scaling`).

use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};
use padim::detector::{Predictor, Registration};
use padim::preprocess::decode_file;
use padim::{Detector, ImageInput, Padim, PadimConfig, TiledPadim, TilingConfig, image};

use crate::detector::{backbone, config, defective, good};

/// Writes a picture as a JPEG file of four times its sides.
fn file(folder: &Path, name: &str, picture: &RgbImage) -> PathBuf {
    let large = DynamicImage::from(picture.clone()).resize_exact(280, 224, FilterType::CatmullRom);
    let path = folder.join(name);
    large.save(&path).unwrap();
    path
}

fn scaling(jpeg_scaling: bool) -> PadimConfig {
    config().with_preprocess(config().preprocess.with_jpeg_scaling(jpeg_scaling))
}

fn padim(config: PadimConfig) -> Padim {
    Padim::new(config, backbone()).unwrap()
}

#[test]
fn maps_and_pictures_have_the_size_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        (0..6).map(|i| file(folder.path(), &format!("{i}.jpg"), &good(i))).collect();
    let defect = file(folder.path(), "defect.jpg", &defective());
    let [scaled, whole] = [true, false].map(|on| padim(scaling(on)).fit(&files).unwrap());
    let [a, b] = [&scaled, &whole].map(|detector| detector.predict(&defect).unwrap());
    for prediction in [&a, &b] {
        assert_eq!(prediction.map_in_original().unwrap().size(), [224, 280]);
    }
    // Other pixels, so other scores, but nearly the same.
    assert_ne!(a.image_score, b.image_score);
    let ratio = a.image_score / b.image_score;
    assert!((0.8..1.25).contains(&ratio), "{ratio}");

    // Bytes are files. People see the whole picture.
    let bytes = std::fs::read(&defect).unwrap();
    for input in [ImageInput::encoded("a", bytes), ImageInput::from(&defect)] {
        for keep in [true, false] {
            let prepared = Predictor::prepare(&scaled, input.clone(), keep).unwrap();
            match prepared.image() {
                Some(image) => assert_eq!(**image, decode_file(&defect).unwrap()),
                None => assert!(!keep),
            }
            let prediction = scaled.predict_prepared(vec![prepared]).remove(0).unwrap();
            assert_eq!(prediction.image_score, a.image_score);
        }
    }
    // A decoded picture has all its pixels.
    let decoded = scaled.predict(decode_file(&defect).unwrap()).unwrap();
    assert_ne!(decoded.image_score, a.image_score);

    // The setting is in the file.
    let saved = folder.path().join("saved.padim");
    scaled.save(&saved).unwrap();
    let loaded = Detector::load(&saved, &burn::tensor::Device::flex()).unwrap();
    assert!(loaded.config().preprocess.jpeg_scaling);
    assert_eq!(loaded.predict(&defect).unwrap().image_score, a.image_score);
}

/// A registration measures its motion in pixels of the whole picture.
#[test]
fn registered_pictures_are_decoded_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        (0..6).map(|i| file(folder.path(), &format!("{i}.jpg"), &good(i))).collect();
    let mirrored = || {
        Registration::new("mirrored", |image: &DynamicImage| {
            assert_eq!([image.width(), image.height()], [280, 224]);
            Ok(image.fliph())
        })
    };
    let [a, b] = [true, false].map(|on| {
        let detector = padim(scaling(on)).with_registration(mirrored()).fit(&files).unwrap();
        detector.predict(&files[0]).unwrap().image_score
    });
    assert_eq!(a, b);
}

#[test]
fn tiles_need_all_pixels() {
    let uncropped = scaling(true).preprocess.with_crop(None);
    let config = scaling(true).with_preprocess(uncropped);
    let error = TiledPadim::new(config, TilingConfig::default(), backbone()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("jpeg_scaling"), "{text}");
}
