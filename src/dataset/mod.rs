//! Data sets: images for training and for evaluation.
//!
//! Each folder layout is a [`Dataset`]; [`RotatedCrops`] makes a rotated version of any of them.
//! [`Category::intake`] tells what was taken for what and what was left out, and [`Category::examine`]
//! looks into the files. A damaged image is noticed when it is decoded.

mod btad;
mod category;
mod errors;
mod examine;
mod folder;
mod gather;
mod good;
mod intake;
mod left_out;
mod listing;
mod masks;
mod mvtec;
mod npy;
mod pose;
mod report;
mod rotated;
mod shanghaitech;
mod table;
mod visa;

pub use btad::Btad;
pub use category::{Category, Dataset, MaskFile, Sample};
pub use folder::Folder;
pub use good::GOOD;
pub use left_out::{Files, LeftOut, Reason};
pub use listing::{Entry, ImageList, images_in, list_images, list_images_below};
pub use mvtec::Mvtec;
pub use pose::Pose;
pub use report::{DefectCount, IntakeReport, IntakeWarning};
pub use rotated::RotatedCrops;
pub use shanghaitech::ShanghaiTech;
pub use table::Table;
pub use visa::Visa;

#[cfg(test)]
mod testing;
