//! The whole method behind two types: [`Padim`] before the fit, [`Detector`] after it.

mod config;
mod fitted;
mod input;

pub use config::PadimConfig;
pub use fitted::{Detector, Prediction};
pub use input::ImageInput;

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::{
    AnomalyScorer, Backbone, Error, GaussianEstimator, PatchEmbedder, Preprocessor, Result,
};
use input::{Batches, Item, stack};

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
    /// Images go through the network; counted in images.
    Embedding,
    /// Covariances are factorised; counted in positions of the grid.
    Factorising,
}

/// PaDiM before it has seen images: settings and a backbone.
///
/// Fitting gives another type, a [`Detector`], so predicting before fitting does not compile.
///
/// ```
/// use burn::tensor::Device;
/// use image::RgbImage;
/// use padim::{Padim, PadimConfig, PreprocessConfig, ResNet18, Resize};
///
/// let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
/// let config = PadimConfig { preprocess: small, ..Default::default() };
/// let padim = Padim::new(config, ResNet18::untrained(0, &Device::flex())?)?;
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
    config: PadimConfig,
    backbone: Arc<dyn Backbone>,
    preprocessor: Preprocessor,
    embedder: PatchEmbedder,
    scorer: AnomalyScorer,
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
        Ok(Self {
            preprocessor: Preprocessor::new(config.preprocess.clone(), backbone.normalization())?,
            embedder: PatchEmbedder::new(&channels, &config.channels)?,
            scorer: AnomalyScorer::new(config.scoring.clone())?,
            config,
            backbone,
        })
    }

    /// The settings.
    pub fn config(&self) -> &PadimConfig {
        &self.config
    }

    /// Learns what good images look like, in one pass. Files are decoded while the network works,
    /// and memory does not grow with the number of images.
    ///
    /// `progress` is called after every batch of images and every few positions.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewImages`] for fewer than two images; the error of the first image that cannot be
    /// used, which names it; [`Error::NotPositiveDefinite`] if epsilon is too small.
    pub fn fit<I>(&self, images: I, mut progress: impl FnMut(FitProgress)) -> Result<Detector>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        let total = match images.size_hint() {
            (lower, Some(upper)) if lower == upper => Some(upper),
            _ => None,
        };
        let mut state = None;
        let mut batches = Batches::new(images, &self.preprocessor, self.config.batch_size);
        while let Some(done) = batches.advance(|batch| self.learn(&mut state, batch)) {
            progress(FitProgress { stage: FitStage::Embedding, done: done?, total });
        }
        let Some((input_size, estimator)) = state else {
            return Err(Error::TooFewImages { count: 0 });
        };
        let model = estimator.finish(|done, total| {
            progress(FitProgress { stage: FitStage::Factorising, done, total: Some(total) });
        })?;
        Ok(Detector {
            config: self.config.clone(),
            backbone: Arc::clone(&self.backbone),
            preprocessor: self.preprocessor.clone(),
            embedder: self.embedder.clone(),
            model,
            scorer: self.scorer.clone(),
            input_size,
        })
    }

    /// Takes in a batch; the first one decides the sizes. Gives the number of images so far.
    fn learn(
        &self,
        state: &mut Option<([usize; 2], GaussianEstimator)>,
        batch: Vec<Item>,
    ) -> Result<usize> {
        let mut size = state.as_ref().map(|(size, _)| *size);
        let mut images = Vec::with_capacity(batch.len());
        let mut names = Vec::with_capacity(batch.len());
        for Item { name, prepared } in batch {
            let image = prepared?;
            image.require_size(*size.get_or_insert(image.geometry().input_size()), &name)?;
            images.push(image);
            names.push(name);
        }
        let Some(size) = size else { return Err(Error::TooFewImages { count: 0 }) };
        let tensor = stack(images, size, &self.backbone.device());
        let embedding = embed(self.backbone.as_ref(), &self.embedder, tensor)?;
        let (_, estimator) = match state {
            Some(state) => state,
            None => {
                let [_, dimension, height, width] = embedding.dims();
                let config = self.config.gaussian.clone();
                let estimator = GaussianEstimator::new(config, dimension, [height, width])?;
                state.insert((size, estimator))
            }
        };
        estimator.update(embedding).map_err(|error| match error {
            Error::NotFinite { .. } => {
                Error::NotFinite { what: format!("the embedding of one of {}", names.join(", ")) }
            }
            other => other,
        })?;
        Ok(estimator.image_count())
    }
}

/// Images `[batch, 3, height, width]` to embeddings, one an image even from a foreign backbone.
fn embed(
    backbone: &dyn Backbone,
    embedder: &PatchEmbedder,
    images: Tensor<4>,
) -> Result<Tensor<4>> {
    let batch = images.dims()[0];
    let embedding = embedder.embed(&backbone.forward(images)?)?;
    if embedding.dims()[0] == batch {
        return Ok(embedding);
    }
    Err(Error::shape("feature maps", format!("a batch of {batch}"), embedding.dims()))
}
