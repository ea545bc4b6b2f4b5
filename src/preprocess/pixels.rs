//! Converts images of any pixel type to RGB in the same range.

use std::borrow::Cow;

use image::{DynamicImage, RgbImage};

use super::alpha::Alpha;
use super::config::PreprocessConfig;
use super::levels::{Levels, Reading};
use super::opened::is_deep;
use super::report::{DeepReport, InputReport};
use crate::error::{Error, Result};

/// Converts any image to 8-bit RGB, as the network sees it before the resize: gray is repeated, deep
/// values are read by the configuration's [`levels`](PreprocessConfig::levels), and
/// [`alpha`](PreprocessConfig::alpha) says what becomes of transparent pixels. For a detector's pictures,
/// give `&detector.config().preprocess`.
///
/// ```
/// use padim::image::{DynamicImage, ImageBuffer, Luma};
/// use padim::preprocess::{Levels, PreprocessConfig, to_rgb8};
///
/// let camera = ImageBuffer::from_pixel(4, 3, Luma([4095_u16])); // 12 bits in 16
/// let config = PreprocessConfig::default().with_levels(Levels::Bits(12));
/// let picture = to_rgb8(&DynamicImage::from(camera), &config)?;
/// assert_eq!(picture.get_pixel(0, 0).0, [255; 3]);
/// # Ok::<(), padim::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::UnusableImage`] if a floating-point image holds NaN or infinite values.
pub fn to_rgb8(image: &DynamicImage, config: &PreprocessConfig) -> Result<RgbImage> {
    Ok(rgb8(image, None, config.levels, config.alpha)?.0.into_owned())
}

/// As [`to_rgb8`], but borrows an image that is already 8-bit RGB, and reports. `bits`: those of the
/// values, if the image's source knows them.
pub(super) fn rgb8(
    image: &DynamicImage,
    bits: Option<u8>,
    levels: Levels,
    alpha: Alpha,
) -> Result<(Cow<'_, RgbImage>, InputReport)> {
    let (raw, report) = if is_deep(image) {
        let background = alpha.background();
        let laid = |value: u8, channel: usize, opacity: f32| match background {
            Some(color) if opacity < 1.0 => {
                mixed(f32::from(value), f32::from(color[channel]), opacity).round() as u8
            }
            _ => value,
        };
        deep(image, bits, levels, |reading, value, channel, opacity| {
            laid(reading.byte(value), channel, opacity)
        })?
    } else {
        let (raw, transparent) = match image {
            DynamicImage::ImageRgb8(rgb) => {
                return Ok((Cow::Borrowed(rgb), InputReport::default()));
            }
            DynamicImage::ImageLuma8(gray) => {
                (gray.as_raw().iter().flat_map(|&v| [v; 3]).collect(), false)
            }
            DynamicImage::ImageLumaA8(gray) => {
                laid_on(gray.as_raw().chunks_exact(2).map(|p| ([p[0]; 3], p[1])), alpha)
            }
            DynamicImage::ImageRgba8(rgba) => {
                let pixels = rgba.as_raw().chunks_exact(4).map(|p| ([p[0], p[1], p[2]], p[3]));
                laid_on(pixels, alpha)
            }
            other => (other.to_rgb8().into_raw(), false),
        };
        (raw, InputReport { transparent, ..InputReport::default() })
    };
    let picture = RgbImage::from_raw(image.width(), image.height(), raw);
    let picture =
        picture.ok_or_else(|| Error::shape("image", "3 values a pixel", image.color()))?;
    Ok((Cow::Owned(picture), report))
}

/// The interleaved RGB values of a deep image, in `[0, 1]`, with all their precision.
pub(super) fn rgb_units(
    image: &DynamicImage,
    bits: Option<u8>,
    levels: Levels,
    alpha: Alpha,
) -> Result<(Vec<f32>, InputReport)> {
    let background = alpha.background().map(|color| color.map(|v| f32::from(v) / 255.0));
    deep(image, bits, levels, |reading, value, channel, opacity| {
        let value = reading.unit(value);
        match background {
            Some(color) if opacity < 1.0 => mixed(value, color[channel], opacity),
            _ => value,
        }
    })
}

/// The report of an image, without a picture. It takes a pass over the pixels only of deep images and of
/// those with alpha.
pub(super) fn report(
    image: &DynamicImage,
    bits: Option<u8>,
    levels: Levels,
) -> Result<InputReport> {
    if is_deep(image) {
        return Ok(deep(image, bits, levels, |_, _, _, _| ())?.1);
    }
    let transparent = match image {
        DynamicImage::ImageLumaA8(gray) => gray.pixels().any(|p| p.0[1] < u8::MAX),
        DynamicImage::ImageRgba8(rgba) => rgba.pixels().any(|p| p.0[3] < u8::MAX),
        _ => false,
    };
    Ok(InputReport { transparent, ..InputReport::default() })
}

impl Alpha {
    fn background(self) -> Option<[u8; 3]> {
        match self {
            Self::Background(color) => Some(color),
            Self::Drop => None,
        }
    }
}

fn mixed(value: f32, background: f32, opacity: f32) -> f32 {
    value * opacity + background * (1.0 - opacity)
}

/// Lays pixels, as color and opacity, on a background. Also tells whether any is transparent.
fn laid_on(pixels: impl Iterator<Item = ([u8; 3], u8)>, alpha: Alpha) -> (Vec<u8>, bool) {
    let background = alpha.background().map(|color| color.map(u32::from));
    let mut transparent = false;
    let raw = pixels
        .flat_map(|(color, opacity)| {
            transparent |= opacity < u8::MAX;
            let opacity = u32::from(opacity);
            match background {
                Some(background) if opacity < 255 => [0, 1, 2].map(|channel| {
                    let sum =
                        u32::from(color[channel]) * opacity + background[channel] * (255 - opacity);
                    ((sum + 127) / 255) as u8
                }),
                _ => color,
            }
        })
        .collect();
    (raw, transparent)
}

/// A channel value of a deep image.
trait Value: Copy {
    /// Exact.
    fn to_f32(self) -> f32;
    /// The value as an opacity in `[0, 1]`.
    fn opacity(self) -> f32;
}

impl Value for u16 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    fn opacity(self) -> f32 {
        f32::from(self) / f32::from(Self::MAX)
    }
}

impl Value for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn opacity(self) -> f32 {
        self.clamp(0.0, 1.0)
    }
}

/// Reads a deep image in one pass. `put` makes a result of each value of red, green and blue, from how it
/// is read, the value, the channel and the opacity.
fn deep<T: Copy>(
    image: &DynamicImage,
    bits: Option<u8>,
    levels: Levels,
    put: impl Fn(&Reading, f32, usize, f32) -> T,
) -> Result<(Vec<T>, InputReport)> {
    let reading = levels.reading(image, bits);
    let mut tally = Tally::new(reading);
    let out = match image {
        DynamicImage::ImageLuma16(i) => tally.read::<_, _, 1>(i.as_raw(), false, &put),
        DynamicImage::ImageLumaA16(i) => tally.read::<_, _, 1>(i.as_raw(), true, &put),
        DynamicImage::ImageRgb16(i) => tally.read::<_, _, 3>(i.as_raw(), false, &put),
        DynamicImage::ImageRgba16(i) => tally.read::<_, _, 3>(i.as_raw(), true, &put),
        DynamicImage::ImageRgb32F(i) => tally.read::<_, _, 3>(i.as_raw(), false, &put),
        DynamicImage::ImageRgba32F(i) => tally.read::<_, _, 3>(i.as_raw(), true, &put),
        // A kind that the crate `image` may add.
        other => tally.read::<_, _, 3>(other.to_rgb32f().as_raw(), false, &put),
    };
    let unexpected = levels == Levels::Auto && bits.is_none();
    Ok((out, tally.report(unexpected)?))
}

/// The smallest and largest value of a deep image.
///
/// # Errors
///
/// [`Error::UnusableImage`] for values that are not finite.
pub(super) fn extremes(image: &DynamicImage) -> Result<[f32; 2]> {
    let report = report(image, None, Levels::Auto)?;
    Ok(report.deep.map_or([0.0, 255.0], |deep| deep.values))
}

/// Counts while an image is read.
struct Tally {
    reading: Reading,
    lowest: f32,
    highest: f32,
    pixels: usize,
    clipped: usize,
    gray_levels: [bool; 256],
    transparent: bool,
    finite: bool,
}

impl Tally {
    fn new(reading: Reading) -> Self {
        Self {
            reading,
            lowest: f32::INFINITY,
            highest: f32::NEG_INFINITY,
            pixels: 0,
            clipped: 0,
            gray_levels: [false; 256],
            transparent: false,
            finite: true,
        }
    }

    /// Reads pixels of `C` channels (1: gray, which is repeated), and of an opacity if `has_alpha`.
    fn read<V: Value, T: Copy, const C: usize>(
        &mut self,
        raw: &[V],
        has_alpha: bool,
        put: &impl Fn(&Reading, f32, usize, f32) -> T,
    ) -> Vec<T> {
        let reading = self.reading;
        let mut out = Vec::with_capacity(raw.len() / (C + usize::from(has_alpha)) * 3);
        for pixel in raw.chunks_exact(C + usize::from(has_alpha)) {
            let opacity = if has_alpha { pixel[C].opacity() } else { 1.0 };
            // The opacity of NaN is NaN.
            self.finite &= !opacity.is_nan();
            self.transparent |= opacity < 1.0;
            let mut clips = false;
            for value in &pixel[..C] {
                let value = value.to_f32();
                self.finite &= value.is_finite();
                self.lowest = self.lowest.min(value);
                self.highest = self.highest.max(value);
                clips |= reading.clips(value);
                self.gray_levels[usize::from(reading.byte(value))] = true;
            }
            self.pixels += 1;
            self.clipped += usize::from(clips);
            // Gray is put three times, because a background may have a color.
            out.extend([0, 1, 2].map(|c| put(&reading, pixel[c.min(C - 1)].to_f32(), c, opacity)));
        }
        out
    }

    fn report(&self, unexpected: bool) -> Result<InputReport> {
        if !self.finite {
            return Err(Error::UnusableImage {
                name: "given".into(),
                reason: "its floating-point pixels hold NaN or infinite values".into(),
            });
        }
        let deep = (self.pixels > 0).then(|| DeepReport {
            levels: [self.reading.low, self.reading.high],
            values: [self.lowest, self.highest],
            clipped_share: self.clipped as f64 / self.pixels as f64,
            gray_levels: self.gray_levels.iter().filter(|used| **used).count(),
            unexpected,
        });
        Ok(InputReport { deep, transparent: self.transparent, ..InputReport::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    fn config() -> PreprocessConfig {
        PreprocessConfig::default()
    }

    fn one_pixel(image: impl Into<DynamicImage>, config: &PreprocessConfig) -> [u8; 3] {
        to_rgb8(&image.into(), config).unwrap().get_pixel(0, 0).0
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let config = config().with_alpha(Alpha::Drop);
        let gray_alpha = ImageBuffer::from_pixel(1, 1, LumaA([7_u8, 0]));
        assert_eq!(one_pixel(gray_alpha, &config), [7, 7, 7]);
        let color16 = ImageBuffer::from_pixel(1, 1, Rgb([0x12FF_u16, 0x3400, 0xFFFF]));
        assert_eq!(one_pixel(color16, &config), [0x12, 0x34, 0xFF]);
        let alpha16 = ImageBuffer::from_pixel(1, 1, Rgba([0x0100_u16, 0x0200, 0x0300, 0]));
        assert_eq!(one_pixel(alpha16, &config), [1, 2, 3]);
        let gray_alpha16 = ImageBuffer::from_pixel(1, 1, LumaA([0x8000_u16, 9]));
        assert_eq!(one_pixel(gray_alpha16, &config), [0x80; 3]);
        let float = ImageBuffer::from_pixel(1, 1, Rgb([-1.0_f32, 0.5, 2.0]));
        assert_eq!(one_pixel(float, &config), [0, 128, 255]);
    }

    #[test]
    fn transparent_pixels_are_laid_on_the_background() {
        let red = config().with_alpha(Alpha::Background([255, 0, 0]));
        for (opacity, expected) in [(0.0, [255, 0, 0]), (0.2, [224, 20, 20]), (1.0, [100; 3])] {
            let [a8, a16] = [255.0, 65535.0].map(|most: f32| (most * opacity) as u16);
            let a8 = a8 as u8;
            let pictures: [DynamicImage; 6] = [
                ImageBuffer::from_pixel(1, 1, LumaA([100_u8, a8])).into(),
                ImageBuffer::from_pixel(1, 1, Rgba([100_u8, 100, 100, a8])).into(),
                ImageBuffer::from_pixel(1, 1, LumaA([100 << 8, a16])).into(),
                ImageBuffer::from_pixel(1, 1, Rgba([100 << 8, 100 << 8, 100 << 8, a16])).into(),
                ImageBuffer::from_pixel(1, 1, Rgba([100.0_f32 / 255.0; 3].map_alpha(opacity)))
                    .into(),
                ImageBuffer::from_pixel(1, 1, Rgb([100_u8; 3])).into(),
            ];
            for picture in &pictures[..5] {
                assert_eq!(one_pixel(picture.clone(), &red), expected, "{:?}", picture.color());
                let report = report(picture, None, Levels::Auto).unwrap();
                assert_eq!(report.transparent, opacity < 1.0);
                let drop = config().with_alpha(Alpha::Drop);
                assert_eq!(one_pixel(picture.clone(), &drop), [100; 3]);
            }
            assert_eq!(one_pixel(pictures[5].clone(), &red), [100; 3]);
        }
        let hidden = |v: u8| ImageBuffer::from_pixel(1, 1, LumaA([v, 0_u8]));
        assert_eq!(one_pixel(hidden(0), &config()), one_pixel(hidden(255), &config()));
        assert_eq!(one_pixel(hidden(0), &config()), [255; 3]);
    }

    trait MapAlpha {
        fn map_alpha(self, opacity: f32) -> [f32; 4];
    }

    impl MapAlpha for [f32; 3] {
        fn map_alpha(self, opacity: f32) -> [f32; 4] {
            [self[0], self[1], self[2], opacity]
        }
    }

    #[test]
    fn what_is_clipped_is_counted() {
        let image = ImageBuffer::from_fn(10, 1, |x, _| Luma([500 * x as u16]));
        let (rgb, report) = rgb8(&image.into(), None, Levels::Bits(12), Alpha::Drop)
            .map(|(p, r)| (p.into_owned(), r))
            .unwrap();
        assert_eq!(rgb.get_pixel(9, 0).0, [255; 3]);
        let deep = report.deep.unwrap();
        assert_eq!((deep.levels, deep.values), ([0.0, 4095.0], [0.0, 4500.0]));
        assert_eq!((deep.clipped_share, deep.gray_levels, deep.unexpected), (0.1, 10, false));
    }

    #[test]
    fn units_keep_what_bytes_lose() {
        let image = DynamicImage::from(ImageBuffer::from_fn(3, 1, |x, _| Luma([x as u16])));
        let (units, of_units) = rgb_units(&image, None, Levels::Bits(12), Alpha::Drop).unwrap();
        assert_eq!(units[3..6], [1.0 / 4095.0; 3]);
        let (bytes, of_bytes) = rgb8(&image, None, Levels::Bits(12), Alpha::Drop).unwrap();
        assert_eq!(bytes.as_raw()[3..6], [0; 3]);
        assert_eq!(of_units, of_bytes);
        assert_eq!(report(&image, None, Levels::Bits(12)).unwrap(), of_bytes);
    }

    #[test]
    fn pixels_that_are_not_numbers_are_refused() {
        for pixel in
            [[0.0, f32::NAN, 0.0, 1.0], [0.0, 0.0, f32::INFINITY, 1.0], [0.0, 0.0, 0.0, f32::NAN]]
        {
            let image = DynamicImage::from(ImageBuffer::from_pixel(2, 2, Rgba(pixel)));
            let error = to_rgb8(&image, &config()).unwrap_err();
            assert!(error.to_string().contains("NaN"), "{error}");
        }
    }
}
