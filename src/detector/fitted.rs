//! PaDiM after a fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::batches::Batches;
use super::config::PadimConfig;
use super::input_summary::InputSummary;
use super::memory::DetectorMemory;
use super::padim::Padim;
#[cfg(doc)]
use super::partial_fit::PartialFit;
use super::prediction::Prediction;
use super::prepared::{Contents, Item, Origin, Prepared, PreparedImage, stack};
use super::registration::Registration;
use crate::decision::Thresholds;
use crate::embedding::Projection;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::gaussian::{GaussianModel, GaussianStatistics};
use crate::host::{is_host, truth};
use crate::preprocess::{ImageGeometry, ImageInput, InputRegion, Preprocessor};
use crate::scoring::{ScoreNormalization, ScoredMap};

/// PaDiM after a fit: scores new images.
///
/// Predictions do not change it, so many threads can use it at once. A score depends only on the image
/// and on the data that are saved with the detector.
#[derive(Debug, Clone)]
pub struct Detector {
    pub(crate) padim: Padim,
    pub(crate) input_size: [usize; 2],
    pub(crate) model: GaussianModel,
    /// The statistics of the training images, if kept.
    pub(crate) statistics: Option<Arc<GaussianStatistics>>,
    pub(crate) thresholds: Option<Thresholds>,
    /// The highest score of a pixel in good images.
    pub(crate) good_peak: Option<f32>,
    /// The user's notes.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Not saved.
    pub(crate) input_summary: Option<InputSummary>,
}

impl Detector {
    /// A detector without thresholds and statistics.
    pub(crate) fn new(padim: Padim, input_size: [usize; 2], model: GaussianModel) -> Self {
        Self {
            // From now on, the levels are given.
            padim: Padim { levels_chosen: false, ..padim },
            input_size,
            model,
            statistics: None,
            thresholds: None,
            good_peak: None,
            metadata: BTreeMap::new(),
            input_summary: None,
        }
    }

    /// The settings.
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

    /// The preprocessor of this detector: resizes, crops and normalizes images.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.padim.preprocessor
    }

    /// The network's input size `[height, width]` in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        self.input_size
    }

    /// The registration of images, if there is one.
    pub fn registration(&self) -> Option<&Registration> {
        self.padim.registration.as_ref()
    }

    /// The normalization of image scores: that of [`set_normalization`](Self::set_normalization) or of
    /// the settings. If it is `None`, that of a calibration ([`Thresholds::normalization`]), if there
    /// is one.
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

    /// How high the maps of good images go: the highest value in the maps of the last images of the fit (8
    /// at most), each scored as if it had not been in the fit, without a
    /// [`neighborhood`](PadimConfig::neighborhood). Pictures use it, so that a good part does not glow; it
    /// is no threshold. `None` if the fit had fewer than three images, if it was loaded before it was
    /// finished, after [`refit`](Self::refit), and for Gaussians of other programs.
    pub fn good_peak(&self) -> Option<f32> {
        self.good_peak
    }

    /// The user's notes, such as the product, the date and the camera. They are saved with the detector
    /// and do not affect scores.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The user's notes, to change them.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }

    /// What the fit has noticed about its images; `None` for a detector that was loaded or built from other
    /// Gaussians. After an extension of a loaded detector, it is about the new images.
    pub fn input_summary(&self) -> Option<&InputSummary> {
        self.input_summary.as_ref()
    }

    /// The part of the network's input that is scored; `None` for all of it.
    pub fn region(&self) -> Option<&InputRegion> {
        self.padim.region.as_ref()
    }

    /// The projection of the selected channels, if there is one.
    pub fn projection(&self) -> Option<&Projection> {
        self.padim.embedder.projection()
    }

    /// The statistics of the training images, if they were kept
    /// ([`PartialFit::finish_extendable`]).
    pub fn statistics(&self) -> Option<&GaussianStatistics> {
        self.statistics.as_deref()
    }

    /// Scores one image.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Decode`], [`Error::ImageTooLarge`], [`Error::UnusableImage`],
    /// [`Error::ShapeMismatch`] or [`Error::NotFinite`] for an image that cannot be used;
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
    /// The error of the first image that cannot be scored.
    pub fn predict_batch<I>(&self, images: I) -> Result<Vec<Prediction>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.predict_iter(images).collect()
    }

    /// Scores images lazily, in their order and in batches of [`PadimConfig::batch_size`]. The next
    /// batch is decoded while one is scored. An image that cannot be scored gives its error; the
    /// iterator goes on with the others.
    pub fn predict_iter<I>(&self, images: I) -> impl Iterator<Item = Result<Prediction>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let images = images.into_iter();
        let mut batches = Batches::new(images, self.padim.steps(), self.padim.config.batch_size);
        std::iter::from_fn(move || batches.advance(|batch| self.predict_items(batch))).flatten()
    }

    /// The first half of a prediction, without the network: decodes, resizes, crops and normalizes an
    /// image. Other threads can do this while one thread runs
    /// [`predict_prepared`](Self::predict_prepared), as [`line::Line`](crate::line::Line) does.
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict).
    pub fn prepare(&self, image: impl Into<ImageInput>) -> Result<PreparedImage> {
        self.prepare_input(image.into(), false)
    }

    pub(super) fn prepare_input(
        &self,
        input: ImageInput,
        keep_image: bool,
    ) -> Result<PreparedImage> {
        let name = input.name().unwrap_or_else(|| "given".to_owned());
        let image = PreparedImage::new(input, &name, self.padim.steps(), keep_image)?;
        if let Contents::Whole { prepared, .. } = &image.contents {
            prepared.require_size(self.input_size, &name)?;
        }
        Ok(image)
    }

    /// The second half of a prediction: scores images that this detector has prepared, in one batch and
    /// in their order. The results are exactly those of [`predict`](Self::predict).
    ///
    /// # Errors
    ///
    /// Each image has its own result: [`Error::NotFinite`], or [`Error::UnusableImage`] if it was
    /// prepared by a detector with another preprocessing, registration or input size.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, burn, image};
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
    /// # let config = PadimConfig::default().with_preprocess(small);
    /// # let image = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(image))?;
    /// let prepared = detector.prepare(image(7))?;
    /// let prediction = detector.predict_prepared(vec![prepared]).remove(0)?;
    /// assert_eq!(prediction.map_in_original()?.size(), [60, 80]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn predict_prepared(&self, images: Vec<PreparedImage>) -> Vec<Result<Prediction>> {
        let preparation = self.padim.steps().preparation();
        let item = |(number, image): (usize, PreparedImage)| {
            let name = format!("number {number}");
            Item { prepared: image.prepared_by(&preparation, &name), name }
        };
        self.predict_items((0..).zip(images).map(item).collect::<Vec<_>>())
    }

    /// Scores network input, which is already registered and preprocessed.
    ///
    /// # Shapes
    ///
    /// `images`: `[batch, 3, height, width]`, normalized RGB of the detector's
    /// [`input_size`](Self::input_size).
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another shape, [`Error::NotFinite`] for NaN or infinite values,
    /// [`Error::RegistrationMissing`] as in [`predict`](Self::predict).
    pub fn predict_tensor(&self, images: Tensor<4>) -> Result<Vec<Prediction>> {
        self.registration().map_or(Ok(()), Registration::require)?;
        let [batch, channels, height, width] = images.dims();
        if [channels, height, width] != [3, self.input_size[0], self.input_size[1]] || batch == 0 {
            let expected = format!("[batch, 3, {}, {}]", self.input_size[0], self.input_size[1]);
            return Err(Error::shape("images", expected, images.dims()));
        }
        // A device's activation functions can hide NaN, so the input is checked. The result is read
        // after scoring, so that the device need not wait.
        let finite = (!is_host(&images.device())).then(|| images.clone().is_finite().all());
        let origin = Origin::of(ImageGeometry::identity([height, width]));
        let scored = self.score(images.to_device(&self.padim.backbone.device()));
        if !finite.map_or(Ok(true), truth)? {
            return Err(Error::NotFinite { what: "the network's input".into() });
        }
        Ok(scored?.into_iter().map(|scored| self.prediction(scored, origin)).collect())
    }

    /// Runs the network once on an empty image, alone and in a batch, so that the first real prediction
    /// is as fast as the others: weights are prepared, memory is reserved, and a device compiles its
    /// kernels.
    ///
    /// # Errors
    ///
    /// As [`predict_tensor`](Self::predict_tensor).
    pub fn warm_up(&self) -> Result<()> {
        let [height, width] = self.input_size;
        let device = self.padim.backbone.device();
        for batch in [1, self.padim.config.batch_size] {
            self.score(Tensor::zeros([batch, 3, height, width], &device))?;
        }
        Ok(())
    }

    /// The memory that the detector holds now.
    pub fn memory(&self) -> DetectorMemory {
        let backbone = self.padim.extractor.backbone().memory_held();
        DetectorMemory {
            gaussians: self.model.size_in_bytes(),
            statistics: self.statistics.as_ref().map_or(0, |statistics| statistics.size_in_bytes()),
            backbone_own: backbone.own,
            backbone_shared: backbone.shared,
        }
    }

    /// The predictions of a batch, one per item.
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
        let origins: Vec<Origin> = images.iter().map(Prepared::origin).collect();
        let tensor = stack(images, self.input_size, &self.padim.backbone.device());
        let count = origins.len();
        match self.score(tensor.clone()) {
            Ok(scored) => scored
                .into_iter()
                .zip(origins)
                .map(|(scored, origin)| Ok(self.prediction(scored, origin)))
                .collect(),
            // One bad image must not fail the others of its batch: score each image alone.
            Err(_) if count > 1 => (0..count)
                .zip(origins)
                .map(|(i, origin)| {
                    let scored = self.score(tensor.clone().narrow(0, i, 1))?;
                    match scored.into_iter().next() {
                        Some(scored) => Ok(self.prediction(scored, origin)),
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

    pub(super) fn prediction(&self, scored: ScoredMap, origin: Origin) -> Prediction {
        let Origin { geometry, alignment, report } = origin;
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
            input: report,
        }
    }
}
