//! The file of a fit that is not finished.

use std::path::Path;
use std::sync::Arc;

use super::cache::BackboneSource;
use super::header::Kind;
use super::read::read;
use super::write::Contents;
use crate::backbone::Backbone;
use crate::detector::PartialFit;
use crate::error::{Error, Result};

impl PartialFit {
    /// Saves what is known of the images so far, and all settings, but not the backbone's weights.
    ///
    /// The file is written beside its target and renamed when complete; on an error nothing is left
    /// behind, and a file that was there before stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let contents = Contents {
            padim: &self.padim,
            input_size: self.input_size,
            grid: self.statistics.positions().grid(),
            snapshot: None,
            detector: None,
            statistics: Some(&self.statistics),
            tiles: None,
        };
        contents.save(path.as_ref())
    }

    /// Loads a partial fit, or the statistics that a detector has kept, and uses it with the given
    /// backbone.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneMismatch`] if the backbone has other weights than those of the fit,
    /// [`Error::NoStatistics`] for a detector that has kept nothing of its images; [`Error::Io`],
    /// [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if the file cannot be used.
    pub fn load(path: impl AsRef<Path>, backbone: impl Backbone + 'static) -> Result<Self> {
        let backbone = BackboneSource::Given(Arc::new(backbone)).reader();
        read(path.as_ref(), Kind::Fit, |header, body| {
            if header.statistics.is_none() {
                return Err(Error::NoStatistics);
            }
            let parts = body.parts(header, backbone)?;
            let statistics = parts.statistics.ok_or(Error::NoStatistics)?;
            Ok(Self { padim: parts.padim, input_size: parts.input_size, statistics })
        })
    }
}
