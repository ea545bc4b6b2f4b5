//! The region of interest.

use image::{DynamicImage, GrayImage, Luma};

use super::mask::Mask;
use super::{MAX_SIDE, Preprocessor};
use crate::error::{Error, Result};

/// The part of the images that is inspected, as a mask with the same framing as the images. Pixels
/// outside (a conveyor, a clamp, a time stamp) take no memory and get no score.
///
/// ```
/// use padim::preprocess::RegionOfInterest;
///
/// // All but the left quarter of a camera's 640x480 pixels.
/// let region = RegionOfInterest::polygon(
///     [480, 640],
///     &[[160.0, 0.0], [640.0, 0.0], [640.0, 480.0], [160.0, 480.0]],
/// )?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionOfInterest {
    mask: GrayImage,
}

impl RegionOfInterest {
    /// The marked pixels of a mask: all that are not 0, as [`Mask`] says. The mask is resized and cropped
    /// like the images, so it must show the same scene; its size may differ.
    pub fn from_mask(mask: &DynamicImage) -> Self {
        Self { mask: Mask::of(mask).picture() }
    }

    /// The pixels of an image of `[height, width]` whose centers lie in a polygon, given by its
    /// corners `[x, y]` in pixels. If it crosses itself, the even-odd rule applies.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for fewer than three corners, corners that are not finite, or an
    /// image side that is 0 or more than 16,384 pixels.
    pub fn polygon(size: [usize; 2], corners: &[[f64; 2]]) -> Result<Self> {
        let [height, width] = size;
        if size.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            let reason = format!("image sides must be in 1..={MAX_SIDE} pixels, got {size:?}");
            return Err(Error::config("region", reason));
        }
        if corners.len() < 3 || !corners.iter().flatten().all(|c| c.is_finite()) {
            let reason = format!("a polygon needs three or more finite corners, got {corners:?}");
            return Err(Error::config("region", reason));
        }
        let mut mask = GrayImage::new(width as u32, height as u32);
        for y in 0..height {
            let center = y as f64 + 0.5;
            let edges = corners.iter().zip(corners.iter().cycle().skip(1));
            let mut crossings: Vec<f64> = edges
                .filter(|([_, y0], [_, y1])| (*y0 <= center) != (*y1 <= center))
                .map(|([x0, y0], [x1, y1])| x0 + (center - y0) / (y1 - y0) * (x1 - x0))
                .collect();
            crossings.sort_by(f64::total_cmp);
            for span in crossings.chunks_exact(2) {
                // The pixels whose centers lie in the span.
                let first = (span[0] - 0.5).ceil().clamp(0.0, width as f64) as u32;
                let end = (span[1] - 0.5).ceil().clamp(0.0, width as f64) as u32;
                (first..end).for_each(|x| mask.put_pixel(x, y as u32, Luma([255])));
            }
        }
        Ok(Self { mask })
    }

    /// The region in the network's input.
    pub(crate) fn resolve(&self, preprocessor: &Preprocessor) -> Result<InputRegion> {
        let mask = DynamicImage::from(self.mask.clone());
        let size = preprocessor.geometry([mask.height() as usize, mask.width() as usize])?;
        InputRegion::new(size.input_size(), preprocessor.process_mask(&mask)?)
    }
}

/// A region of interest in the network's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRegion {
    size: [usize; 2],
    mask: Vec<bool>,
}

impl InputRegion {
    pub(crate) fn new(size: [usize; 2], mask: Vec<bool>) -> Result<Self> {
        if size[0].checked_mul(size[1]) != Some(mask.len()) {
            return Err(Error::shape("region of interest", format!("{size:?} pixels"), mask.len()));
        }
        if !mask.contains(&true) {
            let reason = "holds no pixel of the network's input; it may lie outside the crop";
            return Err(Error::config("region", reason));
        }
        Ok(Self { size, mask })
    }

    /// `[height, width]` in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Which pixels are inside, row-major.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// For each position of a grid `[height, width]` over the input, whether its cell holds a pixel
    /// of the region; row-major.
    pub fn positions(&self, grid: [usize; 2]) -> Vec<bool> {
        let [height, width] = self.size;
        let cell = |i: usize, count: usize, side: usize| {
            i * side / count..((i + 1) * side).div_ceil(count).min(side)
        };
        let holds = |row: usize, column: usize| {
            let mut rows = cell(row, grid[0], height);
            rows.any(|y| {
                let columns = cell(column, grid[1], width);
                self.mask[y * width + columns.start..y * width + columns.end].contains(&true)
            })
        };
        (0..grid[0])
            .flat_map(|row| (0..grid[1]).map(move |c| (row, c)))
            .map(|(r, c)| holds(r, c))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(region: &RegionOfInterest) -> String {
        let rows = region.mask.rows();
        let row = |r: image::buffer::Pixels<'_, Luma<u8>>| {
            r.map(|p| if p.0[0] > 127 { '#' } else { '.' }).collect::<String>() + "\n"
        };
        rows.map(row).collect()
    }

    #[test]
    fn polygons_hold_the_pixels_whose_centres_they_hold() {
        let triangle = RegionOfInterest::polygon([4, 5], &[[0.0, 0.0], [4.1, 0.0], [0.0, 4.1]]);
        assert_eq!(picture(&triangle.unwrap()), "####.\n###..\n##...\n#....\n");
        let beyond = [[-9.0, 1.0], [2.0, 1.0], [2.0, 99.0], [-9.0, 99.0]];
        let corner = RegionOfInterest::polygon([3, 3], &beyond).unwrap();
        assert_eq!(picture(&corner), "...\n##.\n##.\n");
        let bow_tie = [[0.0, -0.1], [4.0, 4.1], [4.0, -0.1], [0.0, 4.1]];
        let bow_tie = RegionOfInterest::polygon([4, 4], &bow_tie).unwrap();
        assert_eq!(picture(&bow_tie), "#..#\n####\n####\n#..#\n");
    }

    #[test]
    fn masks_of_any_encoding_are_the_same_region() {
        let mask = |white: u8| {
            let pixel = |x: u32, _| image::Luma([if x < 2 { white } else { 0 }]);
            image::DynamicImage::from(image::GrayImage::from_fn(4, 3, pixel))
        };
        let region = RegionOfInterest::from_mask(&mask(255));
        assert_eq!(picture(&region), picture(&RegionOfInterest::from_mask(&mask(1))));
        let deep = mask(1).to_luma16().into();
        assert_eq!(picture(&region), picture(&RegionOfInterest::from_mask(&deep)));
        assert!(picture(&region).contains('#'), "{}", picture(&region));
    }

    #[test]
    fn impossible_polygons_are_refused() {
        assert!(RegionOfInterest::polygon([4, 4], &[[0.0, 0.0], [1.0, 1.0]]).is_err());
        assert!(RegionOfInterest::polygon([0, 4], &[[0.0; 2]; 3]).is_err());
        assert!(RegionOfInterest::polygon([4, 4], &[[f64::NAN; 2]; 3]).is_err());
    }

    #[test]
    fn a_position_counts_if_any_of_its_pixels_does() {
        let mut mask = vec![false; 6 * 8];
        mask[8 + 5] = true;
        let region = InputRegion::new([6, 8], mask).unwrap();
        let positions = region.positions([3, 4]);
        assert_eq!(positions.iter().filter(|&&p| p).count(), 1);
        assert!(positions[2]);
        // Cells that share a pixel all hold it.
        assert_eq!(region.positions([4, 3]).iter().filter(|&&p| p).count(), 4);
        assert!(InputRegion::new([2, 2], vec![false; 4]).is_err());
    }
}
