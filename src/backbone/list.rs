//! The list of all networks of this crate. To add one, write a new file and add an entry here.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;

use super::efficientnet::EfficientNetConfig;
use super::interface::Backbone;
use super::network::{self, Network};
use super::parameters::FoldedParameters;
use super::resnet::ResNetConfig;
use super::snapshot::BackboneSnapshot;
use crate::error::{Error, Result};

const NETWORKS: &[Entry] = &[Entry::of::<ResNetConfig>(), Entry::of::<EfficientNetConfig>()];

/// What a detector file needs to know about a kind of network.
struct Entry {
    name: &'static str,
    convolutions: fn(&Value) -> Result<Convolutions>,
    build: fn(BackboneSnapshot, &Device) -> Result<Arc<dyn Backbone>>,
}

/// The names of the convolutions and their shapes
/// `[channels_out, channels_in per group, kernel_height, kernel_width]`.
type Convolutions = Vec<(String, [usize; 4])>;

impl Entry {
    const fn of<N: Network>() -> Self {
        Self { name: N::NAME, convolutions: convolutions::<N>, build: build::<N> }
    }
}

fn described<N: Network>(settings: &Value) -> Result<N> {
    let network: N = N::deserialize(settings)
        .map_err(|e| Error::config("backbone", format!("{} cannot be read: {e}", N::NAME)))?;
    network.validate()?;
    Ok(network)
}

fn convolutions<N: Network>(settings: &Value) -> Result<Convolutions> {
    let sites = described::<N>(settings)?.sites();
    Ok(sites.into_iter().map(|site| (site.name, site.shape)).collect())
}

fn build<N: Network>(snapshot: BackboneSnapshot, device: &Device) -> Result<Arc<dyn Backbone>> {
    let network = described::<N>(&snapshot.settings)?;
    let mut parameters = FoldedParameters { convolutions: snapshot.parameters.into_iter() };
    Ok(Arc::new(network::build(&network, &mut parameters, device)?))
}

fn entry(name: &str) -> Result<&'static Entry> {
    NETWORKS.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<_> = NETWORKS.iter().map(|entry| entry.name).collect();
        let reason = format!("expected one of {}, got {name:?}", names.join(", "));
        Error::config("backbone", reason)
    })
}

/// All convolutions of a network, in the order of a [`BackboneSnapshot`].
pub(crate) fn convolutions_of(network: &str, settings: &Value) -> Result<Convolutions> {
    (entry(network)?.convolutions)(settings)
}

impl BackboneSnapshot {
    /// Rebuilds the network.
    pub(crate) fn build(self, device: &Device) -> Result<Arc<dyn Backbone>> {
        (entry(&self.network)?.build)(self, device)
    }
}
