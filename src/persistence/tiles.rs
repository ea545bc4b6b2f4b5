//! The file of a tiled detector: the file of its first tile plus the tiling and the other models.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::cache::BackboneSource;
use super::format::invalid;
use super::header::{Header, Kind, TilesSection};
use super::read::{Body, MakeBackbone, read, read_from};
use super::write::Contents;
use crate::backbone::Backbone;
use crate::detector::TiledDetector;
use crate::error::Result;

impl TiledDetector {
    /// Saves everything that affects scores in one file, including the backbone's weights.
    ///
    /// # Errors
    ///
    /// As [`Detector::save`](crate::Detector::save).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(&self.first, true, Some(self))?.save(path.as_ref())
    }

    /// As [`save`](Self::save), to any writer.
    ///
    /// # Errors
    ///
    /// As [`Detector::save_to`](crate::Detector::save_to).
    pub fn save_to(&self, mut writer: impl Write) -> Result<()> {
        Contents::of(&self.first, true, Some(self))?.save_to(&mut writer)
    }

    /// Saves everything except the backbone's weights; the file only has their fingerprint.
    ///
    /// # Errors
    ///
    /// As [`Detector::save_without_backbone`](crate::Detector::save_without_backbone).
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(&self.first, false, Some(self))?.save(path.as_ref())
    }

    /// Loads a tiled detector. `backbone` is as in [`Detector::load`](crate::Detector::load).
    ///
    /// # Errors
    ///
    /// As [`Detector::load`](crate::Detector::load), also for a file without tiles.
    pub fn load<'a>(
        path: impl AsRef<Path>,
        backbone: impl Into<BackboneSource<'a>>,
    ) -> Result<Self> {
        let backbone = backbone.into().reader();
        read(path.as_ref(), Kind::Tiles, |header, body| body.tiled(header, backbone))
    }

    /// As [`load`](Self::load), with the given backbone, on its device.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with_backbone(
        path: impl AsRef<Path>,
        backbone: impl Backbone + 'static,
    ) -> Result<Self> {
        Self::load(path, Arc::new(backbone))
    }

    /// As [`load`](Self::load), from any reader. The whole file is in memory while it is read.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_from<'a>(
        reader: impl Read,
        backbone: impl Into<BackboneSource<'a>>,
    ) -> Result<Self> {
        let backbone = backbone.into().reader();
        read_from(reader, Kind::Tiles, |header, body| body.tiled(header, backbone))
    }
}

impl Body<'_> {
    fn tiled(&mut self, mut header: Header, backbone: Box<MakeBackbone>) -> Result<TiledDetector> {
        let path = self.path;
        let Some(TilesSection { tiling, image_size }) = header.tiles.take() else {
            return Err(invalid(path, "it holds no tiles"));
        };
        if header.region.is_some() || header.statistics.is_some() {
            return Err(invalid(path, "it has tiles together with a region or statistics"));
        }
        let mut parts = self.parts(header, backbone)?;
        let others = std::mem::take(&mut parts.others);
        let first = parts.detector(path)?;
        TiledDetector::new(tiling, image_size, first, others)
            .map_err(|error| invalid(path, error.to_string()))
    }
}
