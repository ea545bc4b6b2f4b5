//! Moves detectors to other devices and to half precision.

use burn::tensor::{DType, Device};

use super::fitted::Detector;
use super::padim::Padim;
use super::tiled::TiledDetector;
use crate::embedding::Extractor;
use crate::error::{Error, Result};
use crate::gaussian::Precision;

impl Padim {
    /// The same settings, with the network on another device.
    fn to_device(&self, device: &Device) -> Result<Self> {
        if self.backbone.device() == *device {
            return Ok(self.clone());
        }
        let Some(snapshot) = self.backbone.snapshot()? else {
            let reason = "a custom backbone cannot be moved to another device; save without it, and \
                          load with a backbone on the other device";
            return Err(Error::BackboneNotEmbedded { reason: reason.into() });
        };
        let backbone = snapshot.build(device)?;
        let extractor = Extractor::new(&backbone, &self.embedder);
        Ok(Self { backbone, extractor, precision: Precision::F32, ..self.clone() })
    }

    /// The same settings, with 32-bit arithmetic. Gaussians are always estimated with it.
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
            let reason = format!("{device:?} does not support 16-bit arithmetic");
            return Err(Error::Device { reason });
        }
        let Some(half) = self.backbone.with_half_precision() else {
            let reason = "this network supports only 32-bit arithmetic".into();
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

    /// The same detector on another device. Scores agree to a relative difference of about 1e-4. On
    /// CUDA it is 1e-3, because kernels for tensor cores round the factors of products to 10 bits. The
    /// new detector has full precision; call [`with_half_precision`](Self::with_half_precision) again.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, burn, image};
    /// # use padim::device::device_named;
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
    /// # let config = PadimConfig::default().with_preprocess(small);
    /// # let image = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(image))?;
    /// let best = device_named("auto")?;
    /// println!("{:?}", detector.to_device(&best)?.predict(image(7))?.image_score);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::BackboneNotEmbedded`] for a custom backbone, which a detector file cannot hold either.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { padim: self.padim.to_device(device)?, ..self.clone() })
    }

    /// The same detector with 16-bit arithmetic for the network and the Gaussians on its device. It
    /// takes half the memory there, and is faster if the device has matrix units. Distances are still
    /// summed in 32 bits. `docs/devices.md` tells how much scores change.
    ///
    /// This setting is not saved with the detector.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] on a CPU, and for a device or a network that does not support 16-bit
    /// arithmetic.
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
