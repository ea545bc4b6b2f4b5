//! Decodes files: what goes in is what is scored. A file that would be misread is an error that says what it
//! is.

mod animation;
mod file;
mod header;
mod headers;
mod job;
mod jpeg;
mod kind;
mod options;
mod source;
mod tiff;

#[cfg(test)]
mod tests;

pub use file::{decode_bytes, decode_bytes_with, decode_file, decode_file_with};
pub(in crate::preprocess) use file::{open_bytes, open_file};
pub use header::ImageHeader;
pub use headers::{image_header, image_size};
pub use kind::is_image_file;
pub use options::{DecodeLimits, DecodeOptions, ExifOrientation, JpegDecoder};
