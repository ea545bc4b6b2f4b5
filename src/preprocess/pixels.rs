//! Converts images of any pixel type to 8-bit RGB.

use std::borrow::Cow;

use image::{DynamicImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
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
}
