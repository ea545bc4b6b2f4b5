//! What the header of an image file says, without decoding the pixels.

use std::io::BufReader;
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};

use super::animation::chunks;
use super::file::{allow, job, rewind};
use super::job::Job;
use super::options::{DecodeOptions, ExifOrientation};
use super::{jpeg, tiff};
use crate::caught::caught_for;
use crate::error::{FileKind, Result};
use crate::files::open;

/// What the header of an image file says ([`image_header`]). Of a file of several pages, what it says of the
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageHeader {
    /// Height and width in pixels, after the orientation is applied.
    pub size: [usize; 2],
    /// How the stored pixels must be turned or mirrored: 1 (not at all) to 8, as in EXIF.
    pub orientation: u8,
    /// The number of pages of a TIFF, without thumbnails and masks, or of frames of an animated WebP or PNG.
    pub pages: usize,
    /// Bits per channel. Palettes and fewer than 8 bits count as 8, to which they are decoded. A camera's 10
    /// or 12 bits may be stored in 16.
    pub bits: u8,
    /// Whether the values are floating-point numbers.
    pub is_float: bool,
    /// Whether there is a channel of transparency.
    pub has_alpha: bool,
    /// Whether there is no color.
    pub is_gray: bool,
}

impl ImageHeader {
    /// `size` is that of the stored pixels.
    pub(super) fn new([height, width]: [usize; 2], orientation: Orientation) -> Self {
        let orientation = orientation.to_exif();
        let size = if orientation > 4 { [width, height] } else { [height, width] };
        Self {
            size,
            orientation,
            pages: 1,
            bits: 8,
            is_float: false,
            has_alpha: false,
            is_gray: false,
        }
    }
}

impl ImageHeader {
    /// The size `[height, width]` of the decoded image, with this choice about the orientation.
    pub fn decoded_size(&self, orientation: ExifOrientation) -> [usize; 2] {
        let [height, width] = self.size;
        match orientation {
            ExifOrientation::Ignore if self.orientation > 4 => [width, height],
            _ => self.size,
        }
    }
}

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
        let job = job(&mut reader, &name, DecodeOptions::default())?;
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
    rewind(reader, job)?;
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
