use image::DynamicImage;

use super::encoder::Jpeg;
use crate::error::{Error, Result};
use crate::preprocess::{DecodeLimits, decode_bytes, decode_bytes_with};

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
