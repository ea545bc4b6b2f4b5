//! What an evaluation found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::metrics::Metrics;

/// The metrics of a test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The category's name.
    pub category: String,
    /// How well the scores tell defective from good.
    pub metrics: Metrics,
    /// Of the detector's own threshold, if it has one.
    pub decisions: Option<Decisions>,
    /// Each test image that was scored, in the order of the data set.
    pub images: Vec<ImageReport>,
    /// The test images that could not be scored, and those whose mask could not be used. The latter are
    /// also in `images`.
    #[serde(default)]
    pub failed: Vec<FailedImage>,
    /// The number of scored defective images that localization (pixel AUROC, AUPRO) leaves out, because
    /// they have no usable mask.
    #[serde(default)]
    pub without_mask: usize,
}

/// The decisions of a detector with a threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decisions {
    /// Defective images that are called defective.
    pub detected: usize,
    /// Defective images that are called good.
    pub missed: usize,
    /// Good images that are called defective.
    pub false_alarms: usize,
    /// Good images that are called good.
    pub accepted: usize,
}

/// The result of a test image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageReport {
    /// The file.
    pub path: PathBuf,
    /// The kind of defect; `good` for a good image.
    pub defect: String,
    /// The image score.
    pub image_score: f32,
    /// The detector's decision, if it has a threshold.
    pub is_defective: Option<bool>,
}

/// A test image that could not be scored, or whose mask could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedImage {
    /// The image's file.
    pub path: PathBuf,
    /// What is wrong, with the name of the file.
    pub reason: String,
}

impl Decisions {
    pub(super) fn of(images: &[ImageReport], defective: &[bool]) -> Option<Self> {
        let mut decisions = Self::default();
        for (image, truth) in images.iter().zip(defective) {
            *match (truth, image.is_defective?) {
                (true, true) => &mut decisions.detected,
                (true, false) => &mut decisions.missed,
                (false, true) => &mut decisions.false_alarms,
                (false, false) => &mut decisions.accepted,
            } += 1;
        }
        Some(decisions)
    }
}
