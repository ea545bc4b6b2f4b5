//! Rotates and shifts images, and transforms their maps back.

use image::{DynamicImage, ImageBuffer, Pixel};
use rayon::prelude::*;

use serde::{Deserialize, Serialize};

use super::geometry::ImageGeometry;
use crate::error::{Error, Result};
use crate::resample::Border;

/// A rotation and shift of an image, which keeps its size.
///
/// Areas from outside are filled with the image mirrored at its border. The model would learn black
/// corners or stretched edges as structures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// The point `[x, y]` that is moved to the center of the image, in pixels from the upper left
    /// corner.
    pub center: [f64; 2],
    /// The rotation about that point, in degrees, counter-clockwise.
    pub degrees: f64,
}

impl Alignment {
    /// Rotates and shifts an image, with bilinear interpolation. Keeps the pixel type.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableImage`] for an image without pixels, [`Error::InvalidConfig`] if a value of
    /// the alignment is not finite.
    pub fn apply(&self, image: &DynamicImage) -> Result<DynamicImage> {
        if !self.center.iter().chain([&self.degrees]).all(|v| v.is_finite()) {
            return Err(Error::config("alignment", format!("must be finite, got {self:?}")));
        }
        if image.width() == 0 || image.height() == 0 {
            let reason = "it has no pixels".into();
            return Err(Error::UnusableImage { name: "given".into(), reason });
        }
        let moved = match image {
            DynamicImage::ImageLuma8(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageLumaA8(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgb8(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgba8(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageLuma16(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageLumaA16(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgb16(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgba16(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgb32F(pixels) => self.moved(pixels).map(Into::into),
            DynamicImage::ImageRgba32F(pixels) => self.moved(pixels).map(Into::into),
            other => self.moved(&other.to_rgb8()).map(Into::into),
        };
        moved.ok_or_else(|| Error::shape("image", "as many pixels as before", image.color()))
    }

    fn moved<P>(
        &self,
        image: &ImageBuffer<P, Vec<P::Subpixel>>,
    ) -> Option<ImageBuffer<P, Vec<P::Subpixel>>>
    where
        P: Pixel,
        P::Subpixel: Sample,
    {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let channels = usize::from(P::CHANNEL_COUNT);
        let raw = image.as_raw();
        let mut out = vec![P::Subpixel::from_f32(0.0); raw.len()];
        out.par_chunks_exact_mut(width * channels).enumerate().for_each(|(y, row)| {
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let [u, v] = self.source([x as f64 + 0.5, y as f64 + 0.5], [height, width]);
                let (left, right, across) = between(u, width);
                let (upper, lower, down) = between(v, height);
                let at =
                    |y: usize, x: usize, c: usize| raw[(y * width + x) * channels + c].to_f32();
                let mix = |a: f32, b: f32, share: f32| a + (b - a) * share;
                let samples = [(upper, left), (upper, right), (lower, left), (lower, right)];
                let shown = (channels % 2 == 0)
                    .then(|| samples.map(|(y, x)| at(y, x, channels - 1)))
                    .and_then(|opacities| shown(opacities, across, down));
                for (c, target) in pixel.iter_mut().enumerate() {
                    if let Some(weights) = shown.filter(|_| c + 1 < channels) {
                        let parts = samples.iter().zip(weights);
                        *target = P::Subpixel::from_f32(
                            parts.map(|(&(y, x), weight)| weight * at(y, x, c)).sum(),
                        );
                        continue;
                    }
                    let above = mix(at(upper, left, c), at(upper, right, c), across);
                    let below = mix(at(lower, left, c), at(lower, right, c), across);
                    *target = P::Subpixel::from_f32(mix(above, below, down));
                }
            }
        });
        ImageBuffer::from_raw(image.width(), image.height(), out)
    }

    /// The point of the image that becomes point `[x, y]` of the result. The size is `[height, width]`.
    fn source(&self, [x, y]: [f64; 2], [height, width]: [usize; 2]) -> [f64; 2] {
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let (u, v) = (x - width as f64 / 2.0, y - height as f64 / 2.0);
        [cos * u - sin * v + self.center[0], sin * u + cos * v + self.center[1]]
    }

    /// The point of the result that point `[x, y]` of the image becomes.
    fn target(&self, [x, y]: [f64; 2], [height, width]: [usize; 2]) -> [f64; 2] {
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let (u, v) = (x - self.center[0], y - self.center[1]);
        [cos * u + sin * v + width as f64 / 2.0, cos * v - sin * u + height as f64 / 2.0]
    }

    /// The map of an aligned image at `points`, which are positions `[x, y]` of the original image.
    /// Points that the network did not see get 0.
    fn undone(
        &self,
        map: &[f32],
        geometry: &ImageGeometry,
        points: impl IndexedParallelIterator<Item = [f64; 2]>,
    ) -> Vec<f32> {
        let size = geometry.original_size();
        let value = |point| geometry.value_at(map, self.target(point, size)).unwrap_or(0.0);
        points.map(value).collect()
    }

    /// Transforms the map of an aligned image back to the original image.
    pub(crate) fn map_to_original(&self, map: &[f32], geometry: &ImageGeometry) -> Vec<f32> {
        let [height, width] = geometry.original_size();
        let points = (0..height * width).into_par_iter();
        let center = move |i: usize| [(i % width) as f64 + 0.5, (i / width) as f64 + 0.5];
        self.undone(map, geometry, points.map(center))
    }

    /// Transforms the map of an aligned image back to the original image, resized and cropped.
    pub(crate) fn map_to_input(&self, map: &[f32], geometry: &ImageGeometry) -> Vec<f32> {
        let points = (0..map.len()).into_par_iter();
        self.undone(map, geometry, points.map(|i| geometry.original_of_input(i)))
    }
}

/// The two samples around a position on an axis of `len` samples, mirrored at its ends, and the
/// weight of the second sample.
fn between(place: f64, len: usize) -> (usize, usize, f32) {
    let place = place - 0.5;
    let first = place.floor();
    let sample = |i: f64| Border::EdgeRepeated.source(i as i64, len);
    (sample(first), sample(first + 1.0), (place - first) as f32)
}

/// The weights of the colors of four pixels with these opacities: a color counts as much as it is opaque,
/// so that hidden colors stay hidden. `None` if the opacities are the same, or if nothing is to be seen.
fn shown(opacities: [f32; 4], across: f32, down: f32) -> Option<[f32; 4]> {
    if opacities.iter().all(|&opacity| opacity == opacities[0]) {
        return None;
    }
    let (left, above) = (1.0 - across, 1.0 - down);
    let places = [left * above, across * above, left * down, across * down];
    let weights = [0, 1, 2, 3].map(|i| places[i] * opacities[i]);
    let sum: f32 = weights.iter().sum();
    (sum > 0.0).then(|| weights.map(|weight| weight / sum))
}

/// A channel value of a pixel.
trait Sample: Copy + Send + Sync {
    fn to_f32(self) -> f32;
    /// Converts an interpolated value, which is always in range.
    fn from_f32(value: f32) -> Self;
}

impl Sample for u8 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    fn from_f32(value: f32) -> Self {
        value.round() as Self
    }
}

impl Sample for u16 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    fn from_f32(value: f32) -> Self {
        value.round() as Self
    }
}

impl Sample for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Luma, Rgb, RgbImage};
    use proptest::prelude::*;

    fn gradient() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| Rgb([6 * x as u8, 8 * y as u8, 100]))
    }

    #[test]
    fn the_middle_stays_where_nothing_moves() {
        let image = DynamicImage::from(gradient());
        let still = Alignment { center: [20.0, 15.0], degrees: 0.0 };
        assert_eq!(still.apply(&image).unwrap(), image);
        // Every pixel type is kept.
        let kinds = [
            DynamicImage::from(image.to_luma8()),
            image.to_luma_alpha8().into(),
            image.to_rgba8().into(),
            image.to_luma16().into(),
            image.to_luma_alpha16().into(),
            image.to_rgb16().into(),
            image.to_rgba16().into(),
            image.to_rgb32f().into(),
            image.to_rgba32f().into(),
        ];
        for kind in kinds {
            assert_eq!(still.apply(&kind).unwrap(), kind);
        }
    }

    #[test]
    fn it_shifts_and_turns_counter_clockwise_and_mirrors_at_the_border() {
        let image = gradient();
        // Shifts the image by three pixels to the left and two up.
        let shift = Alignment { center: [23.0, 17.0], degrees: 0.0 };
        let moved = shift.apply(&image.clone().into()).unwrap().to_rgb8();
        for (x, y, pixel) in moved.enumerate_pixels() {
            let mirrored = |i: u32, len: u32| if i < len { i } else { 2 * len - 1 - i };
            assert_eq!(pixel, image.get_pixel(mirrored(x + 3, 40), mirrored(y + 2, 30)));
        }
        // A quarter turn moves a point right of the center to above the center.
        let turn = Alignment { center: [20.0, 15.0], degrees: 90.0 };
        let turned = turn.apply(&image.clone().into()).unwrap().to_rgb8();
        assert_eq!(turned.get_pixel(20, 5), image.get_pixel(29, 15), "{turn:?}");
    }

    proptest! {
        /// The map of a bright spot, transformed back, has its peak where the spot was.
        #[test]
        fn a_map_is_turned_back_to_where_it_came_from(
            x in 12_u32..68, y in 12_u32..48, degrees in -180.0_f64..180.0,
            shift_x in -5.0_f64..5.0, shift_y in -5.0_f64..5.0,
        ) {
            let distance = |a: u32, b: u32| (f64::from(a) - f64::from(x)).hypot(f64::from(b) - f64::from(y));
            let spot = image::GrayImage::from_fn(80, 60, |a, b| Luma([255 - (20.0 * distance(a, b)).min(255.0) as u8]));
            let alignment = Alignment { center: [40.0 + shift_x, 30.0 + shift_y], degrees };
            let moved = alignment.apply(&spot.into()).unwrap().to_luma8();
            let map: Vec<f32> = moved.pixels().map(|p| f32::from(p.0[0])).collect();
            let geometry = ImageGeometry::new([60, 80], [60, 80], None);
            // Only if the spot stays inside and no mirror image of it appears.
            let [u, v] = alignment.target([f64::from(x) + 0.5, f64::from(y) + 0.5], [60, 80]);
            prop_assume!(u > 2.0 && v > 2.0 && u < 78.0 && v < 58.0);
            for back in [alignment.map_to_original(&map, &geometry), alignment.map_to_input(&map, &geometry)] {
                let at = |a: u32, b: u32| back[(b * 80 + a) as usize];
                prop_assert!(at(x, y) > 220.0, "{}", at(x, y));
                prop_assert!(at(x, y) >= at(x - 3, y) && at(x, y) >= at(x, y + 3));
            }
            let [p, q] = alignment.source([u, v], [60, 80]);
            prop_assert!((p - f64::from(x) - 0.5).abs() < 1e-9 && (q - f64::from(y) - 0.5).abs() < 1e-9);
        }
    }

    #[test]
    fn hidden_colors_stay_hidden() {
        let image = |hidden: u8| {
            image::GrayAlphaImage::from_fn(20, 10, |x, _| {
                image::LumaA(if x < 10 { [hidden, 0] } else { [90, 255] })
            })
        };
        let turn = Alignment { center: [9.3, 5.2], degrees: 30.0 };
        for hidden in [0, 255] {
            let moved = turn.apply(&image(hidden).into()).unwrap();
            let shown = moved.as_luma_alpha8().unwrap().pixels().filter(|pixel| pixel.0[1] > 0);
            assert!(shown.clone().any(|pixel| pixel.0[1] < 255));
            assert!(shown.map(|pixel| pixel.0[0]).all(|v| v == 90));
        }
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        let image = DynamicImage::from(gradient());
        let error =
            |alignment: Alignment, image: &DynamicImage| alignment.apply(image).unwrap_err();
        let nowhere = Alignment { center: [f64::NAN, 0.0], degrees: 0.0 };
        assert!(matches!(error(nowhere, &image), Error::InvalidConfig { .. }));
        let still = Alignment { center: [0.0, 0.0], degrees: 0.0 };
        let empty = DynamicImage::new_rgb8(0, 4);
        assert!(matches!(error(still, &empty), Error::UnusableImage { .. }));
    }
}
