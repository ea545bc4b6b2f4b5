//! From an image to the network's input: decode, resize, crop, normalize.
//!
//! The 8-bit path equals PIL's bit for bit, so that scores agree with implementations in Python.
//! [`ImageGeometry`] records the resize and the crop, and maps results back to the original image.

mod alignment;
mod alpha;
mod config;
mod decode;
mod demosaic;
mod frame;
mod frame_format;
mod geometry;
mod input;
mod levels;
mod mask;
mod opened;
mod pixels;
mod preprocessor;
mod principal_axis;
mod region;
mod report;
mod resize;
mod survey;

pub use crate::resample::Filter;
pub use alignment::Alignment;
pub use alpha::Alpha;
pub use config::{Normalization, PreprocessConfig, ResizeArithmetic};
pub use decode::{
    DecodeLimits, DecodeOptions, ExifOrientation, ImageHeader, JpegDecoder, decode_bytes,
    decode_bytes_with, decode_file, decode_file_with, image_header, image_size, is_image_file,
};
pub use frame::{Frame, FrameLayout};
pub use frame_format::FrameFormat;
pub use geometry::ImageGeometry;
pub use input::{ImageInput, OpenImage};
pub use levels::Levels;
pub use mask::Mask;
pub use opened::OpenedImage;
pub use pixels::to_rgb8;
pub use preprocessor::{PreprocessedImage, Preprocessor};
pub use region::{InputRegion, RegionOfInterest};
pub use report::{DeepReport, InputReport, InputWarning};
pub use resize::Resize;

pub(crate) use config::MAX_SIDE;
pub(crate) use principal_axis::principal_axis;
pub(crate) use survey::levels_of_first;
