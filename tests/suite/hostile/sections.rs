//! Files whose sections contradict each other.

use padim::gaussian::{Precision, Storage};
use padim::{Detector, Error, Padim, PartialFit, Result, TiledDetector, TiledPadim, TilingConfig};

use super::checks::Squares;
use super::{squares_config, tiny};
use crate::sections::{edit_settings, read, write};

fn refused(result: Result<impl std::fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::InvalidDetectorFile { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn gaussians_of_one_image_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for storage in [Storage::Triangle(Precision::F32), Storage::FullInverse] {
        let padim = Padim::new(squares_config(storage), Squares::new()).unwrap();
        let detector = padim.fit((0..2).map(tiny)).unwrap();
        detector.save_without_backbone(&path).unwrap();
        let (mut sections, arrays) = read(&path);
        let model = sections.get_mut("model").unwrap();
        assert_eq!(model.pop(), Some(2), "the number of images stands last");
        model.push(1);
        write(&path, &sections, &arrays);
        let text = refused(Detector::load_with_backbone(&path, Squares::new()));
        assert!(text.contains("1 images"), "{text}");
    }
}

#[test]
fn a_number_of_images_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    padim.partial_fit((0..5).map(tiny)).unwrap().save(&path).unwrap();
    let (mut sections, arrays) = read(&path);
    let statistics = sections.get_mut("statistics").unwrap();
    assert_eq!(statistics[..2], [3, 5], "the dimension, then the number of images");
    statistics.splice(1..2, [&[0xFD][..], &u64::MAX.to_le_bytes()].concat());
    write(&path, &sections, &arrays);
    refused(PartialFit::load(&path, std::sync::Arc::new(Squares::new())));
}

#[test]
fn tiles_with_a_registration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiles");
    let tiling = TilingConfig::default().with_tile([8, 8]).with_overlap(2);
    let tiled = TiledPadim::new(squares_config(Storage::Auto), tiling, Squares::new()).unwrap();
    let tiled = tiled.fit((0..3).map(tiny)).unwrap();
    tiled.save_without_backbone(&path).unwrap();
    edit_settings(&path, "settings", |settings| {
        settings["registration"] = serde_json::json!({ "named": "upright" });
    });
    let text = refused(TiledDetector::load_with_backbone(&path, Squares::new()));
    assert!(text.contains("registration"), "{text}");
}
