//! The fitted detector and what it says of an image.

use burn::tensor::Tensor;

use super::input::{Batches, ImageInput, Item, Prepared, PreparedImage, exact_count, stack};
use super::partial::{PartialFit, factorising};
use super::{FitProgress, Padim, PadimConfig};
use crate::decision::Decision;
use crate::detector::Registration;
use crate::embedding::Projection;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::gaussian::{GaussianConfig, GaussianModel, GaussianStatistics, Storage, check_keep};
use crate::host::{is_host, truth};
use crate::preprocess::{Alignment, DecodeLimits, ImageGeometry, InputRegion, Preprocessor};
use crate::scoring::{AnomalyMap, AnomalyScorer, ScoreNormalization, ScoredMap, ScoringConfig};

/// What a detector says of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The image's score: a Mahalanobis distance, not squared. Larger is stranger.
    pub image_score: f32,
    /// The same after the detector's normalization ([`Detector::normalization`]); without one, equal to
    /// `image_score`.
    pub normalized_score: f32,
    /// How likely a good image is to score so high ([`Calibration::p_value`](crate::Calibration::p_value)),
    /// in `(0, 1]`; `None` unless the detector has been calibrated.
    pub p_value: Option<f64>,
    /// Whether the score reaches the detector's threshold; `None` if it has none.
    pub is_defective: Option<bool>,
    /// A score for every pixel of the network's input, that is of the image after a registration, resize
    /// and crop. Of an image in tiles, all of it at the network's resolution.
    pub anomaly_map: AnomalyMap,
    /// How the map relates to the original image, or to the registered one.
    pub geometry: ImageGeometry,
    /// How a registration has moved the image before all else; `None` without one, and for one that does
    /// not tell ([`Registration::new`]).
    pub alignment: Option<Alignment>,
}

impl Prediction {
    /// The anomaly map in the original image's size, resize, crop and registration undone. Pixels that
    /// the crop had cut away were never looked at and are 0. After a registration that does not tell how
    /// it moves images ([`Registration::new`]), it is that of the registered image.
    ///
    /// # Errors
    ///
    /// Those of [`AnomalyMap::new`], which a map from a detector does not meet.
    pub fn map_in_original(&self) -> Result<AnomalyMap> {
        let map = self.anomaly_map.values();
        let values = match &self.alignment {
            Some(alignment) => alignment.map_to_original(map, &self.geometry),
            None => self.geometry.map_to_original(map, 0.0),
        };
        AnomalyMap::new(self.geometry.original_size(), values)
    }

    /// The anomaly map of the image as it came, resized and cropped but not registered: what a map
    /// without a registration is laid over. Without a registration, it is the anomaly map itself.
    ///
    /// # Errors
    ///
    /// Those of [`AnomalyMap::new`], which a map from a detector does not meet.
    pub fn map_in_input(&self) -> Result<AnomalyMap> {
        let map = &self.anomaly_map;
        match &self.alignment {
            Some(alignment) => {
                AnomalyMap::new(map.size(), alignment.map_to_input(map.values(), &self.geometry))
            }
            None => Ok(map.clone()),
        }
    }
}

/// PaDiM after it has seen good images: scores new ones.
///
/// It is immutable and can be used from many threads at once. A score depends on nothing but the
/// image and what is saved with the detector.
#[derive(Debug, Clone)]
pub struct Detector {
    pub(crate) padim: Padim,
    pub(crate) input_size: [usize; 2],
    pub(crate) model: GaussianModel,
    /// What is known of the images it was fitted with, if it was to be kept.
    pub(crate) statistics: Option<GaussianStatistics>,
    pub(crate) decision: Option<Decision>,
}

impl Detector {
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
    pub fn fingerprint(&self) -> Fingerprint {
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

    /// The same detector with its registration, after it has been loaded from a file, which holds only the
    /// name of one that is code.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for one of another name than it was fitted with.
    pub fn with_registration(mut self, registration: Registration) -> Result<Self> {
        let old = self.padim.registration.as_ref();
        self.padim.registration = Some(Registration::replaced(old, registration)?);
        Ok(self)
    }

    /// The same detector for files that decode to images of other sizes. That is not saved.
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.padim = self.padim.with_decode_limits(limits);
        self
    }

    /// How image scores are normalized: as [`with_normalization`](Self::with_normalization) or the settings
    /// say; if they say nothing, around the threshold of a calibration
    /// ([`Decision::normalization`]), whatever that is at the moment.
    pub fn normalization(&self) -> ScoreNormalization {
        match self.padim.config.scoring.normalization {
            ScoreNormalization::None => {
                let around = self.decision.as_ref().and_then(Decision::normalization);
                around.unwrap_or(ScoreNormalization::None)
            }
            own => own,
        }
    }

    /// The same detector with another normalization of image scores, which is saved with it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the normalization divides by zero.
    pub fn with_normalization(mut self, normalization: ScoreNormalization) -> Result<Self> {
        self.normalize_by(normalization)?;
        Ok(self)
    }

    /// On an error the detector stays as it was.
    pub(super) fn normalize_by(&mut self, normalization: ScoreNormalization) -> Result<()> {
        let scoring = ScoringConfig { normalization, ..self.padim.config.scoring.clone() };
        self.padim.scorer = AnomalyScorer::new(scoring.clone())?;
        self.padim.config.scoring = scoring;
        Ok(())
    }

    /// After a change of all scores: thresholds, and a normalization around one, were made of scores that
    /// there are no more.
    fn forget_scores(&mut self) -> Result<()> {
        self.decision = None;
        match self.padim.config.scoring.normalization {
            ScoreNormalization::AroundThreshold { .. } => {
                self.normalize_by(ScoreNormalization::None)
            }
            _ => Ok(()),
        }
    }

    /// The same detector with another [`neighbourhood`](PadimConfig::neighbourhood), for which nothing
    /// needs to be fitted again. It changes scores, so the thresholds go, and with them a normalization
    /// around one ([`ScoreNormalization::AroundThreshold`]).
    ///
    /// # Errors
    ///
    /// As [`PadimConfig::validate`].
    pub fn with_neighbourhood(mut self, neighbourhood: usize) -> Result<Self> {
        self.padim.config.neighbourhood = neighbourhood;
        self.padim.config.validate()?;
        self.forget_scores()?;
        Ok(self)
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
    /// ([`PartialFit::finish_extendable`](crate::PartialFit::finish_extendable)).
    pub fn statistics(&self) -> Option<&GaussianStatistics> {
        self.statistics.as_ref()
    }

    /// The same detector without what is known of its images: smaller, and it cannot learn on.
    pub fn without_statistics(self) -> Self {
        Self { statistics: None, ..self }
    }

    /// The same detector with its Gaussians in another form, which they keep if it learns on. Scores change,
    /// if only by rounding, so thresholds go as in [`with_neighbourhood`](Self::with_neighbourhood).
    ///
    /// # Errors
    ///
    /// As [`GaussianModel::convert`].
    pub fn with_storage(mut self, storage: Storage) -> Result<Self> {
        self.model = self.model.convert(storage)?;
        self.padim.config.gaussian.storage = storage;
        self.forget_scores()?;
        Ok(self)
    }

    /// Takes in more good images, after all before have been made to count `keep` times what they
    /// did (1 for no forgetting), and fits again. A bad image leaves the detector as it was. If the
    /// images can be taken in but not be factorised, they are known from then on, and the Gaussians are
    /// still the old ones: [`refit`](Self::refit) with other settings makes new ones.
    ///
    /// # Errors
    ///
    /// [`Error::NoState`] if nothing was kept of its images, [`Error::InvalidConfig`] for a `keep` that is not
    /// above 0 and at most 1; otherwise as [`Padim::fit`](crate::Padim::fit).
    pub fn extend<I>(
        &mut self,
        images: I,
        keep: f64,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let statistics = self.statistics.as_mut().ok_or(Error::NoState)?;
        check_keep(keep)?;
        let images = images.into_iter();
        let padim = self.padim.in_full_precision();
        if let Some(count) = exact_count(&images) {
            padim.check_count(statistics.image_count().saturating_add(padim.copied(count)))?;
        }
        let fresh = PartialFit::new(padim, Some(self.input_size), images, &mut progress)?;
        statistics.forget(keep)?;
        statistics.merge(fresh.statistics)?;
        let config = &self.padim.config.gaussian;
        self.model = statistics.model(config, factorising(&mut progress))?;
        self.forget_scores()
    }

    /// Fits again with other settings of the Gaussians (epsilon, shrinkage, storage, ...), without the
    /// images. On an error the detector stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::NoState`] if nothing was kept of its images, [`Error::InvalidConfig`] for settings that
    /// cannot be, [`Error::NotPositiveDefinite`] if epsilon is too small.
    pub fn refit(
        &mut self,
        config: GaussianConfig,
        mut progress: impl FnMut(FitProgress),
    ) -> Result<()> {
        let statistics = self.statistics.as_ref().ok_or(Error::NoState)?;
        self.model = statistics.model(&config, factorising(&mut progress))?;
        self.padim.config.gaussian = config;
        self.forget_scores()
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
    /// # use padim::*;
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let image = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(image), |_| ())?;
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
        let decision = self.decision.as_ref();
        let calibration = decision.and_then(|decision| decision.calibration.as_ref());
        Prediction {
            image_score,
            normalized_score,
            p_value: calibration.map(|calibration| calibration.p_value(image_score)),
            is_defective: decision.map(|decision| image_score >= decision.image_threshold),
            anomaly_map: map,
            geometry,
            alignment,
        }
    }
}
