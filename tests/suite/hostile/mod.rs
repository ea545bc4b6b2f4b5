//! Hostile files, images and sets of images.

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

/// The corpus of the fuzzers: their seeds and the files that they have found.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

pub fn squares_config(storage: Storage) -> PadimConfig {
    let principal = matches!(storage, Storage::Principal(_));
    PadimConfig::default()
        .with_preprocess(PreprocessConfig::default().with_resize(Resize::square(8)).with_crop(None))
        .with_channels(ChannelSelection::All)
        .with_gaussian(
            GaussianConfig::default().with_storage(storage).with_components(principal.then_some(2)),
        )
}

pub fn tiny(i: u8) -> DynamicImage {
    let i = u32::from(i);
    let color = |x: u32, y: u32| image::Rgb([9 * x + i, 7 * y * i, 90 + i * i].map(|v| v as u8));
    image::RgbImage::from_fn(9, 8, color).into()
}
