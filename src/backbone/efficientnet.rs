//! EfficientNet: inverted residual blocks with squeeze-and-excitation.

use std::path::Path;

use burn::nn::conv::Conv2d;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::convert::{ConvertedWeights, WeightPrecision};
use super::feature_maps::{FeatureMaps, LayerInfo};
use super::interface::{Backbone, BackboneMemory};
use super::network::{self, MAX_COUNT, Network};
use super::parameters::{Norm, ParameterSource, Site};
use super::snapshot::BackboneSnapshot;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::weights::Weights;

/// A stage: blocks with the same resolution and number of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EfficientNetStage {
    /// Number of blocks.
    pub count: usize,
    /// Output channels of each block.
    pub channels: usize,
    /// Ratio of the channels inside a block to its input channels.
    pub expansion: usize,
    /// Kernel size of the depthwise convolutions, odd.
    pub kernel: usize,
    /// Stride of the first block, 1 or 2.
    pub stride: usize,
}

impl EfficientNetStage {
    /// Creates a stage; the arguments are the fields in their order.
    pub const fn new(
        count: usize,
        channels: usize,
        expansion: usize,
        kernel: usize,
        stride: usize,
    ) -> Self {
        Self { count, channels, expansion, kernel, stride }
    }
}

/// A network that is compatible with torchvision's `efficientnet_b5` to `efficientnet_b7`. Smaller
/// EfficientNets have the same structure, but another epsilon in their batch norms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfficientNetConfig {
    /// Channels after the stem.
    pub stem_channels: usize,
    /// The stages: torchvision's `features.1`, `features.2` and so on.
    pub stages: Vec<EfficientNetStage>,
    /// The blocks whose maps are the output: an increasing list, counted from 1 through all stages.
    /// Later blocks are not computed.
    pub blocks: Vec<usize>,
}

/// The largest allowed number of stages.
const MAX_STAGES: usize = 16;
/// The largest allowed number of blocks in all stages together.
const MAX_BLOCKS: usize = 1 << 10;
/// The epsilon of the batch norms; it differs from torch's default.
const NORM_EPSILON: f64 = 1e-3;
/// Ratio of a block's input channels to the channels of its squeeze.
const SQUEEZE: usize = 4;

impl EfficientNetConfig {
    /// torchvision's `efficientnet_b5`.
    pub(super) fn b5() -> Self {
        let stage = EfficientNetStage::new;
        Self {
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

    /// Sets the blocks whose maps are the output: an increasing list, counted from 1 through all
    /// stages.
    #[must_use]
    pub fn with_blocks(mut self, blocks: impl Into<Vec<usize>>) -> Self {
        self.blocks = blocks.into();
        self
    }

    /// Builds the network with the weights of a torchvision checkpoint, in any format that
    /// [`ResNetConfig::load`](super::ResNetConfig::load) reads. The layers after the last output block,
    /// including the classifier, may be missing. Pickled code is never executed.
    ///
    /// # Errors
    ///
    /// As [`Weights::find`]; [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] name the tensor that does not fit;
    /// [`Error::Weights`] and [`Error::Io`] tell why a file cannot be read;
    /// [`Error::InvalidConfig`] for an invalid description of the network.
    pub fn load(&self, weights: impl Into<Weights>, device: &Device) -> Result<EfficientNet> {
        network::load(self, weights.into(), device)
    }

    /// Writes the weights that this network needs to a `.safetensors` file; see
    /// [`ResNetConfig::convert`](super::ResNetConfig::convert).
    ///
    /// # Errors
    ///
    /// As [`ResNetConfig::convert`](super::ResNetConfig::convert).
    pub fn convert(
        &self,
        weights: impl AsRef<Path>,
        target: impl AsRef<Path>,
        precision: WeightPrecision,
    ) -> Result<ConvertedWeights> {
        network::convert_weights(self, [weights.as_ref(), target.as_ref()], precision)
    }

    /// Builds the network with random weights from a seed. Random features find coarse defects; load
    /// trained weights for real use.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an invalid description of the network.
    pub fn untrained(&self, seed: u64, device: &Device) -> Result<EfficientNet> {
        network::untrained(self, seed, device)
    }

    /// Number of blocks that must be computed.
    fn depth(&self) -> usize {
        self.blocks.last().copied().unwrap_or(0)
    }

    /// The stage of each block and its index in the stage, both from 0.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let places = |(stage, of): (usize, &EfficientNetStage)| {
            (0..of.count).map(move |block| (stage, block))
        };
        self.stages.iter().enumerate().flat_map(places)
    }

    fn layer_infos(&self) -> Vec<LayerInfo> {
        let places: Vec<(usize, usize)> = self.places().collect();
        let info = |&block: &usize| {
            let (stage, _) = places[block - 1];
            let strides = self.stages[..=stage].iter().map(|stage| stage.stride);
            LayerInfo {
                name: format!("block{block}"),
                channels: self.stages[stage].channels,
                stride: 2 * strides.product::<usize>(),
            }
        };
        self.blocks.iter().map(info).collect()
    }

    /// All convolutions up to the last output block.
    fn plan(&self) -> (Site, Vec<Block<Site>>) {
        let stem = site("features.0", [self.stem_channels, 3, 3, 3], 2);
        let mut channels_in = self.stem_channels;
        let block = |(stage, block): (usize, usize)| {
            let plan = self.block_plan(stage, block, channels_in);
            channels_in = self.stages[stage].channels;
            plan
        };
        (stem, self.places().take(self.depth()).map(block).collect())
    }

    fn block_plan(&self, stage: usize, block: usize, input: usize) -> Block<Site> {
        let EfficientNetStage { channels, expansion, kernel, stride, .. } = self.stages[stage];
        let stride = if block == 0 { stride } else { 1 };
        let (wide, narrow) = (input * expansion, (input / SQUEEZE).max(1));
        let shortcut = stride == 1 && input == channels;
        let prefix = format!("features.{}.{block}.block", stage + 1);
        // Blocks with expansion 1 lack the first part, so the index of the others is lower by one.
        let first = usize::from(expansion != 1);
        let biased = |number: usize, shape| Site {
            name: format!("{prefix}.{}.fc{number}", first + 1),
            norm: None,
            ..site("", shape, 1)
        };
        Block {
            expand: (expansion != 1).then(|| site(&format!("{prefix}.0"), [wide, input, 1, 1], 1)),
            depthwise: Site {
                groups: wide,
                ..site(&format!("{prefix}.{first}"), [wide, 1, kernel, kernel], stride)
            },
            squeeze: biased(1, [narrow, wide, 1, 1]),
            excite: biased(2, [wide, narrow, 1, 1]),
            project: Site {
                // Untrained gates are about 0.5; a gain above 1 compensates for it.
                gain: if shortcut { 0.5 } else { 1.5 },
                ..site(&format!("{prefix}.{}", first + 2), [channels, wide, 1, 1], 1)
            },
            shortcut,
        }
    }
}

impl Network for EfficientNetConfig {
    const NAME: &'static str = "EfficientNet";

    type Built = EfficientNet;

    fn validate(&self) -> Result<()> {
        let refuse = |reason| Err(Error::config("backbone", reason));
        if !(1..=MAX_STAGES).contains(&self.stages.len()) {
            let count = self.stages.len();
            return refuse(format!("there must be 1 to {MAX_STAGES} stages, got {count}"));
        }
        let of_stage =
            |s: &EfficientNetStage| [s.count, s.channels, s.expansion, s.kernel, s.stride];
        let mut counts = self.stages.iter().flat_map(of_stage).chain([self.stem_channels]);
        if counts.any(|n| n == 0 || n > MAX_COUNT) {
            return refuse(format!("counts must be in 1..={MAX_COUNT}, got {self:?}"));
        }
        if let Some(stage) = self.stages.iter().find(|s| s.kernel % 2 == 0 || s.stride > 2) {
            return refuse(format!("kernels must be odd and strides 1 or 2, got {stage:?}"));
        }
        let total: usize = self.stages.iter().map(|stage| stage.count).sum();
        if total > MAX_BLOCKS {
            return refuse(format!("there must be at most {MAX_BLOCKS} blocks, got {total}"));
        }
        let rising = self.blocks.windows(2).all(|pair| pair[0] < pair[1]);
        if self.blocks.is_empty() || !rising || self.blocks.iter().any(|b| !(1..=total).contains(b))
        {
            let reason = format!("must be a rising list from 1 to {total}, got {:?}", self.blocks);
            return Err(Error::config("blocks", reason));
        }
        Ok(())
    }

    fn sites(&self) -> Vec<Site> {
        let (stem, blocks) = self.plan();
        let sites = blocks.iter().flat_map(|block| block.convolutions().cloned());
        std::iter::once(stem).chain(sites).collect()
    }

    fn unused(&self) -> Vec<String> {
        let behind = self.places().skip(self.depth());
        behind
            .map(|(stage, block)| format!("features.{}.{block}.", stage + 1))
            .chain([format!("features.{}.", self.stages.len() + 1), "classifier.".to_owned()])
            .collect()
    }

    fn title(&self) -> String {
        let is_b5 = Self::b5().with_blocks(&*self.blocks) == *self;
        let name =
            if is_b5 { "torchvision efficientnet_b5".to_owned() } else { format!("{self:?}") };
        format!("{name}, blocks {:?}", self.blocks)
    }

    fn build(&self, source: &mut dyn ParameterSource, device: &Device) -> Result<EfficientNet> {
        let mut hasher = FingerprintHasher::new();
        let mut convolution = |site: &Site| -> Result<Conv2d> {
            let parameters = source.convolution(site)?;
            parameters.hash(&mut hasher);
            Ok(site.module(parameters, device))
        };
        let (stem, blocks) = self.plan();
        let stem = convolution(&stem)?;
        let blocks = blocks.iter().map(|block| block.build(&mut convolution));
        Ok(EfficientNet {
            blocks: blocks.collect::<Result<_>>()?,
            layers: self.layer_infos(),
            config: self.clone(),
            fingerprint: hasher.finish(),
            device: device.clone(),
            stem,
        })
    }
}

/// The description of a convolution with its batch norm.
fn site(prefix: &str, shape: [usize; 4], stride: usize) -> Site {
    let norm = Norm { name: format!("{prefix}.1"), epsilon: NORM_EPSILON };
    Site { norm: Some(norm), ..Site::new(&format!("{prefix}.0"), "", shape, stride) }
}

/// An inverted residual block of convolutions (`Conv2d`) or of their descriptions (`Site`).
#[derive(Debug)]
struct Block<C> {
    /// Increases the number of channels; `None` for expansion 1.
    expand: Option<C>,
    depthwise: C,
    /// Squeeze-and-excitation: computes a gate from the mean of each channel.
    squeeze: C,
    excite: C,
    project: C,
    /// Whether the input is added.
    shortcut: bool,
}

impl<C> Block<C> {
    /// The convolutions, in the order of their parameters.
    fn convolutions(&self) -> impl Iterator<Item = &C> {
        let others = [&self.depthwise, &self.squeeze, &self.excite, &self.project];
        self.expand.iter().chain(others)
    }
}

impl Block<Site> {
    fn build(&self, mut convolution: impl FnMut(&Site) -> Result<Conv2d>) -> Result<Block<Conv2d>> {
        Ok(Block {
            expand: self.expand.as_ref().map(&mut convolution).transpose()?,
            depthwise: convolution(&self.depthwise)?,
            squeeze: convolution(&self.squeeze)?,
            excite: convolution(&self.excite)?,
            project: convolution(&self.project)?,
            shortcut: self.shortcut,
        })
    }
}

impl Block<Conv2d> {
    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let wide = match &self.expand {
            Some(expand) => silu(expand.forward(input.clone())),
            None => input.clone(),
        };
        let features = silu(self.depthwise.forward(wide));
        let means = features.clone().reshape([0, 0, 1, -1]).mean_dim(3);
        let gates = sigmoid(self.excite.forward(silu(self.squeeze.forward(means))));
        let output = self.project.forward(features * gates);
        if self.shortcut { output + input } else { output }
    }
}

/// `x * sigmoid(x)`. Faster on a CPU than Burn's function, which branches on the sign of each value.
fn silu(x: Tensor<4>) -> Tensor<4> {
    x.clone() / (x.neg().exp() + 1.0)
}

/// An EfficientNet up to its last output block, with batch norms folded into the convolutions.
///
/// Built by [`EfficientNetB5`](super::EfficientNetB5) or [`EfficientNetConfig`]. It uses Burn's
/// convolutions on all devices.
#[derive(Debug)]
pub struct EfficientNet {
    config: EfficientNetConfig,
    layers: Vec<LayerInfo>,
    fingerprint: Fingerprint,
    device: Device,
    stem: Conv2d,
    blocks: Vec<Block<Conv2d>>,
}

impl EfficientNet {
    /// The network's description.
    pub fn config(&self) -> &EfficientNetConfig {
        &self.config
    }
}

impl Backbone for EfficientNet {
    fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        network::check_images(&images)?;
        let mut features = silu(self.stem.forward(images));
        let mut maps = Vec::with_capacity(self.layers.len());
        for (number, block) in (1..).zip(&self.blocks) {
            features = block.forward(features);
            if self.config.blocks.contains(&number) {
                maps.push(features.clone());
            }
        }
        FeatureMaps::new(maps)
    }

    fn memory_estimate(&self, [batch, _, height, width]: [usize; 4]) -> Option<BackboneMemory> {
        let pixels = |stride: usize| height.div_ceil(stride) * width.div_ceil(stride);
        let given: usize = self.layers.iter().map(|l| l.channels * pixels(l.stride)).sum();
        // At the peak, a block's input and two copies of its widest map (in SiLU) exist together.
        let (stem, blocks) = self.config.plan();
        let mut input = (stem.shape[0], 2);
        let sizes = blocks.iter().map(|block| {
            let (channels, stride) = input;
            input = (block.project.shape[0], stride * block.depthwise.stride);
            (channels + 2 * block.depthwise.shape[0]) * pixels(stride)
        });
        let largest = sizes.max().unwrap_or(0);
        Some(BackboneMemory {
            weights: 4 * network::weight_count(&self.config),
            activations: 4 * batch * (given + largest),
            largest_map: 4 * batch * largest,
        })
    }

    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        let blocks = self.blocks.iter().flat_map(Block::convolutions);
        network::snapshot(&self.config, std::iter::once(&self.stem).chain(blocks)).map(Some)
    }
}

#[cfg(test)]
mod tests;
