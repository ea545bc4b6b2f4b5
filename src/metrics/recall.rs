//! Thresholds that reach a given recall.

use super::pixel_scores::{PixelScores, undefined};
use super::roc::Steps;
use crate::error::{Error, Result};
use crate::ordered::score;

/// The highest threshold at which at least a share `recall` of the defective images is found. An
/// image is found if its score is at least the threshold.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a recall outside of `(0, 1]`, [`Error::ShapeMismatch`] if the
/// lengths differ, [`Error::NotFinite`] if a score is NaN or infinite, [`Error::UndefinedMetric`]
/// if no image is defective.
pub fn image_threshold_at_recall(scores: &[f32], defective: &[bool], recall: f64) -> Result<f32> {
    let images = [PixelScores::of_images(scores, defective)?];
    threshold(&images, recall)?
        .ok_or_else(|| undefined("image recall", "there is no defective image"))
}

/// The highest threshold at which at least a share `recall` of the defective pixels of all images
/// is found.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a recall outside of `(0, 1]`, [`Error::UndefinedMetric`] if no pixel is
/// defective.
pub fn pixel_threshold_at_recall(images: &[PixelScores], recall: f64) -> Result<f32> {
    threshold(images, recall)?
        .ok_or_else(|| undefined("pixel recall", "there is no defective pixel"))
}

fn threshold(images: &[PixelScores], recall: f64) -> Result<Option<f32>> {
    if !(recall > 0.0 && recall <= 1.0) {
        let reason = format!("must be above 0 and at most 1, is {recall}");
        return Err(Error::config("recall", reason));
    }
    let steps = Steps::of(images);
    let wanted = recall * steps.defective() as f64 * (1.0 - f64::EPSILON);
    let mut found = 0;
    let enough = steps.descending().find(|step| {
        found += step.count;
        found as f64 >= wanted
    });
    Ok(enough.map(|step| score(step.key)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_threshold_that_finds_enough(
            data in prop::collection::vec(((-6i8..7).prop_map(f32::from), any::<bool>()), 1..40),
            recall in prop_oneof![Just(1.0), 0.01f64..1.0],
        ) {
            let (scores, truth): (Vec<f32>, Vec<bool>) = data.iter().copied().unzip();
            let defective = truth.iter().filter(|t| **t).count() as f64;
            let result = image_threshold_at_recall(&scores, &truth, recall);
            prop_assume!(defective > 0.0 || result.is_err());
            if let Ok(threshold) = result {
                let found = |t: f32| data.iter().filter(|d| d.1 && d.0 >= t).count() as f64;
                prop_assert!(found(threshold) >= recall * defective - 1e-9);
                prop_assert!(found(threshold.next_up()) < recall * defective);
            }
        }
    }

    #[test]
    fn impossible_recalls_are_refused() {
        for recall in [0.0, 1.1, f64::NAN] {
            let result = image_threshold_at_recall(&[1.0], &[true], recall);
            assert!(matches!(result, Err(Error::InvalidConfig { field: "recall", .. })));
        }
        let image = [PixelScores::new(&[1.0, 3.0], &[true, false], [1, 2]).unwrap()];
        assert_eq!(pixel_threshold_at_recall(&image, 0.5).unwrap(), 1.0);
    }
}
