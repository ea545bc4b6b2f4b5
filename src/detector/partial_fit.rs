//! A fit that is not finished.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::fitted::Detector;
use super::padim::Padim;
use super::progress::{FitProgress, factorizing, silent};
use super::registration::Registration;
use crate::error::{Error, Result};
use crate::gaussian::GaussianStatistics;
use crate::preprocess::ImageInput;

/// What is known of the good images so far: it can take in more of them, be merged with the fit of
/// others, saved ([`save`](Self::save)), and made into a [`Detector`].
///
/// Merging two fits gives what one fit of all images gives, to rounding, in any order. So shards of a
/// data set can be fitted by several threads, processes or machines.
///
/// ```
/// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let small = PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() };
/// # let config = PadimConfig { preprocess: small, ..Default::default() };
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
}

impl PartialFit {
    /// The same fit with its registration, after it has been loaded.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for one of another name than it began with.
    pub fn with_registration(mut self, registration: Registration) -> Result<Self> {
        let old = self.padim.registration.as_ref();
        self.padim.registration = Some(Registration::replaced(old, registration)?);
        Ok(self)
    }

    /// The number of images so far, with the copies that augmentation has made.
    pub fn image_count(&self) -> usize {
        self.statistics.image_count()
    }

    /// What is known of their embeddings.
    pub fn statistics(&self) -> &GaussianStatistics {
        &self.statistics
    }

    /// Takes in the images of another fit, which must have been made with the same settings and
    /// weights.
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
        let stored = |padim: &Padim| padim.registration.as_ref().map(Registration::stored);
        let pooled = |padim: &Padim| padim.config.gaussian.pooled;
        let same = [
            ("preprocessing", ours.config.preprocess == theirs.config.preprocess),
            ("input sizes", self.input_size == other.input_size),
            ("channels", ours.embedder == theirs.embedder),
            ("regions of interest", ours.region == theirs.region),
            ("registrations", stored(ours) == stored(theirs)),
            ("Gaussians: pooled or not", pooled(ours) == pooled(theirs)),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            let reason = format!("cannot merge fits of different {what}");
            return Err(Error::config("fit", reason));
        }
        self.statistics.merge(other.statistics)
    }

    /// Takes in more good images.
    ///
    /// # Errors
    ///
    /// As [`Padim::fit`]. A bad image leaves the fit as it was.
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
        let (_, fresh) = self.padim.gather(Some(self.input_size), images, &mut progress)?;
        self.statistics.merge(fresh)
    }

    /// Multiplies the weight of all images so far by a forgetting factor: exponential forgetting, if done
    /// before each new group of images.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the factor is above 0 and at most 1.
    pub fn forget(&mut self, forgetting_factor: f64) -> Result<()> {
        self.statistics.forget(forgetting_factor)
    }

    /// Makes the detector, giving memory back as it goes.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::NotPositiveDefinite`] if epsilon is
    /// too small, [`Error::InvalidConfig`] for a storage that does not go with the number of images.
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
        let Self { padim, input_size, statistics } = self;
        let model = statistics.finish(&padim.config.gaussian, factorizing(&mut progress))?;
        Ok(Detector::new(padim, input_size, model))
    }

    /// Makes a detector that keeps what is known of its images, also when it is saved: it can take in
    /// more of them, and its epsilon can be changed. That takes several times the memory.
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
        let Self { padim, input_size, statistics } = self;
        let model = statistics.model_with(&padim.config.gaussian, factorizing(&mut progress))?;
        let detector = Detector::new(padim, input_size, model);
        Ok(Detector { statistics: Some(Arc::new(statistics)), ..detector })
    }
}
