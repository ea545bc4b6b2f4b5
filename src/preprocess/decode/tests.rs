use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageEncoder, ImageFormat, Luma, Rgb, RgbImage};

use super::jpeg::encoder::Jpeg;
use super::*;
use crate::error::Error;

pub fn noisy() -> RgbImage {
    RgbImage::from_fn(61, 47, |x, y| {
        let value = (x * 7919 + y * 104_729) % 251;
        Rgb([value as u8, (value * 3 % 256) as u8, (x * 4) as u8])
    })
}

/// The content of an EXIF block with this orientation.
fn exif(orientation: u8) -> Vec<u8> {
    [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation, 0, 0, 0, 0, 0, 0, 0][..]]
        .concat()
}

/// A gray ramp of 16 x 24 pixels (height, width), darkest at the upper left.
fn ramp() -> GrayImage {
    GrayImage::from_fn(24, 16, |x, y| Luma([(x * 4 + y * 9) as u8]))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(vec![]);
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [kind, content].concat();
    let checksum = crc32fast::hash(&named).to_be_bytes();
    [&(content.len() as u32).to_be_bytes()[..], &named, &checksum].concat()
}

/// Files of the ramp with this orientation, and their names.
fn oriented(orientation: u8) -> Vec<(&'static str, Vec<u8>)> {
    let block = exif(orientation);
    let mut jpeg = Jpeg::new(24, 16, &[[1, 1]]);
    jpeg.segments = vec![(0xE1, [b"Exif\0\0", &block[..]].concat())];
    let ramp = ramp();
    let at = |_, x: usize, y: usize| ramp.get_pixel(x as u32, y as u32).0[0];
    let mut rare = Jpeg::new(24, 16, &[[1, 1], [2, 2], [1, 1]]);
    rare.segments.clone_from(&jpeg.segments);
    let gray = |c, x, y| if c == 0 { at(c, x, y) } else { 128 };
    let png = encoded(&ramp.clone().into(), ImageFormat::Png);
    let early = [&png[..33], &chunk(b"eXIf", &block), &png[33..]].concat();
    let end = png.len() - 12;
    let late = [&png[..end], &chunk(b"eXIf", &block), &png[end..]].concat();
    let mut webp = vec![];
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    encoder.set_exif_metadata(block).unwrap();
    let rgb = DynamicImage::from(ramp.clone()).into_rgb8();
    encoder.write_image(&rgb, 24, 16, image::ExtendedColorType::Rgb8).unwrap();
    let page = tiff::writer::Page::new([16, 24], &[8], 1, ramp.as_raw());
    let tiff = tiff::writer::CLASSIC.file(&[page.with(274, &[orientation.into()])]);
    vec![
        ("jpg", jpeg.encode(at)),
        ("rare.jpg", rare.encode(gray)),
        ("png", early),
        ("late.png", late),
        ("webp", webp),
        ("tiff", tiff),
    ]
}

#[test]
fn every_orientation_is_applied_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let turned: [fn(DynamicImage) -> DynamicImage; 8] = [
        |image| image,
        |image| image.fliph(),
        |image| image.rotate180(),
        |image| image.flipv(),
        |image| image.rotate90().fliph(),
        |image| image.rotate90(),
        |image| image.rotate90().flipv(),
        |image| image.rotate270(),
    ];
    for (orientation, turn) in (1..).zip(turned) {
        let expected = turn(ramp().into());
        for (name, file) in oriented(orientation) {
            let path = folder.path().join(name);
            std::fs::write(&path, file).unwrap();
            let image = decode_file(&path).unwrap();
            let size = [image.height() as usize, image.width() as usize];
            let header = image_header(&path).unwrap();
            assert_eq!((header.orientation, header.size), (orientation, size), "{name}");
            assert_eq!(image_size(&path).unwrap(), size);
            let pairs = image.to_luma8().into_raw().into_iter().zip(expected.as_bytes());
            for (a, b) in pairs {
                assert!(a.abs_diff(*b) <= 9, "{name}, orientation {orientation}: {a}, not {b}");
            }
            let stored = DecodeOptions::default().with_orientation(ExifOrientation::Ignore);
            let stored = decode_file_with(&path, stored).unwrap();
            // PIL turns TIFFs always.
            let width = if name == "tiff" { expected.width() } else { 24 };
            assert_eq!(stored.width(), width, "{name}");
        }
    }
}

#[test]
fn a_header_tells_what_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["png", "jpg", "bmp", "tiff", "webp"] {
        let path = folder.path().join("image").with_extension(format);
        noisy().save(&path).unwrap();
        assert_eq!(image_size(&path).unwrap(), [47, 61], "{format}");
        let header = image_header(&path).unwrap();
        assert_eq!((header.pages, header.bits, header.orientation), (1, 8, 1), "{format}");
        assert!(!header.is_gray && !header.has_alpha && !header.is_float, "{format}");
        assert!(is_image_file(&path));
    }
    let path = folder.path().join("deep.png");
    DynamicImage::new_luma_a16(3, 2).save(&path).unwrap();
    let header = image_header(&path).unwrap();
    assert!(header.bits == 16 && header.has_alpha && header.is_gray);
    let path = folder.path().join("float.tif");
    DynamicImage::new_rgb32f(3, 2).save(&path).unwrap();
    let header = image_header(&path).unwrap();
    assert!(header.bits == 32 && header.is_float && !header.is_gray);
    let text = folder.path().join("text.png");
    std::fs::write(&text, b"some text").unwrap();
    assert!(matches!(image_size(&text), Err(Error::Decode { .. })));
    assert!(!is_image_file(text) && !is_image_file(folder.path()));
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let noisy = noisy();
    for format in ["png", "jpg", "bmp", "tiff", "webp"] {
        let path = folder.path().join("image").with_extension(format);
        noisy.save(&path).unwrap();
        let image = decode_file(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [whole.len() / 4, whole.len() / 2, whole.len() - 40] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = decode_file(&path).unwrap_err();
            assert!(matches!(error, Error::Decode { .. }), "{format}, {length} bytes: {error}");
        }
        // What a camera appends is no damage.
        let more = [&whole[..], b"written by a camera"].concat();
        assert_eq!(decode_bytes(&more, format).unwrap(), image, "{format}");
    }
}

/// An animation of three frames: 10, 20 and 30 everywhere; with a cover of 5 that is none of them, if wanted.
fn animated_png(has_cover: bool) -> Vec<u8> {
    let picture = |value: u8| {
        let png = encoded(&GrayImage::from_pixel(4, 3, Luma([value])).into(), ImageFormat::Png);
        let at = png.windows(4).position(|kind| kind == b"IDAT").unwrap();
        let length = u32::from_be_bytes(png[at - 4..at].try_into().unwrap()) as usize;
        (png[..33].to_vec(), png[at + 4..at + 4 + length].to_vec())
    };
    let control = |number: u32| {
        let sides = [number, 4, 3, 0, 0].map(u32::to_be_bytes).concat();
        chunk(b"fcTL", &[&sides[..], &[0, 1, 0, 10, 0, 0]].concat())
    };
    let mut file = picture(0).0;
    file.extend(chunk(b"acTL", &[3_u32, 0].map(u32::to_be_bytes).concat()));
    let mut number = 0;
    if has_cover {
        file.extend(chunk(b"IDAT", &picture(5).1));
    }
    for value in [10, 20, 30] {
        file.extend(control(number));
        let data = picture(value).1;
        number += 1;
        if value == 10 && !has_cover {
            file.extend(chunk(b"IDAT", &data));
        } else {
            file.extend(chunk(b"fdAT", &[&number.to_be_bytes()[..], &data].concat()));
            number += 1;
        }
    }
    file.extend(chunk(b"IEND", &[]));
    file
}

fn animated_webp(values: &[u8]) -> Vec<u8> {
    let riff = |kind: &[u8; 4], content: &[u8]| {
        let mut chunk = [kind, &(content.len() as u32).to_le_bytes()[..], content].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let mut chunks = riff(b"VP8X", &[0x02, 0, 0, 0, 3, 0, 0, 2, 0, 0]);
    chunks.extend(riff(b"ANIM", &[0; 6]));
    for &value in values {
        let picture = RgbImage::from_pixel(4, 3, Rgb([value; 3])).into();
        let still = encoded(&picture, ImageFormat::WebP);
        // At 0, 0; 4 x 3 pixels for 100 ms, not blended.
        let head = [0, 0, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 100, 0, 0, 2];
        chunks.extend(riff(b"ANMF", &[&head[..], &still[12..]].concat()));
    }
    [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunks].concat()
}

#[test]
fn a_frame_of_an_animation_must_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("animation");
    let cases = [
        (animated_png(false), &[10, 20, 30][..]),
        (animated_png(true), &[5, 10, 20, 30]),
        (animated_webp(&[10, 20, 30]), &[10, 20, 30]),
    ];
    for (file, frames) in cases {
        std::fs::write(&path, file).unwrap();
        let error = decode_file(&path).unwrap_err();
        assert!(matches!(error, Error::UnusableImage { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{} pages", frames.len())) && text.contains("with_page"));
        assert_eq!(image_header(&path).unwrap().pages, frames.len());
        let at = |i| decode_file_with(&path, DecodeOptions::default().with_page(Some(i)));
        for (i, &value) in frames.iter().enumerate() {
            let image = at(i).unwrap();
            assert!(!image.color().has_alpha());
            let read = image.to_luma8();
            assert!(read.iter().all(|&v| v == value), "frame {i}: {read:?}, not {value}");
        }
        assert!(matches!(at(frames.len()), Err(Error::UnusableImage { .. })));
    }
    std::fs::write(&path, animated_webp(&[10])).unwrap();
    assert_eq!(decode_file(&path).unwrap().to_luma8()[(3, 2)], Luma([10]));
    // The first page of any file can be asked for.
    for format in ["png", "jpg", "bmp", "tiff", "webp"] {
        let path = folder.path().join("image").with_extension(format);
        noisy().save(&path).unwrap();
        let page = |page| decode_file_with(&path, DecodeOptions::default().with_page(Some(page)));
        assert!(page(0).is_ok() && page(1).is_err(), "{format}");
    }
}

/// Found by a fuzzer: a palette of 49 bytes, on which the decoder of `png` 0.18.1 panics.
#[test]
fn a_decoder_that_panics_is_an_error() {
    use base64::Engine;
    let file = "iVBORw0KGgoAAAANSUhEUgAAABIAAAAYBAMAAACFf7ACAAAAMVBMVEXk6cy8wsegpauMkph+hIpzeX9rcHZiJWhu \
        WolQTkdRSlBWQEVLLDI3FhshChAWAggOHNhmdQAAAJtJREFUeJwFwbFVA0EQRMG+eetg6eFjQQpkAD7R4SoTQpAy \
        0OwlwP52cLepOiLxcPxaUh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eZDLQ7CVQN3ZwrkJggg==";
    let file = file.replace(' ', "");
    let bytes = base64::engine::general_purpose::STANDARD.decode(file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("palette.png");
    std::fs::write(&path, bytes).unwrap();
    let error = decode_file(&path).unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Panicked { .. } | Error::Decode { .. }));
    assert!(error.to_string().contains("palette.png"));
}

/// What PIL makes of the cases of the shared folder.
#[test]
fn shared_cases_equal_what_pil_makes_of_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    let Ok(text) = std::fs::read_to_string(folder.join("pil.json")) else {
        println!("SKIPPED: there is no {}", folder.display());
        return;
    };
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let page = Some(0);
        let stored = DecodeOptions::default().with_orientation(ExifOrientation::Ignore);
        let image = decode_file_with(folder.join(name), stored.with_page(page)).unwrap();
        let Some(means) = case["pil_rgb_mean"].as_array() else { continue };
        // PIL makes other images white.
        if image.color().bytes_per_pixel() > 4 || image.as_luma16().is_some() {
            continue;
        }
        let rgb = image.to_rgb8();
        for (channel, expected) in means.iter().enumerate() {
            let values = rgb.iter().skip(channel).step_by(3);
            let mean =
                values.map(|&v| f64::from(v)).sum::<f64>() / f64::from(rgb.width() * rgb.height());
            let expected = expected.as_f64().unwrap();
            assert!((mean - expected).abs() < 0.6, "{name}: {mean}, PIL has {expected}");
        }
    }
}
