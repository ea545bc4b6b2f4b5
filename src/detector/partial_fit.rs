//! An unfinished fit.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::fitted::Detector;
use super::good_peak::LastImages;
use super::input_summary::InputSummary;
use super::padim::Padim;
use super::progress::{FitProgress, factorizing, silent};
use super::registration::Registration;
use crate::error::{Error, Result};
use crate::gaussian::GaussianStatistics;
use crate::preprocess::ImageInput;

/// The statistics of the good images so far. A partial fit can be extended by more images, merged with
/// another one, saved ([`save`](Self::save)), and finished to a [`Detector`].
///
/// Merged fits equal one fit of all images, up to rounding and in any order. So several threads,
/// processes or machines can fit shards of a data set.
///
/// ```
/// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let small = PreprocessConfig::default().with_resize(Resize::square(32)).with_crop(None);
/// # let config = PadimConfig::default().with_preprocess(small);
/// # let image = |i: u8| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9, i * i, 7]));
/// # let (monday, tuesday) = ((0..3).map(image), (3..6).map(image));
/// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
/// let mut fit = padim.partial_fit(monday)?;
/// fit.merge(padim.partial_fit(tuesday)?)?;
/// assert_eq!(fit.image_count(), 6);
/// let detector = fit.finish()?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PartialFit {
    pub(crate) padim: Padim,
    pub(crate) input_size: [usize; 2],
    pub(crate) statistics: GaussianStatistics,
    /// Not saved.
    pub(crate) summary: Option<InputSummary>,
    /// Not saved.
    pub(crate) last: LastImages,
}

impl PartialFit {
    /// Sets the registration again after loading.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if it is not the registration of the fit: its name differs.
    pub fn with_registration(mut self, registration: Registration) -> Result<Self> {
        self.padim.replace_registration(registration)?;
        Ok(self)
    }

    /// The number of images so far, including augmented copies.
    pub fn image_count(&self) -> usize {
        self.statistics.image_count()
    }

    /// The statistics of the embeddings.
    pub fn statistics(&self) -> &GaussianStatistics {
        &self.statistics
    }

    /// Adds the statistics of another fit, which must have the same settings and weights.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneMismatch`] for other weights, [`Error::InvalidConfig`] for other settings.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        let (ours, theirs) = (&self.padim, &other.padim);
        let (expected, actual) = (ours.backbone.fingerprint(), theirs.backbone.fingerprint());
        if expected != actual {
            return Err(Error::BackboneMismatch { expected, actual });
        }
        let levels = [ours, theirs].map(|padim| padim.config.preprocess.levels);
        if levels[0] != levels[1] {
            let reason = format!(
                "cannot merge fits that read deep images by different levels: {} and {}; set the same \
                 levels for all of them by `PreprocessConfig::with_levels`",
                levels[0], levels[1]
            );
            return Err(Error::config("fit", reason));
        }
        let stored = |padim: &Padim| padim.registration.as_ref().map(Registration::stored);
        let pooled = |padim: &Padim| padim.config.gaussian.pooled;
        let same = [
            ("preprocessing", ours.config.preprocess == theirs.config.preprocess),
            ("input sizes", self.input_size == other.input_size),
            ("channels", ours.embedder == theirs.embedder),
            ("regions of interest", ours.region == theirs.region),
            ("registrations", stored(ours) == stored(theirs)),
            ("settings for pooled Gaussians", pooled(ours) == pooled(theirs)),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            let reason = format!("cannot merge fits of different {what}");
            return Err(Error::config("fit", reason));
        }
        self.statistics.merge(other.statistics)?;
        self.last.append(other.last);
        self.note(other.summary);
        Ok(())
    }

    /// Adds good images.
    ///
    /// # Errors
    ///
    /// As [`Padim::fit`]. After an error of an image, the fit is unchanged.
    pub fn extend<I>(&mut self, images: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.extend_with(images, silent)
    }

    /// As [`extend`](Self::extend), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`extend`](Self::extend) and [`Padim::fit_with`].
    pub fn extend_with<I>(
        &mut self,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut summary = InputSummary::new(self.padim.config.preprocess.levels);
        let size = Some(self.input_size);
        let mut last = LastImages::default();
        let (_, fresh) = self.padim.gather(size, images, &mut summary, &mut last, &mut progress)?;
        self.statistics.merge(fresh)?;
        self.last.append(last);
        self.note(Some(summary));
        Ok(())
    }

    /// What was noticed about the images so far; `None` if the fit was loaded and not extended since. For
    /// a fit that was loaded and extended, only about the new images.
    pub fn input_summary(&self) -> Option<&InputSummary> {
        self.summary.as_ref()
    }

    fn note(&mut self, new: Option<InputSummary>) {
        match (&mut self.summary, new) {
            (Some(summary), Some(new)) => summary.merge(new),
            (summary @ None, new) => *summary = new,
            (Some(_), None) => (),
        }
    }

    /// Multiplies the weight of all images so far by a forgetting factor. Called before each new group
    /// of images, this is exponential forgetting.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the factor is above 0 and at most 1.
    pub fn forget(&mut self, forgetting_factor: f64) -> Result<()> {
        self.statistics.forget(forgetting_factor)
    }

    /// Computes the detector. Frees the memory of the statistics step by step.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::NotPositiveDefinite`] if epsilon is
    /// too small, [`Error::InvalidConfig`] for a storage that does not fit the number of images.
    pub fn finish(self) -> Result<Detector> {
        self.finish_with(silent)
    }

    /// As [`finish`](Self::finish), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish) and [`Padim::fit_with`].
    pub fn finish_with(
        self,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<Detector> {
        let Self { padim, input_size, statistics, summary, last } = self;
        let model = statistics.finish(&padim.config.gaussian, factorizing(&mut progress))?;
        let good_peak = last.peak(&padim, &[&model], input_size)?;
        let detector = Detector::new(padim, input_size, model);
        Ok(Detector { input_summary: summary, good_peak, ..detector })
    }

    /// Computes a detector that keeps the statistics of its images, also in its file. It can be
    /// extended by more images, and settings such as epsilon can be changed. It takes several times the
    /// memory.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn finish_extendable(self) -> Result<Detector> {
        self.finish_extendable_with(silent)
    }

    /// As [`finish_extendable`](Self::finish_extendable), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish) and [`Padim::fit_with`].
    pub fn finish_extendable_with(
        self,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<Detector> {
        let Self { padim, input_size, statistics, summary, last } = self;
        let model = statistics.model_with(&padim.config.gaussian, factorizing(&mut progress))?;
        let good_peak = last.peak(&padim, &[&model], input_size)?;
        let detector = Detector::new(padim, input_size, model);
        let statistics = Some(Arc::new(statistics));
        Ok(Detector { statistics, input_summary: summary, good_peak, ..detector })
    }
}
