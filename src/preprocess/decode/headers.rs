//! Reads the headers of image files, without decoding the pixels.

use std::io::BufReader;
use std::path::Path;

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};

use super::animation::chunks;
use super::header::ImageHeader;
use super::job::Job;
use super::options::DecodeOptions;
use super::source::allow;
use super::{jpeg, tiff};
use crate::caught::caught_for;
use crate::error::{FileKind, Result};
use crate::files::open;

/// Reads the header of an image file without decoding the pixels.
///
/// # Errors
///
/// As [`decode_file`](super::decode_file), except for what only the pixels can show.
///
/// ```
/// use padim::preprocess::image_header;
///
/// # fn main() -> padim::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let file = folder.path().join("part.png");
/// padim::image::GrayImage::new(40, 30).save(&file).unwrap();
/// let header = image_header(&file)?;
/// assert_eq!((header.size, header.pages, header.is_gray), ([30, 40], 1, true));
/// # Ok(())
/// # }
/// ```
pub fn image_header(path: impl AsRef<Path>) -> Result<ImageHeader> {
    let path = path.as_ref();
    let name = path.display().to_string();
    caught_for("the decoder of an image", &name, || {
        let (file, length) = open(FileKind::Image, path)?;
        let mut reader = BufReader::new(file);
        let job = Job::of(&mut reader, &name, DecodeOptions::default())?;
        match job.format {
            ImageFormat::Jpeg => {
                let markers = jpeg::Markers::read(&mut reader);
                let frame = markers.frame.ok_or_else(|| job.cut())?;
                let size = [usize::from(frame.height), usize::from(frame.width)];
                let is_gray = frame.components.len() == 1;
                let header = ImageHeader::new(size, markers.orientation);
                Ok(ImageHeader { bits: frame.bits, is_gray, ..header })
            }
            ImageFormat::Tiff => tiff::header(&mut reader, length, &job),
            _ => other(&mut reader, &job),
        }
    })
}

/// PNG, BMP and WebP.
fn other(reader: &mut BufReader<std::fs::File>, job: &Job) -> Result<ImageHeader> {
    let chunks = chunks(reader, job.format);
    job.rewind(reader)?;
    let mut reader = ImageReader::with_format(reader, job.format);
    reader.limits(allow(job.options.limits.max_bytes));
    let decoder = reader.into_decoder().map_err(|reason| job.decoder(reason))?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let header = ImageHeader::new([height as usize, width as usize], chunks.orientation);
    Ok(ImageHeader {
        pages: chunks.pages,
        bits: (color.bits_per_pixel() / u16::from(color.channel_count())) as u8,
        is_float: matches!(color, ColorType::Rgb32F | ColorType::Rgba32F),
        has_alpha: color.has_alpha(),
        is_gray: !color.has_color(),
        ..header
    })
}

/// The size `[height, width]` that [`decode_file`](super::decode_file) gives an image file, from its header,
/// without decoding the pixels. (Of stored pixels that are not turned, it is the size after turning.)
///
/// # Errors
///
/// As [`image_header`].
pub fn image_size(path: impl AsRef<Path>) -> Result<[usize; 2]> {
    Ok(image_header(path)?.size)
}
