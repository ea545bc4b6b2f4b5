//! Files whose sections contradict each other.

use std::collections::BTreeMap;
use std::path::Path;

use padim::*;

use super::checks::Squares;
use super::{squares_config, tiny};

type Sections = BTreeMap<String, Vec<u8>>;

/// The sections of a detector's file, and what stands behind them.
fn read(path: &Path) -> (Sections, Vec<u8>) {
    let file = std::fs::read(path).unwrap();
    let end = 20 + u64::from_le_bytes(file[12..20].try_into().unwrap()) as usize;
    let config = bincode::config::standard();
    let (sections, _) = bincode::serde::decode_from_slice(&file[20..end], config).unwrap();
    (sections, file[end..file.len() - 4].to_vec())
}

/// A file of these sections that is whole: lengths and checksum are right.
fn write(path: &Path, sections: &Sections, arrays: &[u8]) {
    let head: Vec<u8> = std::fs::read(path).unwrap()[..12].to_vec();
    let header = bincode::serde::encode_to_vec(sections, bincode::config::standard()).unwrap();
    let mut file = [&head[..], &(header.len() as u64).to_le_bytes(), &header, arrays].concat();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    std::fs::write(path, file).unwrap();
}

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
        let detector = padim.fit((0..2).map(tiny), |_| ()).unwrap();
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
    padim.partial_fit((0..5).map(tiny), |_| ()).unwrap().save(&path).unwrap();
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
    let [path, other] = ["tiles", "registered"].map(|name| folder.path().join(name));
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let axis = padim.with_registration(Registration::new("upright", |image| Ok(image.clone())));
    axis.fit((0..3).map(tiny), |_| ()).unwrap().save_without_backbone(&other).unwrap();

    let tiling = TilingConfig { tile: [8, 8], overlap: 2, ..TilingConfig::default() };
    let tiled = TiledPadim::new(squares_config(Storage::Auto), tiling, Squares::new()).unwrap();
    let tiled = tiled.fit((0..3).map(tiny), |_| ()).unwrap();
    tiled.save_without_backbone(&path).unwrap();
    let (mut sections, arrays) = read(&path);
    sections.insert("moving".into(), read(&other).0.remove("moving").unwrap());
    write(&path, &sections, &arrays);
    let text = refused(TiledDetector::load_with_backbone(&path, Squares::new()));
    assert!(text.contains("registration"), "{text}");
}
