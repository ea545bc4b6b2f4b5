//! Detectors that decide.

use crate::decision::{defects, pixel_threshold};
use crate::{
    AnomalyMap, Calibration, CalibrationConfig, Decision, Defect, Detector, Error, FitProgress,
    FitStage, ImageInput, Padim, Prediction, Result, ScoreNormalization,
};

impl Detector {
    /// Where good ends, if that has been said.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// The same detector with other thresholds, or none. They are saved with it.
    ///
    /// # Errors
    ///
    /// As [`Decision::validate`].
    pub fn with_decision(self, decision: Option<Decision>) -> Result<Self> {
        decision.as_ref().map_or(Ok(()), Decision::validate)?;
        Ok(Self { decision, ..self })
    }

    /// Finds thresholds from good images that it was **not** fitted with: of new good images, about the
    /// given share will be called defective, and about the given share of their pixels marked. The first
    /// is a promise (see [`Calibration`]), the second holds on average over many images. Predictions get a
    /// p-value, and their normalised score is 0.5 at the threshold and 0 at the lowest score of these
    /// images.
    ///
    /// Learning on, fitting again and converting change scores, so they take the thresholds away.
    ///
    /// ```
    /// # use padim::*;
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let image = |i: u8| image::RgbImage::from_pixel(40, 40, image::Rgb([90 + i * 3 % 31, 50 + i * 5 % 17, 7]));
    /// # let (good, others) = ((0..9).map(image), (9..40).map(image));
    /// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
    /// let mut detector = padim.fit(good, |_progress| ())?;
    /// detector.calibrate(others, &CalibrationConfig::default(), |_progress| ())?;
    ///
    /// let green = image::RgbImage::from_pixel(40, 40, image::Rgb([0, 255, 0]));
    /// let prediction = detector.predict(green)?;
    /// assert_eq!(prediction.is_defective, Some(true));
    /// assert_eq!(prediction.p_value, Some(1.0 / 32.0)); // stranger than all 31
    /// let defects = detector.defects(&prediction)?;
    /// println!("{defects:?}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a rate that cannot be, or that so few images cannot promise; the error
    /// of the first image that cannot be used. The detector then stays as it was.
    pub fn calibrate<I>(
        &mut self,
        images: I,
        config: &CalibrationConfig,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        config.validate()?;
        let images: Vec<ImageInput> = images.into_iter().map(Into::into).collect();
        let total = Some(images.len());
        let mut scores = Scores::default();
        for prediction in self.predict_iter(images) {
            scores.add(prediction?);
            let done = scores.images.len();
            progress(FitProgress { stage: FitStage::Calibrating, done, total });
        }
        let Scores { images, maps } = scores;
        let calibration = Calibration::new(images)?;
        let region = self.region().map(|region| region.mask());
        let pixel_threshold = pixel_threshold(&maps, region, config.pixel_false_alarm_rate)?;
        self.decide_by(calibration, pixel_threshold, config)
    }

    pub(super) fn decide_by(
        &mut self,
        calibration: Calibration,
        pixel_threshold: f32,
        config: &CalibrationConfig,
    ) -> Result<()> {
        let threshold = calibration.threshold(config.image_false_alarm_rate)?;
        let smallest_area = self.decision.as_ref().map_or(1, |decision| decision.smallest_area);
        // The lowest score becomes 0.
        let min = calibration.scores().first().copied().unwrap_or(threshold);
        let normalization =
            ScoreNormalization::AroundThreshold { threshold, min, max: 2.0 * threshold - min };
        let decision = Decision {
            image_threshold: threshold,
            pixel_threshold: Some(pixel_threshold),
            smallest_area,
            calibration: Some(calibration),
        };
        decision.validate()?;
        self.normalize_by(normalization)?;
        self.decision = Some(decision);
        Ok(())
    }

    /// The marked regions of a prediction, the strangest first, in pixels of the original image.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the detector has no threshold for pixels.
    pub fn defects(&self, prediction: &Prediction) -> Result<Vec<Defect>> {
        let decision = self.decision.as_ref();
        let Some(threshold) = decision.and_then(|decision| decision.pixel_threshold) else {
            let reason = "the detector has none for pixels; calibrate it, or give it a decision";
            return Err(Error::config("threshold", reason));
        };
        let smallest_area = decision.map_or(1, |decision| decision.smallest_area);
        defects(&prediction.map_in_original()?, threshold, smallest_area)
    }
}

impl Padim {
    /// Fits with all images and finds thresholds from the same ones, where there are too few to keep some
    /// back: the images are dealt into `folds`, and each fold is scored by a detector that was fitted with
    /// the others (cross-conformal prediction, Vovk 2015). The rate that is promised is twice that of the
    /// configuration (Barber and others 2021); in practice it is about that of the configuration, or
    /// lower, as the detector knows more images than those of the folds.
    ///
    /// Each image goes through the network twice. Memory is that of `folds + 2` fits.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two, [`Error::InvalidConfig`] for fewer than two folds, or
    /// more than images; as [`fit`](Self::fit) and [`Detector::calibrate`].
    pub fn fit_calibrated<I>(
        &self,
        images: &[I],
        folds: usize,
        config: &CalibrationConfig,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<Detector>
    where
        I: Clone + Into<ImageInput>,
    {
        config.validate()?;
        if images.len() < 2 {
            return Err(Error::TooFewImages { count: images.len() });
        }
        if folds < 2 || folds > images.len() {
            let reason = format!("must be 2 to {}, one image each, got {folds}", images.len());
            return Err(Error::config("folds", reason));
        }
        // Dealt out in turn, so that a slow change of the images is in all folds.
        let fold = |k: usize| images.iter().skip(k).step_by(folds).cloned();
        let total = Some(images.len());
        let mut done = 0;
        let parts = (0..folds).map(|k| {
            let part = self.partial_fit(fold(k), |_| ())?;
            done += part.image_count();
            progress(FitProgress { stage: FitStage::Embedding, done, total });
            Ok(part)
        });
        let parts: Vec<_> = parts.collect::<Result<_>>()?;
        let without = |left_out: Option<usize>| {
            let mut parts = parts.iter().enumerate().filter(|(k, _)| Some(*k) != left_out);
            let Some((_, first)) = parts.next() else {
                return Err(Error::TooFewImages { count: 0 });
            };
            let mut whole = first.clone();
            parts.try_for_each(|(_, part)| whole.merge(part.clone()))?;
            whole.finish(|_| ())
        };
        let mut scores = Scores::default();
        for k in 0..folds {
            for prediction in without(Some(k))?.predict_iter(fold(k)) {
                scores.add(prediction?);
                let done = scores.images.len();
                progress(FitProgress { stage: FitStage::Calibrating, done, total });
            }
        }
        let mut detector = without(None)?;
        let Scores { images, maps } = scores;
        let region = detector.region().map(|region| region.mask());
        let pixel_threshold = pixel_threshold(&maps, region, config.pixel_false_alarm_rate)?;
        detector.decide_by(Calibration::cross_fitted(images)?, pixel_threshold, config)?;
        Ok(detector)
    }
}

/// What good images got.
#[derive(Default)]
struct Scores {
    images: Vec<f32>,
    maps: Vec<AnomalyMap>,
}

impl Scores {
    fn add(&mut self, prediction: Prediction) {
        self.images.push(prediction.image_score);
        self.maps.push(prediction.anomaly_map);
    }
}
