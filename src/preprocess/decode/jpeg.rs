//! JPEG files. The decoder of `image` fills missing parts with gray, and draws some rare layouts as stripes
//! without an error. So the markers are read here first: such files go to another decoder, and what no
//! decoder reads is an error.

mod markers;
#[cfg(feature = "turbojpeg")]
mod turbo;

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, GrayImage, ImageDecoder, RgbImage};
use jpeg_decoder::ColorTransform;

use super::job::Job;
#[cfg(feature = "turbojpeg")]
use super::options;
use super::source::allow;
use crate::error::Result;
use crate::preprocess::opened::OpenedImage;
use crate::preprocess::resize::Resize;

pub(super) use markers::{Frame, Markers, is_whole};

/// A Motion-JPEG's segment (APP0), which tells decoders that the standard's Huffman tables are meant.
const MOTION_JPEG: &[u8] = b"\xFF\xE0\x00\x10AVI1\0\0\0\0\0\0\0\0\0\0";

pub(super) fn decode(file: &[u8], job: &Job) -> Result<OpenedImage> {
    let markers = Markers::read(&mut Cursor::new(file));
    let Some(frame) = &markers.frame else {
        return Err(job.failed("it has no header of a JPEG image"));
    };
    if let Some(what) = frame.unsupported() {
        return Err(job.failed(what));
    }
    job.options.jpeg_decoder.require()?;
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
    let size = job.turned_size([frame.height, frame.width].map(usize::from), markers.orientation);
    let divisor = job.options.reduced_for.map_or(1, |resize| divisor(size, resize));
    let image = match job.options.jpeg_decoder {
        #[cfg(feature = "turbojpeg")]
        options::JpegDecoder::Turbo if frame.components.len() < 4 => {
            turbo::decode(&file, frame, divisor, job)?
        }
        _ if markers.is_common() && divisor == 1 => {
            let decoder = JpegDecoder::new(Cursor::new(&*file)).and_then(|mut decoder| {
                decoder.set_limits(allow(most))?;
                Ok(decoder)
            });
            decoder.and_then(DynamicImage::from_decoder).map_err(|reason| job.decoder(reason))?
        }
        _ => decode_by_parts(&file, frame, &markers, [most, divisor.into()], job)?,
    };
    let pixels = job.turned(image, markers.orientation);
    Ok(OpenedImage { reduced_from: (divisor > 1).then_some(size), ..OpenedImage::from(pixels) })
}

/// By how much the sides of an image can be divided by its decoder, so that neither becomes smaller than it
/// is after the resize. As PIL's `draft`.
fn divisor(size: [usize; 2], resize: Resize) -> u8 {
    let resized = resize.resized(size);
    let most = (0..2).map(|axis| size[axis] / resized[axis].max(1)).min().unwrap_or(1);
    [8, 4, 2].into_iter().find(|&divisor| usize::from(divisor) <= most).unwrap_or(1)
}

/// Decodes layouts that the decoder of `image` gets wrong, and decodes at a part of the size.
fn decode_by_parts(
    file: &[u8],
    frame: &Frame,
    markers: &Markers,
    [most, divisor]: [u64; 2],
    job: &Job,
) -> Result<DynamicImage> {
    let failed = |reason: jpeg_decoder::Error| job.failed(reason.to_string());
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
    let [width, height] = [frame.width, frame.height].map(|side| side.div_ceil(divisor as u16));
    let (width, height) = decoder.scale(width, height).map_err(failed)?;
    let raw = decoder.decode().map_err(failed)?;
    let raw = match frame.components.len() {
        1 | 3 => raw,
        _ => {
            // Adobe's inks: how much of the light is left, here 255 minus that.
            let mix = |ink: u8, black: u8| {
                let product = u16::from(255 - ink) * u16::from(255 - black) + 127;
                (product / 255) as u8
            };
            raw.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| mix(p[i], p[3]))).collect()
        }
    };
    picture(raw, [width.into(), height.into()], frame, job)
}

/// The picture of `[width, height]` with these values: gray for one component, else RGB.
fn picture(
    raw: Vec<u8>,
    [width, height]: [u32; 2],
    frame: &Frame,
    job: &Job,
) -> Result<DynamicImage> {
    let picture = match frame.components.len() {
        1 => GrayImage::from_raw(width, height, raw).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, raw).map(DynamicImage::from),
    };
    picture.ok_or_else(|| job.failed("its pixels do not fit its size"))
}

#[cfg(test)]
pub(super) mod encoder;
#[cfg(test)]
mod tests;
