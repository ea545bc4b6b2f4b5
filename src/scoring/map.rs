//! The anomaly map.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A score for every pixel: its Mahalanobis distance (not squared) from the good images at this
/// position. Higher means more anomalous.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct AnomalyMap {
    size: [usize; 2],
    values: Vec<f32>,
}

/// An unchecked map, as read from a file.
#[derive(Deserialize)]
struct Parts {
    size: [usize; 2],
    values: Vec<f32>,
}

impl TryFrom<Parts> for AnomalyMap {
    type Error = Error;

    fn try_from(Parts { size, values }: Parts) -> Result<Self> {
        Self::new(size, values)
    }
}

impl AnomalyMap {
    /// Creates a map of `size` `[height, width]` from row-major values.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the number of values is not `height * width` or is zero,
    /// [`Error::NotFinite`] if a value is NaN or infinite.
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

    /// The size `[height, width]` in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The value at row `y` and column `x`; `None` outside the map.
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
        max(self.values.iter().copied())
    }
}

pub(super) fn max(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(f32::NEG_INFINITY, f32::max)
}
