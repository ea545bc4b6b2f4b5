//! Chooses levels by looking at images.

use std::io::{BufRead, BufReader, Cursor, Seek};

use image::{DynamicImage, ImageDecoder, ImageReader};
use rayon::prelude::*;

use super::decode::DecodeOptions;
use super::input::ImageInput;
use super::levels::{Levels, Survey};
use super::opened::{OpenedImage, is_deep};
use super::pixels::extremes;
use crate::caught::caught_for;
use crate::error::{Error, Result};

/// The name of this step in errors after a panic.
const LOOKING: &str = "looking at the values of an image";

impl Levels {
    /// The levels that hold the values of all these images, as [`Levels::Auto`] chooses them by the first
    /// images of a fit; `Auto` if none is deep. Use it before a fit whose first images may be darker than
    /// the others. Images are decoded one by one; of files of 8 bits, only the header is read.
    ///
    /// ```
    /// use padim::ImageInput;
    /// use padim::image::{ImageBuffer, Luma};
    /// use padim::preprocess::{DecodeOptions, Levels};
    ///
    /// let image = |white: u16| ImageInput::from(ImageBuffer::from_pixel(9, 8, Luma([white])));
    /// let images = [900, 3100].map(image).into_iter();
    /// assert_eq!(Levels::of_images(images, DecodeOptions::default())?, Levels::Bits(12));
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the first image that cannot be opened, and [`Error::InvalidConfig`] if some images
    /// have 16-bit and some have floating-point values.
    pub fn of_images(
        images: impl IntoIterator<Item = impl Into<ImageInput>>,
        options: DecodeOptions,
    ) -> Result<Self> {
        let mut all = Survey::default();
        for (number, image) in images.into_iter().enumerate() {
            let image = image.into();
            let name = image.name().unwrap_or_else(|| format!("number {number}"));
            all = all.and(survey(&image, &name, options)?);
        }
        all.levels()
    }
}

/// The levels for the first images of a fit. An image that cannot be opened is passed over, because the
/// fit itself opens it again and reports it.
pub(crate) fn levels_of_first(images: &[ImageInput], options: DecodeOptions) -> Result<Levels> {
    let surveys = images.par_iter().map(|image| survey(image, "", options).unwrap_or_default());
    surveys.reduce(Survey::default, Survey::and).levels()
}

fn survey(image: &ImageInput, name: &str, options: DecodeOptions) -> Result<Survey> {
    let named = |error| match error {
        Error::UnusableImage { reason, .. } => {
            Error::UnusableImage { name: name.to_owned(), reason }
        }
        other => other,
    };
    caught_for(LOOKING, name, || match image {
        ImageInput::Tensor(_) => Ok(Survey::default()),
        ImageInput::Image(image) => of_image(image, None).map_err(named),
        ImageInput::Opened { image, .. } => of_image(&image.pixels, image.bits).map_err(named),
        other if says_8_bits(other) => Ok(Survey::default()),
        other => {
            let OpenedImage { pixels, bits, .. } = other.clone().open(name, options)?;
            of_image(&pixels, bits).map_err(named)
        }
    })
}

fn of_image(image: &DynamicImage, bits: Option<u8>) -> Result<Survey> {
    if !is_deep(image) || image.width() == 0 || image.height() == 0 {
        return Ok(Survey::default());
    }
    let integers = !matches!(image, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_));
    Ok(Survey::of(integers, bits, extremes(image)?))
}

/// Whether the header of a file says that it has 8 bits a channel.
fn says_8_bits(image: &ImageInput) -> bool {
    match image {
        ImageInput::Path(path) => {
            let file = std::fs::File::open(path);
            file.is_ok_and(|file| has_8_bits(BufReader::new(file)).unwrap_or(false))
        }
        ImageInput::Encoded { bytes, .. } => has_8_bits(Cursor::new(&bytes[..])).unwrap_or(false),
        _ => false,
    }
}

fn has_8_bits(file: impl BufRead + Seek) -> Option<bool> {
    let reader = ImageReader::new(file).with_guessed_format().ok()?;
    let color = reader.into_decoder().ok()?.color_type();
    Some(color.bytes_per_pixel() == color.channel_count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, RgbImage};

    fn deep(white: u16) -> ImageBuffer<Luma<u16>, Vec<u16>> {
        ImageBuffer::from_fn(5, 4, |x, _| Luma([if x == 0 { white } else { 7 }]))
    }

    #[test]
    fn all_images_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.png");
        deep(5000).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let inputs = || {
            [
                ImageInput::from(RgbImage::new(4, 4)),
                deep(3).into(),
                ImageInput::deferred("deferred", |_| Ok(deep(4000).into())),
            ]
        };
        let options = DecodeOptions::default();
        let of = |more: Vec<ImageInput>| {
            Levels::of_images(inputs().into_iter().chain(more), options).unwrap()
        };
        assert_eq!(of(vec![]), Levels::Bits(12));
        assert_eq!(of(vec![(&path).into()]), Levels::Bits(14));
        assert_eq!(of(vec![ImageInput::encoded("bytes", bytes)]), Levels::Bits(14));
        assert_eq!(Levels::of_images([RgbImage::new(4, 4)], options).unwrap(), Levels::Auto);
        let missing = folder.path().join("missing.png");
        assert!(Levels::of_images([&missing], options).is_err());
        let first = [ImageInput::from(&missing), (&path).into()];
        assert_eq!(levels_of_first(&first, options).unwrap(), Levels::Bits(14));
    }

    #[test]
    fn of_8_bits_only_the_header_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"] {
            let path = folder.path().join(name);
            RgbImage::new(400, 400).save(&path).unwrap();
            assert!(says_8_bits(&(&path).into()), "{name}");
        }
        let path = folder.path().join("deep.png");
        deep(1).save(&path).unwrap();
        assert!(!says_8_bits(&path.into()));
    }
}
