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
