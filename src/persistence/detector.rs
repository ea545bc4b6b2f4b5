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
    /// Saves everything that affects scores in one file, including the backbone's weights.
    ///
    /// The data are written to a temporary file, which is then renamed. After an error, no partial file
    /// is left, and an existing file is unchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written, [`Error::BackboneNotEmbedded`] for a custom
    /// backbone.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(self, true, None)?.save(path.as_ref())
    }

    /// As [`save`](Self::save), to any writer, such as a socket or a vector.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save). After an error, the writer may have received a part of the data.
    pub fn save_to(&self, mut writer: impl Write) -> Result<()> {
        Contents::of(self, true, None)?.save_to(&mut writer)
    }

    /// Saves everything except the backbone's weights; the file only has their fingerprint. Pass the
    /// backbone to [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        Contents::of(self, false, None)?.save(path.as_ref())
    }

    /// Loads a detector. On the same kind of device, its scores equal those of the saved detector
    /// exactly.
    ///
    /// `backbone` is the source of the backbone ([`BackboneSource`]). `&Device`: the weights in the
    /// file are loaded to that device. `&BackboneCache`: detectors share equal weights. An `Arc` of a
    /// backbone: it is used on its own device.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneNotEmbedded`] if the file holds no weights and no backbone is given;
    /// [`Error::BackboneMismatch`] if the backbone has other weights than the detector's fit;
    /// [`Error::Io`], [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if the file
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

    /// As [`load`](Self::load), from any reader, such as a socket or a slice of bytes. The whole file
    /// is in memory while it is read.
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
