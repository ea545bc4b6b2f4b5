//! EfficientNet: inverted residual blocks with squeeze and excitation.

use std::path::Path;

use burn::nn::conv::Conv2d;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::convert::convert;
use super::parameters::{Norm, ParameterSource, SeededParameters, Site};
use super::resnet::MAX_COUNT;
use super::weights::Checkpoint;
use super::{
    Backbone, BackboneConfig, BackboneMemory, BackboneSnapshot, ConvertedWeights, FeatureMaps,
    LayerInfo, WeightPrecision, check_images, weight_count,
};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::weights::Weights;

/// Blocks of one resolution and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EfficientNetStage {
    /// Number of blocks.
    pub count: usize,
    /// Channels that each block gives out.
    pub channels: usize,
    /// How many times as many channels a block has inside as come in.
    pub expansion: usize,
    /// Side of the depthwise convolutions, odd.
    pub kernel: usize,
    /// Stride of the first block, 1 or 2.
    pub stride: usize,
}

impl EfficientNetStage {
    /// A stage by its numbers, in the order of the fields.
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

/// A network of the layout and arithmetic of torchvision's `efficientnet_b5` to `efficientnet_b7`.
/// Smaller ones have the same layout, but another epsilon in their batch norms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfficientNetConfig {
    /// Channels after the stem.
    pub stem_channels: usize,
    /// torchvision's `features.1` and so on, up to the last one with blocks.
    pub stages: Vec<EfficientNetStage>,
    /// Which blocks are given out, in rising order, counted from 1 through all stages. Nothing after
    /// the last of them is computed.
    pub blocks: Vec<usize>,
}

/// The largest number of stages that a description may ask for.
const MAX_STAGES: usize = 16;
/// The largest number of blocks of all stages.
const MAX_BLOCKS: usize = 1 << 10;
/// The epsilon of the batch norms, not torch's own.
const NORM_EPSILON: f64 = 1e-3;
/// How many times fewer channels the squeeze has than come into the block.
const SQUEEZE: usize = 4;

impl EfficientNetConfig {
    /// Chooses the blocks that are given out: a rising list of numbers, counted from 1 through all
    /// stages.
    #[must_use]
    pub fn with_blocks(mut self, blocks: impl Into<Vec<usize>>) -> Self {
        self.blocks = blocks.into();
        self
    }

    /// Builds the network with the weights of a torchvision-layout checkpoint, in any of the forms that
    /// [`ResNetConfig::load`](super::ResNetConfig::load) reads. What comes behind the last block that is
    /// given out may be in it or not, the classifier included. Pickled code is never executed.
    ///
    /// # Errors
    ///
    /// As [`Weights::find`]; [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] name the tensor that does not fit;
    /// [`Error::Weights`] and [`Error::Io`] tell why a file cannot be read; [`Error::InvalidConfig`] for a
    /// description that makes no network.
    pub fn load(&self, weights: impl Into<Weights>, device: &Device) -> Result<EfficientNet> {
        self.validate()?;
        let weights = weights.into();
        weights.require_other_than_bundled()?;
        let mut checkpoint = Checkpoint::load(&weights, &self.unused())?;
        let network = EfficientNet::build(self.clone(), &mut checkpoint, device)?;
        checkpoint.finish()?;
        Ok(network)
    }

    /// Writes the weights that this network needs to a `.safetensors` file, as
    /// [`ResNetConfig::convert`](super::ResNetConfig::convert) does.
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
        self.validate()?;
        let network = BackboneConfig::EfficientNet(self.clone());
        convert(&network, &self.unused(), [weights.as_ref(), target.as_ref()], precision)
    }

    /// How the names of tensors begin that play no part.
    fn unused(&self) -> Vec<String> {
        let behind = self.places().skip(self.depth());
        behind
            .map(|(stage, block)| format!("features.{}.{block}.", stage + 1))
            .chain([format!("features.{}.", self.stages.len() + 1), "classifier.".to_owned()])
            .collect()
    }

    /// Builds the network with untrained weights from a seed. Random features find coarse defects;
    /// for real use load trained weights.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a description that makes no network.
    pub fn untrained(&self, seed: u64, device: &Device) -> Result<EfficientNet> {
        EfficientNet::build(self.clone(), &mut SeededParameters { seed }, device)
    }

    pub(crate) fn validate(&self) -> Result<()> {
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

    /// Number of blocks that must be computed.
    fn depth(&self) -> usize {
        self.blocks.last().copied().unwrap_or(0)
    }

    /// Of every block its stage and its place in there, counted from 0.
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

    /// The places of all convolutions, in the order of [`FoldedParameters`](super::FoldedParameters).
    pub(super) fn sites(&self) -> Vec<Site> {
        let (stem, blocks) = self.plan();
        let sites = blocks.iter().flat_map(|block| block.convolutions().cloned());
        std::iter::once(stem).chain(sites).collect()
    }

    /// Every convolution of the network up to its last given block.
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
        // Blocks that do not widen lack the first part, and the others move up.
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
                // Untrained gates are about a half, for which more than 1 makes up.
                gain: if shortcut { 0.5 } else { 1.5 },
                ..site(&format!("{prefix}.{}", first + 2), [channels, wide, 1, 1], 1)
            },
            shortcut,
        }
    }
}

/// The place of a convolution with its batch norm.
fn site(prefix: &str, shape: [usize; 4], stride: usize) -> Site {
    let norm = Norm { name: format!("{prefix}.1"), epsilon: NORM_EPSILON };
    Site { norm: Some(norm), ..Site::new(&format!("{prefix}.0"), "", shape, stride) }
}

/// An inverted residual block: the places of its convolutions, or the convolutions themselves.
#[derive(Debug)]
struct Block<C> {
    /// To more channels, where there are to be more.
    expand: Option<C>,
    depthwise: C,
    /// Squeeze and excitation: from the mean of each channel to its gate.
    squeeze: C,
    excite: C,
    project: C,
    /// Whether the input is added.
    shortcut: bool,
}

impl<C> Block<C> {
    /// In the order of their parameters.
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

/// `x * sigmoid(x)`, in the form that runs fastest on a CPU: Burn's own branches at each value's sign.
fn silu(x: Tensor<4>) -> Tensor<4> {
    x.clone() / (x.neg().exp() + 1.0)
}

/// An EfficientNet up to its last given block, batch norm folded into the convolutions.
///
/// Built by [`EfficientNetB5`](super::EfficientNetB5) or [`EfficientNetConfig`]. It runs on Burn's
/// convolutions on every device.
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
    pub(crate) fn build(
        config: EfficientNetConfig,
        source: &mut impl ParameterSource,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        crate::device::require(device)?;
        let mut hasher = FingerprintHasher::new();
        let mut convolution = |site: &Site| -> Result<Conv2d> {
            let parameters = source.convolution(site)?;
            parameters.hash(&mut hasher);
            Ok(site.module(parameters, device))
        };
        let (stem, blocks) = config.plan();
        let stem = convolution(&stem)?;
        let blocks = blocks.iter().map(|block| block.build(&mut convolution));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            layers: config.layer_infos(),
            config,
            fingerprint: hasher.finish(),
            device: device.clone(),
            stem,
        })
    }

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
        check_images(images.dims())?;
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
        // A block's input exists at once with its widest map, twice in SiLU.
        let (stem, blocks) = self.config.plan();
        let mut input = (stem.shape[0], 2);
        let sizes = blocks.iter().map(|block| {
            let (channels, stride) = input;
            input = (block.project.shape[0], stride * block.depthwise.stride);
            (channels + 2 * block.depthwise.shape[0]) * pixels(stride)
        });
        let largest = sizes.max().unwrap_or(0);
        Some(BackboneMemory {
            weights: 4 * weight_count(&self.config.sites()),
            activations: 4 * batch * (given + largest),
            largest_map: 4 * batch * largest,
        })
    }

    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        let (stem, blocks) = self.config.plan();
        let mut parameters = vec![stem.read_back(&self.stem)?];
        for (plan, block) in blocks.iter().zip(&self.blocks) {
            for (site, module) in plan.convolutions().zip(block.convolutions()) {
                parameters.push(site.read_back(module)?);
            }
        }
        let config = BackboneConfig::EfficientNet(self.config.clone());
        Ok(Some(BackboneSnapshot { config, parameters }))
    }
}

#[cfg(test)]
mod tests;
