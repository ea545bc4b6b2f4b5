//! The network that describes patches: images in, feature maps of several layers out.

mod convert;
mod efficientnet;
mod efficientnet_b5;
mod engine;
mod parameters;
mod resnet;
mod resnet18;
mod weights;
mod wide_resnet50;

pub use convert::{ConvertedWeights, WeightPrecision};
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetStage};
pub use efficientnet_b5::EfficientNetB5;
pub use resnet::{ResNet, ResNetBlock, ResNetConfig};
pub use resnet18::ResNet18;
pub use wide_resnet50::WideResNet50;

pub(crate) use parameters::{FoldedConvolution, FoldedParameters};
pub(crate) use weights::Checkpoint;

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::preprocess::Normalization;
use parameters::Site;

/// One feature map that a backbone gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Its name in the network ("layer1").
    pub name: String,
    /// Its number of channels.
    pub channels: usize,
    /// How many input pixels one step of it spans, along each axis. For people; sizes are taken from
    /// the maps themselves.
    pub stride: usize,
}

/// The feature maps of a batch of images, one tensor a layer.
///
/// # Shapes
///
/// Each map is `[batch, channels, height, width]`; the batch is common. The first map gives the grid
/// to which the others are aligned, so it should be the one of the largest resolution.
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

/// A frozen network whose feature maps describe the patches of an image (paper, section III.A).
///
/// [`ResNet18`], [`WideResNet50`] and [`EfficientNetB5`] build the three that come with the crate. To
/// use a network of your own, implement this trait: say what maps it gives, run it, and give its
/// weights a fingerprint, by which a saved detector recognises that it is used with the weights it was
/// fitted with.
///
/// ```
/// use burn::nn::pool::AvgPool2dConfig;
/// use burn::tensor::{Device, Tensor};
/// use padim::{Backbone, FeatureMaps, Fingerprint, LayerInfo};
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
    /// The maps that [`forward`](Self::forward) gives, the one of the largest resolution first.
    fn layers(&self) -> &[LayerInfo];

    /// The normalisation of the input that the weights expect. Default: ImageNet's.
    fn normalization(&self) -> Normalization {
        Normalization::IMAGENET
    }

    /// The device on which the weights are. Inputs must be there too.
    fn device(&self) -> Device;

    /// Identifies the weights: equal for equal features, different otherwise.
    fn fingerprint(&self) -> Fingerprint;

    /// Computes the feature maps of a batch.
    ///
    /// # Shapes
    ///
    /// `images`: `[batch, 3, height, width]`, normalised RGB. The maps: one a layer,
    /// `[batch, channels, grid_height, grid_width]`, of the same batch.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for input of another shape.
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps>;

    /// The same network giving out only these channels of each layer, in this order, if it can do so
    /// with less work. Its [`layers`](Self::layers) have as many channels as were chosen; the
    /// fingerprint is the whole network's. Default: it cannot.
    fn select(&self, channels: &[Vec<usize>]) -> Option<Arc<dyn Backbone>> {
        let _ = channels;
        None
    }

    /// The same network computing with numbers of 16 bits on its device, if it can. Images come, and maps
    /// go, with 32. Default: it cannot.
    fn with_half_precision(&self) -> Option<Arc<dyn Backbone>> {
        None
    }

    /// What the network will take for a batch of images `[batch, 3, height, width]`, for
    /// [`Padim::memory_plan`](crate::Padim::memory_plan). Default: not known.
    fn memory_estimate(&self, images: [usize; 4]) -> Option<BackboneMemory> {
        let _ = images;
        None
    }

    /// The network's description and weights, if a detector file can hold them. Default: none, and
    /// a detector must then be loaded with [`Detector::load_with_backbone`].
    ///
    /// [`Detector::load_with_backbone`]: crate::Detector::load_with_backbone
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the weights cannot be read back.
    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        Ok(None)
    }
}

/// Bytes that a network takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackboneMemory {
    /// Of its weights.
    pub weights: usize,
    /// Of the feature maps that exist at once, and of all that is made when the network runs, at most.
    pub activations: usize,
    /// Of the largest single map of all that are made.
    pub largest_map: usize,
}

/// All that is needed to build a backbone of this crate again.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneSnapshot {
    pub(crate) config: BackboneConfig,
    pub(crate) parameters: Vec<FoldedConvolution>,
}

/// The description of a backbone of this crate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BackboneConfig {
    ResNet(ResNetConfig),
    EfficientNet(EfficientNetConfig),
}

/// Checks the shape of a batch of images for a network.
fn check_images(dims: [usize; 4]) -> Result<()> {
    if dims[1] == 3 && !dims.contains(&0) {
        return Ok(());
    }
    Err(Error::shape("images", "[batch, 3, height, width], none of them 0", dims))
}

/// The numbers that convolutions at these places have, biases included.
fn weight_count(sites: &[Site]) -> usize {
    sites.iter().map(|site| site.shape.iter().product::<usize>() + site.shape[0]).sum()
}

impl BackboneConfig {
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::ResNet(config) => config.validate(),
            Self::EfficientNet(config) => config.validate(),
        }
    }

    /// The names and shapes `[channels_out, channels_in of a group, kernel_height, kernel_width]` of
    /// all convolutions, in the order of [`FoldedParameters`].
    pub fn convolutions(&self) -> Vec<(String, [usize; 4])> {
        self.sites().into_iter().map(|site| (site.name, site.shape)).collect()
    }

    fn sites(&self) -> Vec<Site> {
        match self {
            Self::ResNet(config) => config.sites(),
            Self::EfficientNet(config) => config.sites(),
        }
    }

    pub fn build(
        self,
        source: &mut FoldedParameters,
        device: &Device,
    ) -> Result<Arc<dyn Backbone>> {
        Ok(match self {
            Self::ResNet(config) => Arc::new(ResNet::build(config, source, device)?),
            Self::EfficientNet(config) => Arc::new(EfficientNet::build(config, source, device)?),
        })
    }
}
