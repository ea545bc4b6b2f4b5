//! What a decoder must know and may use, and its errors.

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use image::error::DecodingError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageError, ImageFormat, ImageReader};

use super::kind::{BEGINNING, format_of};
use super::options::{DecodeLimits, DecodeOptions, ExifOrientation};
use super::source::Source;
use crate::error::{Error, FileKind, Result};

/// The decoding of one image.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// The image's name in errors.
    pub name: &'a str,
    pub format: ImageFormat,
    pub options: DecodeOptions,
}

impl<'a> Job<'a> {
    /// The job for this file, with the format detected from its content.
    pub fn of(reader: &mut impl Source, name: &'a str, options: DecodeOptions) -> Result<Self> {
        let failed = |reason| Error::io(FileKind::Image, "read", Path::new(name))(reason);
        let mut beginning = Vec::new();
        reader.take(BEGINNING as u64).read_to_end(&mut beginning).map_err(failed)?;
        reader.rewind().map_err(failed)?;
        match format_of(&beginning) {
            Some(format) => Ok(Self { name, format, options }),
            // For the error of a file of an unknown format.
            None => match ImageReader::new(Cursor::new(&beginning)).into_decoder() {
                Ok(_) => Err(Error::other(format!("{name}: an unknown format"))),
                Err(reason) => Err(Error::Decode { name: name.to_owned(), reason }),
            },
        }
    }
}

impl Job<'_> {
    /// Goes back to the beginning of the file.
    pub fn rewind(&self, reader: &mut impl Seek) -> Result<()> {
        reader.rewind().map_err(Error::io(FileKind::Image, "read", Path::new(self.name)))
    }

    /// The file is damaged, or of a kind that is not supported.
    pub fn failed(&self, what: impl Into<String>) -> Error {
        self.decoder(ImageError::Decoding(DecodingError::new(self.format.into(), what.into())))
    }

    pub fn cut(&self) -> Error {
        self.failed("the file ends before its image is complete")
    }

    /// A decoder's error.
    pub fn decoder(&self, reason: ImageError) -> Error {
        match reason {
            // The limit on the decoder's own memory. The error does not say how much it needs.
            ImageError::Limits(_) => {
                let most = self.options.limits.max_bytes;
                self.too_large(format!("decoding it takes more than {most} bytes"))
            }
            reason => Error::Decode { name: self.name.to_owned(), reason },
        }
    }

    pub fn too_large(&self, what: String) -> Error {
        Error::ImageTooLarge { name: self.name.to_owned(), what }
    }

    /// Whether an image of this size, and of so many bytes while it is decoded, is allowed.
    pub fn require_size(&self, [height, width]: [u64; 2], bytes: u64) -> Result<()> {
        let DecodeLimits { max_pixels, max_bytes } = self.options.limits;
        let pixels = height.saturating_mul(width);
        if pixels <= max_pixels && bytes <= max_bytes {
            return Ok(());
        }
        Err(self.too_large(format!(
            "{height} x {width} pixels (height, width) of {} bytes; at most {max_pixels} pixels \
             and {max_bytes} bytes are allowed",
            bytes.checked_div(pixels).unwrap_or(0)
        )))
    }

    /// Which of the file's pages is to be read.
    pub fn page(&self, pages: usize) -> Result<usize> {
        let unusable = |reason| Error::UnusableImage { name: self.name.to_owned(), reason };
        match self.options.page {
            None if pages > 1 => Err(unusable(format!(
                "the file holds {pages} pages or frames, and only one can be read; choose one, such \
                 as 0 for the first, by `DecodeOptions::with_page` or `PreprocessConfig::with_page`"
            ))),
            Some(page) if page >= pages.max(1) => Err(unusable(format!(
                "it has no page {page}: the file holds {pages}, counted from 0"
            ))),
            page => Ok(page.unwrap_or(0)),
        }
    }

    /// The size `[height, width]` of the image after [`turned`](Self::turned).
    pub fn turned_size(&self, [height, width]: [usize; 2], orientation: Orientation) -> [usize; 2] {
        let swaps = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        if swaps && self.turns() { [width, height] } else { [height, width] }
    }

    /// The image as people see it, if that is wanted. PIL turns TIFFs always.
    pub fn turned(&self, mut image: DynamicImage, orientation: Orientation) -> DynamicImage {
        if self.turns() {
            image.apply_orientation(orientation);
        }
        image
    }

    fn turns(&self) -> bool {
        let is_tiff = self.format == ImageFormat::Tiff;
        is_tiff || self.options.orientation == ExifOrientation::Apply
    }
}

/// The orientation in an EXIF block, which some writers begin as in a JPEG file.
pub(super) fn exif_orientation(block: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(block.strip_prefix(b"Exif\0\0").unwrap_or(block))
}
