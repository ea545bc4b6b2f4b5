//! Files, images and sets that nobody meant well.

#[path = "../../common/hostile.rs"]
mod checks;

mod damage;
mod errors;
mod inputs;
mod killed;
mod limits;
mod sections;
mod seeds;

use std::path::{Path, PathBuf};

use image::DynamicImage;
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Storage};
use padim::preprocess::{PreprocessConfig, Resize};
use padim::{PadimConfig, image};

/// What the fuzzers have found, and where they begin.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

pub fn squares_config(storage: Storage) -> PadimConfig {
    let principal = matches!(storage, Storage::Principal(_));
    PadimConfig {
        preprocess: PreprocessConfig {
            resize: Resize::square(8),
            crop: None,
            ..PreprocessConfig::default()
        },
        channels: ChannelSelection::All,
        gaussian: GaussianConfig {
            storage,
            components: principal.then_some(2),
            ..GaussianConfig::default()
        },
        ..PadimConfig::default()
    }
}

pub fn tiny(i: u8) -> DynamicImage {
    let i = u32::from(i);
    let colour = |x: u32, y: u32| image::Rgb([9 * x + i, 7 * y * i, 90 + i * i].map(|v| v as u8));
    image::RgbImage::from_fn(9, 8, colour).into()
}
