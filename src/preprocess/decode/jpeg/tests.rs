use image::DynamicImage;
use image::metadata::Orientation;

use super::divisor;
use super::encoder::Jpeg;
use crate::error::{Error, Result};
use crate::golden;
use crate::preprocess::decode::{JpegDecoder, open_bytes, open_file};
use crate::preprocess::{DecodeLimits, DecodeOptions, Resize, decode_bytes, decode_bytes_with};

/// A smooth picture, so that decoders may differ in how they enlarge colors.
fn value(channel: usize, x: usize, y: usize) -> u8 {
    let (x, y) = (x as f32, y as f32);
    let value = match channel {
        0 => 120.0 + 60.0 * (x / 23.0).sin() + 30.0 * (y / 17.0).cos(),
        1 => 128.0 + 40.0 * (x / 31.0 + y / 29.0).sin(),
        2 => 128.0 + 40.0 * (y / 27.0 - x / 41.0).cos(),
        _ => 200.0 - x - y * 0.5,
    };
    value.round() as u8
}

/// The picture as gray or RGB.
fn expected(jpeg: &Jpeg) -> Vec<u8> {
    let channels = jpeg.sampling.len();
    let is_plain = jpeg.adobe == Some(0) || channels == 4 && jpeg.adobe.is_none();
    let color = |i: usize| {
        let (x, y) = (i % jpeg.width, i / jpeg.width);
        let [a, b, c, black] = std::array::from_fn(|channel| f32::from(value(channel, x, y)));
        let (cb, cr) = (b - 128.0, c - 128.0);
        let rgb = [a + 1.402 * cr, a - 0.344 * cb - 0.714 * cr, a + 1.772 * cb];
        let rgb = if is_plain { [a, b, c] } else { rgb.map(|v| v.clamp(0.0, 255.0)) };
        match channels {
            1 => vec![a],
            3 => rgb.to_vec(),
            // Adobe's inks say how much light is left; in YCCK, the colors are what they take away.
            _ if is_plain => rgb.map(|v| v * black / 255.0).to_vec(),
            _ => rgb.map(|v| (255.0 - v) * black / 255.0).to_vec(),
        }
    };
    (0..jpeg.width * jpeg.height).flat_map(color).map(|v| v.round() as u8).collect()
}

/// The mean and the largest difference.
fn difference(image: &DynamicImage, expected: &[u8]) -> (f32, u8) {
    let differences = || image.as_bytes().iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    assert_eq!(image.as_bytes().len(), expected.len());
    let sum: f32 = differences().map(f32::from).sum();
    (sum / expected.len() as f32, differences().max().unwrap())
}

fn check(jpeg: &Jpeg) {
    let image = decode_bytes(&jpeg.encode(value), "image.jpg").unwrap();
    assert_eq!([image.width(), image.height()], [jpeg.width, jpeg.height].map(|side| side as u32));
    let (mean, most) = difference(&image, &expected(jpeg));
    assert!(mean <= 3.0 && most <= 40, "differs by {mean}, at most {most}: {jpeg:?}");
}

const SIZES: [[usize; 2]; 4] = [[64, 48], [61, 47], [7, 5], [130, 9]];

fn variants(sampling: &[[usize; 2]], adobe: Option<u8>) {
    for [width, height] in SIZES {
        for frame in [0xC0, 0xC1, 0xC2] {
            for restart in [0, 1, 5] {
                let mut jpeg = Jpeg::new(width, height, sampling);
                (jpeg.frame, jpeg.restart, jpeg.adobe) = (frame, restart, adobe);
                check(&jpeg);
                if sampling.len() == 3 {
                    let mut mixed = jpeg.clone();
                    mixed.scans = vec![vec![0], vec![1, 2]];
                    check(&mixed);
                }
                if sampling.len() > 1 {
                    check(&jpeg.separate());
                }
            }
        }
    }
}

#[test]
fn gray_is_read() {
    for factors in [[1, 1], [2, 2], [2, 1], [1, 2]] {
        variants(&[factors], None);
    }
}

#[test]
fn colors_of_any_sampling_are_read() {
    let rest = [[1, 1], [1, 1]];
    for first in [[1, 1], [2, 1], [1, 2], [2, 2], [4, 1], [4, 2], [1, 4], [3, 1], [1, 3]] {
        variants(&[&[first], &rest[..]].concat(), None);
    }
    variants(&[[2, 2], [2, 1], [1, 1]], None);
    variants(&[[2, 1], [1, 2], [1, 1]], None);
    // Not the first component is the finest.
    variants(&[[1, 1], [2, 2], [1, 1]], None);
}

#[test]
fn rgb_and_inks_are_read() {
    variants(&[[1, 1]; 3], Some(0));
    variants(&[[1, 1]; 3], Some(1));
    variants(&[[1, 1]; 4], None);
    variants(&[[1, 1]; 4], Some(0));
    variants(&[[1, 1]; 4], Some(2));
    variants(&[[2, 2], [1, 1], [1, 1], [2, 2]], Some(2));
}

#[test]
fn motion_jpeg_means_the_standards_tables() {
    for sampling in [&[[1, 1]][..], &[[2, 1], [1, 1], [1, 1]]] {
        let mut jpeg = Jpeg::new(61, 47, sampling);
        jpeg.tables = false;
        check(&jpeg);
        if sampling.len() > 1 {
            check(&jpeg.clone().separate());
        }
        jpeg.segments.push((0xE0, b"AVI1\0\0\0\0\0\0\0\0\0\0".to_vec()));
        check(&jpeg);
    }
}

/// Both decoders read ordinary files.
#[test]
fn another_decoder_sees_the_same() {
    let jpeg = Jpeg::new(61, 47, &[[2, 2], [1, 1], [1, 1]]);
    let file = jpeg.encode(value);
    let other = jpeg_decoder::Decoder::new(&*file).decode().unwrap();
    let (mean, most) = difference(&decode_bytes(&file, "image").unwrap(), &other);
    assert!(mean <= 3.0 && most <= 40, "differs by {mean}, at most {most}");
}

fn text(result: Result<DynamicImage>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    error.to_string()
}

#[test]
fn kinds_that_are_not_read_say_what_they_are() {
    let file = Jpeg::new(16, 16, &[[1, 1]]).encode(value);
    let frame = file.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let changed = |at: usize, value: &[u8]| {
        let mut file = file.clone();
        file[frame + at..frame + at + value.len()].copy_from_slice(value);
        text(decode_bytes(&file, "rare.jpg"))
    };
    let cases = [
        (changed(1, &[0xC9]), "arithmetic coding"),
        (changed(1, &[0xCA]), "arithmetic coding"),
        (changed(1, &[0xC3]), "lossless"),
        (changed(1, &[0xC5]), "hierarchical"),
        (changed(4, &[12]), "12 bits"),
        (changed(5, &[0, 0]), "DNL"),
        (
            text(decode_bytes(&Jpeg::new(16, 16, &[[1, 1]; 2]).encode(value), "rare.jpg")),
            "2 channels",
        ),
    ];
    for (text, part) in cases {
        assert!(text.contains(part) && text.contains("convert it"), "{part}: {text}");
    }
}

#[test]
fn damaged_files_are_errors_within_the_limits() {
    let limits = DecodeLimits { max_pixels: 1 << 14, max_bytes: 1 << 16 };
    for jpeg in [
        Jpeg::new(24, 16, &[[1, 1], [2, 2], [1, 1]]),
        Jpeg::new(24, 16, &[[2, 2], [1, 1], [1, 1]]).separate(),
    ] {
        let file = [jpeg.encode(value), b"behind the end".to_vec()].concat();
        let end = file.len() - 14;
        assert!(decode_bytes_with(&file, "whole", limits).is_ok());
        for length in 0..end {
            assert!(decode_bytes_with(&file[..length], "cut", limits).is_err(), "{length}");
        }
        for bit in 0..end * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            if let Ok(image) = decode_bytes_with(&file, "flipped", limits) {
                assert!(u64::from(image.width()) * u64::from(image.height()) <= limits.max_pixels);
            }
        }
    }
    let huge = Jpeg::new(24, 16, &[[2, 2], [1, 1], [1, 1]]).separate().encode(value);
    let frame = huge.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let mut huge = huge;
    huge[frame + 5..frame + 9].fill(0xFF);
    let error = decode_bytes(&huge, "huge").unwrap_err();
    assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
}

/// Options that reduce an image of these sides by a divisor.
fn reducing(jpeg_decoder: JpegDecoder, [width, height]: [usize; 2], by: usize) -> DecodeOptions {
    let reduced_for = Some(Resize::Exact { height: height / by, width: width / by });
    DecodeOptions { reduced_for, ..DecodeOptions::default().with_jpeg_decoder(jpeg_decoder) }
}

#[test]
fn the_divisor_leaves_at_least_the_size_after_the_resize() {
    for (size, resize, expected) in [
        ([3000, 4000], Resize::square(224), 8),
        ([1791, 4000], Resize::square(224), 4),
        ([1792, 4000], Resize::ShortSide(224), 8),
        ([447, 448], Resize::square(224), 1),
        ([448, 448], Resize::square(224), 2),
        ([5, 9], Resize::square(224), 1),
        // The sides of such a picture become 0; the geometry says so later.
        ([1, 4000], Resize::ShortSide(1), 1),
    ] {
        assert_eq!(divisor(size, resize), expected, "{size:?} {resize}");
    }
}

/// PIL decodes by libjpeg-turbo. The decoder in Rust reduces the colors, too, of files that hold fewer of
/// them (4:2:0), where libjpeg-turbo has no need to.
#[test]
fn reduced_images_are_those_of_pil() {
    let mut decoders = vec![JpegDecoder::Rust];
    match JpegDecoder::Turbo.require() {
        Ok(()) => decoders.push(JpegDecoder::Turbo),
        Err(reason) => println!("not tested: {reason}"),
    }
    for name in ["color-420", "color-422", "color-444", "gray"] {
        let file = golden::path(&format!("jpeg/{name}.jpg"));
        let whole = image::image_dimensions(&file).unwrap();
        let size = [whole.0 as usize, whole.1 as usize];
        for by in [1, 2, 4, 8] {
            let expected = image::open(golden::path(&format!("jpeg/{name}-{by}.png"))).unwrap();
            for &decoder in &decoders {
                let opened = open_file(&file, reducing(decoder, size, by)).unwrap();
                let original = (by > 1).then_some([size[1], size[0]]);
                assert_eq!(opened.reduced_from, original, "{name} {by}");
                assert_eq!(opened.pixels.color(), expected.color());
                assert_eq!(opened.pixels.width(), expected.width());
                let (mean, most) = difference(&opened.pixels, expected.as_bytes());
                match decoder {
                    JpegDecoder::Turbo => assert_eq!(most, 0, "{name} {by}"),
                    _ => {
                        let gray = expected.to_luma8();
                        let pixels = opened.pixels.to_luma8().into();
                        let (of_gray, _) = difference(&pixels, gray.as_raw());
                        assert!(of_gray < 3.0 && mean < 12.0, "{name} {by}: {of_gray}, {mean}");
                    }
                }
            }
        }
    }
}

/// All layouts, also those that need a decoder of their own, and files that lie on their side.
#[test]
fn layouts_are_reduced_alike() {
    let exif = |orientation: u8| {
        let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        (0xE1, block)
    };
    for sampling in [&[[1, 1]][..], &[[2, 2], [1, 1], [1, 1]], &[[1, 1]; 4]] {
        let mut jpeg = Jpeg::new(96, 64, sampling);
        jpeg.segments = vec![exif(6)];
        for jpeg in [jpeg.clone(), jpeg.clone().separate()] {
            let file = jpeg.encode(value);
            let whole = decode_bytes(&file, "image.jpg").unwrap();
            assert_eq!([whole.width(), whole.height()], [64, 96]);
            for by in [2, 4, 8] {
                let options = reducing(JpegDecoder::Rust, [64, 96], by);
                let opened = open_bytes(&file, "image.jpg", options).unwrap();
                assert_eq!(opened.original_size(), [96, 64]);
                let [width, height] = [64, 96].map(|side| side / by as u32);
                let filter = image::imageops::FilterType::Triangle;
                let expected = whole.resize_exact(width, height, filter);
                assert_eq!([opened.pixels.width(), opened.pixels.height()], [width, height]);
                let (mean, most) = difference(&opened.pixels, expected.as_bytes());
                assert!(mean < 4.0 && most < 30, "{sampling:?} {by}: {mean} {most}");
                // Code that does not know the whole size gets the whole image.
                let plain = decode_bytes_with(&file, "image.jpg", options).unwrap();
                assert_eq!(plain, whole);
            }
        }
    }
    assert_eq!(Orientation::from_exif_chunk(&exif(6).1[6..]), Some(Orientation::Rotate90));
}

#[cfg(not(feature = "turbojpeg"))]
#[test]
fn a_decoder_that_this_build_lacks_is_an_error_that_says_what_to_do() {
    let file = Jpeg::new(16, 16, &[[1, 1]]).encode(value);
    let options = DecodeOptions::default().with_jpeg_decoder(JpegDecoder::Turbo);
    let error = decode_bytes_with(&file, "image.jpg", options).unwrap_err().to_string();
    assert!(error.contains("turbojpeg") && error.contains("jpeg_decoder"), "{error}");
}
