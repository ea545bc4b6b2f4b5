//! From a decoded image to the network's input.

use image::{DynamicImage, RgbImage};

use super::config::{MAX_SIDE, Normalization, PreprocessConfig, ResizeArithmetic};
use super::decode::{DecodeLimits, DecodeOptions};
use super::geometry::ImageGeometry;
use super::levels::Levels;
use super::mask::Mask;
use super::opened::is_deep;
use super::pixels::{report, rgb_units, rgb8};
use super::report::InputReport;
use crate::error::{Error, Result};
use crate::instructions;
use crate::resample::{Filter, Taps, resample_u8, resample_values};

/// An image as network input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PreprocessedImage {
    /// Normalized values `[3, height, width]`, row-major, with the geometry's
    /// [`input_size`](ImageGeometry::input_size).
    pub values: Vec<f32>,
    /// How the input relates to the original image.
    pub geometry: ImageGeometry,
    /// What was noticed about the image.
    pub report: InputReport,
}

/// Turns images into network input.
///
/// ```
/// use image::DynamicImage;
/// use padim::preprocess::{Normalization, PreprocessConfig, Preprocessor};
///
/// let preprocessor = Preprocessor::new(PreprocessConfig::default(), Normalization::IMAGENET)?;
/// let input = preprocessor.process(&DynamicImage::new_rgb8(640, 480))?;
/// assert_eq!(input.geometry.input_size(), [224, 224]);
/// assert_eq!(input.values.len(), 3 * 224 * 224);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    config: PreprocessConfig,
    normalization: Normalization,
    limits: DecodeLimits,
}

impl Preprocessor {
    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for sizes that are zero or too large, a crop that does not fit,
    /// means that are not finite, or standard deviations that are not positive; also if the
    /// environment variable `PADIM_ENGINE` names an instruction set that the processor does not have.
    pub fn new(config: PreprocessConfig, normalization: Normalization) -> Result<Self> {
        config.validate()?;
        instructions::check()?;
        let Normalization { mean, std } = normalization;
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            let reason =
                format!("needs finite means and positive deviations, got {normalization:?}");
            return Err(Error::config("normalization", reason));
        }
        Ok(Self { config, normalization, limits: DecodeLimits::default() })
    }

    /// Sets how large an image a file may decode to.
    #[must_use]
    pub fn with_decode_limits(self, limits: DecodeLimits) -> Self {
        Self { limits, ..self }
    }

    /// Sets how large an image a file may decode to.
    pub fn set_decode_limits(&mut self, limits: DecodeLimits) {
        self.limits = limits;
    }

    /// How large an image a file may decode to.
    pub fn decode_limits(&self) -> DecodeLimits {
        self.limits
    }

    /// How files are decoded: within these limits, and as the configuration says.
    pub fn decode_options(&self) -> DecodeOptions {
        let PreprocessConfig { orientation, page, jpeg_decoder, .. } = self.config;
        DecodeOptions { limits: self.limits, orientation, page, jpeg_decoder, reduced_for: None }
    }

    /// How files are decoded that only the network will see: as
    /// [`jpeg_scaling`](PreprocessConfig::jpeg_scaling) says.
    pub(crate) fn network_decode_options(&self) -> DecodeOptions {
        let reduced_for = self.config.jpeg_scaling.then_some(self.config.resize);
        DecodeOptions { reduced_for, ..self.decode_options() }
    }

    /// The configuration.
    pub fn config(&self) -> &PreprocessConfig {
        &self.config
    }

    /// The mean and standard deviation for normalization.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// The geometry of an original image of `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the image has no pixels, or if a resized side is 0 or too large.
    pub fn geometry(&self, original: [usize; 2]) -> Result<ImageGeometry> {
        if original.contains(&0) {
            let reason = format!("it has no pixels: {original:?} (height, width)");
            return Err(Error::UnusableImage { name: "given".into(), reason });
        }
        let resized = self.config.resize.resized(original);
        if resized.iter().any(|&side| side == 0 || side > MAX_SIDE) {
            return Err(Error::UnusableImage {
                name: "given".into(),
                reason: format!(
                    "{original:?} pixels (height, width) become {resized:?} when resized, \
                     which must be in 1..={MAX_SIDE}; crop it or resize to an exact size"
                ),
            });
        }
        Ok(ImageGeometry::new(original, resized, self.config.crop))
    }

    /// The same with these [`levels`](PreprocessConfig::levels), which have been checked.
    pub(crate) fn with_levels(mut self, levels: Levels) -> Self {
        self.config.levels = levels;
        self
    }

    /// Resizes, crops and normalizes one image.
    ///
    /// With [`ResizeArithmetic::Float`], deep images keep their precision; otherwise, they become 8-bit
    /// RGB first.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the image has no pixels or holds NaN or infinite values.
    pub fn process(&self, image: &DynamicImage) -> Result<PreprocessedImage> {
        self.process_of(image, None, size(image))
    }

    /// As [`process`](Self::process), for an image whose source knows the bits of its values, and which was
    /// decoded from an image of `original` pixels `[height, width]`.
    pub(crate) fn process_of(
        &self,
        image: &DynamicImage,
        bits: Option<u8>,
        original: [usize; 2],
    ) -> Result<PreprocessedImage> {
        let geometry = self.geometry(original)?;
        let PreprocessConfig { levels, alpha, .. } = self.config;
        let (values, report) = match self.config.arithmetic {
            ResizeArithmetic::Float { antialias } if is_deep(image) => {
                let (units, report) = rgb_units(image, bits, levels, alpha)?;
                let value = |channel: usize, pixel: usize| units[3 * pixel + channel];
                (self.normalized_float(value, size(image), &geometry, antialias), report)
            }
            ResizeArithmetic::Float { antialias } => {
                let (rgb, report) = rgb8(image, bits, levels, alpha)?;
                let raw = rgb.as_raw();
                let unit: [f32; 256] = std::array::from_fn(|v| v as f32 / 255.0);
                let value =
                    |channel: usize, pixel: usize| unit[usize::from(raw[3 * pixel + channel])];
                (self.normalized_float(value, size(image), &geometry, antialias), report)
            }
            ResizeArithmetic::Pil => {
                let (rgb, report) = self.resized(image, bits, &geometry)?;
                (self.normalized_u8(&rgb), report)
            }
        };
        let report = InputReport { seen_share: geometry.seen_share(), ..report };
        Ok(PreprocessedImage { values, geometry, report })
    }

    /// The report of an image that the network sees whole.
    pub(crate) fn report(&self, image: &DynamicImage, bits: Option<u8>) -> Result<InputReport> {
        report(image, bits, self.config.levels)
    }

    /// The ground-truth mask of an image in the network's input: resized (nearest sample) and
    /// cropped like the image, `true` where it is marked, as [`Mask`] says. Row-major
    /// `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the mask has no pixels.
    pub fn process_mask(&self, mask: &DynamicImage) -> Result<Vec<bool>> {
        let mask = Mask::of(mask);
        let geometry = self.geometry(mask.size())?;
        let [rows, columns] =
            geometry.taps(mask.size(), |from, to| Taps::antialiased(Filter::Nearest, from, to));
        let resized = resample_u8::<1>(mask.picture().as_raw(), &rows, &columns);
        Ok(resized.into_iter().map(|v| v > 127).collect())
    }

    /// The resized and cropped image in 8-bit RGB, of [`input_size`](ImageGeometry::input_size):
    /// what the network sees, for display. It is always resized in PIL's arithmetic, even if the
    /// network's input is not.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process).
    pub fn crop_picture(&self, image: &DynamicImage) -> Result<RgbImage> {
        let geometry = self.geometry(size(image))?;
        let [height, width] = geometry.input_size();
        let (pixels, _) = self.resized(image, None, &geometry)?;
        RgbImage::from_raw(width as u32, height as u32, pixels)
            .ok_or_else(|| Error::shape("picture", format!("{height}x{width}x3"), "fewer pixels"))
    }

    /// The resized and cropped image in 8-bit RGB, in PIL's arithmetic.
    fn resized(
        &self,
        image: &DynamicImage,
        bits: Option<u8>,
        geometry: &ImageGeometry,
    ) -> Result<(Vec<u8>, InputReport)> {
        let PreprocessConfig { filter, levels, alpha, .. } = self.config;
        let [rows, columns] =
            geometry.taps(size(image), |from, to| Taps::antialiased(filter, from, to));
        if let DynamicImage::ImageLuma8(gray) = image {
            // Equal to resizing it as RGB, which takes longer.
            let gray = resample_u8::<1>(gray.as_raw(), &rows, &columns);
            return Ok((gray.into_iter().flat_map(|v| [v; 3]).collect(), InputReport::default()));
        }
        let (rgb, report) = rgb8(image, bits, levels, alpha)?;
        Ok((resample_u8::<3>(rgb.as_raw(), &rows, &columns), report))
    }

    fn normalized_u8(&self, rgb: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(rgb.len());
        for channel in 0..3 {
            let table: Vec<f32> =
                (0..=255_u8).map(|v| self.normalize(f32::from(v) / 255.0, channel)).collect();
            values.extend(rgb.iter().skip(channel).step_by(3).map(|&v| table[usize::from(v)]));
        }
        values
    }

    /// `value`: the value of a channel of a pixel, by its index in an image of `size`.
    fn normalized_float(
        &self,
        value: impl Fn(usize, usize) -> f32 + Sync,
        size: [usize; 2],
        geometry: &ImageGeometry,
        antialias: bool,
    ) -> Vec<f32> {
        let filter = self.config.filter;
        let [rows, columns] = geometry.taps(size, |from, to| {
            if antialias {
                Taps::antialiased(filter, from, to)
            } else {
                Taps::interpolating(filter, from, to)
            }
        });
        (0..3)
            .flat_map(|channel| {
                let resized = resample_values(|pixel| value(channel, pixel), &rows, &columns);
                resized.into_iter().map(move |v| self.normalize(v, channel))
            })
            .collect()
    }

    fn normalize(&self, value: f32, channel: usize) -> f32 {
        (value - self.normalization.mean[channel]) / self.normalization.std[channel]
    }
}

/// The size `[height, width]` of an image.
fn size(image: &DynamicImage) -> [usize; 2] {
    [image.height() as usize, image.width() as usize]
}
