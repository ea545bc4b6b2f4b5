//! The common trait of detectors for whole images and for tiles.

use std::fmt::Debug;

use super::config::PadimConfig;
use super::fitted::Detector;
use super::prediction::Prediction;
use super::prepared::{Contents, PREPARING, PreparedImage, foreign};
use super::tiled::{TiledDetector, TiledImage};
use crate::caught::caught_for;
use crate::decision::{AnomalyRegion, Thresholds};
use crate::error::Result;
use crate::preprocess::{ImageInput, InputRegion, Preprocessor};

/// The common trait of [`Detector`] and [`TiledDetector`]. A [`Line`](crate::line::Line) and an
/// [`evaluation`](crate::evaluation) accept both.
///
/// ```
/// use padim::ImageInput;
/// use padim::detector::Predictor;
///
/// /// The number of images that are called defective.
/// fn defective(detector: &dyn Predictor, images: Vec<ImageInput>) -> padim::Result<usize> {
///     let mut count = 0;
///     detector.predict_each(&mut images.into_iter(), &mut |prediction| {
///         count += usize::from(prediction?.is_defective == Some(true));
///         Ok(())
///     })?;
///     Ok(count)
/// }
/// ```
pub trait Predictor: Debug + Send + Sync {
    /// The settings; with tiles, the settings for a tile.
    fn config(&self) -> &PadimConfig;

    /// The preprocessor of images, or of tiles.
    fn preprocessor(&self) -> &Preprocessor;

    /// The thresholds, if set.
    fn thresholds(&self) -> Option<&Thresholds>;

    /// How high the maps of good images go, as [`Detector::good_peak`].
    fn good_peak(&self) -> Option<f32> {
        None
    }

    /// The region of interest, if there is one. `None` for tiles, which have none.
    fn region(&self) -> Option<&InputRegion> {
        None
    }

    /// The first half of a prediction, without the network. Other threads can do this while one thread
    /// runs [`predict_prepared`](Self::predict_prepared). `keep_image`: whether the result keeps the
    /// decoded image ([`PreparedImage::image`]).
    ///
    /// # Errors
    ///
    /// As [`Detector::prepare`].
    fn prepare(&self, image: ImageInput, keep_image: bool) -> Result<PreparedImage>;

    /// The second half of a prediction: one result per image, in their order.
    ///
    /// # Errors
    ///
    /// Each image has its own result, as in [`Detector::predict_prepared`].
    fn predict_prepared(&self, images: Vec<PreparedImage>) -> Vec<Result<Prediction>>;

    /// Scores images in their order and calls `each` with each result. The next images are decoded
    /// while some are scored.
    ///
    /// # Errors
    ///
    /// The first error of `each`, which stops the scoring.
    fn predict_each(
        &self,
        images: &mut dyn Iterator<Item = ImageInput>,
        each: &mut dyn FnMut(Result<Prediction>) -> Result<()>,
    ) -> Result<()>;

    /// The regions of a prediction at or above the pixel threshold, as [`Detector::anomaly_regions`].
    ///
    /// # Errors
    ///
    /// As [`Detector::anomaly_regions`].
    fn anomaly_regions(&self, prediction: &Prediction) -> Result<Vec<AnomalyRegion>>;
}

impl Predictor for Detector {
    fn config(&self) -> &PadimConfig {
        self.config()
    }

    fn preprocessor(&self) -> &Preprocessor {
        self.preprocessor()
    }

    fn thresholds(&self) -> Option<&Thresholds> {
        self.thresholds()
    }

    fn good_peak(&self) -> Option<f32> {
        self.good_peak()
    }

    fn region(&self) -> Option<&InputRegion> {
        self.region()
    }

    fn prepare(&self, image: ImageInput, keep_image: bool) -> Result<PreparedImage> {
        self.prepare_input(image, keep_image)
    }

    fn predict_prepared(&self, images: Vec<PreparedImage>) -> Vec<Result<Prediction>> {
        self.predict_prepared(images)
    }

    fn predict_each(
        &self,
        images: &mut dyn Iterator<Item = ImageInput>,
        each: &mut dyn FnMut(Result<Prediction>) -> Result<()>,
    ) -> Result<()> {
        self.predict_iter(images).try_for_each(each)
    }

    fn anomaly_regions(&self, prediction: &Prediction) -> Result<Vec<AnomalyRegion>> {
        self.anomaly_regions(prediction)
    }
}

impl Predictor for TiledDetector {
    fn config(&self) -> &PadimConfig {
        self.config()
    }

    fn preprocessor(&self) -> &Preprocessor {
        self.preprocessor()
    }

    fn thresholds(&self) -> Option<&Thresholds> {
        self.thresholds()
    }

    fn good_peak(&self) -> Option<f32> {
        self.good_peak()
    }

    /// Decodes the image. Its tiles are resized when the network needs them.
    fn prepare(&self, image: ImageInput, keep_image: bool) -> Result<PreparedImage> {
        let name = image.name().unwrap_or_else(|| "given".to_owned());
        let options = self.preprocessor().decode_options();
        let image = caught_for(PREPARING, &name, || image.open(&name, options))?;
        let image = TiledImage::of(name, image.pixels, image.bits, self.tiling())?;
        let original = keep_image.then(|| image.image.clone());
        let contents = Contents::Tiled { name: image.name, image: image.image, bits: image.bits };
        Ok(PreparedImage { contents, original })
    }

    fn predict_prepared(&self, images: Vec<PreparedImage>) -> Vec<Result<Prediction>> {
        let predict = |(number, prepared): (usize, PreparedImage)| match prepared.contents {
            Contents::Tiled { name, image, bits } => {
                self.predict_tiled(&TiledImage::of(name, image, bits, self.tiling())?)
            }
            Contents::Whole { .. } => Err(foreign(&format!("number {number}"))),
        };
        images.into_iter().enumerate().map(predict).collect()
    }

    fn predict_each(
        &self,
        images: &mut dyn Iterator<Item = ImageInput>,
        each: &mut dyn FnMut(Result<Prediction>) -> Result<()>,
    ) -> Result<()> {
        self.predict_iter(images).try_for_each(each)
    }

    fn anomaly_regions(&self, prediction: &Prediction) -> Result<Vec<AnomalyRegion>> {
        self.anomaly_regions(prediction)
    }
}
