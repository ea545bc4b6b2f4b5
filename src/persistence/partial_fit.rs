//! The file of an unfinished fit.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::cache::BackboneSource;
use super::header::{Header, Kind};
use super::read::{Body, MakeBackbone, read, read_from};
use super::write::Contents;
use crate::backbone::Backbone;
use crate::detector::{LastImages, PartialFit};
use crate::error::{Error, Result};

impl PartialFit {
    /// Saves the statistics of the images so far and all settings, but not the backbone's weights.
    ///
    /// The data are written to a temporary file, which is then renamed. After an error, no partial file
    /// is left, and an existing file is unchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.contents().save(path.as_ref())
    }

    /// As [`save`](Self::save), to any writer, such as a socket or a vector of bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the writer fails.
    pub fn save_to(&self, mut writer: impl Write) -> Result<()> {
        self.contents().save_to(&mut writer)
    }

    fn contents(&self) -> Contents<'_> {
        Contents {
            padim: &self.padim,
            input_size: self.input_size,
            grid: self.statistics.positions().grid(),
            snapshot: None,
            detector: None,
            statistics: Some(&self.statistics),
            tiles: None,
        }
    }

    /// Loads a partial fit, or the statistics in a detector's file, for use with the given backbone.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneMismatch`] if the backbone has other weights than the fit;
    /// [`Error::NoStatistics`] for the file of a detector without statistics; [`Error::Io`],
    /// [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if the file cannot be used.
    pub fn load(path: impl AsRef<Path>, backbone: impl Backbone + 'static) -> Result<Self> {
        let backbone = BackboneSource::Given(Arc::new(backbone)).reader();
        read(path.as_ref(), Kind::Fit, |header, body| Self::of_file(header, body, backbone))
    }

    /// As [`load`](Self::load), from any reader. The whole file is in memory while it is read.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_from(reader: impl Read, backbone: impl Backbone + 'static) -> Result<Self> {
        let backbone = BackboneSource::Given(Arc::new(backbone)).reader();
        read_from(reader, Kind::Fit, |header, body| Self::of_file(header, body, backbone))
    }

    fn of_file(header: Header, body: &mut Body<'_>, backbone: Box<MakeBackbone>) -> Result<Self> {
        if header.statistics.is_none() {
            return Err(Error::NoStatistics);
        }
        let parts = body.parts(header, backbone)?;
        let statistics = parts.statistics.ok_or(Error::NoStatistics)?;
        let (padim, input_size) = (parts.padim, parts.input_size);
        Ok(Self { padim, input_size, statistics, summary: None, last: LastImages::default() })
    }
}
