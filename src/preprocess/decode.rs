//! Decodes files.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::error::DecodingError;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};

use super::jpeg;
use crate::caught::caught_for;
use crate::error::{Error, FileKind, Result};
use crate::files::open;
use crate::names::{builders, named};

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
    /// The pixels stay as they are stored, as in PIL and torchvision.
    Ignore,
}

named!(
    ExifOrientation,
    "orientation",
    [("apply", ExifOrientation::Apply), ("ignore", ExifOrientation::Ignore)]
);

/// How a file becomes a decoded image. Without these options, [`decode_file`] uses the defaults.
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
    /// Which image of a file that holds several (a TIFF's pages, an animation's frames) is read, from 0.
    /// Default: none, so that such a file is an error.
    pub page: Option<usize>,
}

builders!(DecodeOptions {
    with_limits: limits, DecodeLimits;
    with_orientation: orientation, ExifOrientation;
    with_page: page, Option<usize>;
});

impl From<DecodeLimits> for DecodeOptions {
    fn from(limits: DecodeLimits) -> Self {
        Self { limits, ..Self::default() }
    }
}

/// Decodes a PNG, JPEG, BMP, TIFF or WebP file with the default [`DecodeOptions`]. The format is
/// detected from the content, not from the name.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be opened, [`Error::Decode`] if it is not a usable image or is
/// truncated, [`Error::ImageTooLarge`] if it exceeds the limits, [`Error::Panicked`] if its decoder
/// panics.
pub fn decode_file(path: impl AsRef<Path>) -> Result<DynamicImage> {
    decode_file_with(path, DecodeLimits::default())
}

/// As [`decode_file`], with these options, or within these [`DecodeLimits`].
///
/// # Errors
///
/// As [`decode_file`].
pub fn decode_file_with(
    path: impl AsRef<Path>,
    options: impl Into<DecodeOptions>,
) -> Result<DynamicImage> {
    let (path, options) = (path.as_ref(), options.into());
    // Decoders are foreign code, and a damaged file may make one panic.
    let name = path.display().to_string();
    caught_for("the decoder of an image", &name, || decode(path, options))
}

/// Decodes the bytes of a PNG, JPEG, BMP, TIFF or WebP file, such as a server's response or a field
/// of a database, with the default [`DecodeOptions`]. `name` is the image's name in errors.
///
/// # Errors
///
/// As [`decode_file`], except [`Error::Io`].
///
/// ```
/// use padim::preprocess::decode_bytes;
///
/// let error = decode_bytes(b"<html>not found</html>", "part 7").unwrap_err();
/// assert!(error.to_string().contains("part 7"));
/// ```
pub fn decode_bytes(bytes: &[u8], name: &str) -> Result<DynamicImage> {
    decode_bytes_with(bytes, name, DecodeOptions::default())
}

/// As [`decode_bytes`], with these options, or within these [`DecodeLimits`].
///
/// # Errors
///
/// As [`decode_bytes`].
pub fn decode_bytes_with(
    bytes: &[u8],
    name: &str,
    options: impl Into<DecodeOptions>,
) -> Result<DynamicImage> {
    let options = options.into();
    caught_for("the decoder of an image", name, || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let reader = reader.map_err(Error::io(FileKind::Image, "read", Path::new(name)))?;
        let is_jpeg = reader.format() == Some(ImageFormat::Jpeg);
        decode_from(reader, || !is_jpeg || jpeg::is_whole(bytes), name, options)
    })
}

/// A reader with the format detected from the file's content, and the file's length in bytes.
fn reader(path: &Path) -> Result<(ImageReader<BufReader<File>>, u64)> {
    let (file, length) = open(FileKind::Image, path)?;
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format();
    Ok((reader.map_err(Error::io(FileKind::Image, "read", path))?, length))
}

/// Bytes that a JPEG file may have besides its pixels: color profiles, thumbnails, camera metadata.
const HEADERS: u64 = 16 << 20;

fn decode(path: &Path, options: DecodeOptions) -> Result<DynamicImage> {
    let limits = options.limits;
    let (reader, length) = reader(path)?;
    if reader.format() != Some(ImageFormat::Jpeg) {
        return decode_from(reader, || true, &path.display().to_string(), options);
    }
    // Read the whole file, as the decoder would: the file may be growing, and the decoded bytes
    // must be the ones that were found complete. A compressed image is smaller than its pixels,
    // except for headers.
    let most = limits.max_bytes.saturating_add(HEADERS);
    let mut file = Vec::new();
    if length <= most {
        let mut beginning = reader.into_inner().take(most + 1);
        beginning.read_to_end(&mut file).map_err(Error::io(FileKind::Image, "read", path))?;
    }
    let length = length.max(file.len() as u64);
    if length > most {
        let what = format!(
            "a JPEG file of {length} bytes; at most {} bytes of decoded pixels are allowed",
            limits.max_bytes
        );
        return Err(Error::ImageTooLarge { name: path.display().to_string(), what });
    }
    let reader = ImageReader::with_format(Cursor::new(&*file), ImageFormat::Jpeg);
    decode_from(reader, || jpeg::is_whole(&file), &path.display().to_string(), options)
}

/// The size `[height, width]` from the header of an image file, without decoding the pixels.
///
/// # Errors
///
/// As [`decode_file`].
pub fn image_size(path: impl AsRef<Path>) -> Result<[usize; 2]> {
    let path = path.as_ref();
    let name = path.display().to_string();
    caught_for("the decoder of an image", &name, || {
        let size = reader(path)?.0.into_dimensions();
        let (width, height) =
            size.map_err(|reason| Error::Decode { name: name.clone(), reason })?;
        Ok([height as usize, width as usize])
    })
}

fn decode_from(
    mut reader: ImageReader<impl BufRead + Seek>,
    is_whole: impl FnOnce() -> bool,
    name: &str,
    options: DecodeOptions,
) -> Result<DynamicImage> {
    let DecodeLimits { max_pixels, max_bytes } = options.limits;
    let too_large = |what| Error::ImageTooLarge { name: name.to_owned(), what };
    let failed = |reason| match reason {
        // The limit on the decoder's own memory. The error does not say how much it needs.
        ImageError::Limits(_) => {
            too_large(format!("decoding it takes more than {max_bytes} bytes"))
        }
        reason => Error::Decode { name: name.to_owned(), reason },
    };
    let allow = |bytes: u64| {
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(bytes);
        limits
    };
    reader.limits(allow(max_bytes));
    // Reads the header only.
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let (pixels, bytes) = (u64::from(width) * u64::from(height), decoder.total_bytes());
    if pixels > max_pixels || bytes > max_bytes {
        let what = format!(
            "{height} x {width} pixels (height, width) of {} bytes; at most {max_pixels} pixels \
             and {max_bytes} bytes are allowed",
            bytes.checked_div(pixels).unwrap_or(0)
        );
        return Err(too_large(what));
    }
    if !is_whole() {
        let format = ImageFormat::Jpeg.into();
        let source = DecodingError::new(format, "the file ends before its image is complete");
        return Err(failed(ImageError::Decoding(source)));
    }
    decoder.set_limits(allow(bytes.saturating_add(max_bytes))).map_err(failed)?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if options.orientation == ExifOrientation::Apply {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_the_size() {
        let folder = tempfile::tempdir().unwrap();
        for format in ["png", "jpg", "bmp", "tiff", "webp"] {
            let path = folder.path().join("image").with_extension(format);
            jpeg::tests::noisy().save(&path).unwrap();
            assert_eq!(image_size(&path).unwrap(), [47, 61], "{format}");
        }
        let text = folder.path().join("text.png");
        std::fs::write(&text, b"some text").unwrap();
        assert!(matches!(image_size(text), Err(Error::Decode { .. })));
    }

    #[test]
    fn a_file_that_was_cut_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let noisy = jpeg::tests::noisy();
        for format in ["png", "jpg", "bmp", "tiff", "webp"] {
            let path = folder.path().join("image").with_extension(format);
            noisy.save(&path).unwrap();
            decode_file(&path).unwrap();
            let whole = std::fs::read(&path).unwrap();
            for length in [whole.len() / 4, whole.len() / 2, whole.len() - 40] {
                std::fs::write(&path, &whole[..length]).unwrap();
                let error = decode_file(&path).unwrap_err();
                assert!(matches!(error, Error::Decode { .. }), "{format}, {length} bytes: {error}");
            }
        }
    }

    /// Found by a fuzzer: a palette of 49 bytes, on which the decoder of `png` 0.18.1 panics.
    #[test]
    fn a_decoder_that_panics_is_an_error() {
        use base64::Engine;
        let file = "iVBORw0KGgoAAAANSUhEUgAAABIAAAAYBAMAAACFf7ACAAAAMVBMVEXk6cy8wsegpauMkph+hIpzeX9rcHZiJWhu \
            WolQTkdRSlBWQEVLLDI3FhshChAWAggOHNhmdQAAAJtJREFUeJwFwbFVA0EQRMG+eetg6eFjQQpkAD7R4SoTQpAy \
            0OwlwP52cLepOiLxcPxaUh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eZDLQ7CVQN3ZwrkJggg==";
        let file = file.replace(' ', "");
        let bytes = base64::engine::general_purpose::STANDARD.decode(file).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("palette.png");
        std::fs::write(&path, bytes).unwrap();
        let error = decode_file(&path).unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Panicked { .. } | Error::Decode { .. }));
        assert!(error.to_string().contains("palette.png"));
    }
}
