//! How an image of a rotated data set is turned and cropped.

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use crate::error::Result;
use crate::preprocess::{Filter, Normalization, PreprocessConfig, Preprocessor, Resize};

/// How an image is resized, rotated and cropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Pose {
    /// The side of the square that the image is first resized to, in pixels.
    pub resized: usize,
    /// The resizing filter.
    pub filter: Filter,
    /// The rotation about the image's center after resizing, in degrees, counter-clockwise. Pixels
    /// from outside the image are black, and not defective.
    pub degrees: f64,
    /// The first row of the crop.
    pub top: usize,
    /// The first column of the crop.
    pub left: usize,
    /// The side of the crop.
    pub side: usize,
}

impl Pose {
    /// Rotates and crops an image, with bilinear interpolation.
    pub(super) fn of_image(&self, image: &DynamicImage) -> Result<RgbImage> {
        let square = self.preprocessor()?.crop_picture(image)?;
        let side = self.resized as i64;
        Ok(RgbImage::from_fn(self.side as u32, self.side as u32, |x, y| {
            let Some([u, v]) = self.source(x, y) else { return Rgb([0; 3]) };
            let (u, v) = (u - 0.5, v - 0.5);
            let (left, top) = (u.floor(), v.floor());
            let pixel = |dx: i64, dy: i64| {
                let inside = |i: i64| i.clamp(0, side - 1) as u32;
                square.get_pixel(inside(left as i64 + dx), inside(top as i64 + dy)).0
            };
            let (a, b, c, d) = (pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1));
            let mix =
                |p: u8, q: u8, share: f64| f64::from(p) * (1.0 - share) + f64::from(q) * share;
            Rgb([0, 1, 2].map(|i| {
                let (above, below) = (mix(a[i], b[i], u - left), mix(c[i], d[i], u - left));
                let value = above * (1.0 - (v - top)) + below * (v - top);
                value.round() as u8
            }))
        }))
    }

    /// Rotates and crops a mask, with nearest-neighbor interpolation.
    pub(super) fn of_mask(&self, mask: &DynamicImage) -> Result<GrayImage> {
        let square = self.preprocessor()?.process_mask(mask)?;
        Ok(GrayImage::from_fn(self.side as u32, self.side as u32, |x, y| {
            let truth = self
                .source(x, y)
                .is_some_and(|[u, v]| square[v as usize * self.resized + u as usize]);
            Luma([if truth { u8::MAX } else { 0 }])
        }))
    }

    fn preprocessor(&self) -> Result<Preprocessor> {
        let config = PreprocessConfig {
            resize: Resize::square(self.resized),
            crop: None,
            filter: self.filter,
            ..PreprocessConfig::default()
        };
        Preprocessor::new(config, Normalization::IMAGENET)
    }

    /// The point `[x, y]` of the resized square that becomes the center of a pixel of the crop;
    /// `None` if it is outside.
    fn source(&self, x: u32, y: u32) -> Option<[f64; 2]> {
        let center = self.resized as f64 / 2.0;
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let u = f64::from(x) + self.left as f64 + 0.5 - center;
        let v = f64::from(y) + self.top as f64 + 0.5 - center;
        let place = [cos * u - sin * v + center, sin * u + cos * v + center];
        let inside = |p: f64| (0.0..self.resized as f64).contains(&p);
        place.into_iter().all(inside).then_some(place)
    }
}
