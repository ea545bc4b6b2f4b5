//! Images of any size, in tiles: [`TiledPadim`] before a fit, [`TiledDetector`] after it.

mod fit;
mod fitted;
mod image;
mod padim;

pub use fitted::TiledDetector;
pub use padim::TiledPadim;

pub(super) use image::TiledImage;
