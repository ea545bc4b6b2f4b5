//! The pixels of images, as metrics take them.

use crate::error::{Error, Result};
use crate::host::all_finite;

/// The scores of an image's pixels and their ground truth.
#[derive(Debug, Clone, Copy)]
pub struct PixelScores<'a> {
    pub(super) scores: &'a [f32],
    pub(super) truth: &'a [bool],
    pub(super) size: [usize; 2],
    /// Which pixels are evaluated; all if `None`.
    pub(super) region: Option<&'a [bool]>,
}

impl<'a> PixelScores<'a> {
    /// Row-major scores and ground truth (`true`: defective) of an image of `size` `[height, width]`.
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

    /// Evaluates only the pixels where `region` (row-major) is true. Others count as neither
    /// defective nor normal.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the region has another size.
    pub fn within(self, region: &'a [bool]) -> Result<Self> {
        check_size("region", region.len(), self.size)?;
        Ok(Self { region: Some(region), ..self })
    }

    /// The score and ground truth of each evaluated pixel.
    pub(super) fn pixels(&self) -> impl Iterator<Item = (f32, bool)> + use<'a> {
        let region = self.region;
        let pixels = self.scores.iter().copied().zip(self.truth.iter().copied()).enumerate();
        pixels.filter(move |(i, _)| region.is_none_or(|region| region[*i])).map(|(_, pixel)| pixel)
    }

    /// Consecutive parts of at most `len` pixels.
    pub(super) fn parts(self, len: usize) -> impl Iterator<Item = Self> {
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

    /// Treats the image scores of a data set as the pixels of one image: image metrics and pixel
    /// metrics share their code.
    pub(super) fn of_images(scores: &'a [f32], defective: &'a [bool]) -> Result<Self> {
        if scores.len() != defective.len() {
            let expected = format!("{} labels, one for each score", scores.len());
            return Err(Error::shape("image labels", expected, defective.len()));
        }
        check_finite("the image scores", scores)?;
        Ok(Self { scores, truth: defective, size: [1, scores.len()], region: None })
    }
}

pub(super) fn check_size(what: &'static str, len: usize, size: [usize; 2]) -> Result<()> {
    if size[0].checked_mul(size[1]) == Some(len) {
        return Ok(());
    }
    Err(Error::shape(what, format!("{size:?} pixels (height, width)"), len))
}

pub(super) fn check_finite(what: &str, scores: &[f32]) -> Result<()> {
    if all_finite(scores) {
        return Ok(());
    }
    Err(Error::NotFinite { what: what.into() })
}

pub(super) fn undefined(metric: &'static str, reason: &str) -> Error {
    Error::UndefinedMetric { metric, reason: reason.into() }
}
