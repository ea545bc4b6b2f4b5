//! The residual network of ResNet18 and WideResNet50.

use std::path::Path;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::convert::{ConvertedWeights, WeightPrecision};
use super::feature_maps::{FeatureMaps, LayerInfo};
use super::interface::{Backbone, BackboneMemory, HeldMemory};
use super::network::{self, MAX_COUNT, Network};
use super::parameters::{FoldedConvolution, ParameterSource, Site};
use super::snapshot::BackboneSnapshot;
use crate::engine::{self, BlockFilters, Engine, Filters, Map};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::host::{DeviceIndices, all_finite, is_host, pixels_to_device, to_host};
use crate::instructions;
use crate::names::named;
use crate::once::Once;
use crate::weights::Weights;

/// The kind of residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResNetBlock {
    /// Two 3x3 convolutions (ResNet18, ResNet34).
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions; the last gives four times the planes (ResNet50 and deeper or
    /// wider networks).
    Bottleneck,
}

named!(
    ResNetBlock,
    "block",
    [("basic", ResNetBlock::Basic), ("bottleneck", ResNetBlock::Bottleneck)]
);

impl ResNetBlock {
    const fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// A residual network with torchvision's structure, up to layer3.
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
    /// Channels of a bottleneck's 3x3 convolution per 64 planes (torchvision's `width_per_group`).
    pub base_width: usize,
    /// The layers whose maps are the output: an increasing list of 1, 2 and 3. Later layers are not
    /// computed. Default: all three, as in the paper.
    pub layers: Vec<usize>,
}

impl ResNetConfig {
    /// torchvision's `resnet18`.
    pub(super) fn resnet18() -> Self {
        Self {
            block: ResNetBlock::Basic,
            stem_channels: 64,
            blocks: [2, 2, 2],
            planes: [64, 128, 256],
            base_width: 64,
            layers: vec![1, 2, 3],
        }
    }

    /// torchvision's `wide_resnet50_2`.
    pub(super) fn wide_resnet50() -> Self {
        Self {
            block: ResNetBlock::Bottleneck,
            stem_channels: 64,
            blocks: [3, 4, 6],
            planes: [64, 128, 256],
            base_width: 128,
            layers: vec![1, 2, 3],
        }
    }

    /// Sets the layers whose maps are the output: an increasing list of 1, 2 and 3.
    #[must_use]
    pub fn with_layers(mut self, layers: impl Into<Vec<usize>>) -> Self {
        self.layers = layers.into();
        self
    }

    /// Builds the network with the weights of a torchvision checkpoint: `.safetensors`, or `.pth` as a
    /// zip or legacy file, plain or under `state_dict`, with or without the prefix `module.`. The
    /// layers after the last output layer, `layer4` and `fc` may be missing. Pickled code is never
    /// executed.
    ///
    /// `weights` is a path or any [`Weights`]; [`Weights::Bundled`] fit only [`ResNet18`](crate::ResNet18).
    ///
    /// # Errors
    ///
    /// As [`Weights::find`]; [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] name the tensor that does not fit;
    /// [`Error::Weights`] and [`Error::Io`] tell why a file cannot be read;
    /// [`Error::InvalidConfig`] for an invalid description of the network.
    pub fn load(&self, weights: impl Into<Weights>, device: &Device) -> Result<ResNet> {
        network::load(self, weights.into(), device)
    }

    /// Builds the network with the tensors of a checkpoint; rejects tensors that are left over.
    pub(crate) fn load_from(&self, checkpoint: Checkpoint, device: &Device) -> Result<ResNet> {
        network::load_from(self, checkpoint, device)
    }

    /// Writes the weights that this network needs to a `.safetensors` file, for [`load`](Self::load) or
    /// for Python. Names and shapes stay those of torchvision; weights of layers that are not computed
    /// are left out. With [`WeightPrecision::F32`] the fingerprint stays the same. With
    /// [`WeightPrecision::F16`] the convolutions are rounded: the file has half the size, and the
    /// network has another fingerprint.
    ///
    /// The same source gives the same bytes. The file's metadata contain its origin.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); [`Error::NotFinite`] for weights beyond the range of 16 bits;
    /// [`Error::Io`] if the file cannot be written. No partial file is left.
    ///
    /// ```no_run
    /// use padim::ResNet18;
    /// use padim::backbone::WeightPrecision;
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
        network::convert_weights(self, [weights.as_ref(), target.as_ref()], precision)
    }

    /// Builds the network with random weights from a seed. Random features find coarse defects; load
    /// trained weights for real use.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an invalid description of the network.
    pub fn untrained(&self, seed: u64, device: &Device) -> Result<ResNet> {
        network::untrained(self, seed, device)
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

    /// All convolutions up to the last output layer.
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

    /// The length of the engine's prepared weights, in numbers.
    fn packed_len(&self) -> usize {
        let (_, stages) = self.plan();
        let of_stage = |(stage, blocks): (usize, &Vec<BlockPlan>)| -> usize {
            let sites =
                blocks.iter().flat_map(|block| block.branch.iter().chain(&block.downsample));
            sites.map(|site| engine::packed_len(site.shape, site.stride, stage)).sum()
        };
        stages.iter().enumerate().map(of_stage).sum()
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

impl Network for ResNetConfig {
    const NAME: &'static str = "ResNet";

    type Built = ResNet;

    fn validate(&self) -> Result<()> {
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

    fn sites(&self) -> Vec<Site> {
        let (stem, stages) = self.plan();
        let blocks = stages.into_iter().flatten();
        std::iter::once(stem)
            .chain(blocks.flat_map(|block| block.branch.into_iter().chain(block.downsample)))
            .collect()
    }

    fn unused(&self) -> Vec<String> {
        let behind = (self.depth() + 1..=4).map(|layer| format!("layer{layer}."));
        behind.chain(["fc.".to_owned()]).collect()
    }

    fn title(&self) -> String {
        let is = |known: Self| known.with_layers(&*self.layers) == *self;
        let name = if is(Self::resnet18()) {
            "torchvision resnet18".to_owned()
        } else if is(Self::wide_resnet50()) {
            "torchvision wide_resnet50_2".to_owned()
        } else {
            format!("{self:?}")
        };
        format!("{name}, layers {:?}", self.layers)
    }

    fn has_bundled_weights(&self) -> bool {
        *self == Self::resnet18().with_layers(&*self.layers)
    }

    fn build(&self, source: &mut dyn ParameterSource, device: &Device) -> Result<ResNet> {
        let mut hasher = FingerprintHasher::new();
        let mut convolution = |site: &Site| -> Result<Conv2d> {
            let parameters = source.convolution(site)?;
            parameters.hash(&mut hasher);
            Ok(site.module(parameters, device))
        };
        let (stem, stages) = self.plan();
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
        let wanted = instructions::engine_is_on();
        Ok(ResNet {
            layers: self.layer_infos(),
            selected: self.layers.iter().map(|_| DeviceIndices::default()).collect(),
            config: self.clone(),
            fingerprint: hasher.finish(),
            device: device.clone(),
            trunk: Arc::new(Trunk { stem, pool, stages, prepared: Once::default() }),
            selection: None,
            engine: (wanted && is_host(device)).then(Once::default),
        })
    }
}

/// The convolutions of one residual block, without their parameters.
#[derive(Debug)]
struct BlockPlan {
    branch: Vec<Site>,
    downsample: Option<Site>,
}

/// One residual block: a chain of convolutions plus a shortcut.
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

/// A residual network up to its last output layer, with batch norms folded into the convolutions.
///
/// Built by [`ResNet18`](crate::ResNet18), [`WideResNet50`](crate::WideResNet50) or [`ResNetConfig`]. On a CPU it uses
/// the convolution engine of this crate, which is many times faster than Burn's convolutions and equal
/// to them within rounding (1e-5 of a map's largest value). On other devices it uses Burn. To compare
/// both on a CPU, switch the engine off by [`without_engine`](Self::without_engine) or by the
/// environment variable `PADIM_ENGINE=off`.
#[derive(Debug)]
pub struct ResNet {
    config: ResNetConfig,
    layers: Vec<LayerInfo>,
    fingerprint: Fingerprint,
    device: Device,
    trunk: Arc<Trunk>,
    /// The output channels of each layer; `None`: all.
    selection: Option<Vec<Vec<usize>>>,
    /// The selection of each layer as a tensor on the device, if the engine is not used.
    selected: Vec<DeviceIndices>,
    /// Prepared at first use. `None` if it is switched off or the device is not a CPU.
    engine: Option<Once<Engine>>,
}

/// The convolutions, shared by networks that differ only in the selected channels.
#[derive(Debug)]
struct Trunk {
    stem: Conv2d,
    pool: MaxPool2d,
    stages: Vec<Vec<Residual>>,
    /// The part that engines for different channels share, prepared at first use.
    prepared: Once<Arc<engine::Trunk>>,
}

impl Trunk {
    /// All convolutions, in the order of [`Network::sites`].
    fn convolutions(&self) -> impl Iterator<Item = &Conv2d> {
        let blocks = self.stages.iter().flatten();
        let convolutions = blocks.flat_map(|block| block.branch.iter().chain(&block.downsample));
        std::iter::once(&self.stem).chain(convolutions)
    }
}

impl ResNet {
    /// The network's description.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// The same network with Burn's convolutions, also on a CPU.
    #[must_use]
    pub fn without_engine(self) -> Self {
        Self { engine: None, ..self }
    }

    /// The prepared engine, if it is used.
    fn engine(&self) -> Result<Option<&Engine>> {
        let cell = self.engine.as_ref();
        cell.map(|cell| cell.get_or_try_make(|| self.prepare())).transpose()
    }

    /// Prepares the engine. Does not use rayon, because threads of a pool may wait for the result.
    fn prepare(&self) -> Result<Engine> {
        let prepared = self.trunk.prepared.get_or_try_make(|| self.prepare_trunk())?;
        let (_, stages) = self.config.plan();
        let last = stages.last().and_then(|blocks| blocks.last());
        let modules = self.trunk.stages.last().and_then(|blocks| blocks.last());
        let (Some(plan), Some(block)) = (last, modules) else {
            return Err(Error::config("layers", "there must be at least one"));
        };
        let end = block_filters(plan, block, plan.branch.len() - 1)?;
        let selection = self.selection.as_deref();
        Ok(Engine::new(Arc::clone(prepared), end, &self.config.layers, selection))
    }

    /// Prepares the part that does not depend on the selection: all but the end of the last block.
    fn prepare_trunk(&self) -> Result<Arc<engine::Trunk>> {
        let (stem, plans) = self.config.plan();
        let stem = engine_filters(stem.read_back(&self.trunk.stem)?);
        let block = |(plan, block): (&BlockPlan, &Residual)| block_filters(plan, block, 0);
        let mut stages: Vec<Vec<BlockFilters>> = (plans.iter().zip(&self.trunk.stages))
            .map(|(plans, blocks)| plans.iter().zip(blocks).map(block).collect())
            .collect::<Result<_>>()?;
        if let Some(last) = stages.last_mut().and_then(|blocks| blocks.last_mut()) {
            last.branch.pop();
            last.downsample = None;
        }
        Ok(Arc::new(engine::Trunk::new(&stem, stages, instructions::arch())))
    }

    /// Computes all channels of the output layers with Burn, in the precision of the weights.
    fn forward_on_burn(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let Trunk { stem, pool, stages, .. } = &*self.trunk;
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

/// The filters of a block, without the first `from` convolutions of its branch.
fn block_filters(plan: &BlockPlan, block: &Residual, from: usize) -> Result<BlockFilters> {
    Ok(BlockFilters {
        branch: filters(&plan.branch[from..], &block.branch[from..])?,
        downsample: filters(plan.downsample.as_slice(), block.downsample.as_slice())?.pop(),
    })
}

/// The filters of some convolutions, with their strides.
fn filters(sites: &[Site], modules: &[Conv2d]) -> Result<Vec<(Filters, usize)>> {
    let filters = |(site, module): (&Site, &Conv2d)| -> Result<_> {
        Ok((engine_filters(site.read_back(module)?), site.stride))
    };
    sites.iter().zip(modules).map(filters).collect()
}

fn engine_filters(convolution: FoldedConvolution) -> Filters {
    let FoldedConvolution { shape, weight, bias, .. } = convolution;
    Filters { shape, weight, bias }
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
        network::check_images(&images)?;
        let dims = images.dims();
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
        let Trunk { stem, pool, stages, .. } = &*self.trunk;
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
            trunk: Arc::new(Trunk {
                stem: half(stem),
                pool: pool.clone(),
                stages,
                prepared: Once::default(),
            }),
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
            // Each thread has the maps of one image.
            Some(_) => engine::estimate(self.config.packed_len(), first),
            // The maps of the stem and of the first layer are the largest. At the peak, two of them
            // and the temporary memory of a convolution exist.
            None => batch * 9 * largest / 4,
        };
        Some(BackboneMemory {
            weights: 4 * network::weight_count(&self.config),
            activations: 4 * (batch * given + beside),
            largest_map: 4 * batch * largest,
        })
    }

    fn memory_held(&self) -> HeldMemory {
        // Burn's weights, and the engine's prepared weights.
        let weights = 4 * network::weight_count(&self.config);
        let prepared = self.trunk.prepared.get().map_or(0, |trunk| trunk.bytes());
        let engine = self.engine.as_ref().and_then(Once::get);
        HeldMemory { shared: weights + prepared, own: engine.map_or(0, Engine::own_bytes) }
    }

    fn snapshot(&self) -> Result<Option<BackboneSnapshot>> {
        network::snapshot(&self.config, self.trunk.convolutions()).map(Some)
    }
}

#[cfg(test)]
mod tests;
