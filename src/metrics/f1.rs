//! The best F1 score that a threshold can reach.

use serde::{Deserialize, Serialize};

use super::pixel_scores::{PixelScores, undefined};
use super::roc::Steps;
use crate::error::Result;
use crate::ordered::score;

/// The best F1 score and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct F1Max {
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// Scores of at least this value count as defective. Of equally good thresholds, this is the
    /// lowest, because a missed defect is worse than a false alarm.
    pub threshold: f32,
}

/// The best F1 score over all thresholds on image scores.
///
/// # Errors
///
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the lengths differ,
/// [`Error::NotFinite`](crate::Error::NotFinite) if a score is NaN or infinite,
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) if no image is defective.
pub fn image_f1_max(scores: &[f32], defective: &[bool]) -> Result<F1Max> {
    let images = [PixelScores::of_images(scores, defective)?];
    best(&images).ok_or_else(|| undefined("image F1", "there is no defective image"))
}

/// The best F1 score over all thresholds on pixel scores, over the pixels of all images.
///
/// # Errors
///
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) if no pixel is defective.
pub fn pixel_f1_max(images: &[PixelScores]) -> Result<F1Max> {
    best(images).ok_or_else(|| undefined("pixel F1", "there is no defective pixel"))
}

/// Tries only the scores of defective pixels. A threshold between two of them finds the same
/// defective pixels as the higher one, with no fewer false positives.
fn best(images: &[PixelScores]) -> Option<F1Max> {
    let steps = Steps::of(images);
    let defective = steps.defective();
    let (mut hits, mut predicted) = (0, steps.above());
    let mut best: Option<F1Max> = None;
    for step in steps.descending() {
        hits += step.count;
        predicted += step.count + step.tied;
        let f1 = 2.0 * hits as f64 / (predicted + defective) as f64;
        if best.is_none_or(|b| f1 >= b.f1) {
            best = Some(F1Max { f1, threshold: score(step.key) });
        }
        predicted += step.gap;
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    #[test]
    fn edge_cases() {
        let all = image_f1_max(&[2.0, -1.0], &[true, true]).unwrap();
        assert_eq!(all, F1Max { f1: 1.0, threshold: -1.0 });
        let zeros = image_f1_max(&[0.0, -0.0], &[true, false]).unwrap();
        assert_eq!(zeros, F1Max { f1: 2.0 / 3.0, threshold: 0.0 });
        for result in [image_f1_max(&[1.0], &[false]), image_f1_max(&[], &[]), pixel_f1_max(&[])] {
            assert!(matches!(result, Err(Error::UndefinedMetric { .. })));
        }
    }

    proptest! {
        #[test]
        fn best_of_every_threshold(
            data in prop::collection::vec(((-6i8..7).prop_map(|v| f32::from(v) / 4.0), any::<bool>()), 1..40),
        ) {
            let (scores, truth): (Vec<f32>, Vec<bool>) = data.iter().copied().unzip();
            let defective = truth.iter().filter(|t| **t).count();
            prop_assume!(defective > 0);
            let f1 = |threshold: f32| {
                let predicted = data.iter().filter(|d| d.0 >= threshold);
                let hits = predicted.clone().filter(|d| d.1).count();
                2.0 * hits as f64 / (predicted.count() + defective) as f64
            };
            let best = scores.iter().map(|s| f1(*s)).fold(0.0, f64::max);
            let lowest = scores.iter().copied().filter(|s| f1(*s) == best).fold(f32::MAX, f32::min);
            let expected = F1Max { f1: best, threshold: lowest };
            prop_assert_eq!(image_f1_max(&scores, &truth).unwrap(), expected);
            let image = PixelScores::new(&scores, &truth, [scores.len(), 1]).unwrap();
            prop_assert_eq!(pixel_f1_max(&[image]).unwrap(), expected);
        }
    }
}
