//! A network in the form that a detector file holds.

use serde::Serialize;
use serde_json::Value;

use super::parameters::FoldedConvolution;
use crate::error::{Error, Result};

/// Everything that is needed to rebuild a backbone of this crate.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneSnapshot {
    /// The kind of network, by its name in the list of networks.
    pub(crate) network: String,
    /// The network's description, by field names.
    pub(crate) settings: Value,
    /// The convolutions, in the order in which the network requests them.
    pub(crate) parameters: Vec<FoldedConvolution>,
}

impl BackboneSnapshot {
    pub(super) fn new(
        network: &str,
        settings: &impl Serialize,
        parameters: Vec<FoldedConvolution>,
    ) -> Result<Self> {
        let settings = serde_json::to_value(settings)
            .map_err(|e| Error::config("backbone", format!("cannot be written: {e}")))?;
        Ok(Self { network: network.to_owned(), settings, parameters })
    }
}
