//! Computes anomaly maps and image scores from distances.

mod config;
mod image_score;
mod map;
mod normalization;
mod scorer;

pub use crate::resample::Border;
pub use config::{Blur, ScoringConfig, Upsampling};
pub use image_score::ImageScore;
pub use map::AnomalyMap;
pub use normalization::ScoreNormalization;
pub use scorer::{AnomalyScorer, ScoredMap};
