//! Where a network's weights come from: this crate, a file, or a published file.

#[cfg(feature = "download")]
mod download;
mod environment;
mod published;
mod source;

#[cfg(feature = "download")]
pub use download::FetchProgress;
pub use published::PublishedWeights;
pub use source::{TorchvisionNetwork, Weights};

pub(crate) use published::sha256;
pub(crate) use source::BUNDLED;

#[cfg(test)]
mod tests;
