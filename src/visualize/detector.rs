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
    /// The colors go from half the threshold to one and a half of it, so that pictures of one detector can be
    /// compared; without a threshold, over the range of the map.
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
}

impl TiledDetector {
    /// As [`Detector::overlay`].
    ///
    /// # Errors
    ///
    /// As [`Detector::overlay`].
    pub fn overlay(&self, image: &DynamicImage, prediction: &Prediction) -> Result<RgbImage> {
        overlay_of(self, image, prediction)
    }
}

fn overlay_of(
    detector: &dyn Predictor,
    image: &DynamicImage,
    prediction: &Prediction,
) -> Result<RgbImage> {
    let picture = to_rgb8(image, &detector.config().preprocess)?;
    let map = prediction.map_in_original()?;
    let threshold = detector.thresholds().and_then(|thresholds| thresholds.pixel);
    let range = match threshold {
        Some(threshold) => ScoreRange { min: 0.5 * threshold, max: 1.5 * threshold },
        // Where the crop has cut, the map is 0, which would darken all the rest.
        None => ScoreRange { min: prediction.anomaly_map.min(), max: map.max() },
    };
    overlay(&picture, &map, range, threshold)
}
