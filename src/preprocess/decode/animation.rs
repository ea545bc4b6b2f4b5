//! The frames and the orientation of PNG and WebP files, found by walking from chunk to chunk.

use std::io::{BufRead, Read, Seek, SeekFrom};

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageResult, Limits};

use super::job::exif_orientation;

/// What decoders of single images do not tell.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The number of pictures, at least 1.
    pub pages: usize,
    pub orientation: Orientation,
    /// Whether a PNG's main picture is not part of its animation.
    pub has_cover: bool,
}

/// EXIF blocks have at most so many bytes.
const MAX_EXIF: u64 = 1 << 20;

/// Walks over the chunks of a PNG or WebP file. A damaged file has those before its damage.
pub(super) fn chunks(reader: &mut (impl Read + Seek), format: ImageFormat) -> Chunks {
    let mut found = Chunks { pages: 1, orientation: Orientation::NoTransforms, has_cover: false };
    // A reader that fails here fails again when it decodes, with an error.
    match format {
        ImageFormat::Png => drop(png(reader, &mut found)),
        ImageFormat::WebP => drop(webp(reader, &mut found)),
        _ => (),
    }
    found
}

fn png(reader: &mut (impl Read + Seek), found: &mut Chunks) -> std::io::Result<()> {
    let (mut at, mut has_control) = (8, false);
    loop {
        reader.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        reader.read_exact(&mut head)?;
        let [a, b, c, d, kind @ ..] = head;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        match &kind {
            b"acTL" => {
                let mut frames = [0; 4];
                reader.read_exact(&mut frames)?;
                found.pages = u32::from_be_bytes(frames).max(1) as usize;
            }
            b"fcTL" => has_control = true,
            // The main picture is a frame if it has a frame's control.
            b"IDAT" if found.pages > 1 && !has_control && !found.has_cover => {
                found.has_cover = true;
                found.pages += 1;
            }
            b"eXIf" => found.orientation = exif(reader, length)?,
            b"IEND" => return Ok(()),
            _ => (),
        }
        at += 12 + length;
    }
}

fn webp(reader: &mut (impl Read + Seek), found: &mut Chunks) -> std::io::Result<()> {
    let (mut at, mut frames) = (12, 0);
    loop {
        reader.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        reader.read_exact(&mut head)?;
        let [kind @ .., a, b, c, d] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        match &kind {
            b"ANMF" => {
                frames += 1;
                found.pages = frames;
            }
            b"EXIF" => found.orientation = exif(reader, length)?,
            _ => (),
        }
        at += 8 + length.next_multiple_of(2);
    }
}

fn exif(reader: &mut impl Read, length: u64) -> std::io::Result<Orientation> {
    let mut block = Vec::new();
    reader.take(length.min(MAX_EXIF)).read_to_end(&mut block)?;
    Ok(exif_orientation(&block).unwrap_or(Orientation::NoTransforms))
}

/// A frame of an animated file, with all before it drawn below it where they shine through. None if the file
/// has fewer.
pub(super) fn frame(
    reader: impl BufRead + Seek,
    format: ImageFormat,
    chunks: &Chunks,
    page: usize,
    limits: Limits,
) -> ImageResult<Option<DynamicImage>> {
    let (frame, has_alpha) = match format {
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(reader, limits)?;
            let has_alpha = decoder.color_type().has_alpha();
            let frame = page - usize::from(chunks.has_cover);
            (decoder.apng()?.into_frames().nth(frame).transpose()?, has_alpha)
        }
        _ => {
            let mut decoder = WebPDecoder::new(reader)?;
            decoder.set_limits(limits)?;
            let has_alpha = decoder.color_type().has_alpha();
            (decoder.into_frames().nth(page).transpose()?, has_alpha)
        }
    };
    Ok(frame.map(|frame| {
        let image = DynamicImage::ImageRgba8(frame.into_buffer());
        if has_alpha { image } else { image.into_rgb8().into() }
    }))
}
