//! Whether a JPEG file is complete. The decoder fills missing parts with gray, which would be
//! scored as if it were part of the image.

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
/// A marker without a meaning and without a length.
const TEMPORARY: u8 = 0x01;

/// Whether the file has the end marker of its image. The end markers of embedded thumbnails do not
/// count.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let mut rest = file;
    while let Some((marker, behind)) = next_marker(rest) {
        let segment = match marker {
            END_OF_IMAGE => return true,
            START_OF_IMAGE | TEMPORARY => 0,
            // All other segments begin with their length. The data after a scan's segment is
            // searched for the next marker.
            _ => match behind.first_chunk() {
                Some(&length) => usize::from(u16::from_be_bytes(length)),
                None => return false,
            },
        };
        rest = behind.get(segment..).unwrap_or_default();
    }
    false
}

/// The first marker, and the bytes after it. In a scan, a data byte of 0xFF is followed by 0, and
/// restart markers are part of the scan. Repeated 0xFF are padding of one marker.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let marks = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xD0..=0xD7 | 0xFF);
    let at = bytes.windows(2).position(marks)?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{Rgb, RgbImage};

    pub fn noisy() -> RgbImage {
        RgbImage::from_fn(61, 47, |x, y| {
            let value = (x * 7919 + y * 104_729) % 251;
            Rgb([value as u8, (value * 3 % 256) as u8, (x * 4) as u8])
        })
    }

    fn file() -> Vec<u8> {
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, 95).encode_image(&noisy()).unwrap();
        file
    }

    /// With a complete JPEG in a segment after the start, where cameras put a thumbnail.
    fn with_thumbnail() -> Vec<u8> {
        let file = file();
        let length = u16::try_from(file.len() + 2).unwrap().to_be_bytes();
        [&file[..2], &[0xFF, 0xE1], &length, &file, &file[2..]].concat()
    }

    #[test]
    fn a_file_is_whole_until_a_byte_is_missing() {
        for file in [file(), with_thumbnail()] {
            assert!(is_whole(&file));
            assert!(is_whole(&[&file[..], b"written by a camera"].concat()));
            let whole = (0..file.len()).find(|&length| is_whole(&file[..length]));
            assert_eq!(whole, None);
        }
    }

    #[test]
    fn restarts_and_fill_bytes_end_nothing() {
        let start = [0xFF, 0xD8, 0xFF, 0xFF, 0xDA, 0, 3, 9];
        let scan = [1, 0xFF, 0, 2, 0xFF, 0xD3, 0xD9, 0xFF, 0xFF];
        assert!(!is_whole(&[&start[..], &scan].concat()));
        assert!(is_whole(&[&start[..], &scan, &[0xD9]].concat()));
    }
}
