//! An image that is divided into tiles.

use std::ops::Range;
use std::sync::Arc;

use image::DynamicImage;

use crate::detector::padim::Padim;
use crate::detector::prepared::{Item, named};
use crate::embedding::Embedding;
use crate::error::{Error, Result};
use crate::preprocess::{ImageInput, InputReport, OpenedImage};
use crate::tiling::{TileLayout, TileModels, TilingConfig};

/// An image and its tiles.
pub struct TiledImage {
    pub name: String,
    pub image: Arc<DynamicImage>,
    /// The bits of the values, if the image's source knows them.
    pub bits: Option<u8>,
    pub layout: TileLayout,
    tile: [usize; 2],
}

impl TiledImage {
    pub fn new(Item { name, prepared }: Item<OpenedImage>, tiling: &TilingConfig) -> Result<Self> {
        let OpenedImage { pixels, bits, .. } = prepared?;
        Self::of(name, pixels, bits, tiling)
    }

    pub fn of(
        name: String,
        image: impl Into<Arc<DynamicImage>>,
        bits: Option<u8>,
        tiling: &TilingConfig,
    ) -> Result<Self> {
        let image = image.into();
        let size = [image.height() as usize, image.width() as usize];
        let layout = tiling.layout(size).map_err(named(&name))?;
        Ok(Self { name, image, bits, layout, tile: tiling.tile })
    }

    pub fn require_size(&self, expected: [usize; 2]) -> Result<()> {
        let actual = self.layout.image();
        if actual == expected {
            return Ok(());
        }
        Err(Error::UnusableImage {
            name: self.name.clone(),
            reason: format!(
                "it has {actual:?} pixels (height, width), but the models per tile position need \
                 {expected:?}; resize it, or use `TileModels::Shared`"
            ),
        })
    }

    /// What is noticed about the whole image.
    pub fn report(&self, padim: &Padim) -> Result<InputReport> {
        padim.preprocessor.report(&self.image, self.bits).map_err(named(&self.name))
    }

    /// A tile; it is cropped when it is used.
    fn tile(&self, number: usize) -> ImageInput {
        let ([top, left], [height, width]) = (self.layout.origin(number), self.tile);
        let [x, y, w, h] = [left, top, width, height].map(|n| n as u32);
        let image = self.image.clone();
        let name = format!("{} (tile at row {top}, column {left})", self.name);
        let bits = self.bits;
        let open = move |_| Ok(OpenedImage::from(image.crop_imm(x, y, w, h)).with_bits(bits));
        ImageInput::Deferred { name, open: Arc::new(open) }
    }

    /// Embeds tiles in batches, and calls `work` with the number of a batch's first tile and the batch.
    pub fn embed(
        &self,
        padim: &Padim,
        numbers: Range<usize>,
        input_size: &mut Option<[usize; 2]>,
        mut work: impl FnMut(usize, Embedding) -> Result<()>,
    ) -> Result<()> {
        let begin = numbers.start;
        let tiles = numbers.map(|number| self.tile(number));
        padim.embed_all(tiles, input_size, &mut |_, _| Ok(()), |embedding, done, _| {
            work(begin + done - embedding.shape()[0], embedding)
        })
    }
}

/// Splits a batch of `count` tiles into parts with one model each. Also gives the tile number of that
/// model; `None` for the shared model.
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
