//! Finds the position and direction of a long part from the moments of its silhouette.

use image::{DynamicImage, GrayImage};

use super::alignment::Alignment;
use super::alpha::Alpha;
use super::levels::Levels;
use super::opened::is_deep;
use super::pixels::{extremes, rgb8};
use crate::error::{Error, Result};
use crate::regions::connected_regions;

/// The most rows and columns at which the silhouette is computed.
const RESOLUTION: usize = 512;
/// A silhouette of fewer pixels counts as noise.
const SMALLEST: usize = 16;

/// The alignment that moves the part to the center of the image and rotates it so that the heavier
/// end of its long axis points in the direction `degrees`, counter-clockwise from the right.
///
/// The part is the largest connected region that differs from the background. The background is the
/// median gray value of the image's border.
///
/// A deep image is read from its own smallest to its own largest value, so that a part is found before a
/// fit has chosen levels. Transparent pixels become what `alpha` says.
pub(crate) fn principal_axis(
    image: &DynamicImage,
    degrees: f64,
    alpha: Alpha,
) -> Result<Alignment> {
    let grey = gray(image, alpha)?;
    let size = [grey.height() as usize, grey.width() as usize];
    let step = size[0].max(size[1]).div_ceil(RESOLUTION).max(1);
    let [height, width] = size.map(|side| side.div_ceil(step));
    let pixels: Vec<u8> = (0..height * width)
        .map(|i| grey.as_raw()[(i / width * size[1] + i % width) * step])
        .collect();
    let silhouette = silhouette(&pixels, [height, width])?;
    let Some(silhouette) = silhouette.filter(|points| points.len() >= SMALLEST) else {
        let reason = "no part stands out from the background, so the image cannot be registered";
        return Err(Error::UnusableImage { name: "given".into(), reason: reason.into() });
    };

    let count = silhouette.len() as f64;
    let mean = |value: &dyn Fn(&[f64; 2]) -> f64| silhouette.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(&|p| p[0]), mean(&|p| p[1]));
    let (xx, yy) = (mean(&|p| (p[0] - x).powi(2)), mean(&|p| (p[1] - y).powi(2)));
    let xy = mean(&|p| (p[0] - x) * (p[1] - y));
    let (sin, cos) = (0.5 * (2.0 * xy).atan2(xx - yy)).sin_cos();
    let along = |p: &[f64; 2]| (p[0] - x) * cos + (p[1] - y) * sin;
    let across = |p: &[f64; 2]| (p[1] - y) * cos - (p[0] - x) * sin;
    // A positive skewness means that the longer tail, which is the lighter end, points along the axis.
    let heavy = if mean(&|p| along(p).powi(3)) > 0.0 { -1.0 } else { 1.0 };
    // The center of the part's extent, not of its mass, so that a long part stays inside the image.
    let middle = |value: &dyn Fn(&[f64; 2]) -> f64| {
        let values = silhouette.iter().map(value);
        let ends = values
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]);
        (ends[0] + ends[1]) / 2.0
    };
    let (s, t) = (middle(&along), middle(&across));
    // The y axis points down.
    let direction = (-heavy * sin).atan2(heavy * cos).to_degrees();
    Ok(Alignment {
        center: [x + s * cos - t * sin, y + s * sin + t * cos].map(|v| v * step as f64),
        degrees: (degrees - direction + 180.0).rem_euclid(360.0) - 180.0,
    })
}

fn gray(image: &DynamicImage, alpha: Alpha) -> Result<GrayImage> {
    if !is_deep(image) && !image.color().has_alpha() {
        return Ok(image.to_luma8());
    }
    let levels = match is_deep(image).then(|| extremes(image)).transpose()? {
        Some([low, high]) if low < high && (high - low).is_finite() => Levels::Range { low, high },
        _ => Levels::Auto,
    };
    let (rgb, _) = rgb8(image, None, levels, alpha)?;
    Ok(DynamicImage::from(rgb.into_owned()).into_luma8())
}

/// The pixel centers `[x, y]` of the largest region that differs from the background.
fn silhouette(pixels: &[u8], [height, width]: [usize; 2]) -> Result<Option<Vec<[f64; 2]>>> {
    let on_border = |i: usize| {
        let (y, x) = (i / width, i % width);
        y == 0 || x == 0 || y + 1 == height || x + 1 == width
    };
    let mut border: Vec<u8> =
        (0..pixels.len()).filter(|&i| on_border(i)).map(|i| pixels[i]).collect();
    border.sort_unstable();
    let Some(&background) = border.get(border.len() / 2) else { return Ok(None) };
    let difference: Vec<u8> = pixels.iter().map(|v| v.abs_diff(background)).collect();
    let threshold = otsu(&difference);
    let mask: Vec<bool> = difference.iter().map(|&d| d > threshold).collect();
    let regions = connected_regions(&mask, [height, width])?;
    let largest = (1..).zip(regions.areas()).max_by_key(|(_, area)| **area);
    Ok(largest.map(|(label, _)| {
        let own = (0..pixels.len()).filter(|&i| regions.labels()[i] == label);
        own.map(|i| [(i % width) as f64 + 0.5, (i / width) as f64 + 0.5]).collect()
    }))
}

/// The threshold with the least variance within its two classes (Otsu 1979).
fn otsu(values: &[u8]) -> u8 {
    let mut histogram = [0.0_f64; 256];
    values.iter().for_each(|&v| histogram[usize::from(v)] += 1.0);
    let total = values.len() as f64;
    let sum: f64 = (0..).zip(&histogram).map(|(v, n)| f64::from(v) * n).sum();
    let (mut below, mut sum_below, mut best) = (0.0, 0.0, (0.0, 0));
    for (value, count) in (0..=u8::MAX).zip(&histogram) {
        below += count;
        sum_below += f64::from(value) * count;
        let above = total - below;
        if below > 0.0 && above > 0.0 {
            let apart = sum_below / below - (sum - sum_below) / above;
            let between = below * above * apart * apart;
            if between > best.0 {
                best = (between, value);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Luma;
    use proptest::prelude::*;

    /// A nail: a long shaft with a broad head. It lies at `center`, and its head points to `degrees`.
    fn nail(center: [f64; 2], degrees: f64, grey: [u8; 2]) -> GrayImage {
        let (sin, cos) = degrees.to_radians().sin_cos();
        GrayImage::from_fn(160, 140, |x, y| {
            let (u, v) = (f64::from(x) + 0.5 - center[0], f64::from(y) + 0.5 - center[1]);
            let (s, t) = (u * cos - v * sin, u * sin + v * cos);
            let inside = s.abs() < 45.0 && t.abs() < if s > 32.0 { 14.0 } else { 4.0 };
            Luma([grey[usize::from(inside)]])
        })
    }

    proptest! {
        #[test]
        fn a_part_is_found_however_it_lies(
            x in 70.0_f64..90.0, y in 60.0_f64..80.0, degrees in -180.0_f64..180.0, dark in any::<bool>(),
            corner in any::<bool>(),
        ) {
            let grey = if dark { [200, 90] } else { [40, 180] };
            let mut image = nail([x, y], degrees, grey);
            if corner {
                // A black corner, as in an image that was rotated before.
                (0..12).for_each(|y| (0..24 - 2 * y).for_each(|x| image.put_pixel(x, y, Luma([0]))));
            }
            let alignment = principal_axis(&image.into(), 45.0, Alpha::Drop).unwrap();
            let off = (alignment.degrees + degrees - 45.0 + 180.0).rem_euclid(360.0) - 180.0;
            prop_assert!(off.abs() < 2.0, "{off} {alignment:?}");
            prop_assert!((alignment.center[0] - x).hypot(alignment.center[1] - y) < 2.0, "{alignment:?}");
        }
    }

    #[test]
    fn an_aligned_part_lies_as_it_should() {
        let image = nail([75.0, 77.0], 110.0, [210, 60]);
        let alignment = principal_axis(&image.clone().into(), 0.0, Alpha::Drop).unwrap();
        let moved = alignment.apply(&image.into()).unwrap().to_luma8();
        let expected = nail([80.0, 70.0], 0.0, [210, 60]);
        let pairs = moved.pixels().zip(expected.pixels());
        let wrong = pairs.filter(|(a, b)| a.0[0].abs_diff(b.0[0]) > 75).count();
        assert!(wrong < 60, "{wrong}");
    }

    #[test]
    fn large_pictures_are_looked_at_coarsely() {
        let small = nail([75.0, 77.0], 110.0, [210, 60]);
        let large =
            image::imageops::resize(&small, 1600, 1400, image::imageops::FilterType::Nearest);
        let [a, b] =
            [small, large].map(|image| principal_axis(&image.into(), 0.0, Alpha::Drop).unwrap());
        assert!((a.degrees - b.degrees).abs() < 1.0, "{a:?} {b:?}");
        assert!((a.center[0] * 10.0 - b.center[0]).abs() < 10.0, "{a:?} {b:?}");
    }

    #[test]
    fn a_part_of_few_bits_and_one_on_a_transparent_ground_are_found() {
        let plain = nail([75.0, 77.0], 110.0, [210, 60]);
        let expected = principal_axis(&plain.clone().into(), 0.0, Alpha::Drop).unwrap();
        let close = |image: DynamicImage, alpha| {
            let found = principal_axis(&image, 0.0, alpha).unwrap();
            assert!((found.degrees - expected.degrees).abs() < 0.5, "{found:?} {expected:?}");
        };
        // 10 bits in 16, and floating point around 0.
        let deep = image::ImageBuffer::from_fn(160, 140, |x, y| {
            Luma([4 * u16::from(plain.get_pixel(x, y).0[0])])
        });
        close(deep.into(), Alpha::Drop);
        let float = image::ImageBuffer::from_fn(160, 140, |x, y| {
            image::Rgb([f32::from(plain.get_pixel(x, y).0[0]) - 100.0; 3])
        });
        close(float.into(), Alpha::Drop);
        // The color is the same everywhere; only alpha shows the part.
        let cut_out = image::ImageBuffer::from_fn(160, 140, |x, y| {
            image::LumaA([60, 255 - plain.get_pixel(x, y).0[0] + 60])
        });
        close(cut_out.into(), Alpha::default());
    }

    #[test]
    fn an_empty_picture_is_an_error_that_says_so() {
        for image in [GrayImage::new(30, 20), GrayImage::new(0, 5)] {
            let error = principal_axis(&image.into(), 0.0, Alpha::Drop).unwrap_err();
            assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
        }
    }
}
