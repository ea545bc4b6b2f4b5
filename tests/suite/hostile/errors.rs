//! The message of each kind of error.

use std::ops::ControlFlow;
use std::sync::Arc;

use image::DynamicImage;
use padim::detector::Registration;
use padim::device::device_named;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::line::{Line, LineConfig, LineResult, SinkFailure};
use padim::preprocess::RegionOfInterest;
use padim::{
    Detector, Error, ImageInput, Padim, PadimConfig, Result, TiledPadim, TilingConfig, Weights,
    dataset, image, metrics,
};

use super::checks::{self, Squares};
use super::limits::claimed_png;
use super::seeds::{pickled, safetensors, tensors};
use super::{squares_config, tiny};
use crate::devices;

/// To see the message of each kind of error: `cargo test --test suite each_error -- --show-output`.
#[test]
fn each_error_says_what_is_wrong_and_what_to_do() {
    let device = &devices()[0];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let detector = padim.fit((0..4).map(tiny)).unwrap();
    let float = image::ImageBuffer::from_pixel(9, 8, image::Rgb([f32::NAN; 3]));
    let nan = crate::tensor(vec![f32::NAN; 192], [3, 8, 8], device);
    let weights = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        checks::network().load(&path, device).map(drop)
    };
    let renamed = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&safetensors()[8..]).replace(from, to);
        let bytes = [&safetensors()[..8], text.as_bytes()].concat();
        assert_eq!(bytes.len(), safetensors().len());
        bytes
    };
    let mut longer = tensors();
    longer.push(("layer1.1.conv1.weight".into(), vec![2, 2, 3, 3]));
    let padim_file = || {
        detector.save_without_backbone(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    let newer = [&padim_file()[..8], &99_u32.to_le_bytes(), &padim_file()[12..]].concat();
    let other = checks::network().untrained(1, device).unwrap();
    let tiny_epsilon = GaussianConfig::default()
        .with_epsilon(1e-300)
        .with_storage(Storage::Triangle(Precision::F32));
    let singular = squares_config(Storage::Auto).with_gaussian(tiny_epsilon);
    let errors: Vec<(&str, Result<()>)> = vec![
        (
            "InvalidConfig",
            Padim::new(PadimConfig::default().with_batch_size(0), Squares::new()).map(drop),
        ),
        ("Io", detector.predict(folder.path().join("missing.png")).map(drop)),
        ("Decode", {
            std::fs::write(&path, b"some text").unwrap();
            detector.predict(&path).map(drop)
        }),
        ("ImageTooLarge", {
            std::fs::write(&path, claimed_png(30_000)).unwrap();
            detector.predict(&path).map(drop)
        }),
        ("UnusableImage", detector.predict(DynamicImage::ImageRgb32F(float)).map(drop)),
        (
            "ShapeMismatch",
            detector.predict_tensor(crate::tensor(vec![0.0; 48], [1, 3, 4, 4], device)).map(drop),
        ),
        ("NotFinite", padim.fit([nan.clone(), nan]).map(drop)),
        ("TooFewImages", padim.fit([tiny(1)]).map(drop)),
        (
            "NotPositiveDefinite",
            Padim::new(singular, Squares::new()).unwrap().fit([tiny(1), tiny(1)]).map(drop),
        ),
        ("NoStatistics", detector.clone().extend([tiny(1)])),
        ("Cancelled", padim.fit_with((0..4).map(tiny), |_| ControlFlow::Break(())).map(drop)),
        ("RegistrationMissing", {
            let upright = Registration::new("upright", |image| Ok(image.clone()));
            let registered = padim.clone().with_registration(upright);
            let registered = registered.fit((0..4).map(tiny)).unwrap();
            registered.save_without_backbone(&path).unwrap();
            let loaded = Detector::load_with_backbone(&path, Squares::new()).unwrap();
            loaded.predict(tiny(1)).map(drop)
        }),
        ("Weights", weights(b"some text".to_vec())),
        (
            "WeightsNotFound",
            Weights::named("no-such-network-0123abcd.pth", "https://example.com")
                .unwrap()
                .find()
                .map(drop),
        ),
        ("Download", download()),
        ("MissingTensor", weights(checks::checkpoint(&pickled(&tensors()[1..])))),
        ("UnexpectedTensor", weights(checks::checkpoint(&pickled(&longer)))),
        ("TensorShape", weights(renamed("\"shape\":[2,3,7,7]", "\"shape\":[3,2,7,7]"))),
        ("TensorType", weights(renamed("\"F32\"", "\"I32\""))),
        ("BackboneMismatch", {
            padim_file();
            Detector::load_with_backbone(&path, other).map(drop)
        }),
        ("BackboneNotEmbedded", {
            padim_file();
            Detector::load(&path, device).map(drop)
        }),
        ("InvalidDetectorFile", {
            std::fs::write(&path, &padim_file()[..200]).unwrap();
            Detector::load(&path, device).map(drop)
        }),
        ("UnsupportedVersion", {
            std::fs::write(&path, &newer).unwrap();
            Detector::load(&path, device).map(drop)
        }),
        ("UndefinedMetric", metrics::image_auroc(&[1.0, 2.0], &[false, false]).map(drop)),
        ("Dataset", dataset::Mvtec::open(folder.path()).map(drop)),
        (
            "Panicked",
            detector.predict(ImageInput::deferred("7", |_| panic!("out of range"))).map(drop),
        ),
        ("LineClosed", closed_line(detector.clone())),
        ("NoDevice", device_named("tpu").map(drop)),
        ("Device", detector.clone().with_half_precision().map(drop)),
        (
            "Other",
            detector
                .predict(ImageInput::deferred("7", |_| {
                    Err(Error::other("the camera has sent no trigger for 5 seconds"))
                }))
                .map(drop),
        ),
        ("Unsupported", {
            let tiling = TilingConfig::default().with_tile([8, 8]).with_overlap(2);
            let tiled = TiledPadim::new(squares_config(Storage::Auto), tiling, Squares::new());
            let region = RegionOfInterest::polygon([8, 8], &[[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]);
            tiled.unwrap().with_region(&region.unwrap()).map(drop)
        }),
    ];
    // The variants in the order of the source, so that a new variant must be added here, too.
    let source = include_str!("../../../src/error.rs");
    let (_, variants) = source.split_once("pub enum Error {").unwrap();
    let (variants, _) = variants.split_once("\n}\n").unwrap();
    let variants = variants.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
    let variants: Vec<&str> = variants.map(|line| line.trim_end_matches([' ', '{', ','])).collect();
    let names: Vec<&str> = errors.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, variants);
    // Downloads are a feature.
    let errors =
        errors.into_iter().filter(|(name, _)| *name != "Download" || cfg!(feature = "download"));
    for (name, outcome) in errors {
        let error = outcome.err().unwrap_or_else(|| panic!("{name}: no error"));
        let kind = format!("{error:?}");
        assert!(kind.split([' ', '{']).next() == Some(name), "{name}: {kind}");
        let text = error.to_string();
        println!("{name:20} {text}");
        assert!(text.len() > 30, "{text}");
    }
}

/// A download that fails, if this build can download.
fn download() -> Result<()> {
    #[cfg(feature = "download")]
    return Weights::named("no-such-network-0123abcd.pth", "http://127.0.0.1:9")?.fetch().map(drop);
    #[cfg(not(feature = "download"))]
    Ok(())
}

/// The error of a line that its sink has stopped.
fn closed_line(detector: Detector) -> Result<()> {
    let config = LineConfig::default().with_sink_failure(SinkFailure::Stop);
    let sink = |_: LineResult<u8>| Err(Error::other("the disk is full").into());
    let line = Line::start(Arc::new(detector), config, sink)?;
    loop {
        line.submit(0, tiny(1))?;
    }
}
