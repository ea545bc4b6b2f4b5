//! The order in which folders are searched for weights, with temporary folders.

use super::environment::Environment;
use super::published::{sha256, without_password};
use super::*;
use crate::error::Error;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;

/// A temporary folder, and an environment whose variables name sub-folders with their own names.
pub(super) struct Machine {
    pub folder: tempfile::TempDir,
    pub environment: Environment,
}

impl Machine {
    pub fn new(variables: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let value = |name: &&'static str| (*name, folder.path().join(name).into_os_string());
        let variables = variables.iter().map(value).collect();
        Self { environment: Environment { os: "linux", variables }, folder }
    }

    /// Writes a file and returns its path.
    pub fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Weights whose name matches the hash of these bytes.
pub(super) fn weights_of(bytes: &[u8], base_url: &str) -> PublishedWeights {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let digits = &sha256(file.path()).unwrap()[..8];
    PublishedWeights::new(format!("small-{digits}.pth"), base_url.to_owned()).unwrap()
}

fn published(weights: Weights) -> PublishedWeights {
    match weights {
        Weights::Published(weights) => weights,
        other => panic!("{other:?}"),
    }
}

#[test]
fn folders_are_looked_through_in_order() {
    let machine = Machine::new(&["PADIM_WEIGHTS_DIR", "HOME"]);
    let weights = weights_of(b"some weights", "https://weights.example.com");
    let find = || weights.find_in(&machine.environment);
    assert!(matches!(find(), Err(Error::WeightsNotFound { .. })));
    // From the last folder to the first: each new file takes precedence.
    for folder in ["HOME/.cache/torch/hub/checkpoints", "HOME/.cache/padim", "PADIM_WEIGHTS_DIR"] {
        let path = machine.put(&format!("{folder}/{}", weights.file), b"some weights");
        assert_eq!(find().unwrap(), path);
    }
    let own = machine.put("converted.safetensors", b"other bytes");
    assert_eq!(Weights::from(&own).find().unwrap(), own, "taken as it is");
    assert!(matches!(Weights::from("not/there.pth").find(), Err(Error::Io { .. })));
    assert!(Weights::Bundled.find().unwrap_err().to_string().contains("ResNet18::load"));
}

#[test]
fn variables_name_the_folders() {
    let folders = |os, variables: &[(&'static str, &str)]| {
        let variables = variables.iter().map(|&(name, value)| (name, value.into())).collect();
        Environment { os, variables }.folders()
    };
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    let home = ("HOME", "/h");
    assert_eq!(
        folders("linux", &[home]),
        paths(&["/h/.cache/padim", "/h/.cache/torch/hub/checkpoints"])
    );
    assert_eq!(
        folders("linux", &[home, ("XDG_CACHE_HOME", "/x"), ("TORCH_HOME", "")]),
        paths(&["/x/padim", "/x/torch/hub/checkpoints"])
    );
    assert_eq!(
        folders(
            "linux",
            &[home, ("PADIM_CACHE_DIR", "/c"), ("PADIM_WEIGHTS_DIR", "/w"), ("TORCH_HOME", "/t")]
        ),
        paths(&["/w", "/c", "/t/hub/checkpoints"])
    );
    assert_eq!(
        folders("macos", &[home, ("XDG_CACHE_HOME", "/x")]),
        paths(&["/h/Library/Caches/padim", "/x/torch/hub/checkpoints"])
    );
    assert_eq!(
        folders("windows", &[home, ("LOCALAPPDATA", "/l"), ("USERPROFILE", "/u")]),
        paths(&["/l/padim", "/u/.cache/torch/hub/checkpoints"])
    );
    assert_eq!(folders("linux", &[]), paths(&[]));
}

#[test]
fn a_damaged_file_is_refused_by_its_name() {
    let machine = Machine::new(&["PADIM_CACHE_DIR", "HOME"]);
    let weights = published(Weights::torchvision(TorchvisionNetwork::ResNet18));
    let path = machine.put("PADIM_CACHE_DIR/resnet18-f37072fd.pth", b"half of them");
    let error = weights.find_in(&machine.environment).unwrap_err().to_string();
    println!("{error}");
    for part in [&*path.display().to_string(), "begins with f37072fd, got ", "remove it"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn what_is_not_there_is_told_how_to_get() {
    let machine = Machine::new(&["HOME"]);
    for (network, file, digits) in [
        (TorchvisionNetwork::ResNet18, "resnet18-f37072fd.pth", "f37072fd"),
        (TorchvisionNetwork::WideResNet50, "wide_resnet50_2-95faca4d.pth", "95faca4d"),
        (TorchvisionNetwork::EfficientNetB5, "efficientnet_b5_lukemelas-1a07897c.pth", "1a07897c"),
    ] {
        let error =
            published(Weights::torchvision(network)).find_in(&machine.environment).unwrap_err();
        let error = error.to_string();
        println!("{error}");
        let url = format!("https://download.pytorch.org/models/{file}");
        let folder = machine.folder.path().join("HOME/.cache/padim").display().to_string();
        let check = format!("`sha256sum {file}` prints must begin with {digits}");
        for part in [&*url, &*folder, &*check, "`download`"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let nowhere = Environment { os: "linux", variables: [].into() };
    let error = weights_of(b"", "https://weights.example.com").find_in(&nowhere).unwrap_err();
    assert!(error.to_string().contains("`PADIM_WEIGHTS_DIR`, which is not set"), "{error}");
}

#[test]
fn a_mirror_takes_the_place_of_the_address_and_keeps_its_password() {
    let mut machine = Machine::new(&["HOME"]);
    let mirror = "https://me:secret@mirror.example.com/weights/";
    machine.environment.variables.insert("PADIM_WEIGHTS_URL", mirror.into());
    let weights = published(Weights::torchvision(TorchvisionNetwork::ResNet18));
    assert_eq!(weights.url(&machine.environment), format!("{mirror}resnet18-f37072fd.pth"));
    let error = weights.find_in(&machine.environment).unwrap_err().to_string();
    assert!(error.contains("https://mirror.example.com/weights/resnet18-f37072fd.pth"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(without_password("no address"), "no address");
    assert_eq!(without_password("https://a.example/b@c"), "https://a.example/b@c");
}

#[test]
fn names_end_with_digits_of_their_hash() {
    let named = |file: &str| Weights::named(file, "https://weights.example.com");
    for file in ["a-01234567.pth", "a.b-c_d-0123456789abcdef.safetensors"] {
        named(file).unwrap();
    }
    let long = format!("a-{}.pth", "0".repeat(65));
    for file in [
        "",
        "resnet18.pth",
        "a-0123456.pth",
        "a-0123456G.pth",
        "a-01234567",
        "../a-01234567.pth",
        "/a-01234567.pth",
        ".a-01234567.pth",
        "a-01234567.pth?b",
        "a b-01234567.pth",
        &long,
    ] {
        let error = named(file).unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { .. }), "{file}: {error}");
    }
}

#[test]
fn the_bundled_weights_are_resnet18s() {
    use crate::backbone::{Backbone, EfficientNetB5, ResNet18, WideResNet50};
    use burn::tensor::{Device, Tensor};

    let device = Device::flex();
    let network = ResNet18::load(Weights::Bundled, &device).unwrap();
    let image = Tensor::<4>::ones([1, 3, 64, 64], &device);
    let maps = network.forward(image.clone()).unwrap();
    let first = ResNet18::config().with_layers([1]).load(Weights::Bundled, &device).unwrap();
    assert!(
        first.forward(image).unwrap().maps()[0].to_data() == maps.maps()[0].to_data(),
        "fewer layers"
    );
    for error in [
        WideResNet50::load(Weights::Bundled, &device).unwrap_err(),
        EfficientNetB5::load(Weights::Bundled, &device).unwrap_err(),
    ] {
        assert!(error.to_string().contains("those of ResNet18"), "{error}");
    }
}

/// The training report must name this file's hash, because other weights change the scores.
#[test]
fn the_bundled_file_is_the_one_that_was_trained() {
    let report = include_str!("../../scripts/train_bundled/README.md");
    let hash: String = Sha256::digest(BUNDLED).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(report.contains(&hash), "{hash}");
}
