//! Images of any size in tiles: where the tiles lie, and how their maps become one.

mod blend;
mod layout;

pub(crate) use blend::MapBlender;
pub(crate) use layout::TileLayout;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::preprocess::MAX_SIDE;

/// Which tiles share their Gaussians.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TileModels {
    /// All tiles: what a tile may show does not depend on where it lies, as on fabric, foil, wood or
    /// steel. Images may have any sizes, and each gives as many examples as it has tiles.
    Shared,
    /// Each position has its own: what a tile shows depends on where it lies, as on boards or machined
    /// parts. All images have one size, and memory grows with the number of tiles.
    PerPosition,
}

/// How images are cut into tiles. Stored with every [`TiledDetector`](crate::TiledDetector).
///
/// Tiles begin every `tile - overlap` pixels, and the last one of a row or column is moved inwards, so
/// that all are whole. Each is prepared for the network as a whole image would be; where tiles overlap,
/// their maps pass into each other, with weights that add up to one.
///
/// ```
/// use padim::TilingConfig;
///
/// let tiling = TilingConfig { tile: [300, 400], overlap: 50, ..Default::default() };
/// assert_eq!(tiling.origins([300, 1000])?, [[0, 0], [0, 350], [0, 600]]);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TilingConfig {
    /// A tile's `[height, width]` in pixels of the original image. Default: 512x512. It sets, with
    /// [`PreprocessConfig::resize`](crate::PreprocessConfig::resize), how many pixels of the image
    /// become one of the network's.
    pub tile: [usize; 2],
    /// How many pixels neighbours share, at most half of a tile. Default: 128, a quarter. A map is
    /// lower near the border of its tile, where the network sees its padding: the outer quarter of an
    /// overlap does not count, and in the middle half maps pass into each other. With less than a
    /// quarter of a tile something of that can be seen, with 0 seams; more is more work.
    pub overlap: usize,
    /// Default: shared.
    pub models: TileModels,
}

impl Default for TilingConfig {
    fn default() -> Self {
        Self { tile: [512, 512], overlap: 128, models: TileModels::Shared }
    }
}

impl TilingConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a tile of no pixels, or an overlap of more than half of it.
    pub fn validate(&self) -> Result<()> {
        let Self { tile, overlap, .. } = *self;
        if tile.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            let reason = format!("sides must be in 1..={MAX_SIDE} pixels, got {tile:?}");
            return Err(Error::config("tile", reason));
        }
        let most = tile[0].min(tile[1]) / 2;
        if overlap > most {
            let reason =
                format!("must be at most {most} pixels, half of a tile of {tile:?}, got {overlap}");
            return Err(Error::config("overlap", reason));
        }
        Ok(())
    }

    /// Where the tiles of an image of `[height, width]` begin, as `[top, left]`, row by row.
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
    use super::*;

    #[test]
    fn impossible_tiles_are_refused_with_advice() {
        for (tile, overlap, field) in
            [([0, 9], 0, "tile"), ([9, 1 << 15], 0, "tile"), ([64, 30], 16, "overlap")]
        {
            let tiling = TilingConfig { tile, overlap, ..Default::default() };
            match tiling.validate() {
                Err(Error::InvalidConfig { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{other:?}"),
            }
            assert!(tiling.origins([9999, 9999]).is_err());
        }
        let error = TilingConfig::default().origins([512, 511]).unwrap_err().to_string();
        assert!(error.contains("512x511") && error.contains("smaller tiles"), "{error}");
    }
}
