//! An image that is cut into tiles.

use std::ops::Range;
use std::sync::Arc;

use image::DynamicImage;

use crate::detector::padim::Padim;
use crate::detector::prepared::{Item, named};
use crate::embedding::Embedding;
use crate::error::{Error, Result};
use crate::preprocess::ImageInput;
use crate::tiling::{TileLayout, TileModels, TilingConfig};

/// An image and its tiles.
pub struct TiledImage {
    pub name: String,
    image: Arc<DynamicImage>,
    pub layout: TileLayout,
    tile: [usize; 2],
}

impl TiledImage {
    pub fn new(Item { name, prepared }: Item<DynamicImage>, tiling: &TilingConfig) -> Result<Self> {
        let image = Arc::new(prepared?);
        let size = [image.height() as usize, image.width() as usize];
        let layout = tiling.layout(size).map_err(named(&name))?;
        Ok(Self { name, image, layout, tile: tiling.tile })
    }

    pub fn require_size(&self, expected: [usize; 2]) -> Result<()> {
        let actual = self.layout.image();
        if actual == expected {
            return Ok(());
        }
        Err(Error::UnusableImage {
            name: self.name.clone(),
            reason: format!(
                "it has {actual:?} pixels (height, width), and each tile has its own model for images \
                 of {expected:?}; bring it to that size, or use `TileModels::Shared`"
            ),
        })
    }

    /// A tile that is cut out when its turn comes.
    fn tile(&self, number: usize) -> ImageInput {
        let ([top, left], [height, width]) = (self.layout.origin(number), self.tile);
        let [x, y, w, h] = [left, top, width, height].map(|n| n as u32);
        let image = self.image.clone();
        let name = format!("{} (tile at row {top}, column {left})", self.name);
        ImageInput::deferred(name, move |_limits| Ok(image.crop_imm(x, y, w, h)))
    }

    /// Gives the embeddings of tiles to `work` in batches, with the number of the first tile.
    pub fn embed(
        &self,
        padim: &Padim,
        numbers: Range<usize>,
        input_size: &mut Option<[usize; 2]>,
        mut work: impl FnMut(usize, Embedding) -> Result<()>,
    ) -> Result<()> {
        let begin = numbers.start;
        let tiles = numbers.map(|number| self.tile(number));
        padim.embed_all(tiles, input_size, |embedding, done, _| {
            work(begin + done - embedding.shape()[0], embedding)
        })
    }
}

/// The parts of a batch of `count` tiles that are for one model, and the number of the tile whose model
/// it is, if it is not that of all.
pub fn parts(
    count: usize,
    models: TileModels,
    first: usize,
) -> impl Iterator<Item = (Option<usize>, Range<usize>)> {
    let each = match models {
        TileModels::Shared => count,
        TileModels::PerPosition => 1,
    };
    (0..count).step_by(each.max(1)).map(move |i| {
        let number = (models == TileModels::PerPosition).then_some(first + i);
        (number, i..i + each)
    })
}
