//! Decodes files, and converts images of any pixel type to 8-bit RGB.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::error::DecodingError;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};
use serde::{Deserialize, Serialize};

use super::jpeg;
use crate::caught::caught_for;
use crate::error::{Error, FileKind, Result};
use crate::files::open;
use crate::names::named;

/// How the values of a 16-bit gray image are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SixteenBitGray {
    /// 65535 is white: the high byte is kept, as for 16-bit color.
    Scale,
    /// 255 and all values above are white, as in PIL's `convert("RGB")`. Most 16-bit images become
    /// plain white, so use it only if scores must equal those of a program built on PIL.
    ClipAt255,
}

named!(
    SixteenBitGray,
    "sixteen_bit_gray",
    [("scale", SixteenBitGray::Scale), ("clip-at255", SixteenBitGray::ClipAt255)]
);

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

/// Decodes a PNG, JPEG, BMP, TIFF or WebP file within the default [`DecodeLimits`]. The format is
/// detected from the content, not from the name.
///
/// The EXIF orientation is not applied, as in PIL and torchvision.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be opened, [`Error::Decode`] if it is not a usable image or is
/// truncated, [`Error::ImageTooLarge`] if it exceeds the limits, [`Error::Panicked`] if its decoder
/// panics.
pub fn decode_file(path: impl AsRef<Path>) -> Result<DynamicImage> {
    decode_file_with(path, DecodeLimits::default())
}

/// As [`decode_file`], within these limits.
///
/// # Errors
///
/// As [`decode_file`].
pub fn decode_file_with(path: impl AsRef<Path>, limits: DecodeLimits) -> Result<DynamicImage> {
    let path = path.as_ref();
    // Decoders are foreign code, and a damaged file may make one panic.
    let name = path.display().to_string();
    caught_for("the decoder of an image", &name, || decode(path, limits))
}

/// Decodes the bytes of a PNG, JPEG, BMP, TIFF or WebP file, such as a server's response or a field
/// of a database, within the default [`DecodeLimits`]. `name` is the image's name in errors.
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
    decode_bytes_with(bytes, name, DecodeLimits::default())
}

/// As [`decode_bytes`], within these limits.
///
/// # Errors
///
/// As [`decode_bytes`].
pub fn decode_bytes_with(bytes: &[u8], name: &str, limits: DecodeLimits) -> Result<DynamicImage> {
    caught_for("the decoder of an image", name, || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let reader = reader.map_err(Error::io(FileKind::Image, "read", Path::new(name)))?;
        let is_jpeg = reader.format() == Some(ImageFormat::Jpeg);
        decode_from(reader, || !is_jpeg || jpeg::is_whole(bytes), name, limits)
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

fn decode(path: &Path, limits: DecodeLimits) -> Result<DynamicImage> {
    let (reader, length) = reader(path)?;
    if reader.format() != Some(ImageFormat::Jpeg) {
        return decode_from(reader, || true, &path.display().to_string(), limits);
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
    decode_from(reader, || jpeg::is_whole(&file), &path.display().to_string(), limits)
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
    limits: DecodeLimits,
) -> Result<DynamicImage> {
    let DecodeLimits { max_pixels, max_bytes } = limits;
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
    DynamicImage::from_decoder(decoder).map_err(failed)
}

/// Converts any image to 8-bit RGB, like PIL's `convert("RGB")`: gray is repeated, alpha is dropped
/// (not blended), 16-bit color keeps its high byte. Floating-point values are clamped to `[0, 1]`,
/// where 1 becomes 255.
///
/// # Errors
///
/// [`Error::UnusableImage`] if a floating-point image holds NaN or infinite values.
pub fn to_rgb8(image: &DynamicImage, gray16: SixteenBitGray) -> Result<RgbImage> {
    rgb8(image, gray16).map(Cow::into_owned)
}

/// As [`to_rgb8`], but borrows an image that is already 8-bit RGB.
pub(super) fn rgb8(image: &DynamicImage, gray16: SixteenBitGray) -> Result<Cow<'_, RgbImage>> {
    let high_byte = |v: u16| (v >> 8) as u8;
    let gray16_to_8 = |v: u16| match gray16 {
        SixteenBitGray::Scale => high_byte(v),
        SixteenBitGray::ClipAt255 => v.min(255) as u8,
    };
    let float_to_8 = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
    let raw: Vec<u8> = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(Cow::Borrowed(rgb)),
        DynamicImage::ImageLuma8(grey) => repeat3(grey.as_raw().iter().copied()),
        DynamicImage::ImageLumaA8(grey) => repeat3(grey.as_raw().iter().step_by(2).copied()),
        DynamicImage::ImageRgba8(rgba) => first3(rgba.as_raw(), |v| v),
        DynamicImage::ImageLuma16(grey) => repeat3(grey.as_raw().iter().copied().map(gray16_to_8)),
        DynamicImage::ImageLumaA16(grey) => {
            repeat3(grey.as_raw().iter().step_by(2).copied().map(gray16_to_8))
        }
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().copied().map(high_byte).collect(),
        DynamicImage::ImageRgba16(rgba) => first3(rgba.as_raw(), high_byte),
        DynamicImage::ImageRgb32F(rgb) => {
            require_finite(rgb.as_raw())?;
            rgb.as_raw().iter().copied().map(float_to_8).collect()
        }
        DynamicImage::ImageRgba32F(rgba) => {
            require_finite(rgba.as_raw())?;
            first3(rgba.as_raw(), float_to_8)
        }
        other => return Ok(Cow::Owned(other.to_rgb8())),
    };
    RgbImage::from_raw(image.width(), image.height(), raw)
        .map(Cow::Owned)
        .ok_or_else(|| Error::shape("image", "3 values a pixel", image.color()))
}

fn repeat3(grey: impl Iterator<Item = u8>) -> Vec<u8> {
    grey.flat_map(|v| [v; 3]).collect()
}

fn first3<T: Copy>(rgba: &[T], convert: impl Fn(T) -> u8) -> Vec<u8> {
    rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).map(convert).collect()
}

fn require_finite(values: &[f32]) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(Error::UnusableImage {
        name: "given".into(),
        reason: "its floating-point pixels hold NaN or infinite values".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, LumaA, Rgb, Rgba};

    fn one_pixel(image: DynamicImage) -> [u8; 3] {
        to_rgb8(&image, SixteenBitGray::Scale).unwrap().get_pixel(0, 0).0
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let grey_alpha = ImageBuffer::from_pixel(1, 1, LumaA([7_u8, 0]));
        assert_eq!(one_pixel(DynamicImage::ImageLumaA8(grey_alpha)), [7, 7, 7]);
        let colour16 = ImageBuffer::from_pixel(1, 1, Rgb([0x12FF_u16, 0x3400, 0xFFFF]));
        assert_eq!(one_pixel(DynamicImage::ImageRgb16(colour16)), [0x12, 0x34, 0xFF]);
        let alpha16 = ImageBuffer::from_pixel(1, 1, Rgba([0x0100_u16, 0x0200, 0x0300, 0]));
        assert_eq!(one_pixel(DynamicImage::ImageRgba16(alpha16)), [1, 2, 3]);
        let grey_alpha16 = ImageBuffer::from_pixel(1, 1, LumaA([0x8000_u16, 9]));
        assert_eq!(one_pixel(DynamicImage::ImageLumaA16(grey_alpha16)), [0x80; 3]);
        let float = ImageBuffer::from_pixel(1, 1, Rgb([-1.0_f32, 0.5, 2.0]));
        assert_eq!(one_pixel(DynamicImage::ImageRgb32F(float)), [0, 128, 255]);
    }

    #[test]
    fn pixels_that_are_not_numbers_are_refused() {
        let image = ImageBuffer::from_pixel(2, 2, Rgb([0.0, f32::NAN, 0.0]));
        let error = to_rgb8(&DynamicImage::ImageRgb32F(image), SixteenBitGray::Scale).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{error}");
    }

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
