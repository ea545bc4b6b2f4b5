//! The whole method behind two types: [`Padim`] before the fit, [`Detector`] after it.

mod augmentation;
mod config;
mod decisions;
mod devices;
mod explain;
mod fitted;
mod input;
mod partial;
mod parts;
mod plan;
mod registration;
mod tiled;

pub use augmentation::Augmentation;
pub use config::PadimConfig;
pub use explain::{ChannelContribution, Explanation, LayerContribution};
pub use fitted::{Detector, Prediction};
pub use input::{ImageInput, OpenImage, PreparedImage};
pub use partial::PartialFit;
pub use plan::MemoryPlan;
pub use registration::Registration;
pub use tiled::{TiledDetector, TiledPadim};

pub(crate) use registration::StoredRegistration;

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::backbone::Backbone;
use crate::embedding::{
    Embedding, EmbeddingPart, Extractor, PatchEmbedder, PatchVectors, ProjectionEstimator,
};
use crate::error::{Error, Result};
use crate::gaussian::{GaussianModel, GaussianStatistics, Positions, Precision, reach};
use crate::host::is_host;
use crate::preprocess::{DecodeLimits, InputRegion, Preprocessor, RegionOfInterest};
use crate::scoring::{AnomalyScorer, ScoredMap};
use input::{Batches, Item, Steps, exact_count, stack};

/// How far a fit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitProgress {
    /// What is being done.
    pub stage: FitStage,
    /// How many images or positions are done.
    pub done: usize,
    /// Of how many, where that is known.
    pub total: Option<usize>,
}

/// What a fit does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FitStage {
    /// Images go through the network to find a projection; counted in images.
    Projecting,
    /// Images go through the network; counted in images.
    Embedding,
    /// Covariances are factorised; counted in positions of the grid.
    Factorising,
    /// Good images are scored to find thresholds; counted in images.
    Calibrating,
}

/// PaDiM before it has seen images: settings and a backbone.
///
/// Fitting gives another type, a [`Detector`], so predicting before fitting does not compile.
///
/// ```
/// use burn::tensor::Device;
/// use image::RgbImage;
/// use padim::{Padim, PadimConfig, PreprocessConfig, ResNet18, Resize, Weights};
///
/// let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
/// let config = PadimConfig { preprocess: small, ..Default::default() };
/// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &Device::flex())?)?;
///
/// let good = (0..4).map(|i| RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80])));
/// let detector = padim.fit(good, |progress| println!("{progress:?}"))?;
///
/// let strange = RgbImage::from_fn(80, 60, |x, y| image::Rgb([(x * y) as u8, 0, 255]));
/// let ordinary = RgbImage::from_pixel(80, 60, image::Rgb([101, 90, 80]));
/// assert!(detector.predict(strange)?.image_score > detector.predict(ordinary)?.image_score);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Padim {
    pub(crate) config: PadimConfig,
    pub(crate) backbone: Arc<dyn Backbone>,
    pub(crate) preprocessor: Preprocessor,
    pub(crate) embedder: PatchEmbedder,
    /// Both together.
    pub(crate) extractor: Extractor,
    pub(crate) scorer: AnomalyScorer,
    pub(crate) region: Option<InputRegion>,
    pub(crate) registration: Option<Registration>,
    /// In which scores are computed on a device with memory of its own.
    pub(crate) precision: Precision,
}

impl Padim {
    /// Checks the settings and draws the channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the setting that cannot be, and why.
    pub fn new(config: PadimConfig, backbone: impl Backbone + 'static) -> Result<Self> {
        Self::with_shared_backbone(config, Arc::new(backbone))
    }

    /// As [`new`](Self::new), with a backbone that others use too.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_shared_backbone(config: PadimConfig, backbone: Arc<dyn Backbone>) -> Result<Self> {
        config.validate()?;
        let channels: Vec<usize> = backbone.layers().iter().map(|layer| layer.channels).collect();
        let embedder = PatchEmbedder::new(&channels, &config.channels)?;
        Ok(Self {
            preprocessor: Preprocessor::new(config.preprocess.clone(), backbone.normalization())?,
            extractor: Extractor::new(&backbone, &embedder),
            embedder,
            scorer: AnomalyScorer::new(config.scoring.clone())?,
            config,
            backbone,
            region: None,
            registration: None,
            precision: Precision::F32,
        })
    }

    /// The same, looking at a part of the images only. Positions outside take no memory and score
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the crop leaves nothing of the region.
    ///
    /// ```
    /// # use padim::*;
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let good = (0..4).map(|i| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80])));
    /// let upper_half = [[0.0, 0.0], [80.0, 0.0], [80.0, 30.0], [0.0, 30.0]];
    /// let region = RegionOfInterest::polygon([60, 80], &upper_half)?;
    /// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?.with_region(&region)?;
    /// let detector = padim.fit(good, |_| ())?;
    /// assert_eq!(detector.model().position_count(), 16 * 16 / 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_region(self, region: &RegionOfInterest) -> Result<Self> {
        let region = Some(region.resolve(&self.preprocessor)?);
        Ok(Self { region, ..self })
    }

    /// The same, with images brought to one pose before anything else is done to them. A region of
    /// interest is one of the registered images.
    pub fn with_registration(self, registration: Registration) -> Self {
        Self { registration: Some(registration), ..self }
    }

    /// What brings images to one pose, if anything does.
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// What is done to an image before the network.
    fn steps(&self) -> Steps<'_> {
        Steps { registration: self.registration.as_ref(), preprocessor: &self.preprocessor }
    }

    /// The same, with the selected channels projected to their `components` principal ones, which
    /// are found from good images: all positions together (paper, Table II: PCA). The images are
    /// needed twice, here and for [`fit`](Self::fit). For components of each position by itself, see
    /// [`GaussianConfig::components`](crate::GaussianConfig::components).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for more components than channels; otherwise as [`fit`](Self::fit).
    pub fn with_principal_components<I>(
        self,
        components: usize,
        images: I,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let channels = self.embedder.indices().len();
        if components == 0 || components > channels {
            let reason = format!("must be in 1..={channels}, got {components}");
            return Err(Error::config("components", reason));
        }
        let plain = self.with_embedder(self.embedder.without_projection());
        let mut estimator = ProjectionEstimator::new(channels);
        let mut size = None;
        let (region, device) = (plain.region.clone(), plain.backbone.device());
        plain.embed_all(images, &mut size, |embedding, done, total| {
            let [_, _, height, width] = embedding.shape();
            let embedding = embedding.into_tensor(&device);
            let positions = region.as_ref().map(|region| region.positions([height, width]));
            estimator.update(embedding, positions.as_deref())?;
            progress(FitProgress { stage: FitStage::Projecting, done, total });
            Ok(())
        })?;
        let projection = estimator.finish(components)?;
        Ok(plain.with_embedder(plain.embedder.clone().with_projection(projection)?))
    }

    fn with_embedder(&self, embedder: PatchEmbedder) -> Self {
        let extractor = Extractor::new(&self.backbone, &embedder);
        Self { embedder, extractor, ..self.clone() }
    }

    /// The same, for files that decode to images of other sizes. What it fits takes the limits over.
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.preprocessor = self.preprocessor.with_decode_limits(limits);
        self
    }

    /// The settings.
    pub fn config(&self) -> &PadimConfig {
        &self.config
    }

    /// The network.
    pub fn backbone(&self) -> &dyn Backbone {
        &*self.backbone
    }

    /// The channels that make up an embedding, and their projection.
    pub fn embedder(&self) -> &PatchEmbedder {
        &self.embedder
    }

    /// Learns what good images look like, in one pass. Files are decoded while the network works,
    /// and memory stops growing when there are as many images as dimensions.
    ///
    /// `progress` is called after every batch of images and every few positions.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images, and [`Error::InvalidConfig`] for settings that do
    /// not go with their number: before the first one is decoded, if the iterator knows how many there are
    /// (as those of vectors and slices do). The error of the first image that cannot be used, which names
    /// it; [`Error::NotPositiveDefinite`] if epsilon is too small.
    pub fn fit<I>(&self, images: I, mut progress: impl FnMut(FitProgress)) -> Result<Detector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        if let Some(count) = exact_count(&images) {
            self.check_count(self.copied(count))?;
        }
        self.partial_fit(images, &mut progress)?.finish(progress)
    }

    /// With the copies that augmentation makes of them, how many so many images are.
    fn copied(&self, images: usize) -> usize {
        let copies =
            self.config.augmentation.as_ref().map_or(0, |augmentation| augmentation.copies);
        images.saturating_mul(1 + copies)
    }

    /// Whether the settings go with so many images, copies included: what can be told before any has been
    /// seen. How many vectors a pooled Gaussian has depends on their size, too.
    fn check_count(&self, images: usize) -> Result<()> {
        let gaussian = &self.config.gaussian;
        match (gaussian.pooled, images) {
            (_, 0) | (false, 1) => Err(Error::TooFewImages { count: images }),
            (true, _) => Ok(()),
            (false, _) => {
                let dimension = self.embedder.dimension();
                GaussianStatistics::foreseen(gaussian, dimension, images).map(drop)
            }
        }
    }

    /// The first part of a fit: what is known of these images, to be saved, merged with that of
    /// others, and finished.
    ///
    /// # Errors
    ///
    /// As [`fit`](Self::fit), but a single image is enough.
    pub fn partial_fit<I>(&self, images: I, progress: impl FnMut(FitProgress)) -> Result<PartialFit>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        PartialFit::new(self.clone(), None, images, progress)
    }

    /// Runs all images, with the copies that augmentation makes of them, through the network and gives
    /// each batch of embeddings to `work`, with the number of images so far and of how many. The first
    /// image decides the size, if nothing else has.
    fn embed_all<I>(
        &self,
        images: I,
        size: &mut Option<[usize; 2]>,
        work: impl FnMut(Embedding, usize, Option<usize>) -> Result<()>,
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        let total = exact_count(&images);
        let steps = self.steps();
        match self.config.augmentation.clone() {
            None => self.embed_prepared(images, steps, total, size, work),
            Some(augmentation) => {
                let total = total.map(|total| self.copied(total));
                // Copies are those of the registered image: what a registration leaves to learn.
                let images = augmentation.registered(images, self.registration.clone());
                let steps = Steps { registration: None, ..steps };
                self.embed_prepared(images, steps, total, size, work)
            }
        }
    }

    fn embed_prepared<I>(
        &self,
        images: I,
        steps: Steps,
        total: Option<usize>,
        size: &mut Option<[usize; 2]>,
        mut work: impl FnMut(Embedding, usize, Option<usize>) -> Result<()>,
    ) -> Result<()>
    where
        I: Iterator,
        I::Item: Into<ImageInput>,
    {
        let mut batches = Batches::new(images, steps, self.config.batch_size);
        let mut done = 0;
        while let Some(result) = batches.advance(|batch| {
            let names: Vec<String> = batch.iter().map(|item| item.name.clone()).collect();
            let images = self.stack_batch(batch, size)?;
            self.extractor
                .batches(images)
                .try_for_each(|images| {
                    done += images.dims()[0];
                    work(self.extractor.embed(images)?, done, total)
                })
                .map_err(|error| match error {
                    // A device's embeddings are looked at when many have come together.
                    Error::NotFinite { .. } => {
                        let which = match is_host(&self.backbone.device()) {
                            true => names.join(", "),
                            false => format!("up to {}", names.last().map_or("", String::as_str)),
                        };
                        Error::NotFinite {
                            what: format!("the embedding of one of the images {which}"),
                        }
                    }
                    other => other,
                })
        }) {
            result?;
        }
        Ok(())
    }

    /// The network's input `[batch, 3, height, width]`.
    fn stack_batch(&self, batch: Vec<Item>, size: &mut Option<[usize; 2]>) -> Result<Tensor<4>> {
        let mut images = Vec::with_capacity(batch.len());
        let mut expected = *size;
        for Item { name, prepared } in batch {
            let image = prepared?;
            image.require_size(*expected.get_or_insert(image.geometry().input_size()), &name)?;
            images.push(image);
        }
        let Some(input_size) = expected else { return Err(Error::TooFewImages { count: 0 }) };
        if let Some(region) = self.region.as_ref().filter(|r| r.size() != input_size) {
            return Err(Error::shape(
                "images",
                format!("{:?} as the region", region.size()),
                input_size,
            ));
        }
        *size = expected;
        Ok(stack(images, input_size, &self.backbone.device()))
    }

    /// Maps and scores of `size` of embeddings, where they are.
    fn score(
        &self,
        model: &GaussianModel,
        embedding: EmbeddingPart,
        size: [usize; 2],
    ) -> Result<Vec<ScoredMap>> {
        let (reach, region) = (reach(self.config.neighbourhood)?, self.region.as_ref());
        match embedding {
            EmbeddingPart::Tensor(tensor) => {
                let distances = model.distances_on_device(tensor, reach, self.precision)?;
                self.scorer.score_on_device(distances, size, region)
            }
            EmbeddingPart::Vectors(vectors) => {
                let ([batch, ..], [rows, columns]) = (vectors.shape(), model.grid());
                let distances = model.distances_of(&vectors, reach)?;
                self.scorer.score_host(&distances, [batch, rows, columns], size, region)
            }
        }
    }

    /// The statistics of no image yet, for embeddings of these sizes.
    fn statistics(&self, dimension: usize, grid: [usize; 2]) -> Result<GaussianStatistics> {
        self.config.gaussian.check(dimension)?;
        Ok(GaussianStatistics::new(dimension, self.positions(grid)?))
    }

    /// The positions of a grid that are looked at, and whether they have one Gaussian in common.
    pub(crate) fn positions(&self, grid: [usize; 2]) -> Result<Positions> {
        let positions = match &self.region {
            Some(region) => Positions::inside(grid, &region.positions(grid)),
            None => Positions::all(grid),
        };
        Ok(positions?.with_pooled(self.config.gaussian.pooled))
    }
}
