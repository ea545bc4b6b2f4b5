//! JPEG files. The decoder of `image` fills missing parts with gray, and draws some rare layouts as stripes
//! without an error. So the markers are read here first: such files go to another decoder, and what no
//! decoder reads is an error.

mod markers;

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, GrayImage, ImageDecoder, RgbImage};
use jpeg_decoder::ColorTransform;

use super::job::Job;
use super::source::allow;
use crate::error::Result;

pub(super) use markers::{Frame, Markers, is_whole};

/// A Motion-JPEG's segment (APP0), which tells decoders that the standard's Huffman tables are meant.
const MOTION_JPEG: &[u8] = b"\xFF\xE0\x00\x10AVI1\0\0\0\0\0\0\0\0\0\0";

pub(super) fn decode(file: &[u8], job: &Job) -> Result<DynamicImage> {
    let markers = Markers::read(&mut Cursor::new(file));
    let Some(frame) = &markers.frame else {
        return Err(job.failed("it has no header of a JPEG image"));
    };
    if let Some(what) = frame.unsupported() {
        return Err(job.failed(what));
    }
    job.page(1)?;
    let size = [u64::from(frame.height), u64::from(frame.width)];
    let channels = if frame.components.len() == 1 { 1 } else { 3 };
    let bytes = size[0] * size[1] * channels;
    job.require_size(size, bytes)?;
    if !is_whole(file) {
        return Err(job.cut());
    }
    let mut file = Cow::Borrowed(file);
    if !markers.has_huffman_tables {
        file = [&file[..2], MOTION_JPEG, &file[2..]].concat().into();
    }
    let most = bytes.saturating_add(job.options.limits.max_bytes);
    let image = if markers.is_common() {
        let decoder = JpegDecoder::new(Cursor::new(&*file)).and_then(|mut decoder| {
            decoder.set_limits(allow(most))?;
            Ok(decoder)
        });
        decoder.and_then(DynamicImage::from_decoder).map_err(|reason| job.decoder(reason))?
    } else {
        decode_rare(&file, frame, &markers, most, job)?
    };
    Ok(job.turned(image, markers.orientation))
}

/// A layout that the decoder of `image` gets wrong.
fn decode_rare(
    file: &[u8],
    frame: &Frame,
    markers: &Markers,
    most: u64,
    job: &Job,
) -> Result<DynamicImage> {
    let mut decoder = jpeg_decoder::Decoder::new(file);
    decoder.set_max_decoding_buffer_size(usize::try_from(most).unwrap_or(usize::MAX));
    decoder.set_color_transform(match (frame.components.len(), markers.adobe) {
        (1, _) => ColorTransform::Grayscale,
        (3, Some(0)) => ColorTransform::RGB,
        (3, None) if frame.components.iter().map(|part| part.id).eq(*b"RGB") => ColorTransform::RGB,
        (3, _) => ColorTransform::YCbCr,
        (_, Some(2)) => ColorTransform::YCCK,
        _ => ColorTransform::CMYK,
    });
    let raw = decoder.decode().map_err(|reason| job.failed(reason.to_string()))?;
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let image = match frame.components.len() {
        1 => GrayImage::from_raw(width, height, raw).map(DynamicImage::from),
        3 => RgbImage::from_raw(width, height, raw).map(DynamicImage::from),
        _ => {
            // Adobe's inks: how much of the light is left, here 255 minus that.
            let mix = |ink: u8, black: u8| {
                let product = u16::from(255 - ink) * u16::from(255 - black) + 127;
                (product / 255) as u8
            };
            let rgb = raw.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| mix(p[i], p[3])));
            RgbImage::from_raw(width, height, rgb.collect()).map(DynamicImage::from)
        }
    };
    image.ok_or_else(|| job.failed("its pixels do not fit its size"))
}

#[cfg(test)]
pub(super) mod encoder;
#[cfg(test)]
mod tests;
