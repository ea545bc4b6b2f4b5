//! Pictures of a detector's predictions.

use image::{DynamicImage, RgbImage};

use super::picture::{ScoreRange, overlay};
use crate::detector::{Detector, Prediction, Predictor, TiledDetector};
use crate::error::Result;
use crate::preprocess::to_rgb8;

impl Detector {
    /// The image with the prediction's map laid over it: brighter where it is stranger, with a contour around
    /// what reaches the threshold for pixels, if there is one.
    ///
    /// All pictures of one detector have the same [`score_range`](Self::score_range), so that they can be
    /// compared, and a good part does not glow. Without one, the colors go over the range of the map.
    ///
    /// ```
    /// # use padim::{Padim, PadimConfig, ResNet18, Weights, image};
    /// # let config = PadimConfig::default().with_input_size([32, 32]);
    /// # let picture = |i: u8| image::RgbImage::from_pixel(40, 30, image::Rgb([i * 9, 80, 70]));
    /// # let backbone = ResNet18::load(Weights::Bundled, &burn::tensor::Device::flex())?;
    /// # let detector = Padim::new(config, backbone)?.fit((0..3).map(picture))?;
    /// let image = image::DynamicImage::from(picture(7));
    /// let prediction = detector.predict(&image)?;
    /// let overlay = detector.overlay(&image, &prediction)?;
    /// assert_eq!(overlay.dimensions(), (40, 30));
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the image has another size than the one of
    /// the prediction.
    pub fn overlay(&self, image: &DynamicImage, prediction: &Prediction) -> Result<RgbImage> {
        overlay_of(self, image, prediction)
    }

    /// The scores of the first and last color in pictures of this detector: half to one and a half of the
    /// threshold for pixels, or without one, of [`good_peak`](Self::good_peak). `None` without both.
    pub fn score_range(&self) -> Option<ScoreRange> {
        range_of(self)
    }
}

impl TiledDetector {
    /// As [`Detector::score_range`].
    pub fn score_range(&self) -> Option<ScoreRange> {
        range_of(self)
    }

    /// As [`Detector::overlay`].
    ///
    /// # Errors
    ///
    /// As [`Detector::overlay`].
    pub fn overlay(&self, image: &DynamicImage, prediction: &Prediction) -> Result<RgbImage> {
        overlay_of(self, image, prediction)
    }
}

fn range_of(detector: &dyn Predictor) -> Option<ScoreRange> {
    let threshold = detector.thresholds().and_then(|thresholds| thresholds.pixel);
    threshold.or(detector.good_peak()).map(ScoreRange::around)
}

fn overlay_of(
    detector: &dyn Predictor,
    image: &DynamicImage,
    prediction: &Prediction,
) -> Result<RgbImage> {
    let picture = to_rgb8(image, &detector.config().preprocess)?;
    let map = prediction.map_in_original()?;
    let threshold = detector.thresholds().and_then(|thresholds| thresholds.pixel);
    // Where the crop has cut, the map is 0, which would darken all the rest.
    let own = ScoreRange { min: prediction.anomaly_map.min(), max: map.max() };
    overlay(&picture, &map, range_of(detector).unwrap_or(own), threshold)
}
