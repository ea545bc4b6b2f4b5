//! Decodes files and their bytes.

use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::animation::{self, chunks};
use super::job::Job;
use super::options::DecodeOptions;
use super::source::{Source, allow};
use super::{jpeg, tiff};
use crate::caught::caught_for;
use crate::error::{Error, FileKind, Result};
use crate::files::open;
use crate::preprocess::opened::OpenedImage;

/// Decodes a PNG, JPEG, BMP, TIFF or WebP file with the default [`DecodeOptions`]. The format is
/// detected from the content, not from the name.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be opened, [`Error::Decode`] if it is not a usable image or is
/// truncated, [`Error::UnusableImage`] if it holds several pages or frames and the options do not say
/// which, [`Error::ImageTooLarge`] if it exceeds the limits, [`Error::Panicked`] if its decoder panics.
pub fn decode_file(path: impl AsRef<Path>) -> Result<DynamicImage> {
    decode_file_with(path, DecodeOptions::default())
}

/// As [`decode_file`], with these options, or within these
/// [`DecodeLimits`](super::DecodeLimits).
///
/// # Errors
///
/// As [`decode_file`].
pub fn decode_file_with(
    path: impl AsRef<Path>,
    options: impl Into<DecodeOptions>,
) -> Result<DynamicImage> {
    Ok(open_file(path.as_ref(), options.into().whole())?.pixels)
}

/// As [`decode_file_with`]; may decode a smaller image.
pub(in crate::preprocess) fn open_file(path: &Path, options: DecodeOptions) -> Result<OpenedImage> {
    // Decoders are foreign code, and a damaged file may make one panic.
    let name = path.display().to_string();
    caught_for("the decoder of an image", &name, || {
        let (file, length) = open(FileKind::Image, path)?;
        decode(BufReader::new(file), length, &name, options)
    })
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

/// As [`decode_bytes`], with these options, or within these
/// [`DecodeLimits`](super::DecodeLimits).
///
/// # Errors
///
/// As [`decode_bytes`].
pub fn decode_bytes_with(
    bytes: &[u8],
    name: &str,
    options: impl Into<DecodeOptions>,
) -> Result<DynamicImage> {
    Ok(open_bytes(bytes, name, options.into().whole())?.pixels)
}

/// As [`decode_bytes_with`]; may decode a smaller image.
pub(in crate::preprocess) fn open_bytes(
    bytes: &[u8],
    name: &str,
    options: DecodeOptions,
) -> Result<OpenedImage> {
    caught_for("the decoder of an image", name, || {
        decode(Cursor::new(bytes), bytes.len() as u64, name, options)
    })
}

/// `length` is that of the file when it was opened.
fn decode(
    mut reader: impl Source,
    length: u64,
    name: &str,
    options: DecodeOptions,
) -> Result<OpenedImage> {
    let job = Job::of(&mut reader, name, options)?;
    match job.format {
        ImageFormat::Jpeg => jpeg::decode(&whole(reader, length, &job)?, &job),
        ImageFormat::Tiff => tiff::decode(&mut reader, length, &job).map(Into::into),
        _ => decode_other(reader, &job).map(Into::into),
    }
}

/// Bytes that a JPEG file may have besides its pixels: color profiles, thumbnails, camera metadata.
const HEADERS: u64 = 16 << 20;

/// The whole file, as the decoder would read it: the file may be growing, and the decoded bytes must be the
/// ones that were found complete. A compressed image is smaller than its pixels, except for headers.
fn whole(reader: impl Read, length: u64, job: &Job) -> Result<Vec<u8>> {
    let max_bytes = job.options.limits.max_bytes;
    let most = max_bytes.saturating_add(HEADERS);
    let mut file = Vec::new();
    if length <= most {
        let mut beginning = reader.take(most.saturating_add(1));
        beginning.read_to_end(&mut file).map_err(Error::io(
            FileKind::Image,
            "read",
            Path::new(job.name),
        ))?;
    }
    let length = length.max(file.len() as u64);
    if length > most {
        return Err(job.too_large(format!(
            "a JPEG file of {length} bytes; at most {max_bytes} bytes of decoded pixels are allowed"
        )));
    }
    Ok(file)
}

/// PNG, BMP and WebP.
fn decode_other(mut reader: impl Source, job: &Job) -> Result<DynamicImage> {
    let failed = |reason| job.decoder(reason);
    let chunks = chunks(&mut reader, job.format);
    let page = job.page(chunks.pages)?;
    job.rewind(&mut reader)?;
    let most = job.options.limits.max_bytes;
    let mut readers = ImageReader::with_format(&mut reader, job.format);
    readers.limits(allow(most));
    // Reads the header only.
    let mut decoder = readers.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    job.require_size([height.into(), width.into()], bytes)?;
    // A PNG's main picture is its first page.
    let is_frame = chunks.pages > 1 && (page > 0 || job.format == ImageFormat::WebP);
    let image = if is_frame {
        drop(decoder);
        job.rewind(&mut reader)?;
        let limits = allow(bytes.saturating_add(most));
        let frame = animation::frame(&mut reader, job.format, &chunks, page, limits);
        frame.map_err(failed)?.ok_or_else(|| job.cut())?
    } else {
        decoder.set_limits(allow(bytes.saturating_add(most))).map_err(failed)?;
        DynamicImage::from_decoder(decoder).map_err(failed)?
    };
    Ok(job.turned(image, chunks.orientation))
}
