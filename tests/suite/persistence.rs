//! Detector files: round trips, hostile files, other backbones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use padim::backbone::{EfficientNetConfig, EfficientNetStage, FeatureMaps, LayerInfo};
use padim::embedding::ChannelSelection;
use padim::fingerprint::Fingerprint;
use padim::scoring::ScoreNormalization;
use padim::{Backbone, BackboneCache, Detector, Error, Padim, ResNet18, Result, burn};

use crate::detector::{backbone, config, defective, detector, good};
use crate::sections::{edit_settings, header_end};
use crate::{devices, run_and_kill};

fn load(path: &Path) -> Result<Detector> {
    Detector::load(path, &devices()[0])
}

#[test]
fn a_loaded_detector_scores_bit_for_bit_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    let normalization = ScoreNormalization::AroundThreshold { threshold: 9.0, min: 1.0, max: 50.0 };
    let saved = detector().with_normalization(normalization).unwrap();
    saved.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.config(), saved.config());
    assert_eq!(loaded.channel_indices(), saved.channel_indices());
    assert_eq!(loaded.model(), saved.model());
    assert_eq!(loaded.good_peak(), saved.good_peak());
    assert_eq!(loaded.score_range(), saved.score_range());
    assert_eq!(loaded.backbone_fingerprint(), saved.backbone_fingerprint());
    let images = || (0..5).map(good).chain([defective()]);
    assert_eq!(loaded.predict_batch(images()).unwrap(), saved.predict_batch(images()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

    // Saving a loaded detector gives the same file.
    let again = folder.path().join("again.padim");
    loaded.save(&again).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
}

#[test]
fn a_detector_without_its_backbone_wants_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    let saved = detector();
    saved.save_without_backbone(&path).unwrap();
    let loaded = Detector::load_with_backbone(&path, backbone()).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), saved.predict(defective()).unwrap());

    let error = load(&path).unwrap_err();
    assert!(matches!(error, Error::BackboneNotEmbedded { .. }), "{error}");
    let other = ResNet18::untrained(8, &devices()[0]).unwrap();
    let error = Detector::load_with_backbone(&path, other).unwrap_err();
    assert!(matches!(error, Error::BackboneMismatch { .. }), "{error}");
    let layers = ResNet18::config().with_layers([1, 3]).untrained(7, &devices()[0]).unwrap();
    let error = Detector::load_with_backbone(&path, layers).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
}

/// A small EfficientNet.
fn efficientnet() -> EfficientNetConfig {
    let stage = EfficientNetStage::new;
    EfficientNetConfig {
        stem_channels: 8,
        stages: vec![stage(1, 8, 1, 3, 1), stage(2, 16, 2, 5, 2)],
        blocks: vec![1, 3],
    }
}

#[test]
fn an_efficientnet_is_saved_and_loaded_with_its_weights() {
    let device = devices().remove(0);
    let network = efficientnet().untrained(1, &device).unwrap();
    let saved = Padim::new(config(), network).unwrap().fit((0..8).map(good)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    saved.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.backbone_fingerprint(), saved.backbone_fingerprint());
    let images = || (0..5).map(good).chain([defective()]);
    assert_eq!(loaded.predict_batch(images()).unwrap(), saved.predict_batch(images()).unwrap());

    let again = folder.path().join("again.padim");
    loaded.save(&again).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());

    edit_settings(&path, "backbone", |backbone| {
        assert_eq!(backbone["network"], "EfficientNet");
        backbone["network"] = "ResNext".into();
    });
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("\"ResNext\"") && error.contains("EfficientNet"), "{error}");

    saved.save_without_backbone(&path).unwrap();
    let error = load(&path).unwrap_err();
    assert!(matches!(error, Error::BackboneNotEmbedded { .. }), "{error}");
    let other = efficientnet().untrained(2, &device).unwrap();
    let error = Detector::load_with_backbone(&path, other).unwrap_err();
    assert!(matches!(error, Error::BackboneMismatch { .. }), "{error}");
    let same = efficientnet().untrained(1, &device).unwrap();
    let loaded = Detector::load_with_backbone(&path, same).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), saved.predict(defective()).unwrap());
}

/// A custom network: three colors.
#[derive(Debug)]
struct Colours(Vec<LayerInfo>);

impl Backbone for Colours {
    fn layers(&self) -> &[LayerInfo] {
        &self.0
    }
    fn device(&self) -> Device {
        devices().remove(0)
    }
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(["colours"])
    }
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        FeatureMaps::new(vec![images])
    }
}

#[test]
fn a_network_of_ones_own_fits_saves_and_loads() {
    let colours = || Colours(vec![LayerInfo { name: "pixels".into(), channels: 3, stride: 1 }]);
    let config = config().with_channels(ChannelSelection::All);
    let padim = Padim::new(config, colours()).unwrap();
    let detector = padim.fit((0..5).map(good)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("colours.padim");
    let error = detector.save(&path).unwrap_err();
    assert!(matches!(error, Error::BackboneNotEmbedded { .. }), "{error}");
    assert!(!path.exists());
    detector.save_without_backbone(&path).unwrap();
    let loaded = Detector::load_with_backbone(&path, colours()).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), detector.predict(defective()).unwrap());
}

/// A valid file in a folder, to be damaged by tests.
fn valid_file() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    detector().save_without_backbone(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (folder, path, bytes)
}

/// The file of `detector().save_without_backbone(..)` in version 1. It is never changed.
const VERSION_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/detector-v1.padim");

#[test]
#[ignore = "run once for a version: it writes its file"]
fn write_the_file_of_a_version() {
    detector().save_without_backbone(VERSION_1).unwrap();
}

#[test]
fn a_file_that_version_1_wrote_scores_the_same() {
    let old = Detector::load_with_backbone(VERSION_1, backbone()).unwrap();
    let new = detector();
    assert_eq!(old.config(), new.config());
    for image in [good(1), good(40), defective()] {
        let [a, b] = [&old, &new].map(|detector| detector.predict(image.clone()).unwrap());
        // Other processors sum in another order.
        let pairs = a.anomaly_map.values().iter().zip(b.anomaly_map.values());
        assert!(pairs.clone().all(|(a, b)| (a / b - 1.0).abs() < 1e-3), "{}", a.image_score);
    }
}

#[test]
fn a_setting_that_the_file_lacks_has_its_default() {
    let (_folder, path, _) = valid_file();
    edit_settings(&path, "settings", |settings| {
        let config = settings["config"].as_object_mut().unwrap();
        assert!(config.remove("neighborhood").is_some());
        assert!(config.remove("scoring").is_some());
        let gaussian = config["gaussian"].as_object_mut().unwrap();
        assert!(gaussian.remove("pooled").is_some());
    });
    let loaded = Detector::load_with_backbone(&path, backbone()).unwrap();
    assert_eq!(loaded.config(), detector().config());
    assert_eq!(loaded.predict(defective()).unwrap(), detector().predict(defective()).unwrap());
}

#[test]
fn a_setting_that_is_not_known_is_refused_by_name() {
    let places: [fn(&mut serde_json::Value) -> &mut serde_json::Value; 5] = [
        |settings| settings,
        |settings| &mut settings["config"],
        |settings| &mut settings["config"]["preprocess"],
        |settings| &mut settings["config"]["gaussian"],
        |settings| &mut settings["config"]["scoring"]["blur"],
    ];
    for place in places {
        let (_folder, path, _) = valid_file();
        edit_settings(&path, "settings", |settings| place(settings)["sharpness"] = 3.into());
        let error = Detector::load_with_backbone(&path, backbone()).unwrap_err();
        assert!(matches!(error, Error::InvalidDetectorFile { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("`sharpness`") && text.contains("update padim"), "{text}");
    }
}

#[test]
fn a_detector_is_saved_to_memory_and_loaded_from_it() {
    let (saved, device) = (detector(), devices().remove(0));
    let (_folder, path, without) = valid_file();
    let mut bytes = Vec::new();
    saved.save_to(&mut bytes).unwrap();
    saved.save(&path).unwrap();
    assert!(bytes == std::fs::read(&path).unwrap());
    let loaded = Detector::load_from(&bytes[..], &device).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), saved.predict(defective()).unwrap());
    let loaded = Detector::load_from(&without[..], Arc::new(backbone())).unwrap();
    assert_eq!(loaded.predict(defective()).unwrap(), saved.predict(defective()).unwrap());
    let error = Detector::load_from(&bytes[..bytes.len() / 2], &device).unwrap_err();
    assert!(matches!(error, Error::InvalidDetectorFile { .. }), "{error:?}");
    assert!(Detector::load_from(&b"PADIM"[..], &device).is_err());
}

#[test]
fn notes_are_saved_and_change_nothing() {
    let (_folder, path, _) = valid_file();
    let mut noted = detector();
    noted.metadata_mut().insert("product".into(), "bolt \"M8\"".into());
    noted.save(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.metadata(), noted.metadata());
    assert_eq!(loaded.predict(defective()).unwrap(), detector().predict(defective()).unwrap());
}

#[test]
fn detectors_of_a_cache_share_their_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, other) =
        (folder.path().join("one"), folder.path().join("two"), folder.path().join("other"));
    detector().save(&one).unwrap();
    detector().save(&two).unwrap();
    let foreign = ResNet18::untrained(8, &devices()[0]).unwrap();
    Padim::new(config(), foreign).unwrap().fit((0..8).map(good)).unwrap().save(&other).unwrap();
    let cache = BackboneCache::new(&devices()[0]);
    assert!(cache.is_empty());
    let [a, b, c] = [&one, &two, &other].map(|path| Detector::load(path, &cache).unwrap());
    assert_eq!(cache.len(), 2);
    assert_eq!(a.backbone_fingerprint(), b.backbone_fingerprint());
    assert_ne!(a.backbone_fingerprint(), c.backbone_fingerprint());
    let expected = detector().predict(defective()).unwrap();
    assert_eq!(a.predict(defective()).unwrap(), expected);
    assert_eq!(b.predict(defective()).unwrap(), expected);
    assert_eq!(
        c.predict(defective()).unwrap(),
        load(&other).unwrap().predict(defective()).unwrap()
    );
    // Damaged weights are an error, even if the cache already has these weights.
    let mut damaged = std::fs::read(&one).unwrap();
    let header_end = header_end(&damaged);
    damaged[header_end + 40] ^= 4;
    std::fs::write(&one, damaged).unwrap();
    let error = Detector::load(&one, &cache).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn hostile_files_are_errors() {
    let (_folder, path, valid) = valid_file();
    let header_end = header_end(&valid);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = valid.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let flip = |at: usize| with(at, &[valid[at] ^ 0x10]);
    let longer = [&valid[..], b"and more"].concat();
    let text = valid.iter().copied().filter(|&b| b != b'\r').collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "too early"),
        ("foreign", b"PK\x03\x04 something else entirely".to_vec(), "does not begin"),
        ("converted as text", text, "does not begin"),
        ("version 0", with(8, &0_u32.to_le_bytes()), "version 0"),
        ("newer version", with(8, &2_u32.to_le_bytes()), "update padim"),
        ("huge header", with(12, &u64::MAX.to_le_bytes()), "its header claims"),
        ("header a little longer", with(12, &(header_end as u64 - 19).to_le_bytes()), "header"),
        ("header a little shorter", with(12, &(header_end as u64 - 21).to_le_bytes()), "header"),
        ("cut in the mark", valid[..5].to_vec(), "too early"),
        ("cut in the header", valid[..header_end - 3].to_vec(), "too early"),
        ("cut behind the header", valid[..header_end].to_vec(), "bytes instead of"),
        ("cut in the values", valid[..valid.len() / 2].to_vec(), "bytes instead of"),
        ("cut by one byte", valid[..valid.len() - 1].to_vec(), "bytes instead of"),
        ("longer", longer, "bytes instead of"),
        ("a changed value", flip(header_end + 8), "checksum"),
        ("a changed checksum", flip(valid.len() - 1), "checksum"),
        ("values that are not numbers", with(header_end, &f32::NAN.to_le_bytes()), "NaN"),
    ];
    for (name, bytes, part) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = Detector::load_with_backbone(&path, backbone()).unwrap_err().to_string();
        println!("{name}: {error}");
        assert!(error.contains(part), "{name}: {error}");
    }
    let missing = path.with_file_name("missing.padim");
    assert!(matches!(load(&missing), Err(Error::Io { .. })));
    assert!(load(path.parent().unwrap()).is_err(), "a folder");
}

/// Changes each byte of the header: gives an error or a working detector, and no huge allocation.
#[test]
fn no_damage_to_the_header_panics() {
    let (_folder, path, valid) = valid_file();
    let header_end = header_end(&valid);
    for at in 20..header_end {
        for change in [0x01, 0x80, 0xFF] {
            let mut file = valid.clone();
            file[at] ^= change;
            std::fs::write(&path, &file).unwrap();
            let loaded = Detector::load_with_backbone(&path, backbone_once());
            assert!(loaded.is_err(), "byte {at} changed by {change:#x} went unnoticed");
        }
    }
}

/// A cheap backbone, for errors that come before the backbone is used.
fn backbone_once() -> Colours {
    Colours(Vec::new())
}

/// Runs itself in processes that save to the same file in a loop, and kills them at random moments.
#[test]
fn a_process_killed_while_saving_leaves_a_whole_file() {
    const TARGET: &str = "PADIM_TEST_SAVES_TO";
    if let Some(target) = std::env::var_os(TARGET) {
        let (path, detector) = (PathBuf::from(target), detector());
        std::fs::write(path.with_extension("ready"), b"").unwrap();
        loop {
            detector.save(&path).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    let saved = detector();
    saved.save(&path).unwrap();
    let expected = saved.predict(defective()).unwrap();
    for round in 0..5 {
        let test = "persistence::a_process_killed_while_saving_leaves_a_whole_file";
        run_and_kill(test, TARGET, &path, Duration::from_millis(20 + 7 * round));
        assert_eq!(load(&path).unwrap().predict(defective()).unwrap(), expected, "round {round}");
    }
}
