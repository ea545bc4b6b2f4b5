//! Data sets: images for training and for evaluation.
//!
//! Each folder layout is a [`Dataset`]; [`RotatedCrops`] makes a rotated version of any of them.
//! Only folders and tables are read here. A damaged image is noticed when it is decoded.

mod btad;
mod category;
mod errors;
mod folder;
mod listing;
mod mvtec;
mod npy;
mod pose;
mod rotated;
mod shanghaitech;
mod table;
mod visa;

pub use btad::Btad;
pub use category::{Category, Dataset, GOOD, MaskFile, Sample};
pub use folder::Folder;
pub use listing::images_in;
pub use mvtec::Mvtec;
pub use pose::Pose;
pub use rotated::RotatedCrops;
pub use shanghaitech::ShanghaiTech;
pub use table::Table;
pub use visa::Visa;

#[cfg(test)]
mod testing;
