//! Cuts images of any size into tiles, and blends the tiles' maps into one.

mod blend;
mod config;
mod layout;

pub use config::{TileModels, TilingConfig};

pub(crate) use blend::MapBlender;
pub(crate) use layout::TileLayout;
