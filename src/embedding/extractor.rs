//! Computes embedding vectors from images by a backbone and an embedder.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::embedder::{Embedding, PatchEmbedder};
use crate::backbone::Backbone;
use crate::caught::{Panic, caught};
use crate::error::{Error, Result};
use crate::host::{LARGEST_BUFFER, is_host};

/// A backbone and an embedder. If the backbone supports it, it computes only the selected channels.
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

    /// The backbone in use, which may compute only the selected channels.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// Splits images into batches, so that the largest map and the embedding fit into a device's
    /// buffers.
    pub fn batches(&self, images: Tensor<4>) -> impl Iterator<Item = Tensor<4>> + use<> {
        let [batch, _, height, width] = images.dims();
        images.split(self.at_once(batch, [height, width]), 0).into_iter()
    }

    /// The number of images `[height, width]` of a batch that the network processes at once.
    pub fn at_once(&self, batch: usize, [height, width]: [usize; 2]) -> usize {
        match self.backbone.memory_estimate([1, 3, height, width]) {
            Some(memory) if !is_host(&self.backbone.device()) => {
                let [rows, columns] = self.grid([height, width]);
                let embedding = 4 * self.embedder.indices().len() * rows * columns;
                (LARGEST_BUFFER / memory.largest_map.max(embedding).max(1)).clamp(1, batch.max(1))
            }
            _ => batch.max(1),
        }
    }

    /// The expected grid for an image `[height, width]`, computed from the first layer's stride.
    pub fn grid(&self, image: [usize; 2]) -> [usize; 2] {
        let stride = self.backbone.layers().first().map_or(1, |layer| layer.stride.max(1));
        image.map(|side| side.div_ceil(stride))
    }

    /// Embeds images `[batch, 3, height, width]`. Checks that the backbone gives one embedding per
    /// image.
    pub fn embed(&self, images: Tensor<4>) -> Result<Embedding> {
        let batch = images.dims()[0];
        // The backbone may be a user's, and a failing device panics.
        let maps =
            caught("the network", || self.backbone.forward(images)).map_err(Panic::error)??;
        let embedding = self.embedder.embed_maps(maps.into_maps())?;
        let shape = embedding.shape();
        if shape[0] == batch {
            return Ok(embedding);
        }
        Err(Error::shape("feature maps", format!("a batch of {batch}"), shape))
    }
}
