//! Files that claim to be huge.

use std::path::PathBuf;

use image::ImageFormat;
use padim::gaussian::Storage;
use padim::preprocess::{DecodeLimits, decode_file, decode_file_with};
use padim::{Error, Padim, dataset, image};

use super::checks::{self, Squares};
use super::seeds::pickled;
use super::{squares_config, tiny};
use crate::devices;

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [kind, content].concat();
    let checksum = crc32fast::hash(&named).to_be_bytes();
    [&(content.len() as u32).to_be_bytes()[..], &named, &checksum].concat()
}

/// A PNG of less than a hundred bytes that claims to have this size, in 8-bit color.
pub fn claimed_png(side: u32) -> Vec<u8> {
    let size = [side.to_be_bytes(), side.to_be_bytes()].concat();
    let header = chunk(b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    // An empty zlib stream.
    let pixels = chunk(b"IDAT", &[0x78, 0x9C, 3, 0, 0, 0, 0, 1]);
    [b"\x89PNG\r\n\x1a\n", &header[..], &pixels, &chunk(b"IEND", &[])].concat()
}

fn claimed_bmp(side: u32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    file.extend([54_u32.to_le_bytes(), [0; 4], 54_u32.to_le_bytes()].concat());
    file.extend([40_u32, side, side].map(u32::to_le_bytes).concat());
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    file
}

fn claimed_tiff(side: u32) -> Vec<u8> {
    // Width, height, bits per sample, compression, gray, strip offsets, samples, rows per strip, bytes
    // per strip.
    let tags = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, side),
        (279, side.wrapping_mul(side)),
    ];
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        file.extend([u16::to_le_bytes(tag), [4, 0], [1, 0], [0, 0]].concat());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

/// A side has at most 16,383 pixels.
fn claimed_webp(side: u32) -> Vec<u8> {
    let bits = (side - 1) | (side - 1) << 14;
    let pixels = [&[0x2F][..], &bits.to_le_bytes(), &[0; 11]].concat();
    let length = (pixels.len() as u32).to_le_bytes();
    let whole = (12 + pixels.len() as u32).to_le_bytes();
    [b"RIFF", &whole[..], b"WEBPVP8L", &length, &pixels].concat()
}

fn claimed_jpeg(side: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    tiny(1).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    let mut file = bytes.into_inner();
    let frame = file.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let side = (side as u16).to_be_bytes();
    file[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    file
}

#[test]
fn what_claims_to_be_huge_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    type Claim = (&'static str, fn(u32) -> Vec<u8>, u32);
    let claims: [Claim; 5] = [
        ("PNG", claimed_png, 30_000),
        ("BMP", claimed_bmp, 30_000),
        ("TIFF", claimed_tiff, 30_000),
        ("WebP", claimed_webp, 16_383),
        ("JPEG", claimed_jpeg, 30_000),
    ];
    for (format, claim, side) in claims {
        std::fs::write(&path, claim(side)).unwrap();
        let error = decode_file(&path).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{format}: {error}");
        let text = error.to_string();
        let size = format!("{side} x {side}");
        for part in [&*size, "178956970", "536870912", "with_decode_limits", "bomb"] {
            assert!(text.contains(part), "{format}: {text}");
        }
        // Within the limits, decoding finds that the pixels are missing.
        std::fs::write(&path, claim(300)).unwrap();
        let small = decode_file(&path);
        assert!(
            matches!(small, Err(Error::Decode { .. })) || format == "JPEG",
            "{format}: {small:?}"
        );
        let limits = DecodeLimits { max_pixels: 300 * 300 - 1, ..DecodeLimits::default() };
        let error = decode_file_with(&path, limits).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{format}: {error}");
    }
}

#[test]
fn limits_can_be_changed_wherever_files_are_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..6).map(|i| folder.path().join(format!("{i}.tif"))).collect();
    for (i, file) in (0..).zip(&files) {
        tiny(i).into_rgb16().save(file).unwrap();
    }
    // 9 x 8 pixels of 6 bytes.
    let enough = DecodeLimits { max_pixels: 72, max_bytes: 432 };
    let too_low =
        [DecodeLimits { max_pixels: 71, ..enough }, DecodeLimits { max_bytes: 431, ..enough }];
    let padim = Padim::new(squares_config(Storage::Auto), Squares::new()).unwrap();
    let refused = |result: Option<Error>| {
        assert!(matches!(result, Some(Error::ImageTooLarge { .. })), "{result:?}");
    };
    let mask = Some(dataset::MaskFile::Picture(files[0].clone()));
    let sample = dataset::Sample::new(files[1].clone(), "bent", mask);
    for limits in too_low {
        refused(padim.clone().with_decode_limits(limits).fit(&files).err());
        let detector = padim.fit(&files).unwrap().with_decode_limits(limits);
        refused(detector.predict(&files[0]).err());
        refused(detector.explain(&files[0]).err());
        refused(sample.open_with(limits).err());
        refused(sample.truth(detector.preprocessor(), [8, 8]).err());
        refused(sample.picture(detector.preprocessor()).err());
        assert!(detector.predict(tiny(0)).is_ok(), "what is decoded is not limited");
    }
    let detector = padim.with_decode_limits(enough).fit(&files).unwrap();
    assert_eq!(detector.preprocessor().decode_limits(), enough);
    assert!(detector.predict(&files[0]).is_ok() && sample.open_with(enough).is_ok());
    assert!(sample.truth(detector.preprocessor(), [8, 8]).is_ok());
}

/// With strides of 0, a tensor of any shape can consist of one stored number.
#[test]
fn a_tensor_that_claims_gigabytes_is_not_read() {
    const SIDE: usize = 1 << 15;
    let mut pickle = pickled(&[("conv1.weight".into(), vec![SIDE, SIDE])]);
    let strides = [&b"J"[..], &(SIDE as u32).to_le_bytes(), b"J\x01\0\0\0t\x89"].concat();
    let at = pickle.windows(strides.len()).position(|part| part == strides).unwrap();
    pickle[at..at + 10].copy_from_slice(b"J\0\0\0\0J\0\0\0\0");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pth");
    std::fs::write(&path, checks::checkpoint(&pickle)).unwrap();
    let error = checks::network().load(&path, &devices()[0]).unwrap_err();
    assert!(matches!(error, Error::TensorShape { .. }), "{error}");
    // The 4 GiB were never allocated.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 3 << 20, "{peak}");
    }
}
