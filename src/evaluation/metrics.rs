//! The metrics of a test set, as far as its images define them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::detector::Prediction;
use crate::error::{Error, Result};
use crate::metrics::{
    DEFAULT_FPR_LIMIT, F1Max, PixelScores, aupro, image_auroc, image_f1_max, pixel_auroc,
};
use crate::names::named;
use crate::scoring::AnomalyMap;

/// How well scores tell defective from good. What is undefined is `None`, and `undefined` says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metrics {
    /// AUROC of the image scores, in `[0, 1]`.
    pub image_auroc: Option<f64>,
    /// The largest F1 of the image scores, and its threshold.
    pub f1: Option<F1Max>,
    /// AUROC of all pixels of good images and of defective ones with a mask, in `[0, 1]`.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region overlap of the same images up to a false positive rate of 0.3, in
    /// `[0, 1]`.
    pub aupro: Option<f64>,
    /// The metrics that are undefined for these images.
    #[serde(default)]
    pub undefined: Vec<Undefined>,
}

/// A metric of [`Metrics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// [`Metrics::image_auroc`].
    ImageAuroc,
    /// [`Metrics::f1`].
    ImageF1Max,
    /// [`Metrics::pixel_auroc`].
    PixelAuroc,
    /// [`Metrics::aupro`].
    Aupro,
}

named!(
    Metric,
    "metric",
    [
        ("image_auroc", Metric::ImageAuroc),
        ("image_f1_max", Metric::ImageF1Max),
        ("pixel_auroc", Metric::PixelAuroc),
        ("aupro", Metric::Aupro),
    ]
);

/// A metric that is undefined for the images of a test set, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Undefined {
    /// The metric.
    pub metric: Metric,
    /// Why it is undefined.
    pub reason: String,
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is undefined: {}", self.metric, self.reason)
    }
}

impl Metrics {
    /// Compares predictions with the truth. What these images do not define is `None`.
    ///
    /// # Shapes
    ///
    /// `defective` and `masks` have one item for each prediction; a mask has the size of the anomaly map.
    /// `region`: the pixels of each map that count; `None` for all.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for another number of items or pixels, [`Error::NotFinite`] if a score is
    /// NaN or infinite.
    pub fn of(
        predictions: &[Prediction],
        defective: &[bool],
        masks: Option<&[Vec<bool>]>,
        region: Option<&[bool]>,
    ) -> Result<Self> {
        let scores: Vec<f32> = predictions.iter().map(|p| p.image_score).collect();
        let pixels = match masks {
            Some(masks) if masks.len() != predictions.len() => {
                let expected = format!("{}, one for each prediction", predictions.len());
                return Err(Error::shape("masks", expected, masks.len()));
            }
            Some(masks) => {
                let maps = predictions.iter().map(|p| &p.anomaly_map).zip(masks);
                maps.map(|(map, truth)| pixel_scores(map, truth, region)).collect::<Result<_>>()?
            }
            None => Vec::new(),
        };
        let without = masks.is_none().then_some("there are no masks");
        Self::of_scores(&scores, defective, &pixels, without)
    }

    /// `no_truth`: why localization cannot be evaluated, whatever the pixels are.
    pub(super) fn of_scores(
        scores: &[f32],
        defective: &[bool],
        pixels: &[PixelScores<'_>],
        no_truth: Option<&str>,
    ) -> Result<Self> {
        let mut undefined = Vec::new();
        let image_auroc =
            defined(Metric::ImageAuroc, image_auroc(scores, defective), &mut undefined)?;
        let f1 = defined(Metric::ImageF1Max, image_f1_max(scores, defective), &mut undefined)?;
        let mut localized = |metric, measure: &dyn Fn() -> Result<f64>| match no_truth {
            None => defined(metric, measure(), &mut undefined),
            Some(reason) => {
                undefined.push(Undefined { metric, reason: reason.to_owned() });
                Ok(None)
            }
        };
        let pixel_auroc = localized(Metric::PixelAuroc, &|| pixel_auroc(pixels))?;
        let aupro = localized(Metric::Aupro, &|| aupro(pixels, DEFAULT_FPR_LIMIT))?;
        Ok(Self { image_auroc, f1, pixel_auroc, aupro, undefined })
    }
}

/// Notes a metric that is undefined.
fn defined<T>(
    metric: Metric,
    result: Result<T>,
    undefined: &mut Vec<Undefined>,
) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::UndefinedMetric { reason, .. }) => {
            undefined.push(Undefined { metric, reason });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn pixel_scores<'a>(
    map: &'a AnomalyMap,
    truth: &'a [bool],
    region: Option<&'a [bool]>,
) -> Result<PixelScores<'a>> {
    let scores = PixelScores::new(map.values(), truth, map.size())?;
    region.map_or(Ok(scores), |region| scores.within(region))
}
