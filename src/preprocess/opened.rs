//! A decoded image and what its source knows about its values.

use image::DynamicImage;

/// A decoded image, as [`ImageInput`](super::ImageInput) opens it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OpenedImage {
    /// The pixels. More than 8 bits are as they were stored: nothing is scaled.
    pub pixels: DynamicImage,
    /// How many bits the values of a 16-bit image have, if its source knows: a camera's frame does, a
    /// file does not. They then decide what is white, instead of [`Levels::Auto`](super::Levels::Auto)
    /// and [`Levels::Bits`](super::Levels::Bits).
    pub bits: Option<u8>,
    /// The size `[height, width]` of the whole image, if its decoder made it smaller
    /// ([`PreprocessConfig::jpeg_scaling`](super::PreprocessConfig::jpeg_scaling)).
    pub reduced_from: Option<[usize; 2]>,
}

impl From<DynamicImage> for OpenedImage {
    /// An image whose source does not know the bits of its values.
    fn from(pixels: DynamicImage) -> Self {
        Self { pixels, bits: None, reduced_from: None }
    }
}

impl OpenedImage {
    /// The size `[height, width]` of the whole image.
    pub fn original_size(&self) -> [usize; 2] {
        let [height, width] = [self.pixels.height(), self.pixels.width()];
        self.reduced_from.unwrap_or([height as usize, width as usize])
    }

    /// The same, after a change of its pixels.
    pub(crate) fn with_pixels(self, pixels: DynamicImage) -> Self {
        Self { pixels, ..self }
    }

    /// The same with these bits of the values.
    pub(crate) fn with_bits(self, bits: Option<u8>) -> Self {
        Self { bits, ..self }
    }
}

/// Whether an image has more than 8 bits a channel.
pub(crate) fn is_deep(image: &DynamicImage) -> bool {
    let color = image.color();
    color.bytes_per_pixel() > color.channel_count()
}
