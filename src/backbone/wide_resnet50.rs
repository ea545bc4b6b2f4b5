//! Wide-ResNet-50-2.

use burn::tensor::Device;

use super::resnet::{ResNet, ResNetConfig};
use crate::error::Result;
use crate::weights::Weights;

/// The 50-layer residual network of double width (Zagoruyko, Komodakis 2016) up to layer3, the paper's
/// accurate backbone: 256, 512 and 1024 channels at strides 4, 8 and 16. As in torchvision's
/// `wide_resnet50_2`, the 3x3 convolution of a block has the stride.
///
/// ```no_run
/// use burn::tensor::Device;
/// use padim::{Weights, WideResNet50};
/// use padim::weights::TorchvisionNetwork;
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
        ResNetConfig::wide_resnet50()
    }

    /// Loads torchvision's `wide_resnet50_2` weights. See [`ResNetConfig::load`].
    ///
    /// # Errors
    ///
    /// As [`ResNetConfig::load`].
    pub fn load(weights: impl Into<Weights>, device: &Device) -> Result<ResNet> {
        Self::config().load(weights, device)
    }

    /// Builds the network with random weights. See [`ResNetConfig::untrained`].
    ///
    /// # Errors
    ///
    /// As [`ResNetConfig::untrained`].
    pub fn untrained(seed: u64, device: &Device) -> Result<ResNet> {
        Self::config().untrained(seed, device)
    }
}
