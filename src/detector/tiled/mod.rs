//! Images of any size, in tiles: [`TiledPadim`] before the fit, [`TiledDetector`] after it.

mod fit;
mod fitted;
mod image;
mod padim;

pub use fitted::TiledDetector;
pub use padim::TiledPadim;
