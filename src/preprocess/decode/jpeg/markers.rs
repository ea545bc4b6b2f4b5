//! The markers of a JPEG file.

use std::io::{BufRead, Read};

use image::metadata::Orientation;

use crate::preprocess::decode::job::exif_orientation;

const START_OF_SCAN: u8 = 0xDA;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
/// A marker without a meaning and without a length.
const TEMPORARY: u8 = 0x01;

/// Whether the file has the end marker of its image. The end markers of embedded thumbnails do not
/// count.
pub(in crate::preprocess::decode) fn is_whole(file: &[u8]) -> bool {
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

/// The header of the image's pixels (SOF).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::preprocess::decode) struct Frame {
    /// The second byte of its marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, ...
    pub kind: u8,
    pub bits: u8,
    pub height: u16,
    pub width: u16,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::preprocess::decode) struct Component {
    pub id: u8,
    /// How finely it is sampled, horizontally and vertically.
    pub factors: [u8; 2],
}

impl Frame {
    fn parse(kind: u8, content: &[u8]) -> Option<Self> {
        let (&[bits, h0, h1, w0, w1, count], parts) = content.split_first_chunk()?;
        let parts = parts.get(..3 * usize::from(count))?.chunks_exact(3);
        Some(Self {
            kind,
            bits,
            height: u16::from_be_bytes([h0, h1]),
            width: u16::from_be_bytes([w0, w1]),
            components: parts
                .map(|part| Component { id: part[0], factors: [part[1] >> 4, part[1] & 15] })
                .collect(),
        })
    }

    /// What no decoder here reads, and what to do.
    pub fn unsupported(&self) -> Option<String> {
        let what = match self.kind {
            0xC3 => "is coded without loss (lossless JPEG)".to_owned(),
            0xC5..=0xC7 => "is coded in several sizes (hierarchical JPEG)".to_owned(),
            0xC9..=0xCF => "uses arithmetic coding".to_owned(),
            _ if self.bits != 8 => format!("has {} bits a channel", self.bits),
            _ if self.height == 0 => "says its height behind its pixels only (DNL)".to_owned(),
            _ if !matches!(self.components.len(), 1 | 3 | 4) => {
                format!("has {} channels", self.components.len())
            }
            _ => return None,
        };
        Some(format!("a JPEG that {what}; convert it to an ordinary JPEG or a PNG"))
    }
}

/// What stands before the pixels of a JPEG file.
#[derive(Debug)]
pub(in crate::preprocess::decode) struct Markers {
    pub frame: Option<Frame>,
    pub orientation: Orientation,
    /// The color transform in Adobe's marker.
    pub adobe: Option<u8>,
    /// Motion-JPEG has none, and means the standard's.
    pub has_huffman_tables: bool,
    /// The number of components in the first scan.
    pub first_scan: usize,
}

impl Markers {
    /// Reads up to the first scan. A damaged file has the markers before its damage.
    pub fn read(reader: &mut impl BufRead) -> Self {
        let mut markers = Self {
            frame: None,
            orientation: Orientation::NoTransforms,
            adobe: None,
            has_huffman_tables: false,
            first_scan: 0,
        };
        // A reader that fails here fails again when it decodes, with an error.
        let _ = markers.collect(reader);
        markers
    }

    fn collect(&mut self, reader: &mut impl BufRead) -> std::io::Result<()> {
        loop {
            while byte(reader)? != 0xFF {}
            let mut marker = 0xFF;
            while marker == 0xFF {
                marker = byte(reader)?;
            }
            if matches!(marker, 0 | TEMPORARY | START_OF_IMAGE | 0xD0..=0xD7) {
                continue;
            }
            if marker == END_OF_IMAGE {
                return Ok(());
            }
            let length = u16::from_be_bytes([byte(reader)?, byte(reader)?]);
            let mut content = Vec::new();
            reader.take(u64::from(length).saturating_sub(2)).read_to_end(&mut content)?;
            match marker {
                0xC4 => self.has_huffman_tables = true,
                0xC8 | 0xCC => (),
                0xC0..=0xCF => self.frame = self.frame.take().or(Frame::parse(marker, &content)),
                0xE1 if self.orientation == Orientation::NoTransforms => {
                    if content.starts_with(b"Exif\0\0")
                        && let Some(orientation) = exif_orientation(&content)
                    {
                        self.orientation = orientation;
                    }
                }
                0xEE if content.starts_with(b"Adobe") => self.adobe = content.get(11).copied(),
                START_OF_SCAN => {
                    self.first_scan = content.first().copied().unwrap_or(0).into();
                    return Ok(());
                }
                _ => (),
            }
        }
    }

    /// Whether the decoder of `image` reads this layout. A test compares it with another decoder.
    pub fn is_common(&self) -> bool {
        let Some(Frame { kind, components, .. }) = &self.frame else { return false };
        let Some(first) = components.first() else { return false };
        let finest = |axis: usize| components.iter().map(|part| part.factors[axis]).max();
        // All components of a sequential file must be in one scan, and the first one must be the finest.
        (*kind == 0xC2 || self.first_scan == components.len())
            && [0, 1].iter().all(|&axis| finest(axis) == Some(first.factors[axis]))
            && components.iter().all(|part| part.factors.iter().all(|f| f.is_power_of_two()))
    }
}

fn byte(reader: &mut impl Read) -> std::io::Result<u8> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::decode::tests::noisy;
    use image::codecs::jpeg::JpegEncoder;

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
