//! From an image to the network's input: decode, resize, crop, normalise.
//!
//! The 8-bit path is PIL's to the bit, so that scores agree with implementations in Python. What was
//! cut away and scaled is kept as [`ImageGeometry`], which brings maps back to the original image.

mod alignment;
mod decode;
mod geometry;
mod jpeg;
mod principal_axis;
mod region;

pub use alignment::Alignment;
pub use decode::{
    DecodeLimits, SixteenBitGrey, decode_file, decode_file_with, image_size, to_rgb8,
};
pub use geometry::ImageGeometry;
pub use region::{InputRegion, RegionOfInterest};

pub(crate) use principal_axis::principal_axis;

use decode::rgb8;

use std::borrow::Cow;

use image::{DynamicImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::resample::{Filter, Taps, resample, resample_u8};

/// How an image is brought to size before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resize {
    /// The short side becomes this many pixels and the long side follows, rounded down
    /// (torchvision's `Resize(int)`).
    ShortSide(usize),
    /// Both sides are given; the aspect ratio is not kept (the paper: 256x256).
    Exact {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
}

impl Resize {
    /// Resizes to a square.
    pub const fn square(side: usize) -> Self {
        Self::Exact { height: side, width: side }
    }

    /// The size `[height, width]` of an image of `[height, width]` after this resize.
    pub fn resized(self, [height, width]: [usize; 2]) -> [usize; 2] {
        // The product stays exact in f64, as in torchvision's own arithmetic.
        let follow = |side: usize, long: usize, short: usize| {
            (side as f64 * long as f64 / short as f64) as usize
        };
        match self {
            Self::Exact { height, width } => [height, width],
            Self::ShortSide(side) if height <= width => [side, follow(side, width, height)],
            Self::ShortSide(side) => [follow(side, height, width), side],
        }
    }
}

/// The arithmetic in which an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResizeArithmetic {
    /// Fixed point with 8-bit results, PIL's to the bit. Always antialiased.
    Pil,
    /// Floating point, as torchvision resizes float tensors (anomalib).
    Float {
        /// Whether the filter is stretched over all covered samples when shrinking.
        antialias: bool,
    },
}

/// The mean and standard deviation per channel, for values in `[0, 1]`, that a backbone expects to
/// be subtracted and divided by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Mean of red, green and blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f32; 3],
}

impl Normalization {
    /// The statistics of ImageNet, which all torchvision networks expect.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}

/// How images become network input. Stored with every detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreprocessConfig {
    /// Size before the crop. Default: short side 256 (paper: 256x256).
    pub resize: Resize,
    /// Side of the centred square that is kept, or none. Default: 224 (paper: 224 on MVTec AD,
    /// none on STC).
    pub crop: Option<usize>,
    /// Resizing filter. Default: bilinear (paper: bicubic).
    pub filter: Filter,
    /// Resizing arithmetic. Default: PIL's.
    pub arithmetic: ResizeArithmetic,
    /// What 16-bit grey images mean. Default: scaled to the full range.
    pub sixteen_bit_grey: SixteenBitGrey,
}

impl Default for PreprocessConfig {
    fn default() -> Self {
        Self {
            resize: Resize::ShortSide(256),
            crop: Some(224),
            filter: Filter::Bilinear,
            arithmetic: ResizeArithmetic::Pil,
            sixteen_bit_grey: SixteenBitGrey::Scale,
        }
    }
}

/// The largest side an image may be resized to. A configuration beyond it is a mistake or a
/// damaged file.
pub(crate) const MAX_SIDE: usize = 1 << 14;

impl PreprocessConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let smallest = match self.resize {
            Resize::ShortSide(side) => [side, side],
            Resize::Exact { height, width } => [height, width],
        };
        if smallest.iter().any(|&side| side == 0 || side > MAX_SIDE) {
            let reason = format!("sides must be in 1..={MAX_SIDE} pixels, got {smallest:?}");
            return Err(Error::config("resize", reason));
        }
        match self.crop {
            Some(0) => Err(Error::config("crop", "must be at least 1 pixel, or none")),
            Some(crop) if smallest.iter().any(|&side| crop > side) => Err(Error::config(
                "crop",
                format!("a crop of {crop} does not fit into {smallest:?} pixels; resize to more"),
            )),
            _ => Ok(()),
        }
    }

    /// The network's input size `[height, width]`, where it does not depend on the image.
    pub fn input_size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some([crop, crop]),
            (None, Resize::Exact { height, width }) => Some([height, width]),
            (None, Resize::ShortSide(_)) => None,
        }
    }
}

/// An image as the network takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessedImage {
    /// Normalised values `[3, height, width]`, row-major, with the geometry's
    /// [`input_size`](ImageGeometry::input_size).
    pub values: Vec<f32>,
    /// How the input relates to the original image.
    pub geometry: ImageGeometry,
}

/// Turns images into network input.
///
/// ```
/// use image::DynamicImage;
/// use padim::{Normalization, PreprocessConfig, Preprocessor};
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
    /// [`Error::InvalidConfig`] for sizes of zero, a crop that does not fit, or a normalisation
    /// that divides by zero.
    pub fn new(config: PreprocessConfig, normalization: Normalization) -> Result<Self> {
        config.validate()?;
        let Normalization { mean, std } = normalization;
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            let reason =
                format!("needs finite means and positive deviations, got {normalization:?}");
            return Err(Error::config("normalization", reason));
        }
        Ok(Self { config, normalization, limits: DecodeLimits::default() })
    }

    /// The same, for files of other sizes.
    #[must_use]
    pub fn with_decode_limits(self, limits: DecodeLimits) -> Self {
        Self { limits, ..self }
    }

    /// How large an image a file may decode to.
    pub fn decode_limits(&self) -> DecodeLimits {
        self.limits
    }

    /// The configuration.
    pub fn config(&self) -> &PreprocessConfig {
        &self.config
    }

    /// By what the values are normalised.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// Where the pixels of an original of `[height, width]` go.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the image has no pixels.
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

    /// Prepares one image.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the image has no pixels or holds NaN or infinite values.
    pub fn process(&self, image: &DynamicImage) -> Result<PreprocessedImage> {
        let (rgb, geometry) = self.rgb(image)?;
        let values = match self.config.arithmetic {
            ResizeArithmetic::Pil => {
                self.normalized_u8(&self.resized_crop(rgb.as_raw(), &geometry))
            }
            ResizeArithmetic::Float { antialias } => {
                self.normalized_float(rgb.as_raw(), &geometry, antialias)
            }
        };
        Ok(PreprocessedImage { values, geometry })
    }

    /// The ground-truth mask of an image, brought to the network's input size in the same way as the
    /// image itself, by the nearest sample: true where it is brighter than mid-grey. Row-major
    /// `[height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] if the mask has no pixels.
    pub fn process_mask(&self, mask: &DynamicImage) -> Result<Vec<bool>> {
        let grey = mask.to_luma8();
        let geometry = self.geometry([grey.height() as usize, grey.width() as usize])?;
        let [rows, columns] =
            geometry.taps(|from, to| Taps::antialiased(Filter::Nearest, from, to));
        let resized = resample_u8::<1>(grey.as_raw(), &rows, &columns);
        Ok(geometry.cropped::<u8, 1>(&resized).into_iter().map(|v| v > 127).collect())
    }

    /// The resized and cropped picture in 8 bits, interleaved RGB of
    /// [`input_size`](ImageGeometry::input_size): what the network sees, for people. It is resized in
    /// PIL's arithmetic even where the network's input is not.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process).
    pub fn crop_picture(&self, image: &DynamicImage) -> Result<RgbImage> {
        let (rgb, geometry) = self.rgb(image)?;
        let [height, width] = geometry.input_size();
        let pixels = self.resized_crop(rgb.as_raw(), &geometry);
        RgbImage::from_raw(width as u32, height as u32, pixels)
            .ok_or_else(|| Error::shape("picture", format!("{height}x{width}x3"), "fewer pixels"))
    }

    fn rgb<'a>(&self, image: &'a DynamicImage) -> Result<(Cow<'a, RgbImage>, ImageGeometry)> {
        let rgb = rgb8(image, self.config.sixteen_bit_grey)?;
        let geometry = self.geometry([rgb.height() as usize, rgb.width() as usize])?;
        Ok((rgb, geometry))
    }

    fn resized_crop(&self, rgb: &[u8], geometry: &ImageGeometry) -> Vec<u8> {
        let filter = self.config.filter;
        let [rows, columns] = geometry.taps(|from, to| Taps::antialiased(filter, from, to));
        geometry.cropped::<u8, 3>(&resample_u8::<3>(rgb, &rows, &columns))
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

    fn normalized_float(&self, rgb: &[u8], geometry: &ImageGeometry, antialias: bool) -> Vec<f32> {
        let filter = self.config.filter;
        let [rows, columns] = geometry.taps(|from, to| {
            if antialias {
                Taps::antialiased(filter, from, to)
            } else {
                Taps::interpolating(filter, from, to)
            }
        });
        (0..3)
            .flat_map(|channel| {
                let plane: Vec<f32> =
                    rgb.iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 255.0).collect();
                let resized = geometry.cropped::<f32, 1>(&resample(&plane, &rows, &columns));
                resized.into_iter().map(move |v| self.normalize(v, channel))
            })
            .collect()
    }

    fn normalize(&self, value: f32, channel: usize) -> f32 {
        (value - self.normalization.mean[channel]) / self.normalization.std[channel]
    }
}
