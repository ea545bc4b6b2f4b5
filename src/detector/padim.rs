//! PaDiM before it has seen images.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::batches::{Batches, exact_count};
use super::config::PadimConfig;
#[cfg(doc)]
use super::fitted::Detector;
use super::prepared::{Item, Steps, stack};
use super::registration::Registration;
use crate::backbone::Backbone;
use crate::embedding::{Embedding, EmbeddingPart, Extractor, PatchEmbedder, PatchVectors};
use crate::error::{Error, Result};
use crate::gaussian::{GaussianModel, GaussianStatistics, Positions, Precision, reach};
use crate::host::is_host;
use crate::preprocess::{DecodeLimits, ImageInput, InputRegion, Preprocessor, RegionOfInterest};
use crate::scoring::{AnomalyScorer, ScoredMap};

/// PaDiM before it has seen images: settings and a backbone.
///
/// Fitting gives another type, a [`Detector`], so predicting before fitting does not compile.
///
/// ```
/// use burn::tensor::Device;
/// use image::RgbImage;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
/// use padim::preprocess::{PreprocessConfig, Resize};
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
        config.validate()?;
        let backbone: Arc<dyn Backbone> = Arc::new(backbone);
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
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, RegionOfInterest, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let good = (0..4).map(|i| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80])));
    /// let upper_half = [[0.0, 0.0], [80.0, 0.0], [80.0, 30.0], [0.0, 30.0]];
    /// let region = RegionOfInterest::polygon([60, 80], &upper_half)?;
    /// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?.with_region(&region)?;
    /// let detector = padim.fit(good)?;
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
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps { registration: self.registration.as_ref(), preprocessor: &self.preprocessor }
    }

    pub(super) fn with_embedder(&self, embedder: PatchEmbedder) -> Self {
        let extractor = Extractor::new(&self.backbone, &embedder);
        Self { embedder, extractor, ..self.clone() }
    }

    /// The same, for files that decode to images of other sizes. What it fits takes the limits over.
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.set_decode_limits(limits);
        self
    }

    pub(super) fn set_decode_limits(&mut self, limits: DecodeLimits) {
        self.preprocessor.set_decode_limits(limits);
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

    /// With the copies that augmentation makes of them, how many so many images are.
    pub(super) fn copied(&self, images: usize) -> usize {
        let copies =
            self.config.augmentation.as_ref().map_or(0, |augmentation| augmentation.copies);
        images.saturating_mul(1 + copies)
    }

    /// Whether the settings go with so many images, copies included: what can be told before any has been
    /// seen. How many vectors a pooled Gaussian has depends on their size, too.
    pub(super) fn check_count(&self, images: usize) -> Result<()> {
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

    /// Runs all images, with the copies that augmentation makes of them, through the network and gives
    /// each batch of embeddings to `work`, with the number of images so far and of how many. The first
    /// image decides the size, if nothing else has.
    pub(super) fn embed_all<I>(
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
    pub(super) fn score(
        &self,
        model: &GaussianModel,
        embedding: EmbeddingPart,
        size: [usize; 2],
    ) -> Result<Vec<ScoredMap>> {
        let (reach, region) = (reach(self.config.neighborhood)?, self.region.as_ref());
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
    pub(super) fn statistics(
        &self,
        dimension: usize,
        grid: [usize; 2],
    ) -> Result<GaussianStatistics> {
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
