//! From images to embedding vectors: a backbone and an embedder, with nothing computed in vain.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Embedding, PatchEmbedder};
use crate::backbone::Backbone;
use crate::caught::{Panic, caught};
use crate::error::{Error, Result};
use crate::host::{LARGEST_BUFFER, is_host};

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

    /// Cuts images into batches whose largest map and embedding fit the buffers of a device.
    pub fn batches(&self, images: Tensor<4>) -> impl Iterator<Item = Tensor<4>> + use<> {
        let [batch, _, height, width] = images.dims();
        images.split(self.at_once(batch, [height, width]), 0).into_iter()
    }

    /// How many of a batch of images of `[height, width]` go through the network at once.
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

    /// The grid of positions of images of `[height, width]`, as the first layer's stride foretells it.
    pub fn grid(&self, image: [usize; 2]) -> [usize; 2] {
        let stride = self.backbone.layers().first().map_or(1, |layer| layer.stride.max(1));
        image.map(|side| side.div_ceil(stride))
    }

    /// Images `[batch, 3, height, width]` to embeddings, one an image even from a foreign backbone.
    pub fn embed(&self, images: Tensor<4>) -> Result<Embedding> {
        let batch = images.dims()[0];
        // It may be anybody's, and devices panic where they fail.
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
