//! PaDiM after it has seen images.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::batches::Batches;
use super::config::PadimConfig;
use super::padim::Padim;
#[cfg(doc)]
use super::partial_fit::PartialFit;
use super::prediction::Prediction;
use super::prepared::{Item, Prepared, PreparedImage, stack};
use super::registration::Registration;
use crate::decision::Thresholds;
use crate::embedding::Projection;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::gaussian::{GaussianModel, GaussianStatistics};
use crate::host::{is_host, truth};
use crate::preprocess::{Alignment, ImageGeometry, ImageInput, InputRegion, Preprocessor};
use crate::scoring::{ScoreNormalization, ScoredMap};

/// PaDiM after it has seen good images: scores new ones.
///
/// It is immutable and can be used from many threads at once. A score depends on nothing but the
/// image and what is saved with the detector.
#[derive(Debug, Clone)]
pub struct Detector {
    pub(crate) padim: Padim,
    pub(crate) input_size: [usize; 2],
    pub(crate) model: Arc<GaussianModel>,
    /// What is known of the images it was fitted with, if it was to be kept.
    pub(crate) statistics: Option<Arc<GaussianStatistics>>,
    pub(crate) thresholds: Option<Thresholds>,
    /// What the user has noted.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Detector {
    /// A detector that has neither thresholds nor statistics.
    pub(super) fn new(padim: Padim, input_size: [usize; 2], model: GaussianModel) -> Self {
        let model = Arc::new(model);
        Self {
            padim,
            input_size,
            model,
            statistics: None,
            thresholds: None,
            metadata: BTreeMap::new(),
        }
    }

    /// The settings with which it was fitted.
    pub fn config(&self) -> &PadimConfig {
        &self.padim.config
    }

    /// The fitted Gaussians.
    pub fn model(&self) -> &GaussianModel {
        &self.model
    }

    /// The channels that make up an embedding.
    pub fn channel_indices(&self) -> &[usize] {
        self.padim.embedder.indices()
    }

    /// The fingerprint of the backbone's weights.
    pub fn backbone_fingerprint(&self) -> Fingerprint {
        self.padim.backbone.fingerprint()
    }

    /// Resizes, crops and normalises images as this detector does.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.padim.preprocessor
    }

    /// The network's input size `[height, width]` in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        self.input_size
    }

    /// What brings images to one pose before anything else, if anything does.
    pub fn registration(&self) -> Option<&Registration> {
        self.padim.registration.as_ref()
    }

    /// How image scores are normalized: as [`set_normalization`](Self::set_normalization) or the settings
    /// say; if they say nothing, around the threshold of a calibration ([`Thresholds::normalization`]).
    pub fn normalization(&self) -> ScoreNormalization {
        match self.padim.config.scoring.normalization {
            ScoreNormalization::None => {
                let around = self.thresholds.as_ref().and_then(Thresholds::normalization);
                around.unwrap_or(ScoreNormalization::None)
            }
            own => own,
        }
    }

    /// The thresholds, if set.
    pub fn thresholds(&self) -> Option<&Thresholds> {
        self.thresholds.as_ref()
    }

    /// Notes of the user, such as the product, the date and the camera. Saved with the detector; no part of
    /// a score.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Changes the notes of the user.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }

    /// The part of the network's input that is looked at; `None` for all of it.
    pub fn region(&self) -> Option<&InputRegion> {
        self.padim.region.as_ref()
    }

    /// The projection of the selected channels, if there is one.
    pub fn projection(&self) -> Option<&Projection> {
        self.padim.embedder.projection()
    }

    /// What is known of the images it was fitted with, if that was kept
    /// ([`PartialFit::finish_extendable`]).
    pub fn statistics(&self) -> Option<&GaussianStatistics> {
        self.statistics.as_deref()
    }

    /// Scores one image.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the image: [`Error::Io`], [`Error::Decode`],
    /// [`Error::UnusableImage`], [`Error::ShapeMismatch`] or [`Error::NotFinite`]; and
    /// [`Error::RegistrationMissing`] for a detector that was loaded without its registration.
    pub fn predict(&self, image: impl Into<ImageInput>) -> Result<Prediction> {
        match self.predict_iter([image]).next() {
            Some(prediction) => prediction,
            None => Err(Error::TooFewImages { count: 0 }),
        }
    }

    /// Scores images, in their order.
    ///
    /// # Errors
    ///
    /// That of the first image that cannot be scored.
    pub fn predict_batch<I>(&self, images: I) -> Result<Vec<Prediction>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.predict_iter(images).collect()
    }

    /// Scores images as they are asked for, in batches of the configured size and in their order.
    /// The next batch is decoded while one is scored. An image that cannot be scored gives its error
    /// and does not stop the others.
    pub fn predict_iter<I>(&self, images: I) -> impl Iterator<Item = Result<Prediction>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        let mut batches = Batches::new(images, self.padim.steps(), self.padim.config.batch_size);
        std::iter::from_fn(move || batches.advance(|batch| self.predict_items(batch))).flatten()
    }

    /// The first half of a prediction, without the network: decodes, resizes, crops and normalises an
    /// image. Other threads may do it while one runs [`predict_prepared`](Self::predict_prepared), as
    /// [`line::Line`](crate::line::Line) does.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the image: [`Error::Io`], [`Error::Decode`] or
    /// [`Error::UnusableImage`].
    pub fn prepare(&self, image: impl Into<ImageInput>) -> Result<PreparedImage> {
        let input = image.into();
        let name = input.name().unwrap_or_else(|| "given".to_owned());
        let image = PreparedImage::new(input, &name, self.padim.steps())?;
        image.prepared.require_size(self.input_size, &name)?;
        Ok(image)
    }

    /// The second half: scores images that this detector has prepared, all as one batch and in their
    /// order. The results are those of [`predict`](Self::predict), bit for bit.
    ///
    /// # Errors
    ///
    /// Each image has its own: [`Error::NotFinite`], or [`Error::UnusableImage`] if it was prepared by a
    /// detector with another preprocessing, registration or input size.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let image = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(image))?;
    /// let prepared = detector.prepare(image(7))?;
    /// let prediction = detector.predict_prepared(vec![prepared]).remove(0)?;
    /// assert_eq!(prediction.map_in_original()?.size(), [60, 80]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn predict_prepared(&self, images: Vec<PreparedImage>) -> Vec<Result<Prediction>> {
        let item = |(number, image): (usize, PreparedImage)| {
            let name = format!("number {number}");
            Item { prepared: image.prepared_by(self.padim.steps(), &name), name }
        };
        self.predict_items((0..).zip(images).map(item).collect::<Vec<_>>())
    }

    /// Scores network input that is ready: registered, too.
    ///
    /// # Shapes
    ///
    /// `images`: `[batch, 3, height, width]`, normalised RGB of the detector's
    /// [`input_size`](Self::input_size).
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for values that are not
    /// numbers, [`Error::RegistrationMissing`] as in [`predict`](Self::predict).
    pub fn predict_tensor(&self, images: Tensor<4>) -> Result<Vec<Prediction>> {
        self.registration().map_or(Ok(()), Registration::require)?;
        let [batch, channels, height, width] = images.dims();
        if [channels, height, width] != [3, self.input_size[0], self.input_size[1]] || batch == 0 {
            let expected = format!("[batch, 3, {}, {}]", self.input_size[0], self.input_size[1]);
            return Err(Error::shape("images", expected, images.dims()));
        }
        // A device's activations can hide what is no number. It answers after it has scored the images:
        // to wait for it before would keep it waiting.
        let finite = (!is_host(&images.device())).then(|| images.clone().is_finite().all());
        let geometry = ImageGeometry::identity([height, width]);
        let scored = self.score(images.to_device(&self.padim.backbone.device()));
        if !finite.map_or(Ok(true), truth)? {
            return Err(Error::NotFinite { what: "the network's input".into() });
        }
        Ok(scored?.into_iter().map(|scored| self.prediction(scored, geometry, None)).collect())
    }

    /// The predictions of a batch, one an item.
    fn predict_items(&self, batch: Vec<Item>) -> Vec<Result<Prediction>> {
        let mut results: Vec<Option<Result<Prediction>>> = Vec::with_capacity(batch.len());
        let mut usable = Vec::with_capacity(batch.len());
        let mut names = Vec::with_capacity(batch.len());
        for Item { name, prepared } in batch {
            let checked = prepared.and_then(|image| {
                image.require_size(self.input_size, &name)?;
                Ok(image)
            });
            match checked {
                Ok(image) => {
                    usable.push(image);
                    names.push(name);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let named = |(prediction, name): (Result<Prediction>, String)| match prediction {
            Err(Error::NotFinite { what }) => {
                Err(Error::NotFinite { what: format!("{what} of the image {name}") })
            }
            other => other,
        };
        let mut predictions = self.predict_usable(usable).into_iter().zip(names).map(named);
        let filled = results.into_iter().map(|result| result.or_else(|| predictions.next()));
        filled.flatten().collect()
    }

    fn predict_usable(&self, images: Vec<Prepared>) -> Vec<Result<Prediction>> {
        if images.is_empty() {
            return Vec::new();
        }
        let origins: Vec<(ImageGeometry, Option<Alignment>)> =
            images.iter().map(|image| (image.geometry(), image.alignment())).collect();
        let tensor = stack(images, self.input_size, &self.padim.backbone.device());
        let count = origins.len();
        match self.score(tensor.clone()) {
            Ok(scored) => scored
                .into_iter()
                .zip(origins)
                .map(|(scored, (geometry, moved))| Ok(self.prediction(scored, geometry, moved)))
                .collect(),
            // One bad image must not take the others of its batch with it.
            Err(_) if count > 1 => (0..count)
                .zip(origins)
                .map(|(i, (geometry, moved))| {
                    let scored = self.score(tensor.clone().narrow(0, i, 1))?;
                    match scored.into_iter().next() {
                        Some(scored) => Ok(self.prediction(scored, geometry, moved)),
                        None => Err(Error::shape("scores", "one map", "none")),
                    }
                })
                .collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn score(&self, images: Tensor<4>) -> Result<Vec<ScoredMap>> {
        let mut scored = Vec::with_capacity(images.dims()[0]);
        for images in self.padim.extractor.batches(images) {
            let embedding = self.padim.extractor.embed(images)?;
            scored.extend(self.padim.score(&self.model, embedding.all(), self.input_size)?);
        }
        Ok(scored)
    }

    pub(super) fn prediction(
        &self,
        scored: ScoredMap,
        geometry: ImageGeometry,
        alignment: Option<Alignment>,
    ) -> Prediction {
        let ScoredMap { map, image_score } = scored;
        let normalized_score = self.normalization().apply(image_score);
        let thresholds = self.thresholds.as_ref();
        let calibration = thresholds.and_then(|thresholds| thresholds.calibration.as_ref());
        Prediction {
            image_score,
            normalized_score,
            p_value: calibration.map(|calibration| calibration.p_value(image_score)),
            is_defective: thresholds.map(|thresholds| image_score >= thresholds.image),
            anomaly_map: map,
            geometry,
            alignment,
        }
    }
}
