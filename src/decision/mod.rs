//! From scores to decisions: thresholds, and what can be promised of them.

mod calibration;
mod defects;
mod histogram;
mod pixels;

pub use calibration::{Calibration, CalibrationConfig};
pub use defects::Defect;

pub(crate) use defects::defects;
pub(crate) use histogram::PixelHistogram;
pub(crate) use pixels::HighestPixels;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::scoring::ScoreNormalization;

/// The thresholds of a detector. Stored with it, and can be changed afterwards
/// ([`Detector::with_decision`](crate::Detector::with_decision)).
///
/// [`Detector::calibrate`](crate::Detector::calibrate) finds one from good images alone;
/// [`Calibration::percentile`] is the rule of thumb that promises less. Where there are defective ones, too, [`metrics::image_f1_max`](crate::metrics::image_f1_max) and
/// [`metrics::image_threshold_at_recall`](crate::metrics::image_threshold_at_recall) give thresholds.
///
/// ```
/// use padim::Decision;
///
/// let decision = Decision::fixed(17.5).with_pixel_threshold(12.0).with_smallest_area(25);
/// decision.validate()?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Images with at least this score are called defective.
    pub image_threshold: f32,
    /// Pixels with at least this score are marked; `None` if nothing is to be marked.
    pub pixel_threshold: Option<f32>,
    /// Marked regions of fewer pixels of the original image are left out. Default: 1, none.
    pub smallest_area: usize,
    /// The good images that the image's threshold comes from; without, there are no p-values.
    pub calibration: Option<Calibration>,
}

impl Decision {
    /// A threshold of the image score that comes from elsewhere.
    pub const fn fixed(image_threshold: f32) -> Self {
        Self { image_threshold, pixel_threshold: None, smallest_area: 1, calibration: None }
    }

    /// The same, with pixels marked from this score on.
    #[must_use]
    pub fn with_pixel_threshold(self, threshold: f32) -> Self {
        Self { pixel_threshold: Some(threshold), ..self }
    }

    /// The same, without regions of fewer pixels of the original image.
    #[must_use]
    pub fn with_smallest_area(self, pixels: usize) -> Self {
        Self { smallest_area: pixels, ..self }
    }

    /// Scores normalized around the image's threshold, if that comes from a calibration: 0.5 at the
    /// threshold, and 0 at the lowest score of the calibration's images (or as far below the threshold as that
    /// is above it).
    pub fn normalization(&self) -> Option<ScoreNormalization> {
        let lowest = *self.calibration.as_ref()?.scores().first()?;
        let threshold = self.image_threshold;
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
    /// [`Error::InvalidConfig`] for one that is not a number, and for damaged calibration scores.
    pub fn validate(&self) -> Result<()> {
        let thresholds = [Some(self.image_threshold), self.pixel_threshold];
        if let Some(broken) = thresholds.into_iter().flatten().find(|t| !t.is_finite()) {
            return Err(Error::config("threshold", format!("must be finite, is {broken}")));
        }
        self.calibration.as_ref().map_or(Ok(()), Calibration::validate)
    }
}
