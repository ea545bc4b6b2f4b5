//! Reads NumPy's `.npy` files one frame at a time: the masks of a video take gigabytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::errors::failed;
use crate::error::{Error, FileKind, Result};
use crate::files;
use crate::preprocess::DecodeLimits;

/// The contents of a file's header.
struct Array {
    shape: Vec<usize>,
    /// Bytes per number.
    width: usize,
    /// The offset of the first number, in bytes.
    start: u64,
}

/// For one frame of an array `[frames, height, width]`: which values are not 0, and `[height, width]`.
pub(super) fn frame(
    path: &Path,
    number: usize,
    limits: DecodeLimits,
) -> Result<(Vec<bool>, [usize; 2])> {
    let mut file = open(path)?;
    let array = header(&mut file, path)?;
    let [frames, height, width] = array.shape[..] else {
        let reason = format!("expected [frames, height, width], got {:?}", array.shape);
        return Err(failed(path, reason));
    };
    if number >= frames {
        return Err(failed(path, format!("has {frames} frames, frame {number} was asked for")));
    }
    let pixels = height.saturating_mul(width);
    let bytes = pixels.saturating_mul(array.width) as u64;
    if pixels as u64 > limits.max_pixels || bytes > limits.max_bytes {
        let what = format!(
            "frames of {height} x {width} pixels (height, width) of {} bytes; at most {} pixels and {} \
             bytes are allowed",
            array.width, limits.max_pixels, limits.max_bytes
        );
        return Err(Error::ImageTooLarge { name: path.display().to_string(), what });
    }
    let values = nonzero(&mut file, path, &array, number, pixels)?;
    Ok((values, [height, width]))
}

/// Which values of an array `[frames]` are not 0.
pub(super) fn flags(path: &Path) -> Result<Vec<bool>> {
    let mut file = open(path)?;
    let array = header(&mut file, path)?;
    let [frames] = array.shape[..] else {
        return Err(failed(path, format!("expected [frames], got {:?}", array.shape)));
    };
    nonzero(&mut file, path, &array, 0, frames)
}

/// The number of frames of an array `[frames, ..]`.
pub(super) fn frame_count(path: &Path) -> Result<usize> {
    let array = header(&mut open(path)?, path)?;
    array.shape.first().copied().ok_or_else(|| failed(path, "is a single number"))
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(files::open(FileKind::Dataset, path)?.0))
}

fn nonzero(
    file: &mut (impl Read + Seek),
    path: &Path,
    array: &Array,
    frame: usize,
    len: usize,
) -> Result<Vec<bool>> {
    let too_large = || failed(path, "has an impossible shape");
    let bytes = len.checked_mul(array.width).filter(|&b| b < 1 << 31).ok_or_else(too_large)?;
    let place = (bytes as u64).checked_mul(frame as u64).and_then(|p| p.checked_add(array.start));
    file.seek(SeekFrom::Start(place.ok_or_else(too_large)?)).map_err(Error::io(
        FileKind::Dataset,
        "read",
        path,
    ))?;
    let mut content = Vec::new();
    file.take(bytes as u64).read_to_end(&mut content).map_err(Error::io(
        FileKind::Dataset,
        "read",
        path,
    ))?;
    if content.len() != bytes {
        return Err(failed(path, "ends before its last number"));
    }
    Ok(content.chunks_exact(array.width).map(|number| number.iter().any(|&b| b != 0)).collect())
}

/// The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
fn header(file: &mut impl Read, path: &Path) -> Result<Array> {
    let broken = |reason: &str| failed(path, format!("is not a usable .npy file: {reason}"));
    let mut bytes = |count: usize| {
        let mut content = vec![0; count];
        file.read_exact(&mut content).map_err(|_| broken("it ends inside its header"))?;
        Ok(content)
    };
    let magic: Vec<u8> = bytes(8)?;
    if magic[..6] != *b"\x93NUMPY" {
        return Err(broken("its first bytes are wrong"));
    }
    let (len, before) = if magic[6] == 1 {
        let len = bytes(2)?;
        (u32::from(u16::from_le_bytes([len[0], len[1]])), 10)
    } else {
        let len = bytes(4)?;
        (u32::from_le_bytes([len[0], len[1], len[2], len[3]]), 12)
    };
    if len > 1 << 16 {
        return Err(broken("its header is too long"));
    }
    let text = String::from_utf8_lossy(&bytes(len as usize)?).into_owned();
    let after =
        |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
    let kind = after("'descr'").and_then(|rest| rest.trim_start_matches('\'').split('\'').next());
    let kind = kind.ok_or_else(|| broken("its header names no type"))?;
    let width = kind
        .trim_start_matches(['<', '|', '='])
        .strip_prefix(['b', 'u', 'i', 'f'])
        .and_then(|width| width.parse().ok())
        .filter(|width| (1..=8).contains(width))
        .ok_or_else(|| broken(&format!("its type {kind:?} is not supported")))?;
    if !after("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
        return Err(broken("Fortran order is not supported"));
    }
    let shape = after("'shape'").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let shape = shape.ok_or_else(|| broken("its header names no shape"))?;
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape = sides
        .map(|side| side.parse().map_err(|_| broken("its header names no shape")))
        .collect::<Result<_>>()?;
    Ok(Array { shape, width, start: before + u64::from(len) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::dataset_error;
    use super::*;

    /// A file as NumPy writes it.
    pub fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{header:<117}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values]
            .concat()
    }

    #[test]
    fn frames_are_read_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, npy("|u1", "(2, 1, 3)", &[0, 1, 0, 255, 0, 7])).unwrap();
        assert_eq!(frame_count(&path).unwrap(), 2);
        assert_eq!(
            frame(&path, 0, DecodeLimits::default()).unwrap(),
            (vec![false, true, false], [1, 3])
        );
        assert_eq!(
            frame(&path, 1, DecodeLimits::default()).unwrap(),
            (vec![true, false, true], [1, 3])
        );
        assert!(dataset_error(frame(&path, 2, DecodeLimits::default())).contains("2 frames"));
        assert!(dataset_error(flags(&path)).contains("[2, 1, 3]"));
        let floats: Vec<u8> = [0.0_f32, 1.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(&path, npy("<f4", "(3,)", &floats)).unwrap();
        assert_eq!(flags(&path).unwrap(), [false, true, true]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let whole = npy("|b1", "(2, 1, 3)", &[0, 1, 0, 1, 0, 1]);
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(frame(&path, 1, DecodeLimits::default()).is_err(), "{len}");
        }
        for (kind, shape) in [
            ("|O", "(2,)"),
            ("<c16", "(2,)"),
            ("|u1", "(a,)"),
            ("|u1", "(9223372036854775807, 4, 4)"),
        ] {
            std::fs::write(&path, npy(kind, shape, &[0; 4])).unwrap();
            assert!(
                frame(&path, usize::MAX >> 4, DecodeLimits::default()).is_err(),
                "{kind} {shape}"
            );
            assert!(flags(&path).is_err(), "{kind} {shape}");
        }
    }
}
