//! The anomaly map.

use crate::error::{Error, Result};

/// A score for every pixel: how far it is from what good images show there, as a Mahalanobis
/// distance (not squared). Higher is stranger.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    size: [usize; 2],
    values: Vec<f32>,
}

impl AnomalyMap {
    /// A map of `size` `[height, width]` from row-major values.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the number of values is another or zero, [`Error::NotFinite`] if
    /// one of them is not a number.
    pub fn new(size: [usize; 2], values: Vec<f32>) -> Result<Self> {
        if values.is_empty() || size[0].checked_mul(size[1]) != Some(values.len()) {
            let expected = format!("{size:?} pixels (height, width), at least one");
            return Err(Error::shape("anomaly map", expected, values.len()));
        }
        if !values.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { what: "the anomaly map".into() });
        }
        Ok(Self { size, values })
    }

    /// `[height, width]` in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The value at row `y` and column `x`, or `None` outside.
    pub fn at(&self, y: usize, x: usize) -> Option<f32> {
        let [height, width] = self.size;
        if y < height && x < width { self.values.get(y * width + x).copied() } else { None }
    }

    /// The smallest value.
    pub fn min(&self) -> f32 {
        self.values.iter().copied().fold(f32::INFINITY, f32::min)
    }

    /// The largest value.
    pub fn max(&self) -> f32 {
        super::max(&self.values)
    }
}
