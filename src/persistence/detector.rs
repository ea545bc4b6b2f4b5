//! The file of a detector.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::cache::BackboneSource;
use super::header::Kind;
use super::read::{read, read_from};
use super::write::Contents;
use crate::backbone::Backbone;
use crate::detector::Detector;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

impl Detector {
    /// Saves everything that decides a score, the backbone's weights included, in one file.
    ///
    /// The file is written beside its target and renamed when complete; on an error nothing is left
    /// behind, and a file that was there before stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written, [`Error::BackboneNotEmbedded`] if the backbone is
    /// a network of your own.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(self, true, None)?.save(path.as_ref())
    }

    /// As [`save`](Self::save), to anything: a database, a socket, a vector.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save). What was written before an error stays.
    pub fn save_to(&self, mut writer: impl Write) -> Result<()> {
        Contents::of(self, true, None)?.save_to(&mut writer)
    }

    /// Saves everything but the backbone's weights, of which only the fingerprint is kept. Give the
    /// backbone to [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(self, false, None)?.save(path.as_ref())
    }

    /// Loads a detector. It scores as the one that was saved, bit for bit on the same kind of device.
    ///
    /// `backbone` says where the backbone comes from ([`BackboneSource`]): with `&Device` the weights in
    /// the file go to that device; with `&BackboneCache` detectors share them; with an `Arc` of a backbone
    /// that one is used, on its own device.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneNotEmbedded`] if the file holds no weights and no backbone is given;
    /// [`Error::BackboneMismatch`] if the backbone has other weights than those the detector was fitted
    /// with; [`Error::Io`], [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if the file
    /// cannot be used.
    ///
    /// ```
    /// # use padim::{Detector, Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # let device = burn::tensor::Device::flex();
    /// # let config = PadimConfig::default().with_input_size([32, 32]);
    /// # let images = || (0..3).map(|i| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9; 3])));
    /// # let detector = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?.fit(images())?;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("screw.padim");
    /// detector.save(&path)?;
    /// let loaded = Detector::load(&path, &device)?;
    /// assert_eq!(loaded.predict_batch(images())?, detector.predict_batch(images())?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load<'a>(
        path: impl AsRef<Path>,
        backbone: impl Into<BackboneSource<'a>>,
    ) -> Result<Self> {
        let backbone = backbone.into().reader();
        read(path.as_ref(), Kind::Detector, |header, body| body.detector(header, backbone))
    }

    /// As [`load`](Self::load), with a backbone of your own, on its own device.
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

    /// As [`load`](Self::load), from anything: a response of a server, a field of a database, a slice of
    /// bytes. All of it is in memory meanwhile.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_from<'a>(
        reader: impl Read,
        backbone: impl Into<BackboneSource<'a>>,
    ) -> Result<Self> {
        let backbone = backbone.into().reader();
        read_from(reader, Kind::Detector, |header, body| body.detector(header, backbone))
    }
}
