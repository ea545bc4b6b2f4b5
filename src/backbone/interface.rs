//! The trait of all networks.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::feature_maps::{FeatureMaps, LayerInfo};
use super::snapshot::BackboneSnapshot;
#[cfg(doc)]
use super::{EfficientNetB5, ResNet18, WideResNet50};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::preprocess::Normalization;

/// A frozen network whose feature maps describe the patches of an image (paper, section III.A).
///
/// [`ResNet18`], [`WideResNet50`] and [`EfficientNetB5`] build the three networks of this crate. To use
/// your own network, implement this trait: describe its maps, compute them, and give its weights a
/// fingerprint. A saved detector checks by the fingerprint that it has the weights of its fit.
///
/// ```
/// use burn::nn::pool::AvgPool2dConfig;
/// use burn::tensor::{Device, Tensor};
/// use padim::Backbone;
/// use padim::backbone::{FeatureMaps, LayerInfo};
/// use padim::fingerprint::Fingerprint;
///
/// /// Colours at two scales: no network at all, but it will find a red pen on a white table.
/// #[derive(Debug)]
/// struct Colours(Device, [LayerInfo; 2]);
///
/// impl Colours {
///     fn new(device: &Device) -> Self {
///         let layer = |name: &str, stride| LayerInfo { name: name.into(), channels: 3, stride };
///         Self(device.clone(), [layer("fine", 4), layer("coarse", 16)])
///     }
/// }
///
/// impl Backbone for Colours {
///     fn layers(&self) -> &[LayerInfo] {
///         &self.1
///     }
///     fn device(&self) -> Device {
///         self.0.clone()
///     }
///     fn fingerprint(&self) -> Fingerprint {
///         Fingerprint::of([b"colours, version 1"])
///     }
///     fn forward(&self, images: Tensor<4>) -> padim::Result<FeatureMaps> {
///         let pool = |n| AvgPool2dConfig::new([n, n]).with_strides([n, n]).init();
///         FeatureMaps::new(vec![pool(4).forward(images.clone()), pool(16).forward(images)])
///     }
/// }
///
/// let colours = Colours::new(&Device::flex());
/// let maps = colours.forward(Tensor::zeros([2, 3, 64, 64], &Device::flex()))?;
/// assert_eq!(maps.maps()[0].dims(), [2, 3, 16, 16]);
/// # Ok::<(), padim::Error>(())
/// ```
pub trait Backbone: Debug + Send + Sync {
    /// Describes the maps of [`forward`](Self::forward), the one of the highest resolution first.
    fn layers(&self) -> &[LayerInfo];

    /// The input normalization that the weights expect. Default: ImageNet's.
    fn normalization(&self) -> Normalization {
        Normalization::IMAGENET
    }

    /// The device of the weights. Inputs must be on the same device.
    fn device(&self) -> Device;

    /// Identifies the weights: equal if and only if the features are equal.
    fn fingerprint(&self) -> Fingerprint;

    /// Computes the feature maps of a batch.
    ///
    /// # Shapes
    ///
    /// `images`: `[batch, 3, height, width]`, normalized RGB. The maps: one per layer,
    /// `[batch, channels, grid_height, grid_width]`, with the same batch.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for input of another shape.
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps>;

    /// The same network with only the given channels of each layer as output, in this order; `None` if
    /// that would not save work. Its [`layers`](Self::layers) count only these channels. Its
    /// fingerprint is that of the whole network. Default: `None`.
    fn select(&self, channels: &[Vec<usize>]) -> Option<Arc<dyn Backbone>> {
        let _ = channels;
        None
    }

    /// The same network with 16-bit arithmetic on its device; `None` if not supported. Images and maps
    /// still have 32 bits. Default: `None`.
    fn with_half_precision(&self) -> Option<Arc<dyn Backbone>> {
        None
    }

    /// The memory for a batch of images `[batch, 3, height, width]`; used by
    /// [`Padim::memory_plan`](crate::Padim::memory_plan). Default: `None`, unknown.
    fn memory_estimate(&self, images: [usize; 4]) -> Option<BackboneMemory> {
        let _ = images;
        None
    }

    /// The memory that the network holds now; used by [`Detector::memory`](crate::Detector::memory).
    /// Default: 0, unknown.
    fn memory_held(&self) -> HeldMemory {
        HeldMemory::default()
    }

    /// The network's description and weights, if a detector file can hold them. Default: `None`. Then
    /// a detector must be loaded with [`Detector::load_with_backbone`].
    ///
    /// [`Detector::load_with_backbone`]: crate::Detector::load_with_backbone
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the weights cannot be read from the device.
    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        Ok(None)
    }
}

/// A network with several owners.
impl<B: Backbone + ?Sized> Backbone for Arc<B> {
    fn layers(&self) -> &[LayerInfo] {
        (**self).layers()
    }

    fn normalization(&self) -> Normalization {
        (**self).normalization()
    }

    fn device(&self) -> Device {
        (**self).device()
    }

    fn fingerprint(&self) -> Fingerprint {
        (**self).fingerprint()
    }

    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        (**self).forward(images)
    }

    fn select(&self, channels: &[Vec<usize>]) -> Option<Arc<dyn Backbone>> {
        (**self).select(channels)
    }

    fn with_half_precision(&self) -> Option<Arc<dyn Backbone>> {
        (**self).with_half_precision()
    }

    fn memory_estimate(&self, images: [usize; 4]) -> Option<BackboneMemory> {
        (**self).memory_estimate(images)
    }

    fn memory_held(&self) -> HeldMemory {
        (**self).memory_held()
    }

    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        (**self).snapshot()
    }
}

/// The memory of a network, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackboneMemory {
    /// The weights.
    pub weights: usize,
    /// At most the feature maps and intermediate results that exist at the same time.
    pub activations: usize,
    /// The largest single map.
    pub largest_map: usize,
}

/// The memory that a network holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldMemory {
    /// Shared by all selections of channels of the network.
    pub shared: usize,
    /// Specific to this selection of channels.
    pub own: usize,
}
