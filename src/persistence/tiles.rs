//! The file of a detector of tiles: that of its first tile, with a section and models more.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use super::{Body, FoldedConvolution, Header, Kind, ModelSection, TilesSection, invalid, read};
use crate::backbone::Backbone;
use crate::detector::TiledDetector;
use crate::error::Result;

impl TilesSection {
    pub(super) fn of(detector: &TiledDetector) -> Self {
        Self {
            tiling: detector.tiling,
            image_size: detector.image_size,
            others: detector.others.iter().map(ModelSection::of).collect(),
        }
    }
}

impl TiledDetector {
    /// Saves everything that decides a score in one file, the backbone's weights included, once for all
    /// tiles.
    ///
    /// # Errors
    ///
    /// As [`Detector::save`](crate::Detector::save).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.first.write(path.as_ref(), Some(self.first.snapshot()?), Some(self))
    }

    /// Saves everything but the backbone's weights, of which only the fingerprint is kept.
    ///
    /// # Errors
    ///
    /// As [`Detector::save_without_backbone`](crate::Detector::save_without_backbone).
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        self.first.write(path.as_ref(), None, Some(self))
    }

    /// Loads a detector with its embedded backbone onto a device. It scores as the one that was saved,
    /// bit for bit on the same kind of device.
    ///
    /// # Errors
    ///
    /// As [`Detector::load`](crate::Detector::load); a file without tiles is refused.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        read(path.as_ref(), Kind::Tiles, |header, body| {
            let backbone = header.embedded(body.path, device)?;
            body.tiled(header, backbone)
        })
    }

    /// Loads a detector and uses it with the given backbone, on the backbone's device.
    ///
    /// # Errors
    ///
    /// As [`Detector::load_with_backbone`](crate::Detector::load_with_backbone); a file without tiles
    /// is refused.
    pub fn load_with_backbone(
        path: impl AsRef<Path>,
        backbone: impl Backbone + 'static,
    ) -> Result<Self> {
        Self::load_with_shared_backbone(path, Arc::new(backbone))
    }

    /// As [`load_with_backbone`](Self::load_with_backbone), with a backbone that others use too.
    ///
    /// # Errors
    ///
    /// As [`load_with_backbone`](Self::load_with_backbone).
    pub fn load_with_shared_backbone(
        path: impl AsRef<Path>,
        backbone: Arc<dyn Backbone>,
    ) -> Result<Self> {
        read(path.as_ref(), Kind::Tiles, |header, body| {
            body.tiled(header, |_embedded| Ok(backbone))
        })
    }
}

impl Body<'_> {
    fn tiled(
        self,
        header: Header,
        backbone: impl FnOnce(Vec<FoldedConvolution>) -> Result<Arc<dyn Backbone>>,
    ) -> Result<TiledDetector> {
        let path = self.path;
        let Some(TilesSection { tiling, image_size, .. }) = header.tiles else {
            return Err(invalid(path, "it holds no tiles"));
        };
        if header.region.is_some() || header.statistics.is_some() {
            return Err(invalid(path, "it has both tiles and what they do not go with"));
        }
        let decision = header.decision.clone();
        let mut parts = self.parts(header, backbone)?;
        let others = std::mem::take(&mut parts.others);
        let first = parts.detector(path, decision)?;
        TiledDetector::new(tiling, image_size, first, others)
            .map_err(|error| invalid(path, error.to_string()))
    }
}
