//! Evaluating a detector on a test set: predictions, truth and metrics in one call.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dataset::Category;
use crate::detector::{Prediction, Predictor};
use crate::error::{Error, Result};
use crate::metrics::{
    DEFAULT_FPR_LIMIT, F1Max, PixelScores, aupro, image_auroc, image_f1_max, pixel_auroc,
};
use crate::preprocess::ImageInput;
use crate::scoring::AnomalyMap;

/// The metrics of a test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The category's name.
    pub category: String,
    /// How well the scores tell defective from good.
    pub metrics: Metrics,
    /// Of the detector's own threshold, if it has one.
    pub decisions: Option<Decisions>,
    /// Each test image, in the order of the data set.
    pub images: Vec<ImageReport>,
}

/// How well scores tell defective from good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metrics {
    /// AUROC of the image scores, in `[0, 1]`.
    pub image_auroc: f64,
    /// The largest F1 of the image scores, and its threshold.
    pub f1: F1Max,
    /// AUROC of all pixels; `None` without masks.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region overlap up to a false positive rate of 0.3; `None` without masks.
    pub aupro: Option<f64>,
}

impl Metrics {
    /// Compares predictions with the truth.
    ///
    /// # Shapes
    ///
    /// `defective` and `masks` have one item for each prediction; a mask has the size of the anomaly map.
    /// `region`: the pixels of each map that count; `None` for all.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another number of items or pixels; [`Error::UndefinedMetric`] if there are
    /// not both good and defective images.
    pub fn of(
        predictions: &[Prediction],
        defective: &[bool],
        masks: Option<&[Vec<bool>]>,
        region: Option<&[bool]>,
    ) -> Result<Self> {
        let scores: Vec<f32> = predictions.iter().map(|p| p.image_score).collect();
        let maps = || predictions.iter().map(|p| &p.anomaly_map);
        Self::of_scores(&scores, defective, maps().zip(masks.into_iter().flatten()), region)
    }

    fn of_scores<'a>(
        scores: &[f32],
        defective: &[bool],
        maps: impl Iterator<Item = (&'a AnomalyMap, &'a Vec<bool>)>,
        region: Option<&'a [bool]>,
    ) -> Result<Self> {
        let pixels: Vec<PixelScores<'_>> = maps
            .map(|(map, truth)| {
                let scores = PixelScores::new(map.values(), truth, map.size())?;
                region.map_or(Ok(scores), |region| scores.within(region))
            })
            .collect::<Result<_>>()?;
        let measured = |metric: &dyn Fn(&[PixelScores<'_>]) -> Result<f64>| -> Result<Option<f64>> {
            (!pixels.is_empty()).then(|| metric(&pixels)).transpose()
        };
        Ok(Self {
            image_auroc: image_auroc(scores, defective)?,
            f1: image_f1_max(scores, defective)?,
            pixel_auroc: measured(&|pixels| pixel_auroc(pixels))?,
            aupro: measured(&|pixels| aupro(pixels, DEFAULT_FPR_LIMIT))?,
        })
    }
}

/// The decisions of a detector with a threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decisions {
    /// Defective images that are called defective.
    pub detected: usize,
    /// Defective images that are called good.
    pub missed: usize,
    /// Good images that are called defective.
    pub false_alarms: usize,
    /// Good images that are called good.
    pub accepted: usize,
}

/// The result of a test image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageReport {
    /// The file.
    pub path: PathBuf,
    /// The kind of defect; `good` for a good image.
    pub defect: String,
    /// The image score.
    pub image_score: f32,
    /// The detector's decision, if it has a threshold.
    pub is_defective: Option<bool>,
}

/// Scores the test images of a category and compares the predictions with the truth. The maps of all images
/// are in memory meanwhile, if there are masks.
///
/// ```no_run
/// use padim::dataset::{Dataset, Mvtec};
/// use padim::evaluation::evaluate;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
///
/// let device = burn::tensor::Device::flex();
/// let category = Mvtec::new("mvtec_anomaly_detection").category("bottle")?;
/// let padim = Padim::new(PadimConfig::default(), ResNet18::load(Weights::Bundled, &device)?)?;
/// let detector = padim.fit(&category.train)?;
/// let report = evaluate(&detector, &category)?;
/// println!("image AUROC {:.4}, AUPRO {:?}", report.metrics.image_auroc, report.metrics.aupro);
/// # Ok::<(), padim::Error>(())
/// ```
///
/// # Errors
///
/// The error of the first image that cannot be scored; [`Error::UndefinedMetric`] for a test set that does
/// not have both good and defective images.
pub fn evaluate(detector: &dyn Predictor, category: &Category) -> Result<Report> {
    evaluate_with(detector, category, |_, _| ControlFlow::Continue(()))
}

/// As [`evaluate`]. `progress` is told how many images of how many are done, and can stop the work.
///
/// # Errors
///
/// As [`evaluate`]; [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
pub fn evaluate_with(
    detector: &dyn Predictor,
    category: &Category,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Report> {
    let test = &category.test;
    let has_masks = category.has_masks();
    let (mut images, mut maps) = (Vec::with_capacity(test.len()), Vec::new());
    let mut samples = test.iter();
    detector.predict_each(&mut test.iter().map(ImageInput::from), &mut |prediction| {
        let prediction = prediction?;
        let Some(sample) = samples.next() else { return Ok(()) };
        images.push(ImageReport {
            path: sample.path.clone(),
            defect: sample.defect.clone(),
            image_score: prediction.image_score,
            is_defective: prediction.is_defective,
        });
        if has_masks {
            let map = prediction.anomaly_map;
            maps.push((sample.truth(detector.preprocessor(), map.size())?, map));
        }
        if progress(images.len(), test.len()).is_break() {
            return Err(Error::Cancelled);
        }
        Ok(())
    })?;
    let scores: Vec<f32> = images.iter().map(|image| image.image_score).collect();
    let defective: Vec<bool> = test.iter().map(|sample| sample.is_defective()).collect();
    let maps = maps.iter().map(|(truth, map)| (map, truth));
    Ok(Report {
        category: category.name.clone(),
        metrics: Metrics::of_scores(&scores, &defective, maps, None)?,
        decisions: Decisions::of(&images, &defective),
        images,
    })
}

impl Decisions {
    fn of(images: &[ImageReport], defective: &[bool]) -> Option<Self> {
        let mut decisions = Self::default();
        for (image, truth) in images.iter().zip(defective) {
            *match (truth, image.is_defective?) {
                (true, true) => &mut decisions.detected,
                (true, false) => &mut decisions.missed,
                (false, true) => &mut decisions.false_alarms,
                (false, false) => &mut decisions.accepted,
            } += 1;
        }
        Some(decisions)
    }
}
