//! Unpacks the stored numbers of a page, whatever they mean.
//!
//! The decoder of `tiff` refuses palettes, 12 bits and more. So it gets the file with another directory,
//! appended in memory, in which all is gray, and rows of packed bits are rows of bytes.

use std::io::{self, Read, Seek, SeekFrom};

use image::ImageError;
use image::error::{LimitError, LimitErrorKind};
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::directory::*;
use super::page::{JPEG, Page, UNCOMPRESSED, unread};
use crate::error::Result;
use crate::preprocess::decode::job::Job;
use crate::preprocess::decode::jpeg::{Markers, is_whole};
use crate::preprocess::decode::source::Source;

/// The stored numbers, channel by channel if the page is planar.
pub(super) fn read(tags: &mut Tags<impl Source>, page: &Page, job: &Job) -> Result<DecodingResult> {
    let chunks = Chunks::read(tags, page).map_err(|what| job.failed(what))?;
    chunks.check(tags, page).map_err(|what| job.failed(what))?;
    let failed = |reason| match reason {
        TiffError::IoError(reason) if reason.kind() == io::ErrorKind::UnexpectedEof => job.cut(),
        TiffError::LimitsExceeded => job
            .decoder(ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))),
        reason => job.failed(reason.to_string()),
    };
    let most = usize::try_from(job.options.limits.max_bytes).unwrap_or(usize::MAX);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most;
    limits.ifd_value_size = most;
    let file = gray_file(tags, page, &chunks).map_err(|what| job.failed(what))?;
    let mut decoder = Decoder::new(file).map_err(failed)?.with_limits(limits);
    let mut numbers = DecodingResult::U8(vec![]);
    let layout = decoder.read_image_to_buffer(&mut numbers).map_err(failed)?;
    if numbers.as_buffer(0).byte_len() < layout.complete_len {
        return Err(failed(TiffError::LimitsExceeded));
    }
    Ok(numbers)
}

/// Where the strips or tiles of a page are.
struct Chunks {
    is_tiled: bool,
    width: u32,
    height: u32,
    offsets: Vec<u64>,
    bytes: Vec<u64>,
}

impl Chunks {
    fn read(tags: &mut Tags<impl Source>, page: &Page) -> Damage<Self> {
        let directory = &page.directory;
        let is_tiled = directory.0.contains_key(&TILE_OFFSETS);
        let mut side = |tag, default| {
            let side = tags.one(directory, tag)?.unwrap_or(default);
            u32::try_from(side)
                .ok()
                .filter(|&side| side > 0)
                .ok_or(format!("its tag {tag} is {side}"))
        };
        let (width, height) = if is_tiled {
            (side(TILE_WIDTH, 0)?, side(TILE_HEIGHT, 0)?)
        } else {
            // Rows without an end mean one strip.
            (page.width, side(ROWS_PER_STRIP, page.height.into())?.min(page.height))
        };
        let planes = if page.is_planar { page.samples.into() } else { 1 };
        let count = u64::from(page.width.div_ceil(width)) * u64::from(page.height.div_ceil(height));
        let count = count * planes;
        let mut list = |tag| match tags.numbers(directory, tag, count)? {
            Some(list) if list.len() as u64 == count => Ok(list),
            Some(list) => {
                Err(format!("it has {} strips or tiles, its size needs {count}", list.len()))
            }
            None => Err(format!("its tag {tag} is missing")),
        };
        let (offsets, bytes) =
            if is_tiled { (TILE_OFFSETS, TILE_BYTES) } else { (STRIP_OFFSETS, STRIP_BYTES) };
        Ok(Self { is_tiled, width, height, offsets: list(offsets)?, bytes: list(bytes)? })
    }

    /// The rows of a chunk: a strip may be shorter at the end.
    fn rows(&self, page: &Page, chunk: usize) -> u32 {
        if self.is_tiled {
            return self.height;
        }
        let strips = page.height.div_ceil(self.height) as usize;
        let above = (chunk % strips) as u32 * self.height;
        (page.height - above).min(self.height)
    }

    /// Whether the chunks are in the file, and hold what they must.
    fn check(&self, tags: &mut Tags<impl Source>, page: &Page) -> Damage<()> {
        let row = row_bytes(page, self.width);
        let tables = tags.numbers(&page.directory, JPEG_TABLES, 1 << 16)?.unwrap_or_default();
        let tables: Vec<u8> = tables.into_iter().map(|byte| byte as u8).collect();
        for (chunk, (&offset, &bytes)) in self.offsets.iter().zip(&self.bytes).enumerate() {
            if offset.checked_add(bytes).is_none_or(|end| end > tags.length) {
                return Err(CUT.into());
            }
            let rows = self.rows(page, chunk);
            let needed = row.saturating_mul(rows.into());
            if page.compression == UNCOMPRESSED && bytes < needed {
                return Err(format!("a strip or tile has {bytes} bytes, its pixels need {needed}"));
            }
            if page.compression == JPEG {
                let file = tags.bytes(offset, bytes)?;
                self.check_jpeg(page, &tables, &file, rows)?;
            }
        }
        Ok(())
    }

    /// The decoder of the JPEGs in a TIFF fills what is missing with gray, and takes any size.
    fn check_jpeg(&self, page: &Page, tables: &[u8], file: &[u8], rows: u32) -> Damage<()> {
        let whole = match tables.len().checked_sub(2) {
            Some(end) => &[&tables[..end], file.get(2..).unwrap_or_default()].concat(),
            None => file,
        };
        let markers = Markers::read(&mut &*whole);
        let Some(frame) = &markers.frame else {
            return Err("a JPEG in it has no header".into());
        };
        if let Some(what) = frame.unsupported() {
            return Err(what);
        }
        if !markers.is_common() || !markers.has_huffman_tables {
            return Err(unread("with JPEG compression in a rare layout"));
        }
        let fits = u32::from(frame.width) == self.width
            && u32::from(frame.height) >= rows
            && frame.components.len() == usize::from(page.chunk_samples());
        if !fits {
            return Err("a JPEG in it has another size than its strip or tile".into());
        }
        if !is_whole(file) {
            return Err(CUT.into());
        }
        Ok(())
    }
}

/// Bytes of a row of so many pixels in a chunk.
fn row_bytes(page: &Page, width: u32) -> u64 {
    let bits = u64::from(width) * u64::from(page.chunk_samples()) * u64::from(page.bits);
    bits.div_ceil(8)
}

/// The same file, in which the page is the only one, and gray.
fn gray_file<'a, R: Source>(
    tags: &'a mut Tags<'_, R>,
    page: &Page,
    chunks: &Chunks,
) -> Damage<Appended<'a, R>> {
    let format = match page.numbers {
        super::page::Numbers::Unsigned => 1,
        super::page::Numbers::Signed => 2,
        super::page::Numbers::Float => 3,
    };
    // Fax compression counts pixels. Rows of tiles are packed one by one.
    let as_bytes = page.is_packed() && page.compression != 4;
    if as_bytes
        && chunks.is_tiled
        && !(u64::from(chunks.width) * u64::from(page.bits)).is_multiple_of(8)
    {
        return Err(unread("of tiles whose rows end within a byte"));
    }
    let across = |width: u32| if as_bytes { row_bytes(page, width) } else { width.into() };
    let samples = match (as_bytes, page.is_planar) {
        (true, false) => 1,
        _ => page.samples.into(),
    };
    let mut values = vec![
        (WIDTH, across(page.width)),
        (HEIGHT, page.height.into()),
        (BITS, if as_bytes { 8 } else { page.bits.into() }),
        (COMPRESSION, page.compression),
        (PHOTOMETRIC, 1),
        (SAMPLES, samples),
        (PLANAR, if page.is_planar { 2 } else { 1 }),
        (PREDICTOR, page.predictor),
        (SAMPLE_FORMAT, format),
    ];
    if chunks.is_tiled {
        values.extend([(TILE_WIDTH, across(chunks.width)), (TILE_HEIGHT, chunks.height.into())]);
    } else {
        values.push((ROWS_PER_STRIP, chunks.height.into()));
    }
    let width = tags.offset_width();
    let mut entries: Vec<(u16, Entry)> = values
        .into_iter()
        .map(|(tag, value)| {
            let mut field = tags.number_bytes(value, 4);
            field.resize(width, 0);
            (tag, Entry { kind: 4, count: 1, field })
        })
        .collect();
    let copied = [STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, JPEG_TABLES];
    let copied = copied
        .into_iter()
        .filter(|&tag| chunks.is_tiled || !matches!(tag, TILE_OFFSETS | TILE_BYTES));
    let copied =
        copied.filter(|&tag| !chunks.is_tiled || !matches!(tag, STRIP_OFFSETS | STRIP_BYTES));
    entries.extend(copied.filter_map(|tag| Some((tag, page.directory.0.get(&tag)?.clone()))));
    entries.sort_by_key(|&(tag, _)| tag);
    let mut tail = tags.number_bytes(entries.len() as u64, if tags.is_big { 8 } else { 2 });
    for (tag, entry) in entries {
        tail.extend(tags.number_bytes(tag.into(), 2));
        tail.extend(tags.number_bytes(entry.kind.into(), 2));
        tail.extend(tags.number_bytes(entry.count, width));
        tail.extend(entry.field);
    }
    tail.extend(vec![0; width]);
    let mut head = tags.bytes(0, width as u64)?;
    if !tags.is_big && u32::try_from(tags.length).is_err() {
        return Err("it is larger than a classic TIFF can be".into());
    }
    head.extend(tags.number_bytes(tags.length, width));
    Ok(Appended { head, length: tags.length, tail, at: 0, reader_at: None, reader: tags.reader })
}

/// A file with another beginning, and something appended.
struct Appended<'a, R> {
    head: Vec<u8>,
    /// Of the file itself.
    length: u64,
    tail: Vec<u8>,
    at: u64,
    /// Where the reader is, if that is known: a seek would lose what it has buffered.
    reader_at: Option<u64>,
    reader: &'a mut R,
}

impl<R: Source> Read for Appended<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let head = self.head.len() as u64;
        let count = if self.at < head {
            (&self.head[self.at as usize..]).read(out)?
        } else if self.at < self.length {
            if self.reader_at != Some(self.at) {
                self.reader.seek(SeekFrom::Start(self.at))?;
            }
            let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
            let most = left.min(out.len());
            let count = self.reader.read(&mut out[..most])?;
            self.reader_at = Some(self.at + count as u64);
            count
        } else {
            let from = usize::try_from(self.at - self.length).unwrap_or(usize::MAX);
            self.tail.get(from..).unwrap_or_default().read(out)?
        };
        self.at += count as u64;
        Ok(count)
    }
}

impl<R> Seek for Appended<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.length + self.tail.len() as u64;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => end.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
