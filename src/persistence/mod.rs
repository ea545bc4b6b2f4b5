//! The file of a detector or of a partial fit.
//!
//! ```text
//! "PADIM\r\n\x1a"   8 bytes; as in PNG, they reveal damage by text conversion
//! version           u32
//! header length     u64
//! header            named sections (bincode: names and bytes); see below
//! backbone weights  f32, if embedded: weight and bias of each convolution
//! region            bits, row-major, the first pixel in the lowest bit
//! projection        f32, [components, channels]
//! means             f32, [positions, dimension]
//! scales            f32, [positions]
//! Gaussians         f32 or f16, [positions, numbers of a position]
//! statistics        per block: vectors as f32, then mean, third, fourth and scatter as f64
//! tiles             means, scales and Gaussians of each further tile position
//! CRC-32            u32, of all bytes before it
//! ```
//!
//! All numbers are little-endian. Sections that describe arrays are in bincode: `region`, `projection`,
//! `model`, `statistics`, `tile_models`. Sections of settings are JSON with field names: `settings`
//! (required), `backbone`, `thresholds`, `good_peak`, `tiles`, `metadata`. A missing setting has its
//! documented default; an unknown setting is an error that names it.
//!
//! The header determines the length of every array. Before allocating, the reader checks that they add
//! up to the length of the file.

mod cache;
mod detector;
mod format;
mod header;
mod partial_fit;
mod read;
mod tiles;
mod write;

pub use cache::{BackboneCache, BackboneSource};
