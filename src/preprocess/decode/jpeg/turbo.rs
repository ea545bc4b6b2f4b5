//! Decoding by libjpeg-turbo, as PIL does it.

use image::{DynamicImage, GrayImage, RgbImage};
use turbojpeg::{Decompressor, Image, PixelFormat, Result, ScalingFactor};

use super::markers::Frame;

/// Decodes an image of one or three components, with its sides divided by 1, 2, 4 or 8.
pub(super) fn decode(file: &[u8], frame: &Frame, divisor: u8) -> Result<DynamicImage> {
    let factor = match divisor {
        8 => ScalingFactor::ONE_EIGHTH,
        4 => ScalingFactor::ONE_QUARTER,
        2 => ScalingFactor::ONE_HALF,
        _ => ScalingFactor::ONE,
    };
    let [width, height] = [frame.width, frame.height].map(|side| factor.scale(side.into()));
    let (format, channels) = match frame.components.len() {
        1 => (PixelFormat::GRAY, 1),
        _ => (PixelFormat::RGB, 3),
    };
    let mut pixels = vec![0; width * height * channels];
    let mut decoder = Decompressor::new()?;
    decoder.set_scaling_factor(factor)?;
    let pitch = width * channels;
    decoder.decompress(file, Image { pixels: &mut pixels[..], width, pitch, height, format })?;
    let (width, height) = (width as u32, height as u32);
    let image = match channels {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    Ok(image.unwrap_or_default())
}
