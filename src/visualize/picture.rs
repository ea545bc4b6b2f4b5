//! Pictures of anomaly maps.

use super::{colormap, contour};
use std::io::{Cursor, Write};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage, imageops};

use crate::error::{Error, FileKind, Result};
use crate::files::write_atomically;
use crate::scoring::AnomalyMap;

/// The gap between the pictures of a panel and between the rows of a contact sheet, in pixels.
const GAP: u32 = 8;
const WHITE: Rgb<u8> = Rgb([255; 3]);
/// The opacity of the brightest color: below 1, so that the defect itself stays visible.
const STRONGEST: f32 = 0.75;

/// The scores of the first and last color. Scores outside get the first or last color.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    /// The score of the first (darkest) color.
    pub min: f32,
    /// The score of the last (brightest) color.
    pub max: f32,
}

impl ScoreRange {
    /// From the smallest to the largest score of all the maps, or `None` without any map.
    pub fn of<'a>(maps: impl IntoIterator<Item = &'a AnomalyMap>) -> Option<Self> {
        maps.into_iter()
            .map(|map| Self { min: map.min(), max: map.max() })
            .reduce(|a, b| Self { min: a.min.min(b.min), max: a.max.max(b.max) })
    }

    /// From half to one and a half of a level, such as a threshold: what is well below stays as it is.
    pub const fn around(level: f32) -> Self {
        Self { min: 0.5 * level, max: 1.5 * level }
    }

    /// The relative position of a score: 0 at `min`, 1 at `max`. If the range is empty or not
    /// finite, all positions are 0.
    fn position(self, score: f32) -> f32 {
        let [min, max, score] = [self.min, self.max, score].map(f64::from);
        let position = (score - min) / (max - min);
        if max > min && position.is_finite() { position.clamp(0.0, 1.0) as f32 } else { 0.0 }
    }
}

/// The map in colors from black (normal) through purple and orange to bright yellow (anomalous).
pub fn heat_map(map: &AnomalyMap, range: ScoreRange) -> RgbImage {
    let mut picture = blank(map.size());
    for (pixel, &score) in picture.pixels_mut().zip(map.values()) {
        *pixel = colormap::color(range.position(score));
    }
    picture
}

/// The heat map over the image. The opacity rises with the score, so normal areas stay unchanged.
/// With a threshold, a line surrounds the pixels that reach it.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] if the image and the map differ in size.
pub fn overlay(
    image: &RgbImage,
    map: &AnomalyMap,
    range: ScoreRange,
    threshold: Option<f32>,
) -> Result<RgbImage> {
    let size = [image.height() as usize, image.width() as usize];
    if size != map.size() {
        let expected = format!("the map's size {:?} (height, width)", map.size());
        return Err(Error::shape("image under an overlay", expected, size));
    }
    let mut picture = image.clone();
    for (pixel, &score) in picture.pixels_mut().zip(map.values()) {
        let position = range.position(score);
        let alpha = opacity(position);
        for (below, above) in pixel.0.iter_mut().zip(colormap::color(position).0) {
            let mixed = f32::from(*below) * (1.0 - alpha) + f32::from(above) * alpha;
            *below = mixed.round() as u8;
        }
    }
    if let Some(threshold) = threshold {
        contour::draw(&mut picture, map, threshold);
    }
    Ok(picture)
}

/// A mask of `size` `[height, width]`, white where it is `true` and black elsewhere.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] if the mask has another number of pixels.
pub fn mask_picture(mask: &[bool], size: [usize; 2]) -> Result<RgbImage> {
    let fits = size.iter().all(|&side| u32::try_from(side).is_ok());
    if !fits || size[0].checked_mul(size[1]) != Some(mask.len()) {
        let expected = format!("{size:?} pixels (height, width)");
        return Err(Error::shape("mask", expected, mask.len()));
    }
    let mut picture = blank(size);
    for (pixel, _) in picture.pixels_mut().zip(mask).filter(|(_, set)| **set) {
        *pixel = WHITE;
    }
    Ok(picture)
}

/// The pictures side by side, aligned at the top, with white between them and below shorter ones.
pub fn panel(pictures: &[&RgbImage]) -> RgbImage {
    let width = pictures.iter().map(|p| p.width()).sum::<u32>() + gaps(pictures.len());
    let height = pictures.iter().map(|p| p.height()).max().unwrap_or(0);
    let mut panel = RgbImage::from_pixel(width, height, WHITE);
    let mut x = 0;
    for picture in pictures {
        imageops::replace(&mut panel, *picture, x, 0);
        x += i64::from(picture.width() + GAP);
    }
    panel
}

/// The rows (panels, say) below each other, aligned at the left, with white between them and beside
/// narrower rows.
pub fn contact_sheet(rows: &[RgbImage]) -> RgbImage {
    let width = rows.iter().map(RgbImage::width).max().unwrap_or(0);
    let height = rows.iter().map(RgbImage::height).sum::<u32>() + gaps(rows.len());
    let mut sheet = RgbImage::from_pixel(width, height, WHITE);
    let mut y = 0;
    for row in rows {
        imageops::replace(&mut sheet, row, 0, y);
        y += i64::from(row.height() + GAP);
    }
    sheet
}

/// Writes the picture as a PNG file. A temporary file beside `path` is written and then renamed, so
/// that `path` never holds an incomplete picture.
///
/// # Errors
///
/// [`Error::Io`] if the picture has no pixels or the file cannot be written.
pub fn save_png(picture: &RgbImage, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(std::io::Error::other)
        .map_err(Error::io(FileKind::Picture, "write", path))?;
    write_atomically(FileKind::Picture, path, |file| file.write_all(png.get_ref()))
}

/// Convex in the score, so that the medium scores of normal areas hide little.
fn opacity(position: f32) -> f32 {
    STRONGEST * position.powf(1.5)
}

fn gaps(pictures: usize) -> u32 {
    GAP * u32::try_from(pictures.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// A black picture of `[height, width]`. Sides saturate at 32 bits, beyond which no memory could
/// hold it.
fn blank([height, width]: [usize; 2]) -> RgbImage {
    let side = |side| u32::try_from(side).unwrap_or(u32::MAX);
    RgbImage::new(side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: [usize; 2], values: &[f32]) -> AnomalyMap {
        AnomalyMap::new(size, values.to_vec()).unwrap()
    }

    #[test]
    fn a_range_spans_all_maps() {
        assert_eq!(ScoreRange::of([]), None);
        let maps = [map([1, 2], &[3.0, 5.0]), map([2, 1], &[-1.0, 4.0])];
        assert_eq!(ScoreRange::of(&maps), Some(ScoreRange { min: -1.0, max: 5.0 }));
    }

    #[test]
    fn positions_stay_between_0_and_1() {
        let at = |min, max, score| ScoreRange { min, max }.position(score);
        assert_eq!([at(1.0, 3.0, 0.0), at(1.0, 3.0, 2.0), at(1.0, 3.0, 9.0)], [0.0, 0.5, 1.0]);
        assert_eq!([at(2.0, 2.0, 2.0), at(2.0, 2.0, 7.0), at(3.0, 1.0, 2.0)], [0.0; 3]);
        assert_eq!([at(f32::NAN, 1.0, 1.0), at(0.0, f32::INFINITY, 1.0)], [0.0; 2]);
        assert_eq!(at(f32::MIN, f32::MAX, 0.0), 0.5);
    }

    #[test]
    fn heat_maps_lie_as_the_map_does() {
        let picture = heat_map(&map([1, 3], &[0.0, 1.0, 2.0]), ScoreRange { min: 0.0, max: 2.0 });
        assert_eq!(picture.dimensions(), (3, 1));
        assert_eq!(picture[(0, 0)], colormap::color(0.0));
        assert_eq!(picture[(1, 0)], colormap::color(0.5));
        assert_eq!(picture[(2, 0)], colormap::color(1.0));
    }

    #[test]
    fn an_overlay_leaves_normal_parts_alone() {
        let image = RgbImage::from_pixel(2, 1, Rgb([10, 200, 30]));
        let range = ScoreRange { min: 0.0, max: 1.0 };
        let picture = overlay(&image, &map([1, 2], &[0.0, 1.0]), range, None).unwrap();
        assert_eq!(picture[(0, 0)], image[(0, 0)]);
        assert_ne!(picture[(1, 0)], image[(1, 0)]);

        let flat = ScoreRange { min: 3.0, max: 3.0 };
        assert_eq!(overlay(&image, &map([1, 2], &[3.0; 2]), flat, None).unwrap(), image);
        assert_eq!(overlay(&image, &map([1, 2], &[3.0; 2]), flat, Some(4.0)).unwrap(), image);
    }

    #[test]
    fn an_overlay_surrounds_what_reaches_the_threshold() {
        let mut values = vec![0.0; 49];
        values[24] = 1.0;
        let image = RgbImage::new(7, 7);
        let range = ScoreRange { min: 0.0, max: 1.0 };
        let picture = overlay(&image, &map([7, 7], &values), range, Some(1.0)).unwrap();
        assert_eq!(picture[(2, 3)], contour::LINE);
        assert_ne!(picture[(3, 3)], contour::LINE);
        let pixel = overlay(&RgbImage::new(1, 1), &map([1, 1], &[1.0]), range, Some(0.5)).unwrap();
        assert_eq!(pixel[(0, 0)], contour::LINE);
    }

    #[test]
    fn sizes_must_agree() {
        let range = ScoreRange { min: 0.0, max: 1.0 };
        let result = overlay(&RgbImage::new(2, 1), &map([2, 1], &[0.0; 2]), range, None);
        assert!(matches!(result, Err(Error::ShapeMismatch { .. })));
        for (mask, size) in
            [(&[true][..], [1, 2]), (&[], [0, usize::MAX]), (&[], [1 << 33, 1 << 33])]
        {
            let result = mask_picture(mask, size);
            assert!(matches!(result, Err(Error::ShapeMismatch { .. })), "{size:?}");
        }
    }

    #[test]
    fn masks_are_white_on_black() {
        let picture = mask_picture(&[true, false, false], [3, 1]).unwrap();
        assert_eq!(picture.dimensions(), (1, 3));
        assert_eq!([picture[(0, 0)], picture[(0, 1)]], [WHITE, Rgb([0; 3])]);
        assert_eq!(mask_picture(&[], [0, 0]).unwrap().dimensions(), (0, 0));
    }

    #[test]
    fn panels_and_sheets_keep_their_parts_apart() {
        let [red, blue] = [Rgb([255, 0, 0]), Rgb([0, 0, 255])];
        let tall = RgbImage::from_pixel(2, 5, red);
        let short = RgbImage::from_pixel(3, 1, blue);
        let row = panel(&[&tall, &short]);
        assert_eq!(row.dimensions(), (5 + GAP, 5));
        assert_eq!([row[(1, 4)], row[(2, 0)], row[(1 + GAP, 0)]], [red, WHITE, WHITE]);
        assert_eq!([row[(2 + GAP, 0)], row[(4 + GAP, 0)], row[(2 + GAP, 1)]], [blue, blue, WHITE]);

        let sheet = contact_sheet(&[tall, short]);
        assert_eq!(sheet.dimensions(), (3, 6 + GAP));
        assert_eq!([sheet[(1, 4)], sheet[(2, 0)], sheet[(0, 5)]], [red, WHITE, WHITE]);
        assert_eq!([sheet[(0, 5 + GAP)], sheet[(2, 5 + GAP)]], [blue; 2]);

        assert_eq!(panel(&[]).dimensions(), (0, 0));
        assert_eq!(contact_sheet(&[]).dimensions(), (0, 0));
        assert_eq!(contact_sheet(&[panel(&[])]).dimensions(), (0, 0));
        assert_eq!(panel(&[&RgbImage::new(1, 1)]).dimensions(), (1, 1));
    }

    #[test]
    fn saved_pictures_come_back_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let picture = heat_map(&map([1, 2], &[0.0, 1.0]), ScoreRange { min: 0.0, max: 1.0 });
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"an older picture").unwrap();
        save_png(&picture, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), picture);

        let taken = folder.path().join("folder.png");
        std::fs::create_dir(&taken).unwrap();
        let failures = [
            save_png(&picture, &taken),
            save_png(&picture, folder.path().join("nowhere/a.png")),
            save_png(&RgbImage::new(0, 0), folder.path().join("empty.png")),
            save_png(&picture, ""),
            save_png(&picture, "/"),
        ];
        for failure in failures {
            assert!(matches!(failure, Err(Error::Io { action: "write", .. })), "{failure:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
