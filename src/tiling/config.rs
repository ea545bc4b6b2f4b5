//! How images are cut into tiles.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::builders;
use crate::names::named;
use crate::preprocess::MAX_SIDE;

/// Which tiles share their Gaussians.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TileModels {
    /// All tiles share one model: for surfaces that look alike everywhere, such as fabric, foil,
    /// wood or steel. Images may have different sizes, and each gives one training example per
    /// tile.
    Shared,
    /// Each tile position has its own model: for parts whose look depends on the position, such as
    /// circuit boards or machined parts. All images must have the same size, and memory grows with
    /// the number of tiles.
    PerPosition,
}

named!(
    TileModels,
    "models",
    [("shared", TileModels::Shared), ("per-position", TileModels::PerPosition)]
);

/// How images are cut into tiles. Stored with every [`TiledDetector`](crate::TiledDetector).
///
/// Tiles begin every `tile - overlap` pixels. The last tile of a row or column is moved inwards, so
/// that it lies inside the image. Each tile is preprocessed like a whole image. Where tiles
/// overlap, their maps are blended with weights that sum to one.
///
/// ```
/// use padim::TilingConfig;
///
/// let tiling = TilingConfig::default().with_tile([300, 400]).with_overlap(50);
/// assert_eq!(tiling.origins([300, 1000])?, [[0, 0], [0, 350], [0, 600]]);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TilingConfig {
    /// A tile's `[height, width]` in pixels of the original image. Default: 512x512. Together with
    /// [`PreprocessConfig::resize`](crate::preprocess::PreprocessConfig::resize), it sets how many
    /// image pixels become one input pixel of the network.
    pub tile: [usize; 2],
    /// The overlap of neighboring tiles in pixels, at most half of the tile's shorter side.
    /// Default: 128, a quarter of a tile. Scores are too low near the border of a tile, where the
    /// network sees its padding. So the outer quarter of an overlap is ignored, and maps are
    /// blended in its middle half. With less than a quarter of a tile the borders stay slightly
    /// visible, with 0 there are seams. A larger overlap takes more time.
    pub overlap: usize,
    /// Which tiles share their Gaussians. Default: shared.
    pub models: TileModels,
}

builders!(TilingConfig {
    with_tile: tile, [usize; 2];
    with_overlap: overlap, usize;
    with_models: models, TileModels;
});

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
    /// [`Error::InvalidConfig`] for a tile side of 0 or more than 16,384 pixels, or an overlap of
    /// more than half of the shorter side.
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
