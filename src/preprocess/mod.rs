//! From an image to the network's input: decode, resize, crop, normalize.
//!
//! The 8-bit path equals PIL's bit for bit, so that scores agree with implementations in Python.
//! [`ImageGeometry`] records the resize and the crop, and maps results back to the original image.

mod alignment;
mod config;
mod decode;
mod geometry;
mod input;
mod mask;
mod pixels;
mod preprocessor;
mod principal_axis;
mod region;

pub use crate::resample::Filter;
pub use alignment::Alignment;
pub use config::{Normalization, PreprocessConfig, Resize, ResizeArithmetic};
pub use decode::{
    DecodeLimits, DecodeOptions, ExifOrientation, ImageHeader, decode_bytes, decode_bytes_with,
    decode_file, decode_file_with, image_header, image_size, is_image_file,
};
pub use geometry::ImageGeometry;
pub use input::{ImageInput, OpenImage};
pub use mask::Mask;
pub use pixels::{SixteenBitGray, to_rgb8};
pub use preprocessor::{PreprocessedImage, Preprocessor};
pub use region::{InputRegion, RegionOfInterest};

pub(crate) use config::MAX_SIDE;
pub(crate) use principal_axis::principal_axis;
