//! Calibration: computes thresholds from good images.

use std::ops::ControlFlow;

use super::batches::counted;
use super::fitted::Detector;
use super::good_peak::LastImages;
use super::padim::Padim;
use super::partial_fit::PartialFit;
use super::prediction::Prediction;
use super::progress::{FitProgress, FitStage, Report, report, silent};
use crate::decision::{
    AnomalyRegion, Calibration, CalibrationConfig, HighestPixels, Thresholds, anomaly_regions,
};
use crate::error::{Error, Result};
use crate::preprocess::{ImageInput, InputRegion};
use crate::scoring::ScoreNormalization;

impl Detector {
    /// Computes thresholds from good images that were **not** used for the fit. The false alarm rates
    /// are those of `config`: the rate for images is guaranteed (see [`Calibration`]), the rate for
    /// pixels holds on average over many images. Predictions get a p-value. The normalized score
    /// becomes 0.5 at the threshold and 0 at the lowest score of these images
    /// ([`Thresholds::normalization`]); this replaces the normalization of the settings.
    ///
    /// Methods that change scores (such as `extend`, `refit` and `set_storage`) remove the thresholds.
    ///
    /// ```
    /// # use padim::{CalibrationConfig, Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig::default().with_resize(Resize::square(32)).with_crop(None);
    /// # let config = PadimConfig::default().with_preprocess(small);
    /// # let image = |i: u8| image::RgbImage::from_pixel(40, 40, image::Rgb([90 + i * 3 % 31, 50 + i * 5 % 17, 7]));
    /// # let (good, others) = ((0..9).map(image), (9..40).map(image));
    /// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
    /// let mut detector = padim.fit(good)?;
    /// detector.calibrate(others, &CalibrationConfig::default())?;
    ///
    /// let green = image::RgbImage::from_pixel(40, 40, image::Rgb([0, 255, 0]));
    /// let prediction = detector.predict(green)?;
    /// assert_eq!(prediction.is_defective, Some(true));
    /// assert_eq!(prediction.p_value, Some(1.0 / 32.0)); // stranger than all 31
    /// let defects = detector.anomaly_regions(&prediction)?;
    /// println!("{defects:?}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an invalid rate, or if there are too few images to guarantee it;
    /// this is checked before the first image is scored. Otherwise the error of the first image that
    /// cannot be used. After an error, the detector is unchanged.
    pub fn calibrate<I>(&mut self, images: I, config: &CalibrationConfig) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.calibrate_with(images, config, silent)
    }

    /// As [`calibrate`](Self::calibrate), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`calibrate`](Self::calibrate) and [`Padim::fit_with`].
    pub fn calibrate_with<I>(
        &mut self,
        images: I,
        config: &CalibrationConfig,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let (total, images) = counted(images);
        config.require_images(total)?;
        let mut scores = Scores::new(self.region(), self.input_size, config, total)?;
        for prediction in self.predict_iter(images) {
            scores.add(&prediction?, self.region());
            scores.report(&mut progress, total)?;
        }
        let Scores { images, pixels } = scores;
        self.decide_by(Calibration::new(images)?, pixels.threshold()?, config)
    }

    pub(super) fn decide_by(
        &mut self,
        calibration: Calibration,
        pixel: f32,
        config: &CalibrationConfig,
    ) -> Result<()> {
        let thresholds = Thresholds {
            image: calibration.threshold(config.image_false_alarm_rate)?,
            pixel: Some(pixel),
            smallest_area: self.thresholds.as_ref().map_or(1, |before| before.smallest_area),
            calibration: Some(calibration),
        };
        thresholds.validate()?;
        // Replaced by the calibration's normalization.
        self.set_normalization(ScoreNormalization::None)?;
        self.thresholds = Some(thresholds);
        Ok(())
    }

    /// The regions of a prediction at or above the pixel threshold, the highest score first, in pixels
    /// of the original image.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the detector has no threshold for pixels.
    pub fn anomaly_regions(&self, prediction: &Prediction) -> Result<Vec<AnomalyRegion>> {
        let thresholds = self.thresholds.as_ref();
        let Some(pixel) = thresholds.and_then(|thresholds| thresholds.pixel) else {
            let reason = "the detector has no pixel threshold; calibrate it, or set one";
            return Err(Error::config("threshold", reason));
        };
        let smallest_area = thresholds.map_or(1, |thresholds| thresholds.smallest_area);
        anomaly_regions(&prediction.map_in_original()?, pixel, smallest_area)
    }
}

impl Padim {
    /// Fits and calibrates with the same images; use it if there are too few images to hold some out.
    /// The images are split into `folds`, and each fold is scored by a detector that was fitted with
    /// the other folds (cross-conformal prediction, Vovk 2015). The guaranteed false alarm rate is
    /// twice that of `config` (Barber and others 2021). In practice, the rate is about that of `config`
    /// or lower, because the final detector is fitted with more images than those of the folds.
    ///
    /// Each image goes through the network twice. For the memory, see
    /// [`calibrated_memory_plan`](Self::calibrated_memory_plan).
    ///
    /// # Errors
    ///
    /// Before the first image is decoded: [`Error::InvalidConfig`] unless `folds` is in
    /// `2..=images.len()`, or if there are too few images to guarantee the rate;
    /// [`Error::TooFewImages`] if fewer than two images remain without a fold. Otherwise as
    /// [`fit`](Self::fit) and [`Detector::calibrate`].
    pub fn fit_calibrated<I>(
        &self,
        images: &[I],
        folds: usize,
        config: &CalibrationConfig,
    ) -> Result<Detector>
    where
        I: Clone + Into<ImageInput>,
    {
        self.fit_calibrated_with(images, folds, config, silent)
    }

    /// As [`fit_calibrated`](Self::fit_calibrated), with progress as [`fit_with`](Self::fit_with).
    ///
    /// # Errors
    ///
    /// As [`fit_calibrated`](Self::fit_calibrated) and [`fit_with`](Self::fit_with).
    pub fn fit_calibrated_with<I>(
        &self,
        images: &[I],
        folds: usize,
        config: &CalibrationConfig,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<Detector>
    where
        I: Clone + Into<ImageInput>,
    {
        let count = images.len();
        if count < 2 {
            return Err(Error::TooFewImages { count });
        }
        if folds < 2 || folds > count {
            let reason = format!("must be 2 to the number of images ({count}), got {folds}");
            return Err(Error::config("folds", reason));
        }
        config.require_images(count)?;
        self.check_count(self.copied(count))?;
        // Each fold is scored by a fit of the other folds.
        self.check_count(self.copied(count - count.div_ceil(folds)))?;

        // Every `folds`-th image, so that a slow drift of the images is in all folds.
        let fold = |k: usize| images.iter().skip(k).step_by(folds).cloned();
        let (total, mut done) = (Some(self.copied(count)), 0);
        let mut parts = Vec::with_capacity(folds);
        let mut last = LastImages::default();
        for k in 0..folds {
            // The first fold chooses the levels of deep images for all.
            let padim = parts.first().map_or(self, |first: &PartialFit| &first.padim);
            let mut part = padim.partial_fit_with(fold(k), |of_fold| {
                let done = done + of_fold.done;
                progress(FitProgress { stage: FitStage::Embedding, done, total })
            })?;
            done += part.image_count();
            // Those of one fold are enough, and the fits without a fold do not need them.
            last = std::mem::take(&mut part.last);
            parts.push(part);
        }
        let without = |left_out: Option<usize>| {
            let mut parts = parts.iter().enumerate().filter(|(k, _)| Some(*k) != left_out);
            let Some((_, first)) = parts.next() else {
                return Err(Error::TooFewImages { count: 0 });
            };
            let mut whole = first.clone();
            parts.try_for_each(|(_, part)| whole.merge(part.clone()))?;
            if left_out.is_none() {
                whole.last = last.clone();
            }
            whole.finish()
        };
        let mut scores = Scores::new(self.region.as_ref(), parts[0].input_size, config, count)?;
        for k in 0..folds {
            let detector = without(Some(k))?;
            for prediction in detector.predict_iter(fold(k)) {
                scores.add(&prediction?, detector.region());
                scores.report(&mut progress, count)?;
            }
        }
        let mut detector = without(None)?;
        let Scores { images, pixels } = scores;
        detector.decide_by(Calibration::cross_fitted(images)?, pixels.threshold()?, config)?;
        Ok(detector)
    }
}

/// The scores of good images and their highest pixel scores.
struct Scores {
    images: Vec<f32>,
    pixels: HighestPixels,
}

impl Scores {
    /// Empty scores, for `total` images.
    fn new(
        region: Option<&InputRegion>,
        [height, width]: [usize; 2],
        config: &CalibrationConfig,
        total: usize,
    ) -> Result<Self> {
        let pixels = match region {
            Some(region) => region.mask().iter().filter(|inside| **inside).count(),
            None => height * width,
        };
        let pixels = HighestPixels::new(config.pixel_false_alarm_rate, pixels * total)?;
        Ok(Self { images: Vec::new(), pixels })
    }

    fn add(&mut self, prediction: &Prediction, region: Option<&InputRegion>) {
        self.images.push(prediction.image_score);
        self.pixels.add(prediction.anomaly_map.values(), region.map(InputRegion::mask));
    }

    fn report(&self, progress: &mut Report<'_>, total: usize) -> Result<()> {
        report(progress, FitStage::Calibrating, self.images.len(), Some(total))
    }
}
