//! Fitting: makes a [`Detector`] from a [`Padim`] and good images.

use std::ops::ControlFlow;

use super::batches::exact_count;
#[cfg(doc)]
use super::config::PadimConfig;
use super::fitted::Detector;
use super::good_peak::LastImages;
use super::input_summary::InputSummary;
use super::padim::Padim;
use super::partial_fit::PartialFit;
use super::progress::{FitProgress, FitStage, Report, report, silent};
use crate::embedding::ProjectionEstimator;
use crate::error::{Error, Result};
use crate::preprocess::{ImageInput, InputReport};

impl Padim {
    /// Fits the Gaussians to good images, in one pass. Files are decoded while the network works.
    /// Memory stops growing when there are as many images as dimensions.
    ///
    /// If the settings leave open how images of more than 8 bits are read
    /// ([`Levels::Auto`](crate::preprocess::Levels::Auto)), the first [`batch_size`](PadimConfig::batch_size)
    /// images decide, and the decision is stored with the detector. For this, [`ImageInput::Deferred`]
    /// images among them, and files of more than 8 bits, are opened twice. A later image with values outside
    /// is an error. [`Detector::input_summary`] tells what was noticed.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, and [`Error::InvalidConfig`] for settings
    /// that do not fit their number; both before the first image is decoded, if the iterator knows its
    /// length (as iterators of vectors and slices do). The error of the first image that cannot be
    /// used, with its name. [`Error::NotPositiveDefinite`] if epsilon is too small.
    pub fn fit<I>(&self, images: I) -> Result<Detector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.fit_with(images, silent)
    }

    /// As [`fit`](Self::fit). `progress` is called after every batch of images and every few positions,
    /// and can stop the fit.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # let config = PadimConfig::default().with_input_size([32, 32]);
    /// # let images = (0..9).map(|i| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9; 3])));
    /// # let backbone = ResNet18::load(Weights::Bundled, &burn::tensor::Device::flex())?;
    /// let padim = Padim::new(config, backbone)?;
    /// let stopped = padim.fit_with(images, |progress| {
    ///     println!("{:?}: {} of {:?}", progress.stage, progress.done, progress.total);
    ///     if progress.done < 8 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// });
    /// assert!(matches!(stopped, Err(Error::Cancelled)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`fit`](Self::fit); [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
    pub fn fit_with<I>(
        &self,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<Detector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        if let Some(count) = exact_count(&images) {
            self.check_count(self.copied(count))?;
        }
        self.partial_fit_with(images, &mut progress)?.finish_with(progress)
    }

    /// The first part of a fit: computes the statistics of these images. The result can be saved,
    /// merged with other partial fits, and finished.
    ///
    /// # Errors
    ///
    /// As [`fit`](Self::fit), but a single image is enough.
    pub fn partial_fit<I>(&self, images: I) -> Result<PartialFit>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.partial_fit_with(images, silent)
    }

    /// As [`partial_fit`](Self::partial_fit), with progress as [`fit_with`](Self::fit_with).
    ///
    /// # Errors
    ///
    /// As [`partial_fit`](Self::partial_fit) and [`fit_with`](Self::fit_with).
    pub fn partial_fit_with<I>(
        &self,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<PartialFit>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let (padim, images) = self.with_levels_for(images, usize::MAX)?;
        let mut summary = InputSummary::new(padim.config.preprocess.levels);
        let mut last = LastImages::default();
        let (input_size, statistics) =
            padim.gather(None, images, &mut summary, &mut last, &mut progress)?;
        Ok(PartialFit { padim, input_size, statistics, summary: Some(summary), last })
    }

    /// Adds a projection of the selected channels to their first `components` principal components.
    /// They are computed from good images, over all positions together (paper, Table II: PCA). The
    /// images are needed twice: here and for [`fit`](Self::fit). For separate components at each
    /// position, see [`GaussianConfig::components`](crate::gaussian::GaussianConfig::components).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for more components than channels; otherwise as [`fit`](Self::fit).
    pub fn fit_projection<I>(self, components: usize, images: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.fit_projection_with(components, images, silent)
    }

    /// As [`fit_projection`](Self::fit_projection), with progress as [`fit_with`](Self::fit_with).
    ///
    /// # Errors
    ///
    /// As [`fit_projection`](Self::fit_projection) and [`fit_with`](Self::fit_with).
    pub fn fit_projection_with<I>(
        self,
        components: usize,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let progress: &mut Report<'_> = &mut progress;
        let channels = self.embedder.indices().len();
        if components == 0 || components > channels {
            let reason = format!("must be in 1..={channels}, got {components}");
            return Err(Error::config("components", reason));
        }
        let (padim, images) = self.with_levels_for(images, usize::MAX)?;
        let plain = padim.with_embedder(self.embedder.without_projection());
        let mut estimator = ProjectionEstimator::new(channels);
        let mut size = None;
        let (region, device) = (plain.region.clone(), plain.backbone.device());
        let mut note = |name: &str, report: &InputReport| plain.require_levels(name, report);
        plain.embed_all(images, &mut size, &mut note, |embedding, done, total| {
            let [_, _, height, width] = embedding.shape();
            let embedding = embedding.into_tensor(&device);
            let positions = region.as_ref().map(|region| region.positions([height, width]));
            estimator.update(embedding, positions.as_deref())?;
            report(progress, FitStage::Projecting, done, total)
        })?;
        let projection = estimator.finish(components)?;
        Ok(plain.with_embedder(plain.embedder.clone().with_projection(projection)?))
    }
}
