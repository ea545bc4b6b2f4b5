//! Computes anomaly maps and image scores from distances.

mod config;
mod map;
mod normalization;
mod scorer;

pub use crate::resample::Border;
pub use config::{Blur, ImageScore, ScoringConfig, Upsampling};
pub use map::AnomalyMap;
pub use normalization::ScoreNormalization;
pub use scorer::{AnomalyScorer, ScoredMap};
