//! The area under the precision-recall curve.

use super::pixel_scores::{PixelScores, undefined};
use super::roc::Steps;
use crate::error::Result;

/// The average precision of image scores: the mean, over the defective images, of the precision
/// with the image's score as threshold (scikit-learn's `average_precision_score`). Unlike the
/// AUROC, it is lower if good images outnumber defective ones.
///
/// # Errors
///
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the lengths differ,
/// [`Error::NotFinite`](crate::Error::NotFinite) if a score is NaN or infinite,
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) if no image is defective.
pub fn image_average_precision(scores: &[f32], defective: &[bool]) -> Result<f64> {
    let images = [PixelScores::of_images(scores, defective)?];
    average(&images)
        .ok_or_else(|| undefined("image average precision", "there is no defective image"))
}

/// The average precision of pixel scores, over the pixels of all images.
///
/// # Errors
///
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) if no pixel is defective.
pub fn pixel_average_precision(images: &[PixelScores]) -> Result<f64> {
    average(images)
        .ok_or_else(|| undefined("pixel average precision", "there is no defective pixel"))
}

/// Recall rises only at the scores of defective pixels.
fn average(images: &[PixelScores]) -> Option<f64> {
    let steps = Steps::of(images);
    let (mut hits, mut predicted, mut sum) = (0, steps.above(), 0.0);
    for step in steps.descending() {
        hits += step.count;
        predicted += step.count + step.tied;
        sum += step.count as f64 * hits as f64 / predicted as f64;
        predicted += step.gap;
    }
    (hits > 0).then(|| sum / hits as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    #[test]
    fn edge_cases() {
        assert_eq!(image_average_precision(&[2.0, -1.0], &[true, true]).unwrap(), 1.0);
        assert_eq!(image_average_precision(&[0.0, -0.0], &[true, false]).unwrap(), 0.5);
        // scikit-learn's own example.
        let scores = [0.1, 0.4, 0.35, 0.8];
        let value = image_average_precision(&scores, &[false, false, true, true]).unwrap();
        assert!((value - 0.833_333_333_333_333_3).abs() < 1e-15);
        for result in [
            image_average_precision(&[1.0], &[false]),
            image_average_precision(&[], &[]),
            pixel_average_precision(&[]),
        ] {
            assert!(matches!(result, Err(Error::UndefinedMetric { .. })));
        }
    }

    proptest! {
        #[test]
        fn as_by_every_threshold(
            data in prop::collection::vec(((-6i8..7).prop_map(|v| f32::from(v) / 4.0), any::<bool>()), 1..40),
        ) {
            let (scores, truth): (Vec<f32>, Vec<bool>) = data.iter().copied().unzip();
            let defective = truth.iter().filter(|t| **t).count() as f64;
            prop_assume!(defective > 0.0);
            let mut thresholds = scores.clone();
            thresholds.sort_by(|a, b| b.total_cmp(a));
            let (mut expected, mut last) = (0.0, 0.0);
            for threshold in thresholds {
                let predicted = data.iter().filter(|d| d.0 >= threshold);
                let hits = predicted.clone().filter(|d| d.1).count() as f64;
                expected += (hits - last) / defective * hits / predicted.count() as f64;
                last = hits;
            }
            prop_assert!((image_average_precision(&scores, &truth).unwrap() - expected).abs() < 1e-12);
            let (left, right) = truth.split_at(truth.len() / 2);
            let images = [(&scores[..left.len()], left), (&scores[left.len()..], right)]
                .map(|(s, t)| PixelScores::new(s, t, [s.len(), 1]).unwrap());
            prop_assert!((pixel_average_precision(&images).unwrap() - expected).abs() < 1e-12);
        }
    }
}
