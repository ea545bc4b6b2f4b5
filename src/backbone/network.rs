//! Common code of the networks of this crate: loading, converting and saving.

use std::fmt::Debug;
use std::path::Path;

use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checkpoint::Checkpoint;
use super::convert::{ConvertedWeights, WeightPrecision, convert};
use super::interface::Backbone;
use super::parameters::{ParameterSource, SeededParameters, Site};
use super::snapshot::BackboneSnapshot;
use crate::error::{Error, Result};
use crate::weights::Weights;

/// The largest allowed number of channels or blocks.
pub const MAX_COUNT: usize = 1 << 14;

/// The description of a network.
pub(crate) trait Network: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// The name of this kind of network in a detector file.
    const NAME: &'static str;

    /// The network itself.
    type Built: Backbone + 'static;

    /// Checks every field and limits its size, because a file can be hostile.
    fn validate(&self) -> Result<()>;

    /// All convolutions, in the order in which [`build`](Self::build) requests them.
    fn sites(&self) -> Vec<Site>;

    /// Name prefixes of the tensors in a checkpoint that are not used.
    fn unused(&self) -> Vec<String>;

    /// A readable name, with the output layers.
    fn title(&self) -> String;

    /// Whether [`Weights::Bundled`] fit this network.
    fn has_bundled_weights(&self) -> bool {
        false
    }

    /// Builds the network on a device. The description is valid.
    fn build(&self, source: &mut dyn ParameterSource, device: &Device) -> Result<Self::Built>;
}

/// Builds a network with the weights of a checkpoint.
pub(super) fn load<N: Network>(network: &N, weights: Weights, device: &Device) -> Result<N::Built> {
    network.validate()?;
    if !network.has_bundled_weights() {
        weights.require_other_than_bundled()?;
    }
    load_from(network, Checkpoint::load(&weights, &network.unused())?, device)
}

/// Builds a network with the tensors of a checkpoint; rejects tensors that are left over.
pub(super) fn load_from<N: Network>(
    network: &N,
    mut checkpoint: Checkpoint,
    device: &Device,
) -> Result<N::Built> {
    let built = build(network, &mut checkpoint, device)?;
    checkpoint.finish()?;
    Ok(built)
}

/// Builds a network with random weights.
pub(super) fn untrained<N: Network>(network: &N, seed: u64, device: &Device) -> Result<N::Built> {
    build(network, &mut SeededParameters::new(seed), device)
}

/// Builds a network with the weights of any source.
pub(super) fn build<N: Network>(
    network: &N,
    source: &mut dyn ParameterSource,
    device: &Device,
) -> Result<N::Built> {
    network.validate()?;
    crate::device::require(device)?;
    network.build(source, device)
}

/// Writes the weights that a network needs from one file to another.
pub(super) fn convert_weights<N: Network>(
    network: &N,
    files: [&Path; 2],
    precision: WeightPrecision,
) -> Result<ConvertedWeights> {
    network.validate()?;
    convert(&network.sites(), &network.unused(), &network.title(), files, precision)
}

/// A network's description and weights. `convolutions`: in the order of [`Network::sites`].
pub(super) fn snapshot<'a, N: Network>(
    network: &N,
    convolutions: impl Iterator<Item = &'a Conv2d>,
) -> Result<BackboneSnapshot> {
    let sites = network.sites();
    let parameters = sites.iter().zip(convolutions).map(|(site, module)| site.read_back(module));
    BackboneSnapshot::new(N::NAME, network, parameters.collect::<Result<_>>()?)
}

/// The number of weights and biases of a network.
pub(super) fn weight_count(network: &impl Network) -> usize {
    let numbers = |site: &Site| site.shape.iter().product::<usize>() + site.shape[0];
    network.sites().iter().map(numbers).sum()
}

/// Checks the shape of a batch of images for a network.
pub(super) fn check_images(images: &Tensor<4>) -> Result<()> {
    let dims = images.dims();
    if dims[1] == 3 && !dims.contains(&0) {
        return Ok(());
    }
    Err(Error::shape("images", "[batch, 3, height, width], none of them 0", dims))
}
