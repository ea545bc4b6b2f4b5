//! Computes one embedding vector per patch from feature maps.

mod draw;
mod embedder;
mod extractor;
mod projection;
mod selection;
mod vectors;

pub use embedder::PatchEmbedder;
pub use projection::Projection;
pub use selection::ChannelSelection;

pub(crate) use embedder::{Embedding, EmbeddingPart};
pub(crate) use extractor::Extractor;
pub(crate) use projection::ProjectionEstimator;
pub(crate) use vectors::{DenseVectors, PartOfBatch, PatchVectors};
