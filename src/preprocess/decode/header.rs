//! What the header of an image file says.

use image::metadata::Orientation;

use super::options::ExifOrientation;

/// What the header of an image file says ([`image_header`](super::image_header)). Of a file of several pages, what it says of the
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
    /// TIFFs are turned always, as in PIL.
    pub(super) always_turned: bool,
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
            always_turned: false,
        }
    }
}

impl ImageHeader {
    /// The size `[height, width]` of the decoded image, with this choice about the orientation.
    pub fn decoded_size(&self, orientation: ExifOrientation) -> [usize; 2] {
        let [height, width] = self.size;
        match orientation {
            ExifOrientation::Ignore if self.orientation > 4 && !self.always_turned => {
                [width, height]
            }
            _ => self.size,
        }
    }
}
