//! Lists images and masks in folders.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::errors::failed;
use crate::error::{Error, FileKind, Result};

const IMAGE_EXTENSIONS: &[&str] = &["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];
/// Masks must be exact, so formats that may be lossy are left out.
const MASK_EXTENSIONS: &[&str] = &["png", "bmp", "tif", "tiff"];

/// The masks in a folder, by file stem.
pub(super) struct Masks {
    folder: PathBuf,
    by_stem: BTreeMap<OsString, PathBuf>,
}

impl Masks {
    pub fn list(folder: &Path) -> Result<Self> {
        let mut by_stem = BTreeMap::new();
        if folder.is_dir() {
            for path in files(folder, MASK_EXTENSIONS)? {
                let stem = path.file_stem().unwrap_or_default().to_owned();
                by_stem.entry(stem).or_insert(path);
            }
        }
        Ok(Self { folder: folder.to_owned(), by_stem })
    }

    /// The mask of an image: `<stem>_mask.png`, or else `<stem>.png`.
    pub fn of(&self, image: &Path) -> Result<PathBuf> {
        let stem = image.file_stem().unwrap_or_default();
        let mut with_suffix = stem.to_owned();
        with_suffix.push("_mask");
        let mask = self.by_stem.get(&with_suffix).or_else(|| self.by_stem.get(stem));
        mask.cloned().ok_or_else(|| {
            let reason = format!(
                "this defective image has no mask; expected <name>_mask.png or <name>.png in {} \
                 (if there is no mask folder at all, none are needed)",
                self.folder.display()
            );
            failed(image, reason)
        })
    }
}

/// The folder's name as the user wrote it, so that a symbolic link keeps its own name. Asks the
/// file system only if the path ends in "." or "..".
pub(super) fn name(root: &Path) -> Result<String> {
    if let Some(name) = root.file_name() {
        return Ok(name.to_string_lossy().into_owned());
    }
    let full = root.canonicalize().map_err(Error::io(FileKind::Dataset, "resolve", root))?;
    Ok(full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned())
}

/// The entries of a folder, sorted, without hidden ones (left by editors and file managers).
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(FileKind::Dataset, "list", folder))? {
        let entry = entry.map_err(Error::io(FileKind::Dataset, "list", folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let wanted = |path: &PathBuf| has_extension(path.extension(), extensions) && path.is_file();
    Ok(entries(folder)?.into_iter().filter(wanted).collect())
}

/// The images of a folder, sorted by name: files that end as those of the formats that this crate reads.
/// Hidden files and folders inside are left out.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read, [`Error::Dataset`] if it has no image.
///
/// ```no_run
/// for path in padim::images_in("photos/good")? {
///     println!("{}", path.display());
/// }
/// # Ok::<(), padim::Error>(())
/// ```
pub fn images_in(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    some_images(folder.as_ref(), "images")
}

pub(super) fn images(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, IMAGE_EXTENSIONS)
}

/// The frames of a video, in the order of the numbers in their names: `9.jpg`, `10.jpg`, `100.jpg`.
pub(super) fn frames(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut frames = images(folder)?;
    frames.sort_by_cached_key(|path| natural_key(path.file_name().unwrap_or_default()));
    Ok(frames)
}

/// A sort key for natural order: consecutive digits count as one number.
fn natural_key(name: &OsStr) -> Vec<(bool, usize, Vec<u8>)> {
    let name = name.as_encoded_bytes();
    let parts = name.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    let key = |part: &[u8]| match part[0].is_ascii_digit() {
        // Of two numbers without leading zeros, the longer one is larger.
        true => {
            let zeros = part.iter().take_while(|&&digit| digit == b'0').count();
            (false, part.len() - zeros, part[zeros..].to_vec())
        }
        false => (true, 0, part.to_vec()),
    };
    parts.map(key).collect()
}

/// The images of a folder, which must hold at least one.
pub(super) fn some_images(folder: &Path, what: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Err(failed(folder, format!("expected a folder with {what}")));
    }
    let found = images(folder)?;
    if found.is_empty() {
        let reason = format!("expected {what} ({})", IMAGE_EXTENSIONS.join(", "));
        return Err(failed(folder, reason));
    }
    Ok(found)
}

fn has_extension(extension: Option<&OsStr>, wanted: &[&str]) -> bool {
    extension.is_some_and(|e| wanted.iter().any(|w| e.eq_ignore_ascii_case(w)))
}

/// The sub-folder with the category's name.
pub(super) fn category_folder(root: &Path, category: &str) -> Result<Option<PathBuf>> {
    for folder in folders(root)? {
        if name(&folder)? == category {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// The names of the sub-folders that are categories; without any, an error that says what was
/// `expected`.
pub(super) fn category_names(
    root: &Path,
    is_category: impl Fn(&Path) -> bool,
    expected: &str,
) -> Result<Vec<String>> {
    let names: Vec<String> = folders(root)?
        .iter()
        .filter(|folder| is_category(folder))
        .map(|folder| name(folder))
        .collect::<Result<_>>()?;
    if names.is_empty() {
        return Err(failed(root, format!("expected {expected}")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let ordered = [
            "7",
            "007",
            "8.jpg",
            "9.jpg",
            "10.jpg",
            "099.jpg",
            "100.jpg",
            "1000.jpg",
            "a",
            "a2b9c",
            "a2b10",
            "a10",
            "frame_9",
            "frame_10",
            "frame_10_2",
            "frame_10_10",
            "frame_99999999999999999999998",
            "frame_99999999999999999999999",
        ];
        let keys: Vec<_> = ordered.iter().map(|name| natural_key(OsStr::new(name))).collect();
        for (i, pair) in keys.windows(2).enumerate() {
            assert!(pair[0] <= pair[1], "{} {}", ordered[i], ordered[i + 1]);
        }
        assert_eq!(natural_key(OsStr::new("7")), natural_key(OsStr::new("007")));
    }
}
