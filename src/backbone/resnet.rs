//! The residual trunk that ResNet18 and WideResNet50 share.

use std::path::Path;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor};
use pulp::Arch;
use serde::{Deserialize, Serialize};

use super::convert::convert;
use super::engine::{BlockParameters, Engine, Map};
use super::parameters::{ParameterSource, SeededParameters, Site};
use super::weights::Checkpoint;
use super::{
    Backbone, BackboneConfig, BackboneMemory, BackboneSnapshot, ConvertedWeights, FeatureMaps,
    LayerInfo, ResNet18, WeightPrecision, check_images, weight_count,
};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::host::{DeviceIndices, all_finite, is_host, pixels_to_device, to_host};
use crate::once::Once;
use crate::weights::Weights;

/// The kind of residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResNetBlock {
    /// Two 3x3 convolutions (ResNet18, ResNet34).
    Basic,
    /// 1x1, 3x3 and 1x1, with four times the planes at the end (ResNet50 and wider).
    Bottleneck,
}

impl ResNetBlock {
    const fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// A residual network of torchvision's layout up to layer3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// The kind of block.
    pub block: ResNetBlock,
    /// Channels after the stem (torchvision: 64).
    pub stem_channels: usize,
    /// Number of blocks of layer1, layer2 and layer3.
    pub blocks: [usize; 3],
    /// Planes of layer1, layer2 and layer3 (torchvision: 64, 128, 256).
    pub planes: [usize; 3],
    /// Width of the 3x3 convolution of a bottleneck for 64 planes (torchvision's `width_per_group`).
    pub base_width: usize,
    /// Which of the layers 1, 2 and 3 are given out, in rising order. Nothing after the last of them
    /// is computed. Default: all three, as in the paper.
    pub layers: Vec<usize>,
}

/// The largest number of channels or blocks that a description may ask for.
pub(super) const MAX_COUNT: usize = 1 << 14;

impl ResNetConfig {
    /// Chooses the layers that are given out: a rising list of 1, 2 and 3.
    #[must_use]
    pub fn with_layers(mut self, layers: impl Into<Vec<usize>>) -> Self {
        self.layers = layers.into();
        self
    }

    /// Builds the network with the weights of a torchvision-layout checkpoint: `.safetensors`, or
    /// `.pth` as a zip or legacy file, plain or under `state_dict`, with or without the prefix
    /// `module.`. `layer4` and `fc` may be in it or not. Pickled code is never executed.
    ///
    /// Where fewer layers are given out, those behind them may be in the file or not, too.
    ///
    /// `weights` may be a path, or any [`Weights`]; [`Weights::Bundled`] are those of
    /// [`ResNet18`].
    ///
    /// # Errors
    ///
    /// As [`Weights::find`]; [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] name the tensor that does not fit;
    /// [`Error::Weights`] and [`Error::Io`] tell why a file cannot be read; [`Error::InvalidConfig`] for a
    /// description that makes no network.
    pub fn load(&self, weights: impl Into<Weights>, device: &Device) -> Result<ResNet> {
        self.validate()?;
        let weights = weights.into();
        if *self != ResNet18::config().with_layers(&*self.layers) {
            weights.require_other_than_bundled()?;
        }
        self.load_from(Checkpoint::load(&weights, &self.unused())?, device)
    }

    /// Builds the network with all tensors of a checkpoint.
    pub(crate) fn load_from(&self, mut checkpoint: Checkpoint, device: &Device) -> Result<ResNet> {
        let network = ResNet::build(self.clone(), &mut checkpoint, device)?;
        checkpoint.finish()?;
        Ok(network)
    }

    /// Writes the weights that this network needs to a `.safetensors` file that
    /// [`load`](Self::load) reads again, and Python too: names and shapes stay torchvision's, what no
    /// given layer needs is left out. With [`WeightPrecision::F32`] the fingerprint stays the same; with
    /// [`WeightPrecision::F16`] the convolutions are rounded, which takes half the space and gives another
    /// network with a fingerprint of its own.
    ///
    /// The same source gives the same bytes. The file tells where it came from in its metadata.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); [`Error::NotFinite`] for weights beyond the range of 16 bits;
    /// [`Error::Io`] if the file cannot be written. Nothing half-written is left behind.
    ///
    /// ```no_run
    /// use padim::{ResNet18, WeightPrecision};
    ///
    /// let layer2 = ResNet18::config().with_layers([1, 2]);
    /// layer2.convert("resnet18-f37072fd.pth", "layer2.safetensors", WeightPrecision::F16)?;
    /// # Ok::<(), padim::Error>(())
    /// ```
    pub fn convert(
        &self,
        weights: impl AsRef<Path>,
        target: impl AsRef<Path>,
        precision: WeightPrecision,
    ) -> Result<ConvertedWeights> {
        self.validate()?;
        let network = BackboneConfig::ResNet(self.clone());
        convert(&network, &self.unused(), [weights.as_ref(), target.as_ref()], precision)
    }

    /// How the names of tensors begin that play no part.
    pub(crate) fn unused(&self) -> Vec<String> {
        let behind = (self.depth() + 1..=4).map(|layer| format!("layer{layer}."));
        behind.chain(["fc.".to_owned()]).collect()
    }

    /// Builds the network with untrained weights from a seed. Random features find coarse defects;
    /// for real use load trained weights.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a description that makes no network.
    pub fn untrained(&self, seed: u64, device: &Device) -> Result<ResNet> {
        ResNet::build(self.clone(), &mut SeededParameters { seed }, device)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let counts = [[self.stem_channels, self.base_width, 1], self.blocks, self.planes];
        if counts.iter().flatten().any(|&n| n == 0 || n > MAX_COUNT) {
            let reason = format!("counts must be in 1..={MAX_COUNT}, got {self:?}");
            return Err(Error::config("backbone", reason));
        }
        let narrowest = self.planes.iter().min().copied().unwrap_or(0) * self.base_width;
        if self.block == ResNetBlock::Bottleneck && narrowest < 64 {
            let reason = format!("planes * base_width must be at least 64, got {narrowest}");
            return Err(Error::config("backbone", reason));
        }
        let rising = self.layers.windows(2).all(|pair| pair[0] < pair[1]);
        if self.layers.is_empty() || !rising || self.layers.iter().any(|l| !(1..=3).contains(l)) {
            let reason = format!("must be a rising list of 1, 2 and 3, got {:?}", self.layers);
            return Err(Error::config("layers", reason));
        }
        Ok(())
    }

    /// Number of layers that must be computed.
    fn depth(&self) -> usize {
        self.layers.last().copied().unwrap_or(0)
    }

    pub(crate) fn layer_infos(&self) -> Vec<LayerInfo> {
        let info = |&layer: &usize| LayerInfo {
            name: format!("layer{layer}"),
            channels: self.planes[layer - 1] * self.block.expansion(),
            stride: 2 << layer,
        };
        self.layers.iter().map(info).collect()
    }

    /// The places of all convolutions, in the order of [`FoldedParameters`](super::FoldedParameters).
    pub(super) fn sites(&self) -> Vec<Site> {
        let (stem, stages) = self.plan();
        let blocks = stages.into_iter().flatten();
        std::iter::once(stem)
            .chain(blocks.flat_map(|block| block.branch.into_iter().chain(block.downsample)))
            .collect()
    }

    /// Every convolution of the network up to its last given layer.
    fn plan(&self) -> (Site, Vec<Vec<BlockPlan>>) {
        let stem = Site::new("conv1", "bn1", [self.stem_channels, 3, 7, 7], 2);
        let mut channels_in = self.stem_channels;
        let mut stage = |layer: usize| {
            (0..self.blocks[layer - 1])
                .map(|block| {
                    let stride = if layer > 1 && block == 0 { 2 } else { 1 };
                    let plan = self.block_plan(layer, block, channels_in, stride);
                    channels_in = self.planes[layer - 1] * self.block.expansion();
                    plan
                })
                .collect()
        };
        (stem, (1..=self.depth()).map(&mut stage).collect())
    }

    fn block_plan(&self, layer: usize, block: usize, input: usize, stride: usize) -> BlockPlan {
        let planes = self.planes[layer - 1];
        let output = planes * self.block.expansion();
        let width = planes * self.base_width / 64;
        let prefix = format!("layer{layer}.{block}");
        let site = |number: usize, shape, stride| {
            let (conv, norm) = (format!("{prefix}.conv{number}"), format!("{prefix}.bn{number}"));
            Site::new(&conv, &norm, shape, stride)
        };
        let mut branch = match self.block {
            ResNetBlock::Basic => {
                vec![site(1, [planes, input, 3, 3], stride), site(2, [planes, planes, 3, 3], 1)]
            }
            ResNetBlock::Bottleneck => vec![
                site(1, [width, input, 1, 1], 1),
                site(2, [width, width, 3, 3], stride),
                site(3, [output, width, 1, 1], 1),
            ],
        };
        if let Some(last) = branch.last_mut() {
            last.gain = 0.5;
        }
        let downsample = (stride != 1 || input != output).then(|| {
            let (conv, norm) = (format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1"));
            Site::new(&conv, &norm, [output, input, 1, 1], stride)
        });
        BlockPlan { branch, downsample }
    }
}

/// The convolutions of one residual block, without their parameters.
#[derive(Debug)]
pub(super) struct BlockPlan {
    pub branch: Vec<Site>,
    pub downsample: Option<Site>,
}

/// One residual block: a chain of convolutions beside a shortcut.
#[derive(Debug)]
struct Residual {
    branch: Vec<Conv2d>,
    downsample: Option<Conv2d>,
}

impl Residual {
    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut features = input.clone();
        for (i, convolution) in self.branch.iter().enumerate() {
            features = convolution.forward(features);
            if i + 1 < self.branch.len() {
                features = relu(features);
            }
        }
        let shortcut = match &self.downsample {
            Some(convolution) => convolution.forward(input),
            None => input,
        };
        relu(features + shortcut)
    }
}

/// A residual network up to its last given layer, batch norm folded into the convolutions.
///
/// Built by [`ResNet18`], [`WideResNet50`](super::WideResNet50) or
/// [`ResNetConfig`]. On a CPU it runs on an engine of its own, many times faster than Burn's
/// convolutions and equal to them within rounding (1e-5 of a map's largest value); on other devices it
/// runs on Burn. To compare both, switch the engine off: [`without_engine`](Self::without_engine), or
/// the environment variable `PADIM_ENGINE=off`.
#[derive(Debug)]
pub struct ResNet {
    config: ResNetConfig,
    layers: Vec<LayerInfo>,
    fingerprint: Fingerprint,
    device: Device,
    trunk: Arc<Trunk>,
    /// Of each layer, the channels that are given out; `None` for all.
    selection: Option<Vec<Vec<usize>>>,
    /// The selection where it is needed on another device, layer by layer.
    selected: Vec<DeviceIndices>,
    /// Prepared when it is needed first; `None` if it is switched off or the device has memory of its
    /// own.
    engine: Option<Once<Engine>>,
}

/// The convolutions.
#[derive(Debug)]
struct Trunk {
    stem: Conv2d,
    pool: MaxPool2d,
    stages: Vec<Vec<Residual>>,
}

impl ResNet {
    pub(crate) fn build(
        config: ResNetConfig,
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
        let (stem, stages) = config.plan();
        let stem = convolution(&stem)?;
        let mut residual = |plan: &BlockPlan| -> Result<Residual> {
            Ok(Residual {
                branch: plan.branch.iter().map(&mut convolution).collect::<Result<_>>()?,
                downsample: plan.downsample.as_ref().map(&mut convolution).transpose()?,
            })
        };
        let stages = stages
            .iter()
            .map(|blocks| blocks.iter().map(&mut residual).collect())
            .collect::<Result<_>>()?;
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init();
        let wanted = std::env::var_os("PADIM_ENGINE").is_none_or(|value| value != "off");
        Ok(Self {
            layers: config.layer_infos(),
            selected: config.layers.iter().map(|_| DeviceIndices::default()).collect(),
            config,
            fingerprint: hasher.finish(),
            device: device.clone(),
            trunk: Arc::new(Trunk { stem, pool, stages }),
            selection: None,
            engine: (wanted && is_host(device)).then(Once::default),
        })
    }

    /// The network's description.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// The same network on Burn's convolutions, on a CPU too.
    #[must_use]
    pub fn without_engine(self) -> Self {
        Self { engine: None, ..self }
    }

    /// The prepared engine, if there is to be one.
    fn engine(&self) -> Result<Option<&Engine>> {
        let cell = self.engine.as_ref();
        cell.map(|cell| cell.get_or_try_make(|| self.prepare())).transpose()
    }

    /// Prepares the engine. Others may wait for it, so it does not use rayon.
    fn prepare(&self) -> Result<Engine> {
        let (stem, stages) = self.config.plan();
        let stem = stem.read_back(&self.trunk.stem)?;
        let convolution = |(site, module): (&Site, &Conv2d)| -> Result<_> {
            Ok((site.read_back(module)?, site.stride))
        };
        let block = |(plan, block): (&BlockPlan, &Residual)| -> Result<_> {
            let branch = plan.branch.iter().zip(&block.branch).map(convolution);
            let downsample = plan.downsample.as_ref().zip(block.downsample.as_ref());
            Ok(BlockParameters {
                branch: branch.collect::<Result<_>>()?,
                downsample: downsample.map(convolution).transpose()?,
                chosen: None,
            })
        };
        let stages = stages
            .iter()
            .zip(&self.trunk.stages)
            .map(|(plans, blocks)| plans.iter().zip(blocks).map(block).collect())
            .collect::<Result<_>>()?;
        let selection = self.selection.as_deref();
        Ok(Engine::new(stem, stages, &self.config.layers, selection, Arch::new()))
    }

    /// All channels of all layers, by Burn, in the weights' precision.
    fn forward_on_burn(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let Trunk { stem, pool, stages } = &*self.trunk;
        let images = images.cast(stem.weight.dtype());
        let mut features = pool.forward(relu(stem.forward(images)));
        let mut maps = Vec::with_capacity(self.layers.len());
        for (number, blocks) in (1..).zip(stages) {
            for block in blocks {
                features = block.forward(features);
            }
            if self.config.layers.contains(&number) {
                maps.push(features.clone());
            }
        }
        maps
    }
}

/// A convolution with its parameters in 16 bits.
fn half(convolution: &Conv2d) -> Conv2d {
    Conv2d {
        weight: Param::from_tensor(convolution.weight.val().cast(DType::F16)),
        bias: convolution.bias.as_ref().map(|b| Param::from_tensor(b.val().cast(DType::F16))),
        ..convolution.clone()
    }
}

impl Backbone for ResNet {
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
        let dims = images.dims();
        check_images(dims)?;
        let Some(engine) = self.engine()? else {
            let maps = self.forward_on_burn(images);
            let select = |(number, map): (usize, Tensor<4>)| match &self.selection {
                Some(selection) => {
                    let chosen = self.selected[number].on(&self.device, &selection[number]);
                    map.select(1, chosen)
                }
                None => map,
            };
            let maps = maps.into_iter().enumerate().map(select);
            return FeatureMaps::new(maps.map(|map| map.cast(DType::F32)).collect());
        };
        let [count, _, height, width] = dims;
        let values = to_host(images)?;
        if !all_finite(&values) {
            return Err(Error::NotFinite { what: "the network's input".into() });
        }
        let maps = engine.forward(&values, [count, height, width]);
        let tensor = |map: Map| {
            let [height, width, channels] = map.shape;
            pixels_to_device(map.values, [count, height, width, channels], &self.device)
        };
        FeatureMaps::new(maps.into_iter().map(tensor).collect())
    }

    fn select(&self, channels: &[Vec<usize>]) -> Option<Arc<dyn Backbone>> {
        let fits = |(chosen, layer): (&Vec<usize>, &LayerInfo)| {
            !chosen.is_empty() && chosen.iter().all(|&channel| channel < layer.channels)
        };
        let known = channels.len() == self.layers.len() && self.selection.is_none();
        if !known || !channels.iter().zip(&self.layers).all(fits) {
            return None;
        }
        let info = |(layer, chosen): (&LayerInfo, &Vec<usize>)| LayerInfo {
            channels: chosen.len(),
            ..layer.clone()
        };
        Some(Arc::new(Self {
            config: self.config.clone(),
            layers: self.layers.iter().zip(channels).map(info).collect(),
            fingerprint: self.fingerprint,
            device: self.device.clone(),
            trunk: self.trunk.clone(),
            selection: Some(channels.to_vec()),
            selected: channels.iter().map(|_| DeviceIndices::default()).collect(),
            engine: self.engine.as_ref().map(|_| Once::default()),
        }))
    }

    fn with_half_precision(&self) -> Option<Arc<dyn Backbone>> {
        let Trunk { stem, pool, stages } = &*self.trunk;
        let block = |block: &Residual| Residual {
            branch: block.branch.iter().map(half).collect(),
            downsample: block.downsample.as_ref().map(half),
        };
        let stages = stages.iter().map(|blocks| blocks.iter().map(block).collect()).collect();
        Some(Arc::new(Self {
            config: self.config.clone(),
            layers: self.layers.clone(),
            fingerprint: self.fingerprint,
            device: self.device.clone(),
            trunk: Arc::new(Trunk { stem: half(stem), pool: pool.clone(), stages }),
            selection: self.selection.clone(),
            selected: self.selected.clone(),
            engine: None,
        }))
    }

    fn memory_estimate(&self, [batch, _, height, width]: [usize; 4]) -> Option<BackboneMemory> {
        let pixels = |stride: usize| height.div_ceil(stride) * width.div_ceil(stride);
        let given: usize = self.layers.iter().map(|l| l.channels * pixels(l.stride)).sum();
        let expanded = self.config.planes[0] * self.config.block.expansion();
        let first = expanded * pixels(4);
        let largest = (self.config.stem_channels * pixels(2)).max(first);
        let beside = match &self.engine {
            // Each thread keeps the maps of an image.
            Some(_) => Engine::estimate(&self.config.plan().1, first),
            // The stem's output and the first layer's are the largest maps, and two of them exist at
            // once with what a convolution takes beside.
            None => batch * 9 * largest / 4,
        };
        Some(BackboneMemory {
            weights: 4 * weight_count(&self.config.sites()),
            activations: 4 * (batch * given + beside),
            largest_map: 4 * batch * largest,
        })
    }

    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        let (stem, stages) = self.config.plan();
        let mut parameters = vec![stem.read_back(&self.trunk.stem)?];
        for (plan, block) in stages.iter().flatten().zip(self.trunk.stages.iter().flatten()) {
            let sites = plan.branch.iter().chain(&plan.downsample);
            for (site, module) in sites.zip(block.branch.iter().chain(&block.downsample)) {
                parameters.push(site.read_back(module)?);
            }
        }
        let config = BackboneConfig::ResNet(self.config.clone());
        Ok(Some(BackboneSnapshot { config, parameters }))
    }
}

#[cfg(test)]
mod tests;
