//! The directories of a TIFF file: their tags, and which of them are pages.

use std::collections::{BTreeMap, HashSet};
use std::io::SeekFrom;

use crate::preprocess::decode::source::Source;

/// What is wrong with a file.
pub(super) type Damage<T> = Result<T, String>;

pub(super) const CUT: &str = "the file ends before its image is complete";

/// More pages and tags are not believed.
const MAX_PAGES: usize = 1 << 16;
const MAX_TAGS: u64 = 1 << 12;

/// A tag's value: its type, the number of numbers, and the field that holds them or says where they are.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub kind: u16,
    pub count: u64,
    pub field: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Directory(pub BTreeMap<u16, Entry>);

/// Reads tags.
#[derive(Debug)]
pub(super) struct Tags<'a, R> {
    pub reader: &'a mut R,
    /// Of the file.
    pub length: u64,
    pub is_big: bool,
    pub is_little_endian: bool,
}

impl<'a, R: Source> Tags<'a, R> {
    pub fn open(reader: &'a mut R, length: u64) -> Damage<Self> {
        let mut tags = Self { reader, length, is_big: false, is_little_endian: true };
        let magic = tags.bytes(0, 4)?;
        tags.is_little_endian = magic[0] == b'I';
        tags.is_big = magic.contains(&43);
        Ok(tags)
    }

    /// The bytes of the file from `at`.
    pub fn bytes(&mut self, at: u64, count: u64) -> Damage<Vec<u8>> {
        if at.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(CUT.into());
        }
        let mut bytes = vec![0; count as usize];
        let read =
            self.reader.seek(SeekFrom::Start(at)).and_then(|_| self.reader.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|reason| reason.to_string())
    }

    /// A number of these bytes, in the order of the file.
    pub fn number(&self, bytes: &[u8]) -> u64 {
        let append = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        if self.is_little_endian {
            bytes.iter().rev().fold(0, append)
        } else {
            bytes.iter().fold(0, append)
        }
    }

    /// `count` bytes of a number in the order of the file.
    pub fn number_bytes(&self, number: u64, count: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes()[..count].to_vec();
        if !self.is_little_endian {
            bytes.reverse();
        }
        bytes
    }

    /// The width of a position in the file, in bytes.
    pub fn offset_width(&self) -> usize {
        if self.is_big { 8 } else { 4 }
    }

    /// The directories of the pages.
    pub fn pages(&mut self) -> Damage<Vec<Directory>> {
        let width = self.offset_width() as u64;
        let first = self.bytes(width, width)?;
        let (mut at, mut seen, mut pages) = (self.number(&first), HashSet::new(), Vec::new());
        while at != 0 {
            if !seen.insert(at) || seen.len() > MAX_PAGES {
                return Err("its list of pages has no end".into());
            }
            let (directory, next) = self.directory(at)?;
            // A reduced copy of another page, or a mask; in old files, a reduced copy.
            let kind = self.one(&directory, NEW_SUBFILE_TYPE)?.unwrap_or(0);
            let old = self.one(&directory, SUBFILE_TYPE)?.unwrap_or(1);
            let is_mask = self.one(&directory, PHOTOMETRIC)? == Some(4);
            if kind & 5 == 0 && old != 2 && !is_mask {
                pages.push(directory);
            }
            at = next;
        }
        Ok(pages)
    }

    fn directory(&mut self, at: u64) -> Damage<(Directory, u64)> {
        let width = self.offset_width();
        let (head, size) = if self.is_big { (8, 20) } else { (2, 12) };
        let count = self.bytes(at, head)?;
        let count = self.number(&count);
        if count > MAX_TAGS {
            return Err(format!("it has a directory of {count} tags"));
        }
        let bytes = self.bytes(at + head, count * size + width as u64)?;
        let (entries, next) = bytes.split_at((count * size) as usize);
        let entries = entries.chunks_exact(size as usize).map(|entry| {
            let kind = self.number(&entry[2..4]) as u16;
            let count = self.number(&entry[4..4 + width]);
            let field = entry[4 + width..].to_vec();
            (self.number(&entry[..2]) as u16, Entry { kind, count, field })
        });
        Ok((Directory(entries.collect()), self.number(next)))
    }

    /// A tag's numbers, at most `most`; none if it is missing.
    pub fn numbers(&mut self, page: &Directory, tag: u16, most: u64) -> Damage<Option<Vec<u64>>> {
        let Some(entry) = page.0.get(&tag) else { return Ok(None) };
        let width: u64 = match entry.kind {
            1 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            kind => return Err(format!("its tag {tag} is of type {kind}, not of whole numbers")),
        };
        let length = entry.count.checked_mul(width);
        let Some(length) = length.filter(|_| entry.count <= most) else {
            return Err(format!("its tag {tag} holds {} numbers, at most {most} fit", entry.count));
        };
        let bytes = match entry.field.get(..length as usize) {
            Some(field) => field.to_vec(),
            None => self.bytes(self.number(&entry.field), length)?,
        };
        Ok(Some(bytes.chunks_exact(width as usize).map(|bytes| self.number(bytes)).collect()))
    }

    /// A tag's only number.
    pub fn one(&mut self, page: &Directory, tag: u16) -> Damage<Option<u64>> {
        Ok(self.numbers(page, tag, 1)?.and_then(|numbers| numbers.first().copied()))
    }
}

pub(super) const NEW_SUBFILE_TYPE: u16 = 254;
pub(super) const SUBFILE_TYPE: u16 = 255;
pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
pub(super) const BITS: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
pub(super) const FILL_ORDER: u16 = 266;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const ORIENTATION: u16 = 274;
pub(super) const SAMPLES: u16 = 277;
pub(super) const ROWS_PER_STRIP: u16 = 278;
pub(super) const STRIP_BYTES: u16 = 279;
pub(super) const PLANAR: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
pub(super) const COLOR_MAP: u16 = 320;
pub(super) const TILE_WIDTH: u16 = 322;
pub(super) const TILE_HEIGHT: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_BYTES: u16 = 325;
pub(super) const INK_SET: u16 = 332;
pub(super) const EXTRA_SAMPLES: u16 = 338;
pub(super) const SAMPLE_FORMAT: u16 = 339;
pub(super) const JPEG_TABLES: u16 = 347;
