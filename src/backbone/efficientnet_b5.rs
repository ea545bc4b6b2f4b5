//! EfficientNet-B5.

use burn::tensor::Device;

use super::efficientnet::{EfficientNet, EfficientNetConfig};
use crate::error::Result;
use crate::weights::Weights;

/// EfficientNet-B5 (Tan, Le 2019) up to block 26, the paper's backbone with the best image scores:
/// 40, 128 and 176 channels at strides 4, 16 and 16. Equivalent to torchvision's `efficientnet_b5`.
///
/// The paper uses "layers 7 (level 2), 20 (level 4), 26 (level 5)" and does not say whether it counts
/// from 0 or 1. Counted from 1 through all stages, these blocks are in stages 2, 4 and 5, which are the
/// levels in the paper. Counted from 0, block 20 would be in stage 5. So blocks are counted from 1.
/// The paper mentions no reduction of the 344 channels: use [`ChannelSelection::All`].
///
/// By default, an image of 224x224 pixels gives three maps:
///
/// | layer | shape |
/// |---|---|
/// | `block7` | `[batch, 40, 56, 56]` |
/// | `block20` | `[batch, 128, 14, 14]` |
/// | `block26` | `[batch, 176, 14, 14]` |
///
/// [`ChannelSelection::All`]: crate::embedding::ChannelSelection::All
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use padim::{Backbone, EfficientNetB5};
///
/// let device = Device::flex();
/// // Real use: EfficientNetB5::load("efficientnet_b5_lukemelas-1a07897c.pth", &device)?
/// let backbone = EfficientNetB5::config().with_blocks([3, 8]).untrained(0, &device)?;
/// let maps = backbone.forward(Tensor::zeros([1, 3, 64, 64], &device))?;
/// assert_eq!(maps.maps()[1].dims(), [1, 40, 16, 16]);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct EfficientNetB5;

impl EfficientNetB5 {
    /// The network's description, to change its blocks before loading.
    pub fn config() -> EfficientNetConfig {
        EfficientNetConfig::b5()
    }

    /// Loads torchvision's `efficientnet_b5` weights. See [`EfficientNetConfig::load`].
    ///
    /// # Errors
    ///
    /// As [`EfficientNetConfig::load`].
    pub fn load(weights: impl Into<Weights>, device: &Device) -> Result<EfficientNet> {
        Self::config().load(weights, device)
    }

    /// Builds the network with random weights. See [`EfficientNetConfig::untrained`].
    ///
    /// # Errors
    ///
    /// As [`EfficientNetConfig::untrained`].
    pub fn untrained(seed: u64, device: &Device) -> Result<EfficientNet> {
        Self::config().untrained(seed, device)
    }
}
