//! The backbone: a network that computes feature maps of several layers from images.

mod checkpoint;
mod convert;
mod efficientnet;
mod efficientnet_b5;
mod feature_maps;
mod interface;
mod list;
mod network;
mod parameters;
mod resnet;
mod resnet18;
mod snapshot;
mod wide_resnet50;

pub use convert::{ConvertedWeights, WeightPrecision};
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetStage};
pub use efficientnet_b5::EfficientNetB5;
pub use feature_maps::{FeatureMaps, LayerInfo};
pub use interface::{Backbone, BackboneMemory, HeldMemory};
pub use resnet::{ResNet, ResNetBlock, ResNetConfig};
pub use resnet18::ResNet18;
pub use snapshot::BackboneSnapshot;
pub use wide_resnet50::WideResNet50;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use list::convolutions_of;
pub(crate) use network::Network;
pub(crate) use parameters::FoldedConvolution;
