//! Fits images in tiles.

use std::ops::{ControlFlow, Range};

use super::fitted::TiledDetector;
use super::image::{TiledImage, parts};
use super::padim::TiledPadim;
use crate::decision::CalibrationConfig;
use crate::detector::batches::{Batches, exact_count};
use crate::detector::fitted::Detector;
use crate::detector::good_peak::LastImages;
use crate::detector::input_summary::InputSummary;
#[cfg(doc)]
use crate::detector::padim::Padim;
use crate::detector::progress::{FitProgress, FitStage, Report, report, silent};
use crate::embedding::PartOfBatch;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianModel, GaussianStatistics};
use crate::preprocess::ImageInput;
use crate::tiling::TileModels;

impl TiledPadim {
    /// Fits the Gaussians to good images, in one pass. The next image is decoded while the network
    /// works.
    ///
    /// # Errors
    ///
    /// The error of the first image that cannot be used: [`Error::UnusableImage`] if it is smaller than
    /// a tile or if, with a model per position, its size differs from the first image.
    /// [`Error::TooFewImages`] for fewer than two images with a model per position, or fewer than two
    /// tiles with a shared model. Otherwise as [`Padim::fit`].
    pub fn fit<I>(&self, images: I) -> Result<TiledDetector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.fit_with(images, silent)
    }

    /// As [`fit`](Self::fit). `progress` is called after every image and every few positions, and can
    /// stop the fit.
    ///
    /// # Errors
    ///
    /// As [`fit`](Self::fit) and [`Padim::fit_with`].
    pub fn fit_with<I>(
        &self,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<TiledDetector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        // For a shared model, the number of tiles depends on the sizes of the images.
        if let (Some(count), TileModels::PerPosition) = (exact_count(&images), self.tiling.models) {
            self.padim.check_count(count)?;
        }
        let (tiled, images) = self.with_levels_for(images)?;
        let mut fit = Gathered::default();
        let summary = tiled.gather(images, None, &mut fit, &mut progress)?;
        let models = tiled.finish(fit.statistics, &mut progress)?;
        let peak = tiled.peak(&fit.last, &models)?;
        tiled.detector(models, fit.image_size, summary, peak)
    }

    /// Tiles have no cross-fitted calibration.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`].
    pub fn fit_calibrated<I>(
        &self,
        _images: &[I],
        _folds: usize,
        _config: &CalibrationConfig,
    ) -> Result<TiledDetector>
    where
        I: Clone + Into<ImageInput>,
    {
        Err(Error::Unsupported {
            what: "a calibration with the images of the fit",
            place: "for images in tiles",
            advice: "keep some good images back, and give them to `TiledDetector::calibrate`",
        })
    }

    /// As [`fit`](Self::fit), with a limit for the memory, in bytes. If the models per position do not
    /// all fit, the images are read several times, for some of the positions each time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if one position exceeds the limit; otherwise as [`fit`](Self::fit).
    pub fn fit_within<I>(&self, bytes: usize, images: I) -> Result<TiledDetector>
    where
        I: IntoIterator + Clone,
        I::Item: Into<ImageInput>,
    {
        self.fit_within_with(bytes, images, silent)
    }

    /// As [`fit_within`](Self::fit_within), with progress as [`fit_with`](Self::fit_with).
    ///
    /// # Errors
    ///
    /// As [`fit_within`](Self::fit_within) and [`Padim::fit_with`].
    pub fn fit_within_with<I>(
        &self,
        bytes: usize,
        images: I,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<TiledDetector>
    where
        I: IntoIterator + Clone,
        I::Item: Into<ImageInput>,
    {
        let size = Batches::decoded(images.clone().into_iter().take(1), self.decode_options())
            .first(|item| Ok(TiledImage::new(item, &self.tiling)?.layout.image()))?;
        let positions = self.positions(size)?;
        // If the number of images is unknown, plan with the largest possible memory.
        let count = images.clone().into_iter().size_hint().1.unwrap_or(usize::MAX >> 32);
        let most = (1..=positions)
            .rev()
            .find(|&at_once| self.plan(size, count, at_once).is_ok_and(|plan| plan.fit <= bytes));
        let Some(at_once) = most else {
            let needed = self.plan(size, count, 1)?.fit;
            let reason = format!("a fit needs at least {needed} bytes, {bytes} are allowed");
            return Err(Error::config("bytes", reason));
        };
        let (tiled, _) = self.with_levels_for(images.clone())?;
        let mut models = Vec::with_capacity(positions);
        let (mut image_size, mut summary, mut peak) = (None, None, None);
        for begin in (0..positions).step_by(at_once) {
            let part = begin..(begin + at_once).min(positions);
            // A shared model uses all tiles.
            let part = (self.tiling.models == TileModels::PerPosition).then_some(part);
            let mut fit = Gathered { image_size, ..Gathered::default() };
            // Each pass sees the same images.
            summary = Some(tiled.gather(images.clone(), part, &mut fit, &mut progress)?);
            image_size = fit.image_size;
            let fitted = tiled.finish(fit.statistics, &mut progress)?;
            peak = peak.into_iter().chain(tiled.peak(&fit.last, &fitted)?).reduce(f32::max);
            models.extend(fitted);
        }
        let summary = summary.ok_or(Error::TooFewImages { count: 0 })?;
        tiled.detector(models, image_size, summary, peak)
    }

    /// Chooses the levels of deep images by the first ones, of which one at most is held in memory.
    fn with_levels_for<I>(
        &self,
        images: I,
    ) -> Result<(Self, impl Iterator<Item = ImageInput> + use<I>)>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let (padim, images) = self.padim.with_levels_for(images, 1)?;
        Ok((Self { padim, tiling: self.tiling }, images))
    }

    /// Adds the tiles of all images; if `part` is given, only the tiles at these positions.
    fn gather<I>(
        &self,
        images: I,
        part: Option<Range<usize>>,
        fit: &mut Gathered,
        progress: &mut Report<'_>,
    ) -> Result<InputSummary>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut summary = InputSummary::new(self.padim.config.preprocess.levels);
        let images = images.into_iter();
        let total = exact_count(&images);
        let mut images = Batches::decoded(images, self.decode_options());
        let mut done = 0;
        while let Some(result) = images.advance(|batch| {
            batch.into_iter().try_for_each(|item| {
                let image = TiledImage::new(item, &self.tiling)?;
                let report = image.report(&self.padim)?;
                summary.add(&image.name, &report);
                self.padim.require_levels(&image.name, &report)?;
                let may_be_last = LastImages::may_be_among(done + 1, total);
                self.take_in(&image, part.clone(), fit, (total.unwrap_or(0), may_be_last))
            })
        }) {
            result?;
            done += 1;
            report(progress, FitStage::Embedding, done, total)?;
        }
        Ok(summary)
    }

    fn take_in(
        &self,
        image: &TiledImage,
        part: Option<Range<usize>>,
        fit: &mut Gathered,
        (images, may_be_last): (usize, bool),
    ) -> Result<()> {
        let count = image.layout.count();
        let part = part.unwrap_or(0..count);
        let (models, vectors) = match self.tiling.models {
            TileModels::Shared => (1, images.saturating_mul(count)),
            TileModels::PerPosition => {
                image.require_size(*fit.image_size.get_or_insert(image.layout.image()))?;
                (part.len(), images)
            }
        };
        let Gathered { input_size, statistics, last, .. } = fit;
        let first = part.start;
        image.embed(&self.padim, part, input_size, |number, embedding| {
            let batch = embedding.into_vectors()?;
            let [count, dimension, height, width] = batch.shape();
            while statistics.len() < models {
                let mut empty = self.padim.statistics(dimension, [height, width])?;
                empty.reserve(vectors);
                statistics.push(empty);
            }
            if !batch.all_finite() {
                return Err(Error::NotFinite { what: String::new() });
            }
            parts(count, self.tiling.models, number).try_for_each(|(model, images)| {
                let part = PartOfBatch { vectors: &*batch, images };
                let model = model.map_or(0, |number| number - first);
                statistics[model].update(&part)?;
                if may_be_last {
                    last.push(model, &part);
                }
                Ok(())
            })
        })
    }

    /// Computes the models one after the other and frees the statistics.
    fn finish(
        &self,
        statistics: Vec<GaussianStatistics>,
        progress: &mut Report<'_>,
    ) -> Result<Vec<GaussianModel>> {
        let (models, config) = (statistics.len(), &self.padim.config.gaussian);
        let finish = |(number, statistics): (usize, GaussianStatistics)| {
            statistics.finish(config, |done, total| {
                let (done, total) = (number * total + done, Some(models * total));
                progress(FitProgress { stage: FitStage::Factorizing, done, total })
            })
        };
        statistics.into_iter().enumerate().map(finish).collect()
    }

    /// How high the maps of good tiles go.
    fn peak(&self, last: &LastImages, models: &[GaussianModel]) -> Result<Option<f32>> {
        last.peak(&self.padim, &models.iter().collect::<Vec<_>>(), self.input_size()?)
    }

    fn detector(
        &self,
        models: Vec<GaussianModel>,
        image_size: Option<[usize; 2]>,
        summary: InputSummary,
        good_peak: Option<f32>,
    ) -> Result<TiledDetector> {
        let mut models = models.into_iter();
        let Some(model) = models.next() else { return Err(Error::TooFewImages { count: 0 }) };
        let (padim, input_size) = (self.padim.clone(), self.input_size()?);
        let first = Detector::new(padim, input_size, model);
        let first = Detector { input_summary: Some(summary), good_peak, ..first };
        TiledDetector::new(self.tiling, image_size, first, models.collect())
    }
}

/// The statistics of some tile positions, or of all tiles together.
#[derive(Default)]
struct Gathered {
    /// The common size of all images, with a model per position.
    image_size: Option<[usize; 2]>,
    /// The network's input size for a tile.
    input_size: Option<[usize; 2]>,
    statistics: Vec<GaussianStatistics>,
    last: LastImages,
}
