//! ResNet18.

use burn::tensor::Device;

use super::resnet::{ResNet, ResNetConfig};
use crate::error::Result;
use crate::weights::Weights;

/// The 18-layer residual network (He et al. 2016) up to layer3, the paper's fast backbone: 64, 128
/// and 256 channels at strides 4, 8 and 16.
///
/// ```no_run
/// use burn::tensor::Device;
/// use padim::{ResNet18, Weights};
/// use padim::weights::TorchvisionNetwork;
///
/// // ImageNet's, where this machine has them. Or a path of your own.
/// let weights = Weights::torchvision(TorchvisionNetwork::ResNet18);
/// let backbone = ResNet18::load(weights, &Device::flex())?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ResNet18;

impl ResNet18 {
    /// The network's description, to change its layers before loading.
    pub fn config() -> ResNetConfig {
        ResNetConfig::resnet18()
    }

    /// Loads torchvision's `resnet18` weights. See [`ResNetConfig::load`].
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
