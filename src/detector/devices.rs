//! Detectors on other devices than they were fitted on.

use burn::tensor::{DType, Device};

use super::fitted::Detector;
use super::padim::Padim;
use super::tiled::TiledDetector;
use crate::embedding::Extractor;
use crate::error::{Error, Result};
use crate::gaussian::Precision;

impl Padim {
    /// The same with the network's weights on another device.
    fn to_device(&self, device: &Device) -> Result<Self> {
        if self.backbone.device() == *device {
            return Ok(self.clone());
        }
        let Some(snapshot) = self.backbone.snapshot()? else {
            let reason = "a backbone of your own cannot be moved: save without it, and give `load` one \
                          that is on the other device";
            return Err(Error::BackboneNotEmbedded { reason: reason.into() });
        };
        let backbone = snapshot.build(device)?;
        let extractor = Extractor::new(&backbone, &self.embedder);
        Ok(Self { backbone, extractor, precision: Precision::F32, ..self.clone() })
    }

    /// The same with 32 bits, in which Gaussians are estimated.
    pub(super) fn in_full_precision(&self) -> Self {
        match self.precision {
            Precision::F32 => self.clone(),
            Precision::F16 => {
                let extractor = Extractor::new(&self.backbone, &self.embedder);
                Self { extractor, precision: Precision::F32, ..self.clone() }
            }
        }
    }

    fn with_half_precision(self) -> Result<Self> {
        let device = self.backbone.device();
        if crate::host::is_host(&device) || !device.supports_dtype(DType::F16) {
            let reason = format!("{device:?} does not compute with 16 bits");
            return Err(Error::Device { reason });
        }
        let Some(half) = self.backbone.with_half_precision() else {
            let reason = "this network computes with 32 bits only".into();
            return Err(Error::Device { reason });
        };
        let extractor = Extractor::new(&half, &self.embedder);
        Ok(Self { extractor, precision: Precision::F16, ..self })
    }
}

impl Detector {
    /// The device on which images are scored.
    pub fn device(&self) -> Device {
        self.padim.backbone.device()
    }

    /// The same detector on another device. Scores agree to about a ten-thousandth of themselves; on
    /// CUDA to a thousandth, where kernels for tensor cores round the factors of products to 10 bits. Half
    /// precision stays behind: ask for it again on the new device.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, burn, image};
    /// # use padim::device::device_named;
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let image = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(image))?;
    /// let best = device_named("auto")?;
    /// println!("{:?}", detector.to_device(&best)?.predict(image(7))?.image_score);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::BackboneNotEmbedded`] for a backbone that a detector file could not hold, either.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { padim: self.padim.to_device(device)?, ..self.clone() })
    }

    /// The same detector with the network and the Gaussians computing with 16 bits on its device, which
    /// is faster where there are matrix units, and takes half the memory there. Distances are still
    /// added up with 32. Scores change: see the README for how much.
    ///
    /// A part of the program that runs, not of the detector: it is not saved.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] on a CPU, on a device that does not compute with 16 bits, and for a network that
    /// does not.
    pub fn with_half_precision(self) -> Result<Self> {
        Ok(Self { padim: self.padim.with_half_precision()?, ..self })
    }
}

impl TiledDetector {
    /// As [`Detector::to_device`].
    ///
    /// # Errors
    ///
    /// As [`Detector::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { first: self.first.to_device(device)?, ..self.clone() })
    }

    /// As [`Detector::with_half_precision`].
    ///
    /// # Errors
    ///
    /// As [`Detector::with_half_precision`].
    pub fn with_half_precision(self) -> Result<Self> {
        Ok(Self { first: self.first.with_half_precision()?, ..self })
    }
}
