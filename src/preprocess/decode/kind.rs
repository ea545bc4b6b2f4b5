//! What a file is, by its first bytes.

use std::io::Read;
use std::path::Path;

use image::ImageFormat;

use crate::error::FileKind;
use crate::files::open;

/// The bytes that tell the format of a file.
pub(super) const BEGINNING: usize = 16;

/// Whether the content of a file begins as one of the formats that this crate reads: PNG, JPEG, BMP, TIFF and
/// WebP. Reads 16 bytes; the file may be damaged all the same. A file that cannot be read is none.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let file = folder.path().join("0001");
/// std::fs::write(&file, b"\x89PNG\r\n\x1a\n...").unwrap();
/// assert!(padim::preprocess::is_image_file(&file));
/// assert!(!padim::preprocess::is_image_file("missing"));
/// ```
pub fn is_image_file(path: impl AsRef<Path>) -> bool {
    let mut beginning = Vec::new();
    open(FileKind::Image, path.as_ref()).is_ok_and(|(file, _)| {
        file.take(BEGINNING as u64).read_to_end(&mut beginning).is_ok()
            && format_of(&beginning).is_some()
    })
}

/// The format of a file that begins so.
pub(super) fn format_of(beginning: &[u8]) -> Option<ImageFormat> {
    let begins = |magic: &[u8]| beginning.starts_with(magic);
    Some(match () {
        () if begins(b"\x89PNG\r\n\x1a\n") => ImageFormat::Png,
        () if begins(b"\xFF\xD8\xFF") => ImageFormat::Jpeg,
        () if begins(b"BM") => ImageFormat::Bmp,
        () if begins(b"RIFF") && beginning.get(8..12) == Some(b"WEBP") => ImageFormat::WebP,
        () if TIFF.iter().any(|magic| begins(magic)) => ImageFormat::Tiff,
        () => return None,
    })
}

/// Classic and BigTIFF, both with either order of bytes.
const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
