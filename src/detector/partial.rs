//! A fit that is not finished.

use super::{Detector, FitProgress, FitStage, ImageInput, Padim};
use crate::detector::Registration;
use crate::embedding::Embedding;
use crate::error::{Error, Result};
use crate::gaussian::GaussianStatistics;
use crate::host::LARGEST_BUFFER;

/// What is known of the good images so far: it can take in more of them, be merged with the fit of
/// others, saved ([`save`](Self::save)), and made into a [`Detector`].
///
/// Merging two fits gives what one fit of all images gives, to rounding, in any order. So shards of a
/// data set can be fitted by several threads, processes or machines.
///
/// ```
/// # use padim::*;
/// # let device = burn::tensor::Device::flex();
/// # let small = PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() };
/// # let config = PadimConfig { preprocess: small, ..Default::default() };
/// # let image = |i: u8| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9, i * i, 7]));
/// # let (monday, tuesday) = ((0..3).map(image), (3..6).map(image));
/// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
/// let mut fit = padim.partial_fit(monday, |_progress| ())?;
/// fit.merge(padim.partial_fit(tuesday, |_progress| ())?)?;
/// assert_eq!(fit.image_count(), 6);
/// let detector = fit.finish(|_progress| ())?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PartialFit {
    pub(crate) padim: Padim,
    pub(crate) input_size: [usize; 2],
    pub(crate) statistics: GaussianStatistics,
}

impl PartialFit {
    /// The fit of images whose input size must be `size`; if `None`, the first image sets it.
    pub(super) fn new<I>(
        padim: Padim,
        mut size: Option<[usize; 2]>,
        images: I,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut known: Option<GaussianStatistics> = None;
        let mut waiting = Waiting::default();
        padim.embed_all(images, &mut size, |embedding, done, total| {
            let statistics = match &mut known {
                Some(statistics) => statistics,
                None => {
                    let [_, dimension, height, width] = embedding.shape();
                    let statistics = known.insert(padim.statistics(dimension, [height, width])?);
                    statistics.reserve(total.unwrap_or(0));
                    statistics
                }
            };
            waiting.push(embedding, statistics)?;
            progress(FitProgress { stage: FitStage::Embedding, done, total });
            Ok(())
        })?;
        match (size, known) {
            (Some(input_size), Some(mut statistics)) => {
                waiting.flush(&mut statistics)?;
                Ok(Self { padim, input_size, statistics })
            }
            _ => Err(Error::TooFewImages { count: 0 }),
        }
    }

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

    /// Takes in more good images.
    ///
    /// # Errors
    ///
    /// As [`Padim::fit`]. A bad image leaves the fit as it was.
    pub fn extend<I>(&mut self, images: I, progress: impl FnMut(FitProgress)) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let fresh = Self::new(self.padim.clone(), Some(self.input_size), images, progress)?;
        self.statistics.merge(fresh.statistics)
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

    /// Makes all images so far count `keep` times what they did: exponential forgetting, if done
    /// before each new group of images.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless `keep` is above 0 and at most 1.
    pub fn forget(&mut self, keep: f64) -> Result<()> {
        self.statistics.forget(keep)
    }

    /// Makes the detector, giving memory back as it goes.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, [`Error::NotPositiveDefinite`] if epsilon is
    /// too small, [`Error::InvalidConfig`] for a storage that does not go with the number of images.
    pub fn finish(self, mut progress: impl FnMut(FitProgress)) -> Result<Detector> {
        let Self { padim, input_size, statistics } = self;
        let model = statistics.finish(&padim.config.gaussian, factorising(&mut progress))?;
        Ok(Detector { padim, input_size, model, statistics: None, decision: None })
    }

    /// Makes a detector that keeps what is known of its images, also when it is saved: it can take in
    /// more of them, and its epsilon can be changed. That takes several times the memory.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn finish_extendable(self, mut progress: impl FnMut(FitProgress)) -> Result<Detector> {
        let Self { padim, input_size, statistics } = self;
        let model = statistics.model(&padim.config.gaussian, factorising(&mut progress))?;
        Ok(Detector { padim, input_size, model, statistics: Some(statistics), decision: None })
    }
}

/// Embeddings that pile up on their device, so that it need not wait for each batch to be fetched. Sums
/// are taken by the processor: they need 64 bits, which few devices have.
#[derive(Default)]
struct Waiting {
    embeddings: Vec<Embedding>,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, embedding: Embedding, statistics: &mut GaussianStatistics) -> Result<()> {
        let is_host = matches!(embedding, Embedding::Vectors(_));
        self.bytes += 4 * embedding.shape().iter().product::<usize>();
        self.embeddings.push(embedding);
        if is_host || self.bytes >= 2 * LARGEST_BUFFER { self.flush(statistics) } else { Ok(()) }
    }

    fn flush(&mut self, statistics: &mut GaussianStatistics) -> Result<()> {
        self.bytes = 0;
        self.embeddings.drain(..).try_for_each(|e| statistics.update(&*e.into_vectors()?))
    }
}

/// The progress of a factorisation as that of a fit.
pub(super) fn factorising(progress: &mut impl FnMut(FitProgress)) -> impl FnMut(usize, usize) + '_ {
    |done, total| progress(FitProgress { stage: FitStage::Factorising, done, total: Some(total) })
}
