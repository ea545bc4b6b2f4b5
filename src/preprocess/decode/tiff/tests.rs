use image::DynamicImage;

use super::writer::{CLASSIC, LAYOUTS, Layout, Page};
use crate::error::{Error, Result};
use crate::preprocess::{DecodeLimits, DecodeOptions, decode_bytes, decode_bytes_with};

/// Height and width.
const SIZE: [u32; 2] = [5, 7];
const PIXELS: usize = 35;

fn decode(layout: Layout, page: Page) -> Result<DynamicImage> {
    decode_bytes(&layout.file(&[page]), "image.tif")
}

fn read(page: Page) -> DynamicImage {
    decode(CLASSIC, page).unwrap()
}

/// Numbers of up to `bits` bits, different for each pixel and channel.
fn numbers(bits: u32, channels: usize) -> Vec<u64> {
    let most = (1_u64 << bits.min(63)) - 1;
    (0..PIXELS * channels).map(|i| i as u64 * 7919 % most.saturating_add(1).max(2)).collect()
}

/// Rows that are streams of bits.
fn packed(numbers: &[u64], row: usize, bits: usize) -> Vec<u8> {
    let mut bytes = vec![];
    for row in numbers.chunks(row) {
        let mut stream: Vec<u8> =
            row.iter().flat_map(|v| (0..bits).rev().map(move |i| (v >> i & 1) as u8)).collect();
        stream.resize(stream.len().next_multiple_of(8), 0);
        bytes.extend(stream.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)));
    }
    bytes
}

fn text(result: Result<DynamicImage>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    error.to_string()
}

#[test]
fn gray_of_up_to_16_bits_keeps_its_values() {
    for layout in LAYOUTS {
        for bits in [8, 9, 10, 12, 14, 16] {
            let values = numbers(bits, 1);
            let pixels = match bits {
                8 => layout.words(&values, 1),
                16 => layout.words(&values, 2),
                _ => packed(&values, 7, bits as usize),
            };
            for white_is_zero in [false, true] {
                let photometric = u32::from(!white_is_zero);
                let page = Page::new(SIZE, &[bits], photometric, &pixels);
                let image = decode(layout, page).unwrap();
                let most = (1 << bits) - 1;
                let expected = values.iter().map(|v| if white_is_zero { most - v } else { *v });
                let read: Vec<u64> = match &image {
                    DynamicImage::ImageLuma8(image) => image.iter().map(|&v| v.into()).collect(),
                    DynamicImage::ImageLuma16(image) => image.iter().map(|&v| v.into()).collect(),
                    other => panic!("{:?}", other.color()),
                };
                assert!(expected.eq(read), "{layout:?}, {bits} bits, {white_is_zero}");
            }
        }
    }
}

#[test]
fn a_few_bits_of_gray_are_scaled_to_8() {
    for bits in [1, 2, 4] {
        let values = numbers(bits, 1);
        let page = Page::new(SIZE, &[bits], 1, &packed(&values, 7, bits as usize));
        let expected: Vec<u8> =
            values.iter().map(|v| (v * 255 / ((1 << bits) - 1)) as u8).collect();
        assert_eq!(read(page).as_luma8().unwrap().as_raw(), &expected, "{bits} bits");
    }
}

#[test]
fn float_and_signed_and_32_bit_gray_keep_their_values() {
    let signed = |v: u64| v as f32 - 1000.0;
    let expected: Vec<f32> = numbers(11, 1).into_iter().flat_map(|v| [signed(v); 3]).collect();
    for layout in LAYOUTS {
        let bits_of = |format: u32, bits: u32| -> Vec<u64> {
            let bits_of = |v: u64| match (format, bits) {
                (3, 32) => u64::from(signed(v).to_bits()),
                (3, 64) => f64::from(signed(v)).to_bits(),
                (3, _) => half::f16::from_f32(signed(v)).to_bits().into(),
                _ => (v as i64 - 1000) as u64,
            };
            numbers(11, 1).into_iter().map(bits_of).collect()
        };
        for (format, bits) in [(3, 16), (3, 32), (3, 64), (2, 16), (2, 32), (2, 64)] {
            let pixels = layout.words(&bits_of(format, bits), bits as usize / 8);
            let page = Page::new(SIZE, &[bits], 1, &pixels).with(339, &[format]);
            let image = decode(layout, page).unwrap();
            assert_eq!(image.as_rgb32f().unwrap().as_raw(), &expected, "{format}, {bits} bits");
        }
        let values: Vec<u64> = (0..PIXELS as u64).map(|i| i * 100_000_000).collect();
        let page = Page::new(SIZE, &[32], 1, &layout.words(&values, 4));
        let image = decode(layout, page).unwrap();
        assert!(
            values.iter().flat_map(|&v| [v as f32; 3]).eq(image
                .as_rgb32f()
                .unwrap()
                .iter()
                .copied())
        );
    }
    let bytes: Vec<u8> = (0..PIXELS as u8).map(|v| v.wrapping_sub(9)).collect();
    let image = read(Page::new(SIZE, &[8], 1, &bytes).with(339, &[2]));
    assert_eq!(image.as_rgb32f().unwrap().get_pixel(0, 0).0, [-9.0; 3]);
}

#[test]
fn a_palette_becomes_its_colors() {
    for bits in [1, 2, 4, 8] {
        let values = numbers(bits, 1);
        let count = 1 << bits;
        let color = |i: u64, channel: u64| i * (50 + channel) % 256;
        let map = |scale: u64| -> Vec<u32> {
            let entries =
                (0..3).flat_map(|c| (0..count).map(move |i| (color(i, c) * scale) as u32));
            entries.collect()
        };
        let pixels = packed(&values, 7, bits as usize);
        let page = Page::new(SIZE, &[bits], 3, &pixels);
        let expected: Vec<u8> =
            values.iter().flat_map(|&i| [0, 1, 2].map(|channel| color(i, channel) as u8)).collect();
        // The second is of a program that wrote 8 bits.
        for scale in [257, 1] {
            let image = read(page.clone().with(320, &map(scale)));
            assert_eq!(image.as_rgb8().unwrap().as_raw(), &expected, "{bits} bits");
        }
        assert!(text(decode(CLASSIC, page.with(320, &[1, 2, 3]))).contains("palette"));
    }
}

#[test]
fn transparency_and_other_channels_are_told_apart() {
    let pixels: Vec<u8> = (0..PIXELS * 2).map(|i| (i * 3) as u8).collect();
    let page = Page::new(SIZE, &[8, 8], 1, &pixels);
    assert_eq!(read(page.clone().with(338, &[2])).as_luma_alpha8().unwrap().as_raw(), &pixels);
    let image = read(page.clone().with(338, &[1]));
    let [gray, alpha] = image.as_luma_alpha8().unwrap().get_pixel(1, 1).0;
    let [stored, over] = [pixels[16], pixels[17]];
    assert_eq!(
        [u16::from(gray), alpha.into()],
        [u16::from(stored) * 255 / u16::from(over), over.into()]
    );
    // A channel that is not transparency is left out.
    let image = read(page.clone().with(338, &[0]));
    assert!(image.as_luma8().unwrap().iter().eq(pixels.iter().step_by(2)));
    assert!(text(decode(CLASSIC, page)).contains("2 channels"));
    let many = Page::new(SIZE, &[8; 5], 1, &[1; PIXELS * 5]).with(338, &[0; 4]);
    assert!(text(decode(CLASSIC, many)).contains("5 channels"));
    let rgba: Vec<u8> = (0..PIXELS * 4).map(|i| (i % 251) as u8).collect();
    let page = Page::new(SIZE, &[8; 4], 2, &rgba);
    assert_eq!(read(page.clone()).as_rgba8().unwrap().as_raw(), &rgba);
    let dropped = read(page.with(338, &[0]));
    assert!(dropped.as_rgb8().unwrap().iter().eq(rgba.chunks(4).flat_map(|p| &p[..3])));
}

#[test]
fn channels_may_be_stored_one_after_the_other() {
    for bits in [8_u32, 16] {
        let bytes = bits as usize / 8;
        let values = numbers(bits, 3);
        let plane = |c: usize| values.iter().skip(c).step_by(3).copied().collect::<Vec<_>>();
        for layout in LAYOUTS {
            let page = Page::new(SIZE, &[bits; 3], 2, &layout.words(&values, bytes));
            let mut planar = page.clone().with(284, &[2]);
            planar.chunks = (0..3).map(|c| layout.words(&plane(c), bytes)).collect();
            assert_eq!(decode(layout, planar).unwrap(), decode(layout, page).unwrap());
        }
    }
}

#[test]
fn inks_become_colors_as_by_image() {
    let values: Vec<u8> = (0..PIXELS * 4).map(|i| (i * 37 % 256) as u8).collect();
    let file = CLASSIC.file(&[Page::new(SIZE, &[8; 4], 5, &values)]);
    let expected = image::load_from_memory(&file).unwrap().into_rgb8();
    let read = decode_bytes(&file, "cmyk").unwrap().into_rgb8();
    assert!(read.iter().zip(expected.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
    let inks = Page::new(SIZE, &[8; 4], 5, &values).with(332, &[2]);
    assert!(text(decode(CLASSIC, inks)).contains("inks"));
}

/// Also the compressions: `image` writes and reads what it can.
#[test]
fn what_image_reads_is_read_the_same() {
    use tiff::encoder::{Compression, Predictor, TiffEncoder, colortype};
    let values: Vec<u8> = (0..PIXELS * 3).map(|i| (i * 29 % 256) as u8).collect();
    let deflate = Compression::Deflate(tiff::encoder::DeflateLevel::Fast);
    for compression in [Compression::Uncompressed, Compression::Lzw, Compression::Packbits, deflate]
    {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            let mut file = std::io::Cursor::new(vec![]);
            let mut encoder = TiffEncoder::new(&mut file)
                .unwrap()
                .with_compression(compression)
                .with_predictor(predictor);
            encoder.write_image::<colortype::RGB8>(SIZE[1], SIZE[0], &values).unwrap();
            let file = file.into_inner();
            assert_eq!(
                decode_bytes(&file, "rgb").unwrap(),
                image::load_from_memory(&file).unwrap()
            );
        }
    }
}

#[test]
fn tiles_are_put_together() {
    // Three by two tiles of 16 pixels.
    let value = |x: usize, y: usize| (x * 3 + y * 5) as u64;
    for bits in [4_usize, 8, 12] {
        let mut page = Page::new([20, 40], &[bits as u32], 1, &[]);
        page.tags.retain(|(tag, _)| *tag != 278);
        page = page.with(322, &[16]).with(323, &[16]);
        let most = (1 << bits) - 1;
        page.chunks = (0..6)
            .map(|tile| {
                let (left, top) = (tile % 3 * 16, tile / 3 * 16);
                let at = |i: usize| value(left + i % 16, top + i / 16) & most;
                packed(&(0..256).map(at).collect::<Vec<_>>(), 16, bits)
            })
            .collect();
        let image = read(page).into_luma16();
        for (x, y, pixel) in image.enumerate_pixels() {
            let expected = value(x as usize, y as usize) & most;
            let expected = match bits {
                4 => expected * 17 * 257,
                8 => expected * 257,
                _ => expected,
            };
            assert_eq!(u64::from(pixel.0[0]), expected, "{bits} bits at {x}, {y}");
        }
    }
}

#[test]
fn a_page_must_be_chosen_and_thumbnails_are_none() {
    let page = |value: u8| Page::new(SIZE, &[8], 1, &[value; PIXELS]);
    let thumbnail = Page::new([1, 1], &[8], 1, &[9]).with(254, &[1]);
    let mask = page(7).with(254, &[4]);
    let old = Page::new([1, 1], &[8], 1, &[9]).with(255, &[2]);
    for layout in LAYOUTS {
        let file = layout.file(&[thumbnail.clone(), page(1), mask.clone(), page(2), old.clone()]);
        let error = decode_bytes(&file, "pages.tif").unwrap_err();
        assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
        for part in ["2 pages", "with_page", "pages.tif"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let at = |page| {
            decode_bytes_with(&file, "pages", DecodeOptions::default().with_page(Some(page)))
        };
        assert_eq!([0, 1].map(|i| at(i).unwrap().into_luma8()[(6, 4)].0[0]), [1, 2]);
        assert!(at(2).unwrap_err().to_string().contains("no page 2"));
        let only = layout.file(&[thumbnail.clone(), page(3), old.clone()]);
        assert_eq!(decode_bytes(&only, "one").unwrap().width(), SIZE[1]);
        let none = layout.file(std::slice::from_ref(&thumbnail));
        assert!(text(decode_bytes(&none, "none")).contains("thumbnails"));
    }
    // A list of pages without an end.
    let mut file = CLASSIC.file(&[page(1)]);
    let end = file.len() - 4;
    let first: [u8; 4] = file[4..8].try_into().unwrap();
    file[end..].copy_from_slice(&first);
    assert!(text(decode_bytes(&file, "endless")).contains("no end"));
}

#[test]
fn kinds_that_are_not_read_say_what_they_are() {
    let gray = || Page::new(SIZE, &[8], 1, &[0; PIXELS]);
    let rgb = |photometric| Page::new(SIZE, &[8; 3], photometric, &[0; PIXELS * 3]);
    let cases = [
        (gray().with(259, &[34712]), "JPEG 2000"),
        (gray().with(259, &[6]), "old JPEG"),
        (gray().with(259, &[50000]), "Zstandard"),
        (gray().with(259, &[3]), "fax"),
        (gray().with(259, &[4711]), "compression 4711"),
        (rgb(6), "YCbCr"),
        (rgb(8), "L*a*b*"),
        (gray().with(262, &[32803]), "color filter"),
        (gray().with(258, &[24]), "24 bits"),
        (rgb(2).with(258, &[8, 8, 16]), "differ"),
        (gray().with(339, &[6]), "complex"),
        (Page::new(SIZE, &[32], 0, &[0; PIXELS * 4]).with(339, &[3]), "white_is_zero"),
    ];
    for (page, part) in cases {
        let text = text(decode(CLASSIC, page));
        assert!(text.contains(part) && text.contains("convert it"), "{part}: {text}");
    }
}

#[test]
fn a_jpeg_in_a_tiff_is_read_by_what_the_tiff_says() {
    use crate::preprocess::decode::jpeg::encoder::Jpeg;
    let size = [40_u32, 48];
    let value = |channel: usize, x: usize, y: usize| (100 + channel * 20 + x + y) as u8;
    let jpeg = |sampling: &[[usize; 2]]| Jpeg::new(48, 40, sampling);
    let page = |photometric, file: Vec<u8>| {
        let mut page = Page::new(size, &[8; 3], photometric, &[]).with(259, &[7]);
        page.chunks = vec![file];
        page
    };
    let full = jpeg(&[[1, 1]; 3]).encode(value);
    let image = read(page(2, full.clone())).into_rgb8();
    for (c, v) in image[(20, 20)].0.iter().enumerate() {
        assert!(v.abs_diff(value(c, 20, 20)) <= 3, "RGB is not converted");
    }
    let expected = decode_bytes(&jpeg(&[[2, 2], [1, 1], [1, 1]]).encode(value), "jpeg").unwrap();
    let half = jpeg(&[[2, 2], [1, 1], [1, 1]]).encode(value);
    let image = read(page(6, half.clone())).into_rgb8();
    let pairs = image.iter().zip(expected.as_bytes());
    assert!(
        pairs.clone().count() == 48 * 40 * 3 && pairs.into_iter().all(|(a, b)| a.abs_diff(*b) <= 3)
    );
    let separate = jpeg(&[[2, 2], [1, 1], [1, 1]]).separate().encode(value);
    assert!(text(decode(CLASSIC, page(6, separate))).contains("rare layout"));
    let narrow = Jpeg::new(40, 40, &[[1, 1]; 3]).encode(value);
    assert!(text(decode(CLASSIC, page(2, narrow))).contains("another size"));
    let cut = full[..full.len() - 40].to_vec();
    assert!(text(decode(CLASSIC, page(2, cut))).contains("ends before"));
}

#[test]
fn damaged_files_and_huge_claims_are_errors() {
    let limits = DecodeLimits { max_pixels: 1 << 16, max_bytes: 1 << 18 };
    for side in [300_u32, 60_000] {
        for bits in [12_u32, 32] {
            let page = Page::new([side, side], &[bits], 1, &[1; 64]);
            let error = decode_bytes_with(&CLASSIC.file(&[page]), "huge", limits).unwrap_err();
            assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
        }
    }
    // A strip that is too short must not be filled with what follows it.
    let short = Page::new(SIZE, &[8], 1, &[0; PIXELS - 1]);
    assert!(text(decode(CLASSIC, short)).contains("its pixels need 35"));
    let palette: Vec<u32> = (0..48).collect();
    let pages = [
        Page::new(SIZE, &[12], 1, &[3; 64]),
        Page::new(SIZE, &[4], 3, &[5; 20]).with(320, &palette),
        Page::new(SIZE, &[8, 8], 1, &[5; PIXELS * 2]).with(338, &[2]),
    ];
    for layout in LAYOUTS {
        for page in &pages {
            let file = layout.file(std::slice::from_ref(page));
            assert!(decode_bytes_with(&file, "whole", limits).is_ok());
            for length in 0..file.len() {
                let result = decode_bytes_with(&file[..length], "cut", limits);
                assert!(matches!(result, Err(Error::Decode { .. })), "{length}: {result:?}");
            }
            for bit in 0..file.len() * 8 {
                let mut file = file.clone();
                file[bit / 8] ^= 1 << (bit % 8);
                let result = decode_bytes_with(&file, "flipped", limits);
                assert!(!matches!(result, Err(Error::Panicked { .. })), "{bit}: {result:?}");
            }
        }
    }
}
