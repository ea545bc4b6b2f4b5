//! Changes of a fitted detector: settings, and more images.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::batches::exact_count;
use super::config::PadimConfig;
use super::custom_score::CustomScore;
use super::fitted::Detector;
use super::good_peak::LastImages;
use super::input_summary::InputSummary;
#[cfg(doc)]
use super::padim::Padim;
use super::progress::{FitProgress, factorizing, silent};
use super::registration::Registration;
use crate::decision::Thresholds;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianConfig, Storage, check_forgetting_factor};
use crate::preprocess::{DecodeLimits, ImageInput};
use crate::scoring::{AnomalyMap, AnomalyScorer, ImageScore, ScoreNormalization, ScoringConfig};

/// After an error, a method that takes `&mut self` leaves the detector unchanged. `extend` describes
/// one exception.
impl Detector {
    /// Sets the registration again after loading: a file cannot hold a custom registration, only its
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if it is not the registration of the fit: its name differs.
    pub fn set_registration(&mut self, registration: Registration) -> Result<()> {
        self.padim.replace_registration(registration)
    }

    /// As [`set_registration`](Self::set_registration).
    ///
    /// # Errors
    ///
    /// As [`set_registration`](Self::set_registration).
    pub fn with_registration(mut self, registration: Registration) -> Result<Self> {
        self.set_registration(registration)?;
        Ok(self)
    }

    /// Sets the limits for the size of decoded image files. They are not saved.
    pub fn set_decode_limits(&mut self, limits: DecodeLimits) {
        self.padim.set_decode_limits(limits);
    }

    /// As [`set_decode_limits`](Self::set_decode_limits).
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.set_decode_limits(limits);
        self
    }

    /// Sets or removes the thresholds. They are saved with the detector.
    ///
    /// # Errors
    ///
    /// As [`Thresholds::validate`].
    pub fn set_thresholds(&mut self, thresholds: Option<Thresholds>) -> Result<()> {
        thresholds.as_ref().map_or(Ok(()), Thresholds::validate)?;
        self.thresholds = thresholds;
        Ok(())
    }

    /// As [`set_thresholds`](Self::set_thresholds).
    ///
    /// # Errors
    ///
    /// As [`set_thresholds`](Self::set_thresholds).
    pub fn with_thresholds(mut self, thresholds: Option<Thresholds>) -> Result<Self> {
        self.set_thresholds(thresholds)?;
        Ok(self)
    }

    /// Sets the normalization of image scores. It is saved with the detector.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the normalization divides by zero.
    pub fn set_normalization(&mut self, normalization: ScoreNormalization) -> Result<()> {
        self.set_scoring(ScoringConfig { normalization, ..self.padim.config.scoring.clone() })
    }

    fn set_scoring(&mut self, scoring: ScoringConfig) -> Result<()> {
        self.padim.scorer = AnomalyScorer::new(scoring.clone())?;
        self.padim.config.scoring = scoring;
        Ok(())
    }

    /// As [`set_normalization`](Self::set_normalization).
    ///
    /// # Errors
    ///
    /// As [`set_normalization`](Self::set_normalization).
    pub fn with_normalization(mut self, normalization: ScoreNormalization) -> Result<Self> {
        self.set_normalization(normalization)?;
        Ok(self)
    }

    /// Sets the [`neighborhood`](PadimConfig::neighborhood); this needs no new fit. Scores change, so
    /// the thresholds and a [`ScoreNormalization::AroundThreshold`] are removed.
    ///
    /// # Errors
    ///
    /// As [`PadimConfig::validate`].
    pub fn set_neighborhood(&mut self, neighborhood: usize) -> Result<()> {
        let config = PadimConfig { neighborhood, ..self.padim.config.clone() };
        config.validate()?;
        self.padim.config = config;
        self.forget_scores()
    }

    /// As [`set_neighborhood`](Self::set_neighborhood).
    ///
    /// # Errors
    ///
    /// As [`set_neighborhood`](Self::set_neighborhood).
    pub fn with_neighborhood(mut self, neighborhood: usize) -> Result<Self> {
        self.set_neighborhood(neighborhood)?;
        Ok(self)
    }

    /// Sets how the image score is computed from the map; also replaces a custom image score. Scores
    /// change, so thresholds are removed as in [`set_neighborhood`](Self::set_neighborhood).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an invalid fraction or threshold.
    pub fn set_image_score(&mut self, image_score: ImageScore) -> Result<()> {
        self.set_scoring(ScoringConfig { image_score, ..self.padim.config.scoring.clone() })?;
        self.padim.custom_score = None;
        self.forget_scores()
    }

    /// As [`set_image_score`](Self::set_image_score).
    ///
    /// # Errors
    ///
    /// As [`set_image_score`](Self::set_image_score).
    pub fn with_image_score(mut self, image_score: ImageScore) -> Result<Self> {
        self.set_image_score(image_score)?;
        Ok(self)
    }

    /// Sets a custom image score, see [`Padim::with_custom_image_score`]. Thresholds are removed as in
    /// [`set_neighborhood`](Self::set_neighborhood).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn set_custom_image_score(
        &mut self,
        name: impl Into<String>,
        score: impl Fn(&AnomalyMap) -> f32 + Send + Sync + 'static,
    ) -> Result<()> {
        self.padim.custom_score = Some(CustomScore::new(name, score));
        self.forget_scores()
    }

    /// Converts the Gaussians to another storage, which also applies to later fits of this detector.
    /// Scores change, at least by rounding, so thresholds are removed as in
    /// [`set_neighborhood`](Self::set_neighborhood).
    ///
    /// # Errors
    ///
    /// As [`GaussianModel::convert`](crate::gaussian::GaussianModel::convert).
    pub fn set_storage(&mut self, storage: Storage) -> Result<()> {
        self.model = self.model.convert(storage)?;
        self.padim.config.gaussian.storage = storage;
        self.forget_scores()
    }

    /// As [`set_storage`](Self::set_storage).
    ///
    /// # Errors
    ///
    /// As [`set_storage`](Self::set_storage).
    pub fn with_storage(mut self, storage: Storage) -> Result<Self> {
        self.set_storage(storage)?;
        Ok(self)
    }

    /// Removes the statistics of the images: the detector becomes smaller and cannot be extended.
    #[must_use]
    pub fn without_statistics(self) -> Self {
        Self { statistics: None, ..self }
    }

    /// Removes thresholds and a normalization around a threshold, because they refer to old scores.
    pub(super) fn forget_scores(&mut self) -> Result<()> {
        self.thresholds = None;
        match self.padim.config.scoring.normalization {
            ScoreNormalization::AroundThreshold { .. } => {
                self.set_normalization(ScoreNormalization::None)
            }
            _ => Ok(()),
        }
    }

    /// Adds good images and fits again. After an error of an image, the detector is unchanged. If the
    /// factorization fails or is canceled, the statistics contain the new images, but the Gaussians
    /// are still the old ones; then call [`refit`](Self::refit) with other settings.
    ///
    /// # Errors
    ///
    /// [`Error::NoStatistics`] if the detector has no statistics of its images; otherwise as
    /// [`Padim::fit`].
    pub fn extend<I>(&mut self, images: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.extend_with(images, 1.0, silent)
    }

    /// As [`extend`](Self::extend), but first multiplies the weight of all images so far by
    /// `forgetting_factor` (1 for no forgetting). Progress is as in [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`extend`](Self::extend) and [`Padim::fit_with`]; [`Error::InvalidConfig`] unless the factor
    /// is above 0 and at most 1.
    pub fn extend_with<I>(
        &mut self,
        images: I,
        forgetting_factor: f64,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let known = self.statistics.as_mut().ok_or(Error::NoStatistics)?;
        check_forgetting_factor(forgetting_factor)?;
        let images = images.into_iter();
        let padim = self.padim.in_full_precision();
        if let Some(count) = exact_count(&images) {
            padim.check_count(known.image_count().saturating_add(padim.copied(count)))?;
        }
        let mut summary = InputSummary::new(padim.config.preprocess.levels);
        let size = Some(self.input_size);
        let mut last = LastImages::default();
        let (_, fresh) = padim.gather(size, images, &mut summary, &mut last, &mut progress)?;
        let statistics = Arc::make_mut(known);
        statistics.forget(forgetting_factor)?;
        statistics.merge(fresh)?;
        let config = &self.padim.config.gaussian;
        self.model = statistics.model_with(config, factorizing(&mut progress))?;
        self.good_peak = last.peak(&padim, &[&self.model], self.input_size)?;
        match &mut self.input_summary {
            Some(known) => known.merge(summary),
            None => self.input_summary = Some(summary),
        }
        self.forget_scores()
    }

    /// Fits again from the statistics, with other settings of the Gaussians (epsilon, shrinkage,
    /// storage, ...).
    ///
    /// # Errors
    ///
    /// [`Error::NoStatistics`] if the detector has no statistics of its images,
    /// [`Error::InvalidConfig`] for invalid settings, [`Error::NotPositiveDefinite`] if epsilon is too
    /// small.
    pub fn refit(&mut self, config: GaussianConfig) -> Result<()> {
        self.refit_with(config, silent)
    }

    /// As [`refit`](Self::refit), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`refit`](Self::refit) and [`Padim::fit_with`].
    pub fn refit_with(
        &mut self,
        config: GaussianConfig,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<()> {
        let statistics = self.statistics.as_ref().ok_or(Error::NoStatistics)?;
        self.model = statistics.model_with(&config, factorizing(&mut progress))?;
        self.padim.config.gaussian = config;
        // No image is left to measure it with.
        self.good_peak = None;
        self.forget_scores()
    }
}
