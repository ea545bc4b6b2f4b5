//! Decoding by libjpeg-turbo, as PIL does it.

use image::DynamicImage;
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

use super::markers::Frame;
use super::picture;
use crate::error::Result;
use crate::preprocess::decode::job::Job;

/// Decodes an image of one or three components, with its sides divided by 1, 2, 4 or 8.
pub(super) fn decode(file: &[u8], frame: &Frame, divisor: u8, job: &Job) -> Result<DynamicImage> {
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
    let pitch = width * channels;
    let mut raw = vec![0; pitch * height];
    let mut run = || {
        let mut decoder = Decompressor::new()?;
        decoder.set_scaling_factor(factor)?;
        decoder.decompress(file, Image { pixels: &mut raw[..], width, pitch, height, format })
    };
    run().map_err(|reason: turbojpeg::Error| job.failed(reason.to_string()))?;
    picture(raw, [width as u32, height as u32], frame, job)
}
