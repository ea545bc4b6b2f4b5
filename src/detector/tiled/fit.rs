//! Fitting images in tiles.

use std::ops::Range;
use std::sync::Arc;

use super::{Tiled, TiledDetector, parts};
use crate::backbone::Backbone;
use crate::detector::input::{Batches, ImageInput, exact_count};
use crate::detector::{Detector, FitProgress, FitStage, MemoryPlan, Padim, PadimConfig};
use crate::embedding::PartOfBatch;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianModel, GaussianStatistics};
use crate::preprocess::DecodeLimits;
use crate::tiling::{TileModels, TilingConfig};

/// PaDiM for images that are too large for the network, before it has seen any: settings, a backbone,
/// and how images are cut into tiles.
///
/// A tile is prepared, embedded and scored as a whole image is by [`Padim`] and [`Detector`]; the maps
/// of an image's tiles are then blended into one.
///
/// ```
/// # use padim::*;
/// # let device = burn::tensor::Device::flex();
/// # let weave = |i: u32| image::RgbImage::from_fn(150, 100, move |x, y| {
/// #     image::Rgb([((x + i) % 8 * 20) as u8, (y % 8 * 20) as u8, ((x * 7 + y * 13 + i * 3) % 11) as u8])
/// # });
/// // Tiles of 48x48 pixels go through the network as they are.
/// let tiling = TilingConfig { tile: [48, 48], overlap: 16, ..Default::default() };
/// let as_they_are = PreprocessConfig { resize: Resize::square(48), crop: None, ..Default::default() };
/// let config = PadimConfig { preprocess: as_they_are, ..Default::default() };
/// let padim = TiledPadim::new(config, tiling, ResNet18::load(Weights::Bundled, &device)?)?;
/// let detector = padim.fit((0..4).map(weave), |_progress| ())?;
///
/// let mut torn = weave(4);
/// (60..75).for_each(|x| torn.put_pixel(x, 50, image::Rgb([255, 0, 0])));
/// let prediction = detector.predict(torn)?;
/// assert!(prediction.image_score > detector.predict(weave(5))?.image_score);
/// assert_eq!(prediction.map_in_original()?.size(), [100, 150]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TiledPadim {
    padim: Padim,
    tiling: TilingConfig,
}

impl TiledPadim {
    /// Checks the settings and draws the channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the setting that cannot be, and why: a crop, which would leave
    /// gaps between tiles, among others.
    pub fn new(
        config: PadimConfig,
        tiling: TilingConfig,
        backbone: impl Backbone + 'static,
    ) -> Result<Self> {
        Self::with_shared_backbone(config, tiling, Arc::new(backbone))
    }

    /// As [`new`](Self::new), with a backbone that others use too.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_shared_backbone(
        config: PadimConfig,
        tiling: TilingConfig,
        backbone: Arc<dyn Backbone>,
    ) -> Result<Self> {
        Self::of(Padim::with_shared_backbone(config, backbone)?, tiling)
    }

    pub(super) fn of(padim: Padim, tiling: TilingConfig) -> Result<Self> {
        tiling.validate()?;
        if padim.config.preprocess.crop.is_some() {
            let reason = "would leave gaps between tiles; use none, and resize a tile to the size that \
                          the network is to see";
            return Err(Error::config("crop", reason));
        }
        if padim.config.augmentation.is_some() {
            let reason =
                "copies of tiles cannot be made yet; use none, or move the images before the fit";
            return Err(Error::config("augmentation", reason));
        }
        if let Some(registration) = &padim.registration {
            let reason = format!(
                "{:?} cannot be done to tiles, which show a part of the image each; use none, or move \
                 the images before the fit",
                registration.name()
            );
            return Err(Error::config("registration", reason));
        }
        let tiled = Self { padim, tiling };
        tiled.input_size().map_err(|error| Error::config("tile", error.to_string()))?;
        Ok(tiled)
    }

    /// The network's input size `[height, width]` for a tile.
    pub(super) fn input_size(&self) -> Result<[usize; 2]> {
        Ok(self.padim.preprocessor.geometry(self.tiling.tile)?.input_size())
    }

    /// As [`Padim::with_decode_limits`]: for larger files.
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.padim = self.padim.with_decode_limits(limits);
        self
    }

    fn decode_limits(&self) -> DecodeLimits {
        self.padim.preprocessor.decode_limits()
    }

    /// The settings of what is done with a tile.
    pub fn config(&self) -> &PadimConfig {
        &self.padim.config
    }

    /// How images are cut.
    pub fn tiling(&self) -> &TilingConfig {
        &self.tiling
    }

    /// Learns what good images look like, in one pass. The next image is decoded while the network
    /// works.
    ///
    /// `progress` is called after every image and every few positions.
    ///
    /// # Errors
    ///
    /// The error of the first image that cannot be used: [`Error::UnusableImage`] if it is smaller than
    /// a tile or, with a model for each position, of another size than the first;
    /// [`Error::TooFewImages`] for fewer than two images with a model for each position, or two tiles
    /// with a shared one; otherwise as [`Padim::fit`].
    pub fn fit<I>(&self, images: I, mut progress: impl FnMut(FitProgress)) -> Result<TiledDetector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        // How many tiles a shared model has to learn from, depends on the sizes of the images.
        if let (Some(count), TileModels::PerPosition) = (exact_count(&images), self.tiling.models) {
            self.padim.check_count(count)?;
        }
        let mut fit = Gathered::default();
        self.gather(images, None, &mut fit, &mut progress)?;
        let models = self.finish(fit.statistics, &mut progress)?;
        self.detector(models, fit.image_size)
    }

    /// As [`fit`](Self::fit), within so many bytes: where the tile positions have models of their own
    /// and not all fit in at once, the images are gone through several times, for some positions each
    /// time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if one position is too much already; otherwise as [`fit`](Self::fit).
    pub fn fit_within<I>(
        &self,
        bytes: usize,
        images: I,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<TiledDetector>
    where
        I: IntoIterator + Clone,
        I::Item: Into<ImageInput>,
    {
        let mut first = Batches::decoded(images.clone().into_iter().take(1), self.decode_limits());
        let Some(size) = first.advance(|batch| {
            batch
                .into_iter()
                .map(|item| Ok(Tiled::new(item, &self.tiling)?.layout.image()))
                .collect()
        }) else {
            return Err(Error::TooFewImages { count: 0 });
        };
        let size: Result<Vec<[usize; 2]>> = size;
        let Some(&size) = size?.first() else { return Err(Error::TooFewImages { count: 0 }) };
        let positions = self.positions(size)?;
        // Of unknown numbers of images, the most that they can take.
        let count = images.clone().into_iter().size_hint().1.unwrap_or(usize::MAX >> 32);
        let most = (1..=positions)
            .rev()
            .find(|&at_once| self.plan(size, count, at_once).is_ok_and(|plan| plan.fit <= bytes));
        let Some(at_once) = most else {
            let needed = self.plan(size, count, 1)?.fit;
            let reason = format!("a fit takes {needed} bytes at least, {bytes} are allowed");
            return Err(Error::config("bytes", reason));
        };
        let mut models = Vec::with_capacity(positions);
        let mut image_size = None;
        for begin in (0..positions).step_by(at_once) {
            let part = begin..(begin + at_once).min(positions);
            // A shared model is made from all tiles.
            let part = (self.tiling.models == TileModels::PerPosition).then_some(part);
            let mut fit = Gathered { image_size, ..Gathered::default() };
            self.gather(images.clone(), part, &mut fit, &mut progress)?;
            image_size = fit.image_size;
            models.extend(self.finish(fit.statistics, &mut progress)?);
        }
        self.detector(models, image_size)
    }

    /// How much memory a fit in one pass of so many images of `[height, width]` in 8-bit colour will
    /// take, and a prediction of another.
    ///
    /// # Errors
    ///
    /// As [`Padim::memory_plan`], and [`Error::UnusableImage`] for images smaller than a tile.
    pub fn memory_plan(&self, image_size: [usize; 2], images: usize) -> Result<MemoryPlan> {
        self.plan(image_size, images, self.positions(image_size)?)
    }

    /// The number of models for images of a size.
    fn positions(&self, image_size: [usize; 2]) -> Result<usize> {
        let layout = self.tiling.layout(image_size)?;
        Ok(match self.tiling.models {
            TileModels::Shared => 1,
            TileModels::PerPosition => layout.count(),
        })
    }

    /// The plan of a fit of some positions at once.
    fn plan(&self, image_size: [usize; 2], images: usize, at_once: usize) -> Result<MemoryPlan> {
        let layout = self.tiling.layout(image_size)?;
        let tiles = images.saturating_mul(layout.count());
        let positions = self.positions(image_size)?;
        let vectors = if positions == 1 { tiles } else { images };
        let one = self.padim.plan_for(self.tiling.tile, vectors, tiles)?;
        let sizes = [image_size, layout.map_size(self.input_size()?)];
        let pixels = sizes.map(|[height, width]| height.saturating_mul(width));
        one.for_tiles([positions, at_once], pixels)
    }

    /// Takes in the tiles of all images, or those at some positions.
    fn gather<I>(
        &self,
        images: I,
        part: Option<Range<usize>>,
        fit: &mut Gathered,
        progress: &mut impl FnMut(FitProgress),
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        let total = exact_count(&images);
        let mut images = Batches::decoded(images, self.decode_limits());
        let mut done = 0;
        while let Some(result) = images.advance(|batch| {
            batch.into_iter().try_for_each(|item| {
                let image = Tiled::new(item, &self.tiling)?;
                self.take_in(&image, part.clone(), fit, total.unwrap_or(0))
            })
        }) {
            result?;
            done += 1;
            progress(FitProgress { stage: FitStage::Embedding, done, total });
        }
        Ok(())
    }

    fn take_in(
        &self,
        image: &Tiled,
        part: Option<Range<usize>>,
        fit: &mut Gathered,
        images: usize,
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
        let Gathered { input_size, statistics, .. } = fit;
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
                match model {
                    None => statistics[0].update(&part),
                    Some(number) => statistics[number - first].update(&part),
                }
            })
        })
    }

    /// One model after the other, giving memory back.
    fn finish(
        &self,
        statistics: Vec<GaussianStatistics>,
        progress: &mut impl FnMut(FitProgress),
    ) -> Result<Vec<GaussianModel>> {
        let (models, config) = (statistics.len(), &self.padim.config.gaussian);
        let finish = |(number, statistics): (usize, GaussianStatistics)| {
            statistics.finish(config, |done, total| {
                let (done, total) = (number * total + done, Some(models * total));
                progress(FitProgress { stage: FitStage::Factorising, done, total });
            })
        };
        statistics.into_iter().enumerate().map(finish).collect()
    }

    fn detector(
        &self,
        models: Vec<GaussianModel>,
        image_size: Option<[usize; 2]>,
    ) -> Result<TiledDetector> {
        let mut models = models.into_iter();
        let Some(model) = models.next() else { return Err(Error::TooFewImages { count: 0 }) };
        let (padim, input_size) = (self.padim.clone(), self.input_size()?);
        let first = Detector { padim, input_size, model, statistics: None, decision: None };
        TiledDetector::new(self.tiling, image_size, first, models.collect())
    }
}

/// What is known of some tile positions, or of all tiles.
#[derive(Default)]
struct Gathered {
    /// Of all images, where each position has a model.
    image_size: Option<[usize; 2]>,
    /// Of a tile for the network.
    input_size: Option<[usize; 2]>,
    statistics: Vec<GaussianStatistics>,
}
