//! The feature maps of a backbone.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Backbone;
use crate::error::{Error, Result};

/// Describes one feature map of a backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// The name in the network, such as "layer1".
    pub name: String,
    /// The number of channels.
    pub channels: usize,
    /// Input pixels per step of the map, along each axis. For information only; the code uses the
    /// sizes of the maps themselves.
    pub stride: usize,
}

/// The feature maps of a batch of images, one tensor per layer.
///
/// # Shapes
///
/// Each map is `[batch, channels, height, width]`, with the same batch. The others are aligned to the
/// grid of the first map, so the first should be the map of the highest resolution.
#[derive(Debug, Clone)]
pub struct FeatureMaps(Vec<Tensor<4>>);

impl FeatureMaps {
    /// Collects the maps of one forward pass, in the order of [`Backbone::layers`].
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if there is no map, if a map is empty, or if the batch sizes differ.
    pub fn new(maps: Vec<Tensor<4>>) -> Result<Self> {
        let shapes: Vec<[usize; 4]> = maps.iter().map(Tensor::dims).collect();
        let same_batch = shapes.windows(2).all(|pair| pair[0][0] == pair[1][0]);
        if shapes.is_empty() || !same_batch || shapes.iter().flatten().any(|&n| n == 0) {
            let expected = "at least one map, none empty, all of one batch size";
            return Err(Error::shape("feature maps", expected, shapes));
        }
        Ok(Self(maps))
    }

    /// The maps, in the order of [`Backbone::layers`].
    pub fn maps(&self) -> &[Tensor<4>] {
        &self.0
    }

    pub(crate) fn into_maps(self) -> Vec<Tensor<4>> {
        self.0
    }
}
