//! From the stored numbers of a page to an image.

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};
use tiff::decoder::DecodingResult;

use super::directory::{COLOR_MAP, Damage, Tags};
use super::page::{Alpha, Meaning, Numbers, Page};
use crate::preprocess::decode::source::Source;

/// The image: up to 16 bits of gray as they are, 1 to 7 bits scaled to 8, and all else that is gray as three
/// equal numbers.
pub(super) fn image(
    tags: &mut Tags<impl Source>,
    page: &Page,
    stored: DecodingResult,
) -> Damage<DynamicImage> {
    let Page { width, height, bits, .. } = *page;
    let size = [width as usize, height as usize];
    let image = match stored {
        DecodingResult::U8(bytes) if page.is_packed() => {
            let unpacked = unpacked(page, &bytes);
            if bits < 8 {
                let narrow = unpacked.into_iter().map(|v| v as u8).collect();
                small(tags, page, narrow)?
            } else {
                wide(page, unpacked)
            }
        }
        DecodingResult::U8(bytes) => small(tags, page, bytes)?,
        DecodingResult::U16(numbers) => wide(page, numbers),
        DecodingResult::U32(numbers) => float(page, numbers.iter().map(|&v| v as f32)),
        DecodingResult::U64(numbers) => float(page, numbers.iter().map(|&v| v as f32)),
        DecodingResult::I8(numbers) => float(page, numbers.iter().map(|&v| f32::from(v))),
        DecodingResult::I16(numbers) => float(page, numbers.iter().map(|&v| f32::from(v))),
        DecodingResult::I32(numbers) => float(page, numbers.iter().map(|&v| v as f32)),
        DecodingResult::I64(numbers) => float(page, numbers.iter().map(|&v| v as f32)),
        DecodingResult::F16(numbers) => float(page, numbers.iter().map(|v| v.to_f32())),
        DecodingResult::F32(numbers) => float(page, numbers.iter().copied()),
        DecodingResult::F64(numbers) => float(page, numbers.iter().map(|&v| v as f32)),
    };
    image.ok_or_else(|| format!("its pixels do not fill {} x {}", size[1], size[0]))
}

/// The numbers of rows that are streams of bits, the highest bit first.
fn unpacked(page: &Page, bytes: &[u8]) -> Vec<u16> {
    let bits = u32::from(page.bits);
    let row = page.width as usize * usize::from(page.chunk_samples());
    let row_bytes = (row * usize::from(page.bits)).div_ceil(8);
    let mut numbers = Vec::with_capacity(bytes.len() / row_bytes * row);
    for bytes in bytes.chunks_exact(row_bytes) {
        let (mut held, mut count, mut left) = (0_u32, 0, row);
        for &byte in bytes {
            let byte = if page.is_reversed { byte.reverse_bits() } else { byte };
            held = held << 8 | u32::from(byte);
            count += 8;
            while count >= bits && left > 0 {
                count -= bits;
                numbers.push((held >> count & ((1 << bits) - 1)) as u16);
                left -= 1;
            }
        }
    }
    numbers
}

/// The channels of all pixels one after the other, `keep` of each pixel.
fn pixelwise<T: Copy>(page: &Page, numbers: Vec<T>, keep: usize) -> Vec<T> {
    let samples = usize::from(page.samples);
    if page.is_planar {
        let plane = numbers.len() / samples;
        return (0..plane)
            .flat_map(|i| (0..keep).map(move |c| c * plane + i))
            .map(|i| numbers[i])
            .collect();
    }
    if keep == samples {
        return numbers;
    }
    numbers.chunks_exact(samples).flat_map(|pixel| &pixel[..keep]).copied().collect()
}

/// Up to 8 bits.
fn small(
    tags: &mut Tags<impl Source>,
    page: &Page,
    mut numbers: Vec<u8>,
) -> Damage<Option<DynamicImage>> {
    let Page { width, height, meaning, alpha, bits, .. } = *page;
    if page.is_reversed && !page.is_packed() {
        numbers.iter_mut().for_each(|v| *v = v.reverse_bits());
    }
    if meaning == Meaning::Palette {
        let palette = palette(tags, page)?;
        let indices = pixelwise(page, numbers, 1);
        let colors = indices.iter().flat_map(|&i| palette[usize::from(i)]).collect();
        return Ok(ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, colors).map(Into::into));
    }
    let most = u16::MAX >> (16 - u16::from(bits));
    if bits < 8 {
        numbers.iter_mut().for_each(|v| *v = ((u16::from(*v) * 255 + most / 2) / most) as u8);
    }
    let colors = colors(meaning);
    let mut numbers = pixelwise(page, numbers, colors + usize::from(alpha.is_some()));
    if meaning == (Meaning::Gray { white_is_zero: true }) {
        numbers.iter_mut().step_by(1 + usize::from(alpha.is_some())).for_each(|v| *v = !*v);
    }
    if alpha == Some(Alpha::Multiplied) {
        for pixel in numbers.chunks_exact_mut(colors + 1) {
            let (pixel, alpha) = pixel.split_at_mut(colors);
            let divide =
                |v: &mut u8| *v = (u16::from(*v) * 255 / u16::from(alpha[0])).min(255) as u8;
            if alpha[0] != 0 {
                pixel.iter_mut().for_each(divide);
            }
        }
    }
    Ok(match (meaning, alpha) {
        (Meaning::Gray { .. }, None) => buffer::<Luma<u8>>(page, numbers).map(Into::into),
        (Meaning::Gray { .. }, Some(_)) => buffer::<LumaA<u8>>(page, numbers).map(Into::into),
        (Meaning::Cmyk, _) => {
            let mix =
                |ink: u8, black: u8| (u16::from(255 - ink) * u16::from(255 - black) / 255) as u8;
            let rgb = numbers.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| mix(p[i], p[3])));
            buffer::<Rgb<u8>>(page, rgb.collect()).map(Into::into)
        }
        (Meaning::YCbCr, _) => {
            numbers.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = rgb(*pixel));
            buffer::<Rgb<u8>>(page, numbers).map(Into::into)
        }
        (_, None) => buffer::<Rgb<u8>>(page, numbers).map(Into::into),
        (_, Some(_)) => buffer::<Rgba<u8>>(page, numbers).map(Into::into),
    })
}

/// 9 to 16 bits. Gray keeps its values, and color is scaled to 16 bits.
fn wide(page: &Page, numbers: Vec<u16>) -> Option<DynamicImage> {
    let Page { meaning, alpha, bits, .. } = *page;
    let most = u16::MAX >> (16 - u16::from(bits));
    let colors = colors(meaning);
    let mut numbers = pixelwise(page, numbers, colors + usize::from(alpha.is_some()));
    let is_gray = matches!(meaning, Meaning::Gray { .. });
    if meaning == (Meaning::Gray { white_is_zero: true }) {
        numbers.iter_mut().step_by(1 + usize::from(alpha.is_some())).for_each(|v| *v = most - *v);
    }
    if !is_gray && bits < 16 {
        let scale = |v: u16| (u32::from(v) * 65535 / u32::from(most)) as u16;
        numbers.iter_mut().for_each(|v| *v = scale(*v));
    }
    if alpha == Some(Alpha::Multiplied) {
        let most = if is_gray { u32::from(most) } else { 65535 };
        for pixel in numbers.chunks_exact_mut(colors + 1) {
            let (pixel, alpha) = pixel.split_at_mut(colors);
            let divide =
                |v: &mut u16| *v = (u32::from(*v) * most / u32::from(alpha[0])).min(most) as u16;
            if alpha[0] != 0 {
                pixel.iter_mut().for_each(divide);
            }
        }
    }
    match (meaning, alpha) {
        (Meaning::Gray { .. }, None) => buffer::<Luma<u16>>(page, numbers).map(Into::into),
        (Meaning::Gray { .. }, Some(_)) => buffer::<LumaA<u16>>(page, numbers).map(Into::into),
        (Meaning::Cmyk, _) => {
            let mix = |ink: u16, black: u16| {
                (u64::from(65535 - ink) * u64::from(65535 - black) / 65535) as u16
            };
            let rgb = numbers.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| mix(p[i], p[3])));
            buffer::<Rgb<u16>>(page, rgb.collect()).map(Into::into)
        }
        (_, None) => buffer::<Rgb<u16>>(page, numbers).map(Into::into),
        (_, Some(_)) => buffer::<Rgba<u16>>(page, numbers).map(Into::into),
    }
}

/// Numbers that are signed, floating-point, or of more than 16 bits.
fn float(page: &Page, numbers: impl Iterator<Item = f32>) -> Option<DynamicImage> {
    debug_assert!(page.bits > 16 || page.numbers != Numbers::Unsigned);
    let (colors, has_alpha) = (colors(page.meaning), page.alpha.is_some());
    let mut numbers = pixelwise(page, numbers.collect(), colors + usize::from(has_alpha));
    if page.alpha == Some(Alpha::Multiplied) {
        for pixel in numbers.chunks_exact_mut(colors + 1) {
            let (pixel, alpha) = pixel.split_at_mut(colors);
            if alpha[0] != 0.0 && page.numbers == Numbers::Float {
                pixel.iter_mut().for_each(|v| *v /= alpha[0]);
            }
        }
    }
    if colors == 1 {
        let pixels = numbers.chunks_exact(1 + usize::from(has_alpha));
        numbers = pixels.flat_map(|p| [&[p[0]; 3], &p[1..]].concat()).collect();
    }
    if has_alpha {
        buffer::<Rgba<f32>>(page, numbers).map(Into::into)
    } else {
        buffer::<Rgb<f32>>(page, numbers).map(Into::into)
    }
}

fn buffer<P: image::Pixel>(
    page: &Page,
    numbers: Vec<P::Subpixel>,
) -> Option<ImageBuffer<P, Vec<P::Subpixel>>> {
    ImageBuffer::from_raw(page.width, page.height, numbers)
}

fn colors(meaning: Meaning) -> usize {
    match meaning {
        Meaning::Gray { .. } | Meaning::Palette => 1,
        Meaning::Rgb | Meaning::YCbCr => 3,
        Meaning::Cmyk => 4,
    }
}

/// The colors of a palette, of 256 entries.
fn palette(tags: &mut Tags<impl Source>, page: &Page) -> Damage<Vec<[u8; 3]>> {
    let count = 1 << page.bits;
    let numbers = tags.numbers(&page.directory, COLOR_MAP, 3 * count)?.unwrap_or_default();
    let count = count as usize;
    if numbers.len() != 3 * count {
        return Err(format!("its palette has {} numbers, not {}", numbers.len(), 3 * count));
    }
    // Entries have 16 bits. Some old programs wrote 8.
    let shift = if numbers.iter().any(|&v| v > 255) { 8 } else { 0 };
    let color = |i: usize| [0, 1, 2].map(|channel| (numbers[channel * count + i] >> shift) as u8);
    let mut palette: Vec<[u8; 3]> = (0..count).map(color).collect();
    palette.resize(256, [0; 3]);
    Ok(palette)
}

/// JPEG's conversion from YCbCr.
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
        .map(|v| v.round().clamp(0.0, 255.0) as u8)
}
