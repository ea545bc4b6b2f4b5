//! What a file may decode to, and how.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::{builders, named};
use crate::preprocess::resize::Resize;

/// How large an image a file may decode to. Without limits, a file of a few kilobytes could claim
/// any size and use up the memory.
///
/// The limits belong to the running program and are not saved with a detector. Raise them with
/// [`Detector::with_decode_limits`](crate::Detector::with_decode_limits),
/// [`Padim::with_decode_limits`](crate::Padim::with_decode_limits) or
/// [`Preprocessor::with_decode_limits`](crate::preprocess::Preprocessor::with_decode_limits).
///
/// ```
/// use padim::preprocess::{DecodeLimits, decode_file_with};
///
/// // A line camera's strips of 30,000 x 30,000 pixels, in gray.
/// let limits = DecodeLimits { max_pixels: 1_000_000_000, max_bytes: 1_000_000_000 };
/// assert!(decode_file_with("missing.png", limits).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest height times width. Default: 178,956,970 (13,377 x 13,377), where PIL refuses, too.
    pub max_pixels: u64,
    /// The most bytes of decoded pixels; a decoder may use as many again while it works. Default:
    /// 512 MiB, which is `max_pixels` in 8-bit color. (A TIFF reader may reserve 256 MiB before it
    /// knows the size, but does not touch them if the file is small.)
    pub max_bytes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        let max_bytes = 512 << 20;
        Self { max_pixels: max_bytes / 3, max_bytes }
    }
}

/// What becomes of the orientation that a camera has noted in a file (EXIF).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExifOrientation {
    /// The picture is turned and mirrored, so that it lies as people see it.
    #[default]
    Apply,
    /// The pixels stay as they are stored, as in PIL and torchvision. A TIFF is turned all the same, as PIL
    /// does.
    Ignore,
}

named!(
    ExifOrientation,
    "orientation",
    [("apply", ExifOrientation::Apply), ("ignore", ExifOrientation::Ignore)]
);

/// What decodes JPEG files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JpegDecoder {
    /// The decoder of the crate [`image`], in Rust.
    #[default]
    Rust,
    /// libjpeg-turbo, the decoder of PIL and OpenCV: the same pixels as theirs. Needs the feature
    /// `turbojpeg`, which compiles a library in C.
    Turbo,
}

named!(JpegDecoder, "jpeg_decoder", [("rust", JpegDecoder::Rust), ("turbo", JpegDecoder::Turbo)]);

impl JpegDecoder {
    /// Fails if this build does not have it.
    pub(crate) fn require(self) -> Result<()> {
        if self == Self::Turbo && !cfg!(feature = "turbojpeg") {
            let reason = "this program was built without libjpeg-turbo; build padim with the feature \
                          `turbojpeg`, or fit with \"rust\"";
            return Err(Error::config("jpeg_decoder", reason));
        }
        Ok(())
    }
}

/// How a file becomes a decoded image. Without these options,
/// [`decode_file`](super::decode_file) uses the defaults.
///
/// ```
/// use padim::preprocess::{DecodeOptions, ExifOrientation, decode_file_with};
///
/// let options = DecodeOptions::default().with_orientation(ExifOrientation::Ignore);
/// assert!(decode_file_with("missing.jpg", options).is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// How large the image may be.
    pub limits: DecodeLimits,
    /// Whether the EXIF orientation is applied. Default: it is.
    pub orientation: ExifOrientation,
    /// Which image of a file that holds several (a TIFF's pages, the frames of an animated WebP or PNG) is
    /// read, from 0. Default: none, so that such a file is an error. `Some(0)` reads the first image of any
    /// file.
    pub page: Option<usize>,
    /// What decodes JPEG files. Default: the decoder in Rust.
    pub jpeg_decoder: JpegDecoder,
    /// How the image will be resized, if a JPEG may be decoded smaller. Only code that knows both sizes uses
    /// it.
    pub(crate) reduced_for: Option<Resize>,
}

builders!(DecodeOptions {
    with_limits: limits, DecodeLimits;
    with_orientation: orientation, ExifOrientation;
    with_page: page, Option<usize>;
    with_jpeg_decoder: jpeg_decoder, JpegDecoder;
});

impl DecodeOptions {
    /// The same, for the whole image.
    pub(crate) fn whole(self) -> Self {
        Self { reduced_for: None, ..self }
    }
}

impl From<DecodeLimits> for DecodeOptions {
    fn from(limits: DecodeLimits) -> Self {
        Self { limits, ..Self::default() }
    }
}
