//! How well scores separate defective from good: AUROC, AUPRO, average precision and the best F1, the
//! curves behind them, and how sure they are.
//!
//! All values are exact, with no binning of scores. What memory they need beside the maps and masks is
//! nevertheless bounded by the number of defective pixels: a curve can only rise at the score of a
//! defective pixel, so only those are sorted, and the many normal pixels are counted between them.

mod bootstrap;
mod counts;
mod curve;
mod f1;
mod precision;
mod pro;
mod recall;
mod roc;

pub use bootstrap::{Bootstrap, Interval};
pub use f1::{F1Max, image_f1_max, pixel_f1_max};
pub use precision::{image_average_precision, pixel_average_precision};
pub use pro::{DEFAULT_FPR_LIMIT, aupro, pro_curve};
pub use recall::{image_threshold_at_recall, pixel_threshold_at_recall};
pub use roc::{image_auroc, image_roc_curve, pixel_auroc, pixel_roc_curve};

pub use crate::regions::{Regions, connected_regions};

use crate::error::{Error, Result};
use crate::host::all_finite;

/// The scores of an image's pixels and which of them are truly defective.
#[derive(Debug, Clone, Copy)]
pub struct PixelScores<'a> {
    scores: &'a [f32],
    truth: &'a [bool],
    size: [usize; 2],
    /// Which pixels count; all, if `None`.
    region: Option<&'a [bool]>,
}

impl<'a> PixelScores<'a> {
    /// Row-major scores and truth of an image of `size` `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if there are not `height * width` of each, [`Error::NotFinite`] if a
    /// score is NaN or infinite.
    pub fn new(scores: &'a [f32], truth: &'a [bool], size: [usize; 2]) -> Result<Self> {
        check_size("pixel scores", scores.len(), size)?;
        check_size("ground truth", truth.len(), size)?;
        check_finite("the pixel scores", scores)?;
        Ok(Self { scores, truth, size, region: None })
    }

    /// The same, but only the pixels count where `region` (row-major) is true: others are neither
    /// defective nor normal.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the region has another size.
    pub fn within(self, region: &'a [bool]) -> Result<Self> {
        check_size("region", region.len(), self.size)?;
        Ok(Self { region: Some(region), ..self })
    }

    /// The scores of the pixels that count, and whether these are defective.
    fn pixels(&self) -> impl Iterator<Item = (f32, bool)> + use<'a> {
        let region = self.region;
        let pixels = self.scores.iter().copied().zip(self.truth.iter().copied()).enumerate();
        pixels.filter(move |(i, _)| region.is_none_or(|region| region[*i])).map(|(_, pixel)| pixel)
    }

    /// Runs of at most `len` pixels.
    fn parts(self, len: usize) -> impl Iterator<Item = Self> {
        let count = self.scores.len();
        (0..count.div_ceil(len)).map(move |part| {
            let range = part * len..((part + 1) * len).min(count);
            Self {
                scores: &self.scores[range.clone()],
                truth: &self.truth[range.clone()],
                size: [1, range.len()],
                region: self.region.map(|region| &region[range]),
            }
        })
    }

    /// The image scores of a data set, as though they were the pixels of a single image: the
    /// metrics of images are those of pixels.
    fn of_images(scores: &'a [f32], defective: &'a [bool]) -> Result<Self> {
        if scores.len() != defective.len() {
            let expected = format!("{} labels, one for each score", scores.len());
            return Err(Error::shape("image labels", expected, defective.len()));
        }
        check_finite("the image scores", scores)?;
        Ok(Self { scores, truth: defective, size: [1, scores.len()], region: None })
    }
}

fn check_size(what: &'static str, len: usize, size: [usize; 2]) -> Result<()> {
    if size[0].checked_mul(size[1]) == Some(len) {
        return Ok(());
    }
    Err(Error::shape(what, format!("{size:?} pixels (height, width)"), len))
}

fn check_finite(what: &str, scores: &[f32]) -> Result<()> {
    if all_finite(scores) {
        return Ok(());
    }
    Err(Error::NotFinite { what: what.into() })
}

fn undefined(metric: &'static str, reason: &str) -> Error {
    Error::UndefinedMetric { metric, reason: reason.into() }
}
