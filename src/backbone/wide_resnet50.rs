//! Wide-ResNet-50-2.

use burn::tensor::Device;

use super::resnet::{ResNet, ResNetBlock, ResNetConfig};
use crate::error::Result;
use crate::weights::Weights;

/// The 50-layer residual network of double width (Zagoruyko, Komodakis 2016) up to layer3, the paper's
/// accurate backbone: 256, 512 and 1024 channels at strides 4, 8 and 16. The stride is on the 3x3
/// convolution, as in torchvision's `wide_resnet50_2`.
///
/// ```no_run
/// use burn::tensor::Device;
/// use padim::{TorchvisionNetwork, Weights, WideResNet50};
///
/// // ImageNet's, where this machine has them. Or a path of your own.
/// let weights = Weights::torchvision(TorchvisionNetwork::WideResNet50);
/// let backbone = WideResNet50::load(weights, &Device::flex())?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WideResNet50;

impl WideResNet50 {
    /// The network's description, to change its layers before loading.
    pub fn config() -> ResNetConfig {
        ResNetConfig {
            block: ResNetBlock::Bottleneck,
            stem_channels: 64,
            blocks: [3, 4, 6],
            planes: [64, 128, 256],
            base_width: 128,
            layers: vec![1, 2, 3],
        }
    }

    /// Loads torchvision's `wide_resnet50_2` weights. See [`ResNetConfig::load`].
    ///
    /// # Errors
    ///
    /// As [`ResNetConfig::load`].
    pub fn load(weights: impl Into<Weights>, device: &Device) -> Result<ResNet> {
        Self::config().load(weights, device)
    }

    /// The network with untrained weights. See [`ResNetConfig::untrained`].
    ///
    /// # Errors
    ///
    /// As [`ResNetConfig::untrained`].
    pub fn untrained(seed: u64, device: &Device) -> Result<ResNet> {
        Self::config().untrained(seed, device)
    }
}
