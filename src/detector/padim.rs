//! PaDiM before a fit.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::batches::{Batches, exact_count};
use super::config::PadimConfig;
use super::custom_score::CustomScore;
#[cfg(doc)]
use super::fitted::Detector;
use super::prepared::{Item, Steps, stack};
use super::registration::Registration;
use crate::backbone::Backbone;
use crate::embedding::{Embedding, EmbeddingPart, Extractor, PatchEmbedder, PatchVectors};
use crate::error::{Error, Result};
use crate::gaussian::{GaussianModel, GaussianStatistics, Positions, Precision, reach};
use crate::host::is_host;
use crate::preprocess::{
    DecodeLimits, ImageInput, InputRegion, InputReport, Preprocessor, RegionOfInterest,
};
use crate::scoring::{AnomalyMap, AnomalyScorer, ScoredMap};

/// PaDiM before a fit: settings and a backbone.
///
/// A fit gives another type, a [`Detector`], so a prediction before a fit does not compile.
///
/// ```
/// use burn::tensor::Device;
/// use image::RgbImage;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
/// use padim::preprocess::{PreprocessConfig, Resize};
///
/// let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
/// let config = PadimConfig::default().with_preprocess(small);
/// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &Device::flex())?)?;
///
/// let good = (0..4).map(|i| RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80])));
/// let detector = padim.fit(good)?;
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
    /// The backbone and the embedder together.
    pub(crate) extractor: Extractor,
    pub(crate) scorer: AnomalyScorer,
    pub(crate) region: Option<InputRegion>,
    pub(crate) registration: Option<Registration>,
    /// Replaces the image score of the settings, if there is one.
    pub(crate) custom_score: Option<CustomScore>,
    /// The precision of scores on a GPU.
    pub(crate) precision: Precision,
    /// Whether a fit has chosen the levels of deep images by its first images.
    pub(crate) levels_chosen: bool,
}

/// A function that notes the name and the report of an image.
pub(super) type Note<'a> = dyn FnMut(&str, &InputReport) -> Result<()> + 'a;

impl Padim {
    /// Checks the settings and selects the channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the invalid setting and the reason.
    pub fn new(config: PadimConfig, backbone: impl Backbone + 'static) -> Result<Self> {
        config.validate()?;
        let backbone: Arc<dyn Backbone> = Arc::new(backbone);
        let channels: Vec<usize> = backbone.layers().iter().map(|layer| layer.channels).collect();
        let embedder = PatchEmbedder::new(&channels, &config.channels)?;
        Self::assembled(config, backbone, embedder)
    }

    /// Adds the other stages to these.
    pub(crate) fn assembled(
        config: PadimConfig,
        backbone: Arc<dyn Backbone>,
        embedder: PatchEmbedder,
    ) -> Result<Self> {
        Ok(Self {
            preprocessor: Preprocessor::new(config.preprocess.clone(), backbone.normalization())?,
            extractor: Extractor::new(&backbone, &embedder),
            embedder,
            scorer: AnomalyScorer::new(config.scoring.clone())?,
            config,
            backbone,
            region: None,
            registration: None,
            custom_score: None,
            precision: Precision::F32,
            levels_chosen: false,
        })
    }

    /// Restricts fits and scores to a region of the images. Positions outside take no memory and get no
    /// score.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the crop removes the whole region.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, RegionOfInterest, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
    /// # let config = PadimConfig::default().with_preprocess(small);
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

    /// Adds a registration: images are aligned before all other steps. A region of interest then refers
    /// to the registered images.
    #[must_use]
    pub fn with_registration(self, registration: Registration) -> Self {
        Self { registration: Some(registration), ..self }
    }

    /// The registration of images, if there is one.
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// The preprocessor of images.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// The steps before the network.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps { registration: self.registration.as_ref(), preprocessor: &self.preprocessor }
    }

    pub(super) fn with_embedder(&self, embedder: PatchEmbedder) -> Self {
        let extractor = Extractor::new(&self.backbone, &embedder);
        Self { embedder, extractor, ..self.clone() }
    }

    /// Sets a custom image score, computed from the final anomaly map in the network's input size.
    /// Thresholds and p-values then refer to this score. It is code, so a detector with it cannot be
    /// saved; [`ImageScore`](crate::scoring::ImageScore) has scores that can be saved.
    #[must_use]
    pub fn with_custom_image_score(
        self,
        name: impl Into<String>,
        score: impl Fn(&AnomalyMap) -> f32 + Send + Sync + 'static,
    ) -> Self {
        Self { custom_score: Some(CustomScore::new(name, score)), ..self }
    }

    /// Sets the limits for the size of decoded image files. Fitted detectors inherit the limits.
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

    /// The selected channels and their projection.
    pub fn embedder(&self) -> &PatchEmbedder {
        &self.embedder
    }

    /// The number of images including their augmented copies.
    pub(super) fn copied(&self, images: usize) -> usize {
        let copies =
            self.config.augmentation.as_ref().map_or(0, |augmentation| augmentation.copies);
        images.saturating_mul(1 + copies)
    }

    /// Checks the settings for a number of images (with copies), before the first image is opened. For
    /// pooled Gaussians, the number of vectors also depends on the image size, which is still unknown.
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

    /// Embeds all images and their augmented copies, and calls `work` with each batch of embeddings,
    /// the number of images so far, and the total number if known. All images must have input size
    /// `size`; if `None`, the first image sets it. Before, `note` gets the name and the report of each
    /// image, without the copies.
    pub(super) fn embed_all<I>(
        &self,
        images: I,
        size: &mut Option<[usize; 2]>,
        note: &mut Note<'_>,
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
            None => self.embed_prepared(images, steps, total, size, note, work),
            Some(augmentation) => {
                let total = total.map(|total| self.copied(total));
                // Copies are made from the registered image, so that they cover its residual motion.
                let copies = augmentation.copies;
                let alpha = self.config.preprocess.alpha;
                let images = augmentation.registered(images, self.registration.clone(), alpha);
                let steps = Steps { registration: None, ..steps };
                let every = 1 + copies;
                let mut number = 0;
                let mut of_originals = |name: &str, report: &InputReport| {
                    number += 1;
                    if (number - 1) % every == 0 { note(name, report) } else { Ok(()) }
                };
                self.embed_prepared(images, steps, total, size, &mut of_originals, work)
            }
        }
    }

    fn embed_prepared<I>(
        &self,
        images: I,
        steps: Steps,
        total: Option<usize>,
        size: &mut Option<[usize; 2]>,
        note: &mut Note<'_>,
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
            let images = self.stack_batch(batch, size, note)?;
            self.extractor
                .batches(images)
                .try_for_each(|images| {
                    done += images.dims()[0];
                    work(self.extractor.embed(images)?, done, total)
                })
                .map_err(|error| match error {
                    // On a GPU, embeddings are checked later, for several batches together.
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

    /// Stacks a batch to network input `[batch, 3, height, width]`.
    fn stack_batch(
        &self,
        batch: Vec<Item>,
        size: &mut Option<[usize; 2]>,
        note: &mut Note<'_>,
    ) -> Result<Tensor<4>> {
        let mut images = Vec::with_capacity(batch.len());
        let mut expected = *size;
        for Item { name, prepared } in batch {
            let image = prepared?;
            note(&name, &image.report())?;
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

    /// Computes maps of `size` and scores from embeddings, on the device of the embeddings.
    pub(super) fn score(
        &self,
        model: &GaussianModel,
        embedding: EmbeddingPart,
        size: [usize; 2],
    ) -> Result<Vec<ScoredMap>> {
        let (reach, region) = (reach(self.config.neighborhood)?, self.region.as_ref());
        let mut scored = match embedding {
            EmbeddingPart::Tensor(tensor) => {
                let distances = model.distances_on_device(tensor, reach, self.precision)?;
                self.scorer.score_on_device(distances, size, region)
            }
            EmbeddingPart::Vectors(vectors) => {
                let ([batch, ..], [rows, columns]) = (vectors.shape(), model.grid());
                let distances = model.distances_of(&vectors, reach)?;
                self.scorer.score_host(&distances, [batch, rows, columns], size, region)
            }
        }?;
        if let Some(custom) = &self.custom_score {
            for ScoredMap { map, image_score } in &mut scored {
                *image_score = custom.of(map)?;
            }
        }
        Ok(scored)
    }

    /// Sets a registration again after loading.
    pub(super) fn replace_registration(&mut self, registration: Registration) -> Result<()> {
        let old = self.registration.as_ref();
        self.registration = Some(Registration::replaced(old, registration)?);
        Ok(())
    }

    /// Empty statistics for embeddings of these sizes.
    pub(super) fn statistics(
        &self,
        dimension: usize,
        grid: [usize; 2],
    ) -> Result<GaussianStatistics> {
        self.config.gaussian.check(dimension)?;
        Ok(GaussianStatistics::new(dimension, self.positions(grid)?))
    }

    /// The positions of a grid inside the region; they may share one pooled Gaussian.
    pub(crate) fn positions(&self, grid: [usize; 2]) -> Result<Positions> {
        let inside = self.region.as_ref().map(|region| region.positions(grid));
        Positions::of(grid, inside.as_deref(), self.config.gaussian.pooled)
    }
}
