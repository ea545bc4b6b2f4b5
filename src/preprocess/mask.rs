//! Which pixels of a mask are marked.

use image::{DynamicImage, GrayImage};

/// A mask read from an image: each pixel is marked or not.
///
/// Any value except 0 marks a pixel, whatever the encoding: 0 and 1, 0 and 255, labels, gray, colors,
/// 16 bits. A pixel that is fully transparent is not marked. If all colors are black, the alpha channel
/// alone is the mask.
///
/// ```
/// use padim::image::{DynamicImage, GrayImage};
/// use padim::preprocess::Mask;
///
/// let labels = GrayImage::from_raw(3, 1, vec![0, 1, 4]).unwrap();
/// let mask = Mask::of(&labels.into());
/// assert_eq!(mask.marked(), [false, true, true]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: [usize; 2],
    marked: Vec<bool>,
    unusual: Option<String>,
}

/// A pixel's color, 0 if it is black, and whether it is not fully transparent.
type Pixel = (u64, bool);

/// Fully bright, in 16 bits.
const FULL: u64 = u16::MAX as u64;

impl Mask {
    /// Reads an image as a mask.
    pub fn of(image: &DynamicImage) -> Self {
        let size = [image.height() as usize, image.width() as usize];
        let pixels: Vec<Pixel> = match image {
            // 255 becomes 65535, as in the conversion of other images.
            DynamicImage::ImageLuma8(gray) => {
                gray.as_raw().iter().map(|&v| (color([u16::from(v) * 257; 3]), true)).collect()
            }
            DynamicImage::ImageLuma16(gray) => {
                gray.as_raw().iter().map(|&v| (color([v; 3]), true)).collect()
            }
            // A small value must not become 0.
            DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
                let marks = |p: [f32; 4]| p[..3].iter().any(|&v| v != 0.0);
                let pixel = |p: &image::Rgba<f32>| (u64::from(marks(p.0)), p.0[3] != 0.0);
                image.to_rgba32f().pixels().map(pixel).collect()
            }
            other => {
                let pixel = |p: &image::Rgba<u16>| {
                    let [r, g, b, alpha] = p.0;
                    (color([r, g, b]), alpha != 0)
                };
                other.to_rgba16().pixels().map(pixel).collect()
            }
        };
        let alpha_alone = pixels.iter().all(|&(color, _)| color == 0);
        let differ = pixels.iter().any(|pixel| pixel.1 != pixels[0].1);
        let is_marked = |&(color, shown): &Pixel| match alpha_alone && differ {
            true => shown,
            false => color != 0 && shown,
        };
        let marked = pixels.iter().map(is_marked).collect();
        Self { size, marked, unusual: unusual(&pixels) }
    }

    /// `[height, width]` in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Which pixels are marked, row-major.
    pub fn marked(&self) -> &[bool] {
        &self.marked
    }

    /// The two values of a mask that has exactly two, if they are not the usual ones, 0 and 1 or black and
    /// a full color: perhaps they do not mean what is taken for granted here.
    pub fn unusual_values(&self) -> Option<&str> {
        self.unusual.as_deref()
    }

    /// A picture that is white where the mask is marked.
    pub(super) fn picture(&self) -> GrayImage {
        let raw = self.marked.iter().map(|&marked| if marked { u8::MAX } else { 0 }).collect();
        let [height, width] = self.size.map(|side| side as u32);
        GrayImage::from_raw(width, height, raw).unwrap_or_default()
    }

    /// Whether the mask fits to an image of `[height, width]`: it has this size, or this aspect, up to
    /// rounding to whole pixels.
    pub fn fits(&self, [height, width]: [usize; 2]) -> bool {
        let [own_height, own_width] = self.size;
        if self.size.contains(&0) || height == 0 || width == 0 {
            return self.size == [height, width];
        }
        // One of the two was rounded to whole pixels, by height or by width.
        let near = |[a, b]: [usize; 2], [c, d]: [usize; 2]| {
            (a as f64 * d as f64 / c as f64 - b as f64).abs() <= 1.0
        };
        let own = [own_height, own_width];
        let turned = |[a, b]: [usize; 2]| [b, a];
        [(own, [height, width]), ([height, width], own)]
            .into_iter()
            .any(|(a, b)| near(a, b) || near(turned(a), turned(b)))
    }
}

fn color([red, green, blue]: [u16; 3]) -> u64 {
    u64::from(red) << 32 | u64::from(green) << 16 | u64::from(blue)
}

fn channels(color: u64) -> [u64; 3] {
    [32, 16, 0].map(|shift| color >> shift & FULL)
}

/// The values of a mask with two values that are not the usual ones.
fn unusual(pixels: &[Pixel]) -> Option<String> {
    let first = pixels.first()?.0;
    let second = pixels.iter().map(|pixel| pixel.0).find(|&color| color != first)?;
    if pixels.iter().any(|&(color, _)| color != first && color != second) {
        return None;
    }
    // 1 in 8 bits is 257 in 16 bits.
    let usual = |color| channels(color).iter().all(|v| matches!(*v, 0 | 1 | 257 | FULL));
    let [low, high] = [first.min(second), first.max(second)];
    (low != 0 || !usual(high)).then(|| format!("{} and {}", text(low), text(high)))
}

/// A color as people know it: a gray value of 8 bits where it is one.
fn text(color: u64) -> String {
    let [red, green, blue] = channels(color).map(|v| if v % 257 == 0 { v / 257 } else { v });
    match red == green && green == blue {
        true => red.to_string(),
        false => format!("({red}, {green}, {blue})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    fn of(image: impl Into<DynamicImage>) -> (Vec<bool>, Option<String>) {
        let mask = Mask::of(&image.into());
        (mask.marked.clone(), mask.unusual)
    }

    #[test]
    fn any_value_but_0_marks_a_pixel_in_every_encoding() {
        let gray = |v: u8| GrayImage::from_raw(2, 1, vec![0, v]).unwrap();
        let gray16 = |v: u16| ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![0, v]).unwrap();
        let rgb =
            |v: [u8; 3]| ImageBuffer::<Rgb<u8>, _>::from_raw(2, 1, [[0; 3], v].concat()).unwrap();
        let float = |v: f32| {
            ImageBuffer::<Rgb<f32>, _>::from_raw(2, 1, [[0.0; 3], [v; 3]].concat()).unwrap()
        };
        let marked = vec![false, true];
        for v in [1, 255] {
            assert_eq!(of(gray(v)), (marked.clone(), None));
            assert_eq!(of(rgb([v, 0, 0])), (marked.clone(), None));
        }
        assert_eq!(of(gray(100)), (marked.clone(), Some("0 and 100".into())));
        assert_eq!(of(rgb([0, 9, 200])), (marked.clone(), Some("0 and (0, 9, 200)".into())));
        for v in [1, u16::MAX] {
            assert_eq!(of(gray16(v)), (marked.clone(), None));
        }
        assert_eq!(of(gray16(4095)).0, marked);
        for v in [1e-6, 1.0, 255.0] {
            assert_eq!(of(float(v)), (marked.clone(), None));
        }
        let labels = GrayImage::from_raw(4, 1, vec![0, 1, 2, 7]).unwrap();
        assert_eq!(of(labels), (vec![false, true, true, true], None));
        let inverse = GrayImage::from_raw(2, 1, vec![50, 200]).unwrap();
        assert_eq!(of(inverse), (vec![true, true], Some("50 and 200".into())));
    }

    #[test]
    fn alpha_hides_a_pixel_or_is_the_mask() {
        let rgba =
            |raw: [[u8; 4]; 2]| ImageBuffer::<Rgba<u8>, _>::from_raw(2, 1, raw.concat()).unwrap();
        let marked = vec![false, true];
        assert_eq!(of(rgba([[0; 4], [255; 4]])).0, marked);
        assert_eq!(of(rgba([[255, 255, 255, 0], [255, 0, 0, 128]])).0, marked);
        assert_eq!(of(rgba([[0, 0, 0, 0], [0, 0, 0, 255]])).0, marked);
        assert_eq!(of(rgba([[0, 0, 0, 255]; 2])).0, [false; 2]);
        let gray = ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![0, 0, 0, 9]).unwrap();
        assert_eq!(of(gray).0, marked);
    }

    #[test]
    fn a_mask_fits_by_its_size_or_aspect() {
        let mask = |height, width| Mask::of(&DynamicImage::new_luma8(width, height));
        assert!(mask(480, 640).fits([480, 640]) && mask(240, 320).fits([480, 640]));
        assert!(mask(1080, 1920).fits([33, 59]) && mask(33, 59).fits([1080, 1920]));
        assert!(!mask(640, 480).fits([480, 640]) && !mask(512, 512).fits([480, 640]));
        assert!(!mask(0, 0).fits([4, 4]));
    }
}
