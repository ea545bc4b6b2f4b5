//! Scores images in tiles.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::image::{TiledImage, parts};
use super::padim::TiledPadim;
use crate::decision::{AnomalyRegion, Calibration, CalibrationConfig, PixelHistogram, Thresholds};
use crate::detector::batches::{Batches, counted};
use crate::detector::config::PadimConfig;
use crate::detector::explain::Explanation;
use crate::detector::fitted::Detector;
use crate::detector::input_summary::InputSummary;
use crate::detector::memory::DetectorMemory;
#[cfg(doc)]
use crate::detector::padim::Padim;
use crate::detector::prediction::Prediction;
use crate::detector::prepared::Origin;
use crate::detector::progress::{FitProgress, FitStage, report, silent};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::gaussian::GaussianModel;
use crate::preprocess::{DecodeLimits, ImageInput, Preprocessor};
use crate::scoring::{ImageScore, ScoreNormalization, ScoredMap};
use crate::tiling::{MapBlender, TileModels, TilingConfig};

/// PaDiM for images in tiles, after a fit: scores new images.
///
/// Predictions do not change it, so many threads can use it at once. A prediction holds in memory the
/// image, its map, a batch of tiles, and the next image.
#[derive(Debug, Clone)]
pub struct TiledDetector {
    pub(crate) tiling: TilingConfig,
    /// The common size of all images, with a model per position.
    pub(crate) image_size: Option<[usize; 2]>,
    /// All settings, the thresholds, and the model of the first tile or of all tiles.
    pub(crate) first: Detector,
    /// The models of the other tiles, with a model per position.
    pub(crate) others: Arc<[GaussianModel]>,
}

impl TiledDetector {
    /// Builds a detector from its parts and checks that they fit.
    pub(crate) fn new(
        tiling: TilingConfig,
        image_size: Option<[usize; 2]>,
        first: Detector,
        others: Vec<GaussianModel>,
    ) -> Result<Self> {
        let tiled = TiledPadim::of(first.padim.clone(), tiling)?;
        if tiled.input_size()? != first.input_size {
            let expected = format!("{:?} for a tile", first.input_size);
            return Err(Error::shape("input size", expected, tiled.input_size()?));
        }
        let (image_size, expected) = match tiling.models {
            TileModels::Shared => (None, 1),
            TileModels::PerPosition => {
                let size = image_size.ok_or(Error::TooFewImages { count: 0 })?;
                (Some(size), tiling.layout(size)?.count())
            }
        };
        if others.len() + 1 != expected {
            return Err(Error::shape("models of tiles", expected.to_string(), others.len() + 1));
        }
        Ok(Self { tiling, image_size, first, others: others.into() })
    }

    /// The settings for a tile.
    pub fn config(&self) -> &PadimConfig {
        self.first.config()
    }

    /// The tiling of images.
    pub fn tiling(&self) -> &TilingConfig {
        &self.tiling
    }

    /// The preprocessor of tiles: resizes and normalizes them.
    pub fn preprocessor(&self) -> &Preprocessor {
        self.first.preprocessor()
    }

    /// As [`Detector::memory`].
    pub fn memory(&self) -> DetectorMemory {
        let others: usize = self.others.iter().map(GaussianModel::size_in_bytes).sum();
        let first = self.first.memory();
        DetectorMemory { gaussians: first.gaussians + others, ..first }
    }

    /// As [`Detector::warm_up`].
    ///
    /// # Errors
    ///
    /// As [`Detector::warm_up`].
    pub fn warm_up(&self) -> Result<()> {
        self.first.warm_up()
    }

    /// The size `[height, width]` that images must have; `None` for any size.
    pub fn image_size(&self) -> Option<[usize; 2]> {
        self.image_size
    }

    /// The Gaussians: one shared model, or one model per tile position, row by row.
    pub fn models(&self) -> impl Iterator<Item = &GaussianModel> {
        std::iter::once(&self.first.model).chain(&*self.others)
    }

    /// The fingerprint of the backbone's weights.
    pub fn backbone_fingerprint(&self) -> Fingerprint {
        self.first.backbone_fingerprint()
    }

    /// As [`Detector::set_decode_limits`].
    pub fn set_decode_limits(&mut self, limits: DecodeLimits) {
        self.first.set_decode_limits(limits);
    }

    /// As [`set_decode_limits`](Self::set_decode_limits).
    #[must_use]
    pub fn with_decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.set_decode_limits(limits);
        self
    }

    /// As [`Detector::good_peak`], of tiles.
    pub fn good_peak(&self) -> Option<f32> {
        self.first.good_peak()
    }

    /// As [`Detector::input_summary`], of whole images.
    pub fn input_summary(&self) -> Option<&InputSummary> {
        self.first.input_summary()
    }

    /// As [`Detector::set_normalization`].
    ///
    /// # Errors
    ///
    /// As [`Detector::set_normalization`].
    pub fn set_normalization(&mut self, normalization: ScoreNormalization) -> Result<()> {
        self.first.set_normalization(normalization)
    }

    /// As [`Detector::set_normalization`].
    ///
    /// # Errors
    ///
    /// As [`Detector::set_normalization`].
    pub fn with_normalization(mut self, normalization: ScoreNormalization) -> Result<Self> {
        self.set_normalization(normalization)?;
        Ok(self)
    }

    /// As [`Detector::normalization`].
    pub fn normalization(&self) -> ScoreNormalization {
        self.first.normalization()
    }

    /// The thresholds, if set.
    pub fn thresholds(&self) -> Option<&Thresholds> {
        self.first.thresholds()
    }

    /// As [`Detector::set_thresholds`].
    ///
    /// # Errors
    ///
    /// As [`Detector::set_thresholds`].
    pub fn set_thresholds(&mut self, thresholds: Option<Thresholds>) -> Result<()> {
        self.first.set_thresholds(thresholds)
    }

    /// As [`Detector::set_thresholds`].
    ///
    /// # Errors
    ///
    /// As [`Detector::set_thresholds`].
    pub fn with_thresholds(mut self, thresholds: Option<Thresholds>) -> Result<Self> {
        self.set_thresholds(thresholds)?;
        Ok(self)
    }

    /// As [`Detector::metadata`].
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.first.metadata()
    }

    /// As [`Detector::metadata_mut`].
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        self.first.metadata_mut()
    }

    /// Not available for tiles.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`].
    pub fn explain(&self, _image: impl Into<ImageInput>) -> Result<Explanation> {
        Err(Error::Unsupported {
            what: "an explanation",
            place: "for images in tiles",
            advice: "fit a `Detector` to one tile position, and explain that tile",
        })
    }

    /// Not available for tiles.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`].
    pub fn extend<I>(&mut self, _images: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        Err(Error::Unsupported {
            what: "an extension by more images",
            place: "for images in tiles",
            advice: "fit again with all images",
        })
    }

    /// As [`Detector::calibrate`]; each image counts once, regardless of its number of tiles. Pixel
    /// scores go into a histogram, so the pixel threshold can exceed the exact one by a factor of up to
    /// 1.0005.
    ///
    /// # Errors
    ///
    /// As [`Detector::calibrate`].
    pub fn calibrate<I>(&mut self, images: I, config: &CalibrationConfig) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.calibrate_with(images, config, silent)
    }

    /// As [`calibrate`](Self::calibrate), with progress as [`Padim::fit_with`].
    ///
    /// # Errors
    ///
    /// As [`calibrate`](Self::calibrate) and [`Padim::fit_with`].
    pub fn calibrate_with<I>(
        &mut self,
        images: I,
        config: &CalibrationConfig,
        mut progress: impl FnMut(FitProgress) -> ControlFlow<()>,
    ) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let (count, images) = counted(images);
        config.require_images(count)?;
        let total = Some(count);
        let (mut scores, mut pixels) = (Vec::new(), PixelHistogram::new());
        for prediction in self.predict_iter(images) {
            let prediction = prediction?;
            scores.push(prediction.image_score);
            pixels.add(prediction.anomaly_map.values());
            report(&mut progress, FitStage::Calibrating, scores.len(), total)?;
        }
        let calibration = Calibration::new(scores)?;
        let pixel_threshold = pixels.threshold(config.pixel_false_alarm_rate)?;
        self.first.decide_by(calibration, pixel_threshold, config)
    }

    /// As [`Detector::anomaly_regions`], in pixels of the whole original image. A region can span
    /// several tiles.
    ///
    /// # Errors
    ///
    /// As [`Detector::anomaly_regions`].
    pub fn anomaly_regions(&self, prediction: &Prediction) -> Result<Vec<AnomalyRegion>> {
        self.first.anomaly_regions(prediction)
    }

    /// Scores one image.
    ///
    /// The prediction's map has the resolution of the network's input, or that of the image if that is
    /// lower. The score is the maximum of the blended map; with [`ImageScore::MaxBeforeBlur`], it is
    /// the largest score of a tile.
    ///
    /// # Errors
    ///
    /// As [`Detector::predict`]; [`Error::UnusableImage`] also if the image is smaller than a tile or
    /// does not have the size [`image_size`](Self::image_size).
    pub fn predict(&self, image: impl Into<ImageInput>) -> Result<Prediction> {
        match self.predict_iter([image]).next() {
            Some(prediction) => prediction,
            None => Err(Error::TooFewImages { count: 0 }),
        }
    }

    /// Scores images lazily, in their order. The next image is decoded while one is scored. An image
    /// that cannot be scored gives its error; the iterator goes on with the others.
    pub fn predict_iter<I>(&self, images: I) -> impl Iterator<Item = Result<Prediction>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut images =
            Batches::decoded(images.into_iter(), self.first.preprocessor().decode_options());
        std::iter::from_fn(move || {
            images.advance(|batch| -> Vec<_> {
                let image = |item| self.predict_tiled(&TiledImage::new(item, &self.tiling)?);
                batch.into_iter().map(image).collect()
            })
        })
        .flatten()
    }

    pub(in crate::detector) fn predict_tiled(&self, image: &TiledImage) -> Result<Prediction> {
        self.image_size.map_or(Ok(()), |size| image.require_size(size))?;
        let report = image.report(&self.first.padim)?;
        let Detector { padim, input_size, .. } = &self.first;
        let mut blender = MapBlender::new(image.layout, *input_size);
        let mut highest = f32::NEG_INFINITY;
        let all = 0..image.layout.count();
        image.embed(padim, all, &mut Some(*input_size), |mut number, embedding| {
            for (model, part) in parts(embedding.shape()[0], self.tiling.models, number) {
                let model = match model {
                    None | Some(0) => &self.first.model,
                    Some(number) => &self.others[number - 1],
                };
                for scored in padim.score(model, embedding.part(part), *input_size)? {
                    highest = highest.max(scored.image_score);
                    blender.add(number, &scored.map);
                    number += 1;
                }
            }
            Ok(())
        })?;
        let (map, geometry) = blender.finish()?;
        let image_score = match padim.config.scoring.image_score {
            ImageScore::MaxBeforeBlur => highest,
            by_map => by_map.of(map.values().iter().copied()),
        };
        let origin = Origin { report, ..Origin::of(geometry) };
        Ok(self.first.prediction(ScoredMap { map, image_score }, origin))
    }
}
