//! Encoding of sections, arrays and checksums.

use std::io::{self, Read, Write};
use std::path::Path;

use bincode::config::{Configuration, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

pub const MAGIC: [u8; 8] = *b"PADIM\r\n\x1a";
/// The format version. The tests keep a file of each version, and all versions stay readable.
pub const VERSION: u32 = 1;
/// Largest header in bytes: settings, some thousand indices and the scores of a calibration.
pub const MAX_HEADER: usize = 16 << 20;

fn encoding() -> Configuration<LittleEndian, Varint, bincode::config::Limit<MAX_HEADER>> {
    bincode::config::standard().with_limit::<MAX_HEADER>()
}

/// Encodes a section that describes an array, or the header itself.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, encoding())
        .map_err(|e| Error::config("detector", format!("cannot be encoded: {e}")))
}

pub fn decode<T: DeserializeOwned>(path: &Path, what: &str, bytes: &[u8]) -> Result<T> {
    match bincode::serde::decode_from_slice(bytes, encoding()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok(_) => Err(invalid(path, format!("{what} is longer than its contents"))),
        Err(e) => Err(invalid(path, format!("{what} is damaged: {e}"))),
    }
}

/// Encodes a section of settings. An f32 is written exactly, as its f64 value.
pub fn encode_settings(value: &impl Serialize) -> Result<Vec<u8>> {
    let written = serde_json::to_value(value).and_then(|value| serde_json::to_vec(&value));
    written.map_err(|e| Error::config("detector", format!("cannot be encoded: {e}")))
}

pub fn decode_settings<T: DeserializeOwned>(path: &Path, what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        let newer = match e.is_data() {
            true => "; a later version of padim may have written it: update padim",
            false => "",
        };
        invalid(path, format!("{what} cannot be used: {e}{newer}"))
    })
}

pub fn invalid(path: &Path, reason: impl Into<String>) -> Error {
    Error::InvalidDetectorFile { path: path.to_owned(), reason: reason.into() }
}

/// The number of values that are converted at a time.
pub const CHUNK: usize = 1 << 16;

/// A type of numbers in arrays of a file.
pub trait Value: Copy {
    const BYTES: usize;
    /// Little-endian; `bytes` has the length `BYTES`.
    fn from_bytes(bytes: &[u8]) -> Self;
    fn append_to(self, bytes: &mut Vec<u8>);
}

macro_rules! value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const BYTES: usize = size_of::<$type>();

            fn from_bytes(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

value!(u8, u16, f32, f64);

pub fn write_values<T: Value>(writer: &mut impl Write, values: &[T]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(T::BYTES * CHUNK.min(values.len()));
    values.chunks(CHUNK).try_for_each(|chunk| {
        bytes.clear();
        chunk.iter().for_each(|value| value.append_to(&mut bytes));
        writer.write_all(&bytes)
    })
}

pub struct ChecksumWriter<'a, W> {
    inner: &'a mut W,
    checksum: crc32fast::Hasher,
}

impl<'a, W: Write> ChecksumWriter<'a, W> {
    pub fn new(inner: &'a mut W) -> Self {
        Self { inner, checksum: crc32fast::Hasher::new() }
    }

    /// Writes the checksum of everything before it.
    pub fn finish(self) -> io::Result<()> {
        self.inner.write_all(&self.checksum.finalize().to_le_bytes())
    }
}

impl<W: Write> Write for ChecksumWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that counts the bytes it has read and computes their checksum.
pub struct ChecksumReader<'a> {
    inner: Box<dyn Read + 'a>,
    checksum: crc32fast::Hasher,
    position: u64,
}

impl<'a> ChecksumReader<'a> {
    pub fn new(inner: Box<dyn Read + 'a>) -> Self {
        Self { inner, checksum: crc32fast::Hasher::new(), position: 0 }
    }

    /// The checksum of all bytes so far.
    pub fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
    }

    /// The number of bytes so far.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Read for ChecksumReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..count]);
        self.position += count as u64;
        Ok(count)
    }
}
