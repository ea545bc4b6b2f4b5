//! The positions of tiles and their blending weights.

use super::config::TilingConfig;
use crate::error::{Error, Result};

/// The tiles of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileLayout {
    rows: TileAxis,
    columns: TileAxis,
}

impl TileLayout {
    /// The image must be at least as large as a tile.
    pub(super) fn new(config: &TilingConfig, image: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|axis| TileAxis {
            len: image[axis],
            tile: config.tile[axis],
            overlap: config.overlap,
        });
        Self { rows, columns }
    }

    /// The number of tiles. It saturates for impossibly large images (claimed by a damaged file, say).
    pub fn count(&self) -> usize {
        self.rows.count().saturating_mul(self.columns.count())
    }

    /// `[top, left]` of a tile; tiles are numbered row by row.
    pub fn origin(&self, number: usize) -> [usize; 2] {
        let [row, column] = self.place(number);
        [self.rows.origin(row), self.columns.origin(column)]
    }

    /// The `[row, column]` of a tile in the grid of tiles.
    pub(super) fn place(&self, number: usize) -> [usize; 2] {
        let columns = self.columns.count();
        [number / columns, number % columns]
    }

    pub(super) fn axes(&self) -> [TileAxis; 2] {
        [self.rows, self.columns]
    }

    /// `[height, width]` of the image's map if the tiles' maps have size `input`: the resolution of
    /// the tiles' maps, but at most that of the image.
    pub fn map_size(&self, input: [usize; 2]) -> [usize; 2] {
        let axes = self.axes();
        [0, 1].map(|i| {
            let TileAxis { len, tile, .. } = axes[i];
            if input[i] < tile { len.saturating_mul(input[i]).div_ceil(tile) } else { len }
        })
    }

    /// `[height, width]` of the image.
    pub fn image(&self) -> [usize; 2] {
        [self.rows.len, self.columns.len]
    }
}

/// The tiles along one side of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TileAxis {
    pub len: usize,
    pub tile: usize,
    overlap: usize,
}

impl TileAxis {
    pub fn count(&self) -> usize {
        1 + (self.len - self.tile).div_ceil(self.tile - self.overlap)
    }

    /// The first pixel of tile `i`. The last tile is moved inwards.
    pub fn origin(&self, i: usize) -> usize {
        i.saturating_mul(self.tile - self.overlap).min(self.len - self.tile)
    }

    /// Whether a tile covers a position between 0 and the image's length.
    pub fn covers(&self, i: usize, place: f64) -> bool {
        let origin = self.origin(i) as f64;
        (origin..origin + self.tile as f64).contains(&place)
    }

    /// A tile's blending weight at a position that it covers. The weights of all tiles there sum to
    /// one and change smoothly along the axis.
    pub fn share(&self, i: usize, place: f64) -> f64 {
        // Tiles begin at least half a tile apart, except the last one, so distant tiles do not matter.
        let near = i.saturating_sub(2)..(i + 3).min(self.count());
        let sum: f64 = near.map(|j| self.height(j, place)).sum();
        self.height(i, place) / sum
    }

    /// The weight before normalization: it falls to 0 within an overlap, but not at the image's border.
    fn height(&self, i: usize, place: f64) -> f64 {
        if !self.covers(i, place) {
            return 0.0;
        }
        let (start, end) = (self.origin(i), self.origin(i) + self.tile);
        let fade = |distance: f64, at_border: bool| {
            if at_border || self.overlap == 0 {
                1.0
            } else {
                smooth(distance / self.overlap as f64)
            }
        };
        fade(place - start as f64, start == 0) * fade(end as f64 - place, end == self.len)
    }
}

/// A smooth step: 0 up to x = 1/4, 1 from x = 3/4. Near a tile's border the network sees its
/// padding and distances are too small, so the tile gets weight 0 there.
fn smooth(x: f64) -> f64 {
    let x = (2.0 * x - 0.5).clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

impl TilingConfig {
    /// The upper left corner `[top, left]` of each tile of an image of `[height, width]`, row by row.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate), and [`Error::UnusableImage`] if the image is smaller than a
    /// tile.
    pub fn origins(&self, image: [usize; 2]) -> Result<Vec<[usize; 2]>> {
        let layout = self.layout(image)?;
        Ok((0..layout.count()).map(|number| layout.origin(number)).collect())
    }

    pub(crate) fn layout(&self, image: [usize; 2]) -> Result<TileLayout> {
        self.validate()?;
        let [height, width] = self.tile;
        if image[0] >= height && image[1] >= width {
            return Ok(TileLayout::new(self, image));
        }
        Err(Error::UnusableImage {
            name: "given".into(),
            reason: format!(
                "it has {}x{} pixels (height x width), less than a tile of {height}x{width}; fit with \
                 smaller tiles, or enlarge it",
                image[0], image[1]
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(len: usize, tile: usize, overlap: usize) -> TileAxis {
        TileAxis { len, tile, overlap }
    }

    #[test]
    fn the_last_tile_is_moved_inwards() {
        let origins =
            |axis: TileAxis| (0..axis.count()).map(|i| axis.origin(i)).collect::<Vec<_>>();
        assert_eq!(origins(axis(10, 10, 2)), [0]);
        assert_eq!(origins(axis(11, 10, 2)), [0, 1]);
        assert_eq!(origins(axis(18, 10, 2)), [0, 8]);
        assert_eq!(origins(axis(19, 10, 2)), [0, 8, 9]);
        assert_eq!(origins(axis(30, 10, 0)), [0, 10, 20]);
    }

    #[test]
    fn neighbours_pass_into_each_other() {
        let axis = axis(18, 10, 2);
        // The tiles overlap from 8 to 10.
        for (place, share) in [(0.0, 1.0), (8.5, 1.0), (8.75, 0.84375), (9.0, 0.5), (9.25, 0.15625)]
        {
            assert!((axis.share(0, place) - share).abs() < 1e-12, "{place}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_smooth_and_add_up_to_one(
            tile in 1_usize..60,
            overlap in 0.0_f64..=0.5,
            more in 0_usize..300,
            steps in 1_usize..4,
        ) {
            let overlap = (overlap * tile as f64) as usize;
            let axis = axis(tile + more, tile, overlap);
            let all = |place: f64| -> Vec<f64> {
                let share = |i| if axis.covers(i, place) { axis.share(i, place) } else { 0.0 };
                (0..axis.count()).map(share).collect()
            };
            let mut last: Option<Vec<f64>> = None;
            for k in 0..axis.len * steps {
                let place = (k as f64 + 0.5) / steps as f64;
                let shares = all(place);
                prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                prop_assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)));
                if let Some(last) = last.filter(|_| overlap > 0) {
                    let steepest = last.iter().zip(&shares).map(|(a, b)| (a - b).abs());
                    let limit = 6.0 / (overlap * steps) as f64;
                    prop_assert!(steepest.fold(0.0, f64::max) <= limit, "{place}");
                }
                last = Some(shares);
            }
        }
    }
}
