//! Where tiles lie, and how much each counts.

use super::TilingConfig;

/// The tiles of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileLayout {
    rows: TileAxis,
    columns: TileAxis,
}

impl TileLayout {
    /// No side of the image is less than the tile's.
    pub(super) fn new(config: &TilingConfig, image: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|axis| TileAxis {
            len: image[axis],
            tile: config.tile[axis],
            overlap: config.overlap,
        });
        Self { rows, columns }
    }

    /// The number of tiles. A claim beyond all measure gives a number that no list has.
    pub fn count(&self) -> usize {
        self.rows.count().saturating_mul(self.columns.count())
    }

    /// `[top, left]` of a tile, counted row by row.
    pub fn origin(&self, number: usize) -> [usize; 2] {
        let [row, column] = self.place(number);
        [self.rows.origin(row), self.columns.origin(column)]
    }

    /// A tile's place in the rows and columns of tiles.
    pub(super) fn place(&self, number: usize) -> [usize; 2] {
        let columns = self.columns.count();
        [number / columns, number % columns]
    }

    pub(super) fn axes(&self) -> [TileAxis; 2] {
        [self.rows, self.columns]
    }

    /// `[height, width]` of the image's map if those of tiles have `input` pixels: the same resolution, or
    /// the image's if that is lower.
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

    /// The last one is moved inwards.
    pub fn origin(&self, i: usize) -> usize {
        i.saturating_mul(self.tile - self.overlap).min(self.len - self.tile)
    }

    /// Whether a tile covers a place between 0 and the image's length.
    pub fn covers(&self, i: usize, place: f64) -> bool {
        let origin = self.origin(i) as f64;
        (origin..origin + self.tile as f64).contains(&place)
    }

    /// A tile's share at a place that it covers. The shares of all tiles there add up to one, and
    /// change smoothly along the axis.
    pub fn share(&self, i: usize, place: f64) -> f64 {
        // Tiles begin half a tile apart at least, but for the last one.
        let near = i.saturating_sub(2)..(i + 3).min(self.count());
        let sum: f64 = near.map(|j| self.height(j, place)).sum();
        self.height(i, place) / sum
    }

    /// A tile fades where others may take over: within the overlap, unless the image ends there.
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

/// From 0 to 1 in the middle half of 0 to 1, level at both ends. Near a tile's border the network sees
/// what it is padded with, and distances are smaller: there a tile does not count.
fn smooth(x: f64) -> f64 {
    let x = (2.0 * x - 0.5).clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
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
        // They share the places 8 to 10.
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
