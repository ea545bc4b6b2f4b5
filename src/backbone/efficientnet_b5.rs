//! EfficientNet-B5.

use burn::tensor::Device;

use super::efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetStage};
use crate::error::Result;
use crate::weights::Weights;

/// EfficientNet-B5 (Tan, Le 2019) up to block 26, the paper's most accurate backbone for whole images:
/// 40, 128 and 176 channels at strides 4, 16 and 16. Layout and arithmetic are those of torchvision's
/// `efficientnet_b5`.
///
/// The paper takes "layers 7 (level 2), 20 (level 4), 26 (level 5)" and does not say from where it
/// counts. Counted from 1 through all stages, these blocks lie in the stages 2, 4 and 5, which are the
/// levels that it names; counted from 0, block 20 would lie in stage 5. So blocks are counted from 1.
/// The paper states no reduction of the 344 channels: use [`ChannelSelection::All`].
///
/// The default is three maps of 224x224 pixels:
///
/// | layer | shape |
/// |---|---|
/// | `block7` | `[batch, 40, 56, 56]` |
/// | `block20` | `[batch, 128, 14, 14]` |
/// | `block26` | `[batch, 176, 14, 14]` |
///
/// [`ChannelSelection::All`]: crate::ChannelSelection::All
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
        let stage = EfficientNetStage::new;
        EfficientNetConfig {
            stem_channels: 48,
            stages: vec![
                stage(3, 24, 1, 3, 1),
                stage(5, 40, 6, 3, 2),
                stage(5, 64, 6, 5, 2),
                stage(7, 128, 6, 3, 2),
                stage(7, 176, 6, 5, 1),
                stage(9, 304, 6, 5, 2),
                stage(3, 512, 6, 3, 1),
            ],
            blocks: vec![7, 20, 26],
        }
    }

    /// Loads torchvision's `efficientnet_b5` weights. See [`EfficientNetConfig::load`].
    ///
    /// # Errors
    ///
    /// As [`EfficientNetConfig::load`].
    pub fn load(weights: impl Into<Weights>, device: &Device) -> Result<EfficientNet> {
        Self::config().load(weights, device)
    }

    /// The network with untrained weights. See [`EfficientNetConfig::untrained`].
    ///
    /// # Errors
    ///
    /// As [`EfficientNetConfig::untrained`].
    pub fn untrained(seed: u64, device: &Device) -> Result<EfficientNet> {
        Self::config().untrained(seed, device)
    }
}
