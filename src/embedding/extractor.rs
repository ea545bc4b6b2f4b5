//! From images to embedding vectors: a backbone and an embedder, with nothing computed in vain.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Embedding, PatchEmbedder};
use crate::backbone::Backbone;
use crate::{Error, Result};

/// A backbone that gives out what its embedder selects, if it can, and all otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Extractor {
    backbone: Arc<dyn Backbone>,
    embedder: PatchEmbedder,
}

impl Extractor {
    pub fn new(backbone: &Arc<dyn Backbone>, embedder: &PatchEmbedder) -> Self {
        let (channels, narrowed) = embedder.narrowed();
        match backbone.select(&channels) {
            Some(backbone) => Self { backbone, embedder: narrowed },
            None => Self { backbone: backbone.clone(), embedder: embedder.clone() },
        }
    }

    /// What runs.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// Images `[batch, 3, height, width]` to embeddings, one an image even from a foreign backbone.
    pub fn embed(&self, images: Tensor<4>) -> Result<Embedding> {
        let batch = images.dims()[0];
        let embedding = self.embedder.embed_maps(self.backbone.forward(images)?.into_maps())?;
        let shape = embedding.shape();
        if shape[0] == batch {
            return Ok(embedding);
        }
        Err(Error::shape("feature maps", format!("a batch of {batch}"), shape))
    }
}
