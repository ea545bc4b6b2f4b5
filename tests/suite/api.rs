//! Traits that the types must implement.

use padim::backbone::{
    BackboneSnapshot, EfficientNet, EfficientNetConfig, FeatureMaps, LayerInfo, ResNet,
    ResNetConfig,
};
use padim::detector::{FitProgress, PreparedImage};
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::fingerprint::Fingerprint;
use padim::gaussian::{GaussianConfig, GaussianEstimator, GaussianModel};
use padim::preprocess::{
    DecodeLimits, ImageGeometry, PreprocessConfig, PreprocessedImage, Preprocessor,
};
use padim::scoring::{AnomalyMap, AnomalyScorer, ScoredMap, ScoringConfig};
use padim::{
    Backbone, Detector, Error, ImageInput, Padim, PadimConfig, Prediction, TiledDetector,
    TiledPadim, TilingConfig, Weights, dataset, line, metrics, visualize,
};

fn shared<T: Send + Sync>() {}

#[test]
fn public_types_cross_threads() {
    shared::<Padim>();
    shared::<DecodeLimits>();
    shared::<Detector>();
    shared::<Prediction>();
    shared::<TiledPadim>();
    shared::<TiledDetector>();
    shared::<TilingConfig>();
    shared::<PadimConfig>();
    shared::<ImageInput>();
    shared::<ResNet>();
    shared::<EfficientNet>();
    shared::<FeatureMaps>();
    shared::<PatchEmbedder>();
    shared::<GaussianEstimator>();
    shared::<GaussianModel>();
    shared::<AnomalyScorer>();
    shared::<AnomalyMap>();
    shared::<Preprocessor>();
    shared::<Error>();
    shared::<Box<dyn Backbone>>();
    shared::<BackboneSnapshot>();
    shared::<ChannelSelection>();
    shared::<Fingerprint>();
    shared::<FitProgress>();
    shared::<GaussianConfig>();
    shared::<ImageGeometry>();
    shared::<LayerInfo>();
    shared::<PreprocessConfig>();
    shared::<PreprocessedImage>();
    shared::<ResNetConfig>();
    shared::<EfficientNetConfig>();
    shared::<ScoredMap>();
    shared::<ScoringConfig>();
    shared::<Weights>();
    shared::<dataset::Category>();
    shared::<dataset::Sample>();
    shared::<Box<dyn dataset::Dataset>>();
    shared::<PreparedImage>();
    shared::<line::Line<u64>>();
    shared::<line::LineResult<u64>>();
    shared::<line::LineStatistics>();
    shared::<line::DriftMonitor>();
    shared::<metrics::PixelScores<'static>>();
    shared::<metrics::Regions>();
    shared::<visualize::ScoreRange>();
}

#[test]
fn presets_are_valid_and_differ() {
    let presets = [
        PadimConfig::default(),
        PadimConfig::paper(),
        PadimConfig::xiahaifeng(),
        PadimConfig::anomalib(),
    ];
    for (i, preset) in presets.iter().enumerate() {
        preset.validate().unwrap();
        assert!(!presets[..i].contains(preset));
    }
}

/// The source files of the library, without their tests.
fn sources() -> Vec<(std::path::PathBuf, String)> {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
                files.push((path, code));
            }
        }
    }
    files
}

/// Types whose fields are their whole definition. They are written as literals, and adding a field to one
/// is a breaking change. All other public types can grow.
const VALUES: [&str; 12] = [
    "Alignment",
    "Blur",
    "DecodeLimits",
    "EfficientNetConfig",
    "EfficientNetStage",
    "LayerInfo",
    "Normalization",
    "Pose",
    "Resize",
    "ResNetConfig",
    "ScoreRange",
    "WeightsOption",
];

/// Modules that only this crate sees.
const PRIVATE: [&str; 2] = ["engine", "gaussian/forms"];

#[test]
fn public_types_can_grow() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut exported = std::collections::BTreeSet::new();
    let files = sources();
    for (_, code) in &files {
        for export in code.split("\npub use ").skip(1) {
            let names = export.split(';').next().unwrap();
            let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
            exported.extend(words.map(str::to_owned));
        }
    }
    let mut wrong = Vec::new();
    for (path, code) in &files {
        let place = path.strip_prefix(&root).unwrap();
        if PRIVATE.iter().any(|private| place.starts_with(private)) {
            continue;
        }
        let lines: Vec<&str> = code.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let kind = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            let Some(rest) = kind.filter(|_| line.ends_with('{')) else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let fields = lines[number + 1..].iter().take_while(|line| **line != "}");
            let is_open =
                line.starts_with("pub enum") || fields.clone().any(|l| l.starts_with("    pub "));
            let attributes = lines[..number].iter().rev().take_while(|l| l.starts_with("#["));
            let grows = attributes.into_iter().any(|line| *line == "#[non_exhaustive]");
            let seen = exported.contains(name);
            if is_open && seen && !grows && !VALUES.contains(&name) {
                wrong.push(format!("{}: {name}", place.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not `#[non_exhaustive]`, and no value:\n{}", wrong.join("\n"));
}

#[test]
fn changed_copies_must_be_used() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let lines: Vec<&str> = code.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("    pub fn with") else { continue };
            let signature = lines[number..].iter().copied().take_while(|line| !line.is_empty());
            let signature: String = signature.take(12).collect::<Vec<_>>().join(" ");
            let head = signature.split('{').next().unwrap();
            // A `Result` must be used anyway.
            if !(head.contains("self") && head.contains("-> Self")) {
                continue;
            }
            let marked = lines[..number].iter().rev().take_while(|l| !l.is_empty());
            if !marked.into_iter().any(|line| line.trim() == "#[must_use]") {
                wrong.push(format!("{}: with{}", path.display(), rest.split('(').next().unwrap()));
            }
        }
    }
    assert!(wrong.is_empty(), "not `#[must_use]`:\n{}", wrong.join("\n"));
}

#[test]
fn the_root_has_few_names() {
    let lib = include_str!("../../src/lib.rs");
    let exports = lib.split("\npub use ").skip(1).map(|export| export.split(';').next().unwrap());
    let exports = exports.filter(|export| !export.starts_with('{'));
    let names: usize =
        exports.map(|export| export.split(',').filter(|n| !n.trim().is_empty()).count()).sum();
    println!("{names} names at the root");
    assert!(names <= 22, "{names}");
}
