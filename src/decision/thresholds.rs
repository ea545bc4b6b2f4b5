//! The thresholds of a detector.

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::scoring::ScoreNormalization;

fn one() -> usize {
    1
}

/// The thresholds of a detector. They are stored with it, and can be changed afterwards
/// ([`Detector::with_thresholds`](crate::detector::Detector::set_thresholds)).
///
/// [`Detector::calibrate`](crate::detector::Detector::calibrate) finds thresholds from good images
/// alone; [`Calibration::percentile`] is a rule of thumb that promises less. If there are defective
/// images, too, [`metrics::image_f1_max`](crate::metrics::image_f1_max) and
/// [`metrics::image_threshold_at_recall`](crate::metrics::image_threshold_at_recall) give
/// thresholds.
///
/// ```
/// use padim::Thresholds;
///
/// let decision = Thresholds::fixed(17.5).with_pixel_threshold(12.0).with_smallest_area(25);
/// decision.validate()?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Thresholds {
    /// Images with at least this score are called defective.
    pub image: f32,
    /// Pixels with at least this score are marked; `None` to mark no pixels.
    #[serde(default)]
    pub pixel: Option<f32>,
    /// Marked regions with fewer pixels of the original image are left out. Default: 1, which keeps
    /// all.
    #[serde(default = "one")]
    pub smallest_area: usize,
    /// The calibration that the image threshold comes from; without it, there are no p-values.
    #[serde(default)]
    pub calibration: Option<Calibration>,
}

builders!(Thresholds {
    with_image: image, f32;
    with_pixel: pixel, Option<f32>;
    with_calibration: calibration, Option<Calibration>;
});

impl Thresholds {
    /// A given threshold of the image score, without a calibration.
    pub const fn fixed(image: f32) -> Self {
        Self { image, pixel: None, smallest_area: 1, calibration: None }
    }

    /// Marks pixels with at least this score.
    #[must_use]
    pub fn with_pixel_threshold(self, threshold: f32) -> Self {
        Self { pixel: Some(threshold), ..self }
    }

    /// Leaves out marked regions with fewer pixels of the original image.
    #[must_use]
    pub fn with_smallest_area(self, pixels: usize) -> Self {
        Self { smallest_area: pixels, ..self }
    }

    /// The normalization of scores around the image threshold: 0.5 at the threshold, 0 at the
    /// lowest calibration score (if that is above the threshold, at its mirror image below). `None`
    /// without a calibration, or if the normalization would be invalid.
    pub fn normalization(&self) -> Option<ScoreNormalization> {
        let lowest = *self.calibration.as_ref()?.scores().first()?;
        let threshold = self.image;
        let min = match lowest < threshold {
            true => lowest,
            false => (2.0 * threshold - lowest).min(threshold.next_down()),
        };
        let around =
            ScoreNormalization::AroundThreshold { threshold, min, max: 2.0 * threshold - min };
        around.validate().is_ok().then_some(around)
    }

    /// Checks the thresholds.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a threshold that is not finite or calibration scores that are
    /// not in order, [`Error::NotFinite`] for calibration scores that are not finite.
    pub fn validate(&self) -> Result<()> {
        let thresholds = [Some(self.image), self.pixel];
        if let Some(broken) = thresholds.into_iter().flatten().find(|t| !t.is_finite()) {
            return Err(Error::config("threshold", format!("must be finite, is {broken}")));
        }
        self.calibration.as_ref().map_or(Ok(()), Calibration::validate)
    }
}
