//! How images become network input.

use serde::{Deserialize, Serialize};

use super::alpha::Alpha;
use super::decode::{ExifOrientation, JpegDecoder};
use super::levels::Levels;
use super::resize::Resize;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::resample::Filter;

/// The arithmetic in which an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResizeArithmetic {
    /// Fixed point with 8-bit results, equal to PIL's to the bit. Always antialiased.
    Pil,
    /// Floating point, as torchvision resizes float tensors (used by anomalib).
    Float {
        /// Whether the filter is stretched over all covered samples when shrinking.
        antialias: bool,
    },
}

/// The mean and standard deviation of each channel, for values in `[0, 1]`, by which a backbone
/// expects its input to be normalized.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PreprocessConfig {
    /// Size before the crop. Default: 224x224 (paper: 256x256).
    pub resize: Resize,
    /// Side of the centered square that is kept, in pixels, or none. Default: none, so that the network
    /// sees the whole picture (paper: 224 on MVTec AD, none on STC).
    pub crop: Option<usize>,
    /// Resizing filter. Default: bilinear (paper: bicubic).
    pub filter: Filter,
    /// Resizing arithmetic. Default: PIL's.
    pub arithmetic: ResizeArithmetic,
    /// Which values of images with more than 8 bits a channel are black and white. Default: a fit decides
    /// by its first images.
    pub levels: Levels,
    /// What becomes of transparent pixels. Default: they are laid on white. The presets of programs in
    /// Python drop alpha, as PIL does.
    pub alpha: Alpha,
    /// Whether the orientation that a camera noted in a file is applied (EXIF). Default: it is. The
    /// presets of programs in Python ignore it, as PIL does.
    pub orientation: ExifOrientation,
    /// Which image of a file that holds several is read, from 0. Default: none, so that such a file is an
    /// error.
    pub page: Option<usize>,
    /// What decodes JPEG files. Decoders round differently, so that another one changes scores a little.
    /// Default: the one in Rust.
    pub jpeg_decoder: JpegDecoder,
    /// Whether a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, if that is at least the size after
    /// [`resize`](Self::resize). It takes less than half of the time for pictures of many megapixels, and
    /// changes scores a little (PIL's `draft` does the same). Pictures for a
    /// [registration](crate::detector::Registration) and for people are decoded whole. Default: no.
    pub jpeg_scaling: bool,
}

builders!(PreprocessConfig {
    with_resize: resize, Resize;
    with_crop: crop, Option<usize>;
    with_filter: filter, Filter;
    with_arithmetic: arithmetic, ResizeArithmetic;
    with_levels: levels, Levels;
    with_alpha: alpha, Alpha;
    with_orientation: orientation, ExifOrientation;
    with_page: page, Option<usize>;
    with_jpeg_decoder: jpeg_decoder, JpegDecoder;
    with_jpeg_scaling: jpeg_scaling, bool;
});

impl Default for PreprocessConfig {
    fn default() -> Self {
        Self {
            resize: Resize::square(224),
            crop: None,
            filter: Filter::Bilinear,
            arithmetic: ResizeArithmetic::Pil,
            levels: Levels::Auto,
            alpha: Alpha::default(),
            orientation: ExifOrientation::Apply,
            page: None,
            jpeg_decoder: JpegDecoder::default(),
            jpeg_scaling: false,
        }
    }
}

/// The largest side an image may be resized to. A larger value is a mistake or a damaged file.
pub(crate) const MAX_SIDE: usize = 1 << 14;

impl PreprocessConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the first setting that is out of range, with the reason.
    pub fn validate(&self) -> Result<()> {
        self.levels.validate()?;
        self.jpeg_decoder.require()?;
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
                format!("a crop of {crop} does not fit into {smallest:?} pixels; resize larger"),
            )),
            _ => Ok(()),
        }
    }

    /// The network's input size `[height, width]`; `None` if it depends on the image.
    pub fn input_size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some([crop, crop]),
            (None, Resize::Exact { height, width }) => Some([height, width]),
            (None, Resize::ShortSide(_)) => None,
        }
    }
}
