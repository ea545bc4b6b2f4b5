//! Lists the images of a folder, and counts what it leaves out. All readers of folders use it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::errors::failed;
use super::left_out::{LeftOut, Reason};
use crate::error::{Error, FileKind, Result};
use crate::preprocess::is_image_file;

/// Endings of the formats that this crate reads.
const IMAGE_ENDINGS: &[&str] = &[
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp", "bmp", "dib", "tif",
    "tiff", "webp",
];
/// Endings of other images.
const OTHER_IMAGES: &[&str] = &[
    "gif", "heic", "heif", "hif", "avif", "jp2", "j2k", "jpx", "jxl", "ppm", "pgm", "pbm", "pnm",
    "exr", "hdr", "tga", "ico", "psd", "dng", "cr2", "cr3", "nef", "arw", "raw", "svg", "dcm",
];
/// Endings of files that are still written, or of backups.
const UNFINISHED: &[&str] = &["part", "tmp", "temp", "crdownload", "partial", "bak", "swp"];
/// Files and folders that operating systems leave behind, in lower case.
const OF_THE_SYSTEM: &[&str] = &[
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "$recycle.bin",
    "@eadir",
    "system volume information",
    "lost+found",
];

/// The images of a folder, and what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageList {
    /// The images, sorted by path.
    pub images: Vec<PathBuf>,
    /// What was left out, and why.
    pub left_out: LeftOut,
}

/// Lists the images in a folder, not in its sub-folders: files with the ending of a format that this crate
/// reads, and files without a known ending whose content is such an image.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read.
///
/// ```no_run
/// let list = padim::dataset::list_images("photos/good")?;
/// println!("{} images\n{}", list.images.len(), list.left_out);
/// # Ok::<(), padim::Error>(())
/// ```
pub fn list_images(folder: impl AsRef<Path>) -> Result<ImageList> {
    Walk::new(false, &[]).list(folder.as_ref())
}

/// As [`list_images`], and in its sub-folders. Each folder is read once, whatever links lead to it.
///
/// # Errors
///
/// As [`list_images`].
pub fn list_images_below(folder: impl AsRef<Path>) -> Result<ImageList> {
    Walk::new(true, &[]).list(folder.as_ref())
}

/// The images in a folder, sorted by name, as [`dataset::list_images`](crate::dataset::list_images) lists
/// them. That function also tells what was left out.
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
    Ok(some_images(folder.as_ref(), "images", Walk::new(false, &[]))?.images)
}

/// What an entry of a folder is, for all programs that look for images in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// An image in a format that this crate reads.
    Image,
    /// A folder.
    Folder,
    /// Something that is left out.
    LeftOut(Reason),
}

impl Entry {
    /// Looks at a file or folder; links are followed. Only a file without a known ending is opened.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        if is_hidden(name) {
            return Self::LeftOut(Reason::Hidden);
        }
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(_) if path.is_symlink() => return Self::LeftOut(Reason::DeadLink),
            Err(_) => return Self::LeftOut(Reason::Refused),
        };
        if about.is_dir() {
            return Self::Folder;
        }
        if !about.is_file() {
            return Self::LeftOut(Reason::NoFile);
        }
        if has_ending(path, IMAGE_ENDINGS) {
            Self::Image
        } else if has_ending(path, UNFINISHED) || name.as_encoded_bytes().ends_with(b"~") {
            Self::LeftOut(Reason::Unfinished)
        } else if has_ending(path, OTHER_IMAGES) {
            Self::LeftOut(Reason::OtherFormat)
        } else if is_image_file(path) {
            Self::Image
        } else {
            Self::LeftOut(Reason::NoImage)
        }
    }
}

pub(super) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().unwrap_or_default();
    endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Whether a name is hidden, or left by an operating system.
fn is_hidden(name: &OsStr) -> bool {
    let known = |name: &str| OF_THE_SYSTEM.contains(&name.to_lowercase().as_str());
    name.as_encoded_bytes().starts_with(b".") || name.to_str().is_some_and(known)
}

/// A search for images.
pub(super) struct Walk<'a> {
    sub_folders: bool,
    /// Folders that are read as something else.
    without: &'a [PathBuf],
    /// The folders around, without links.
    around: HashSet<PathBuf>,
}

impl<'a> Walk<'a> {
    /// A search, also in sub-folders or not, but never in the folders `without`.
    pub fn new(sub_folders: bool, without: &'a [PathBuf]) -> Self {
        Self { sub_folders, without, around: HashSet::new() }
    }

    pub fn list(mut self, folder: &Path) -> Result<ImageList> {
        let mut list = ImageList::default();
        let full = folder.canonicalize().map_err(Error::io(FileKind::Dataset, "list", folder))?;
        self.around.insert(full);
        self.look(folder, &mut list)?;
        list.leave_out_second_names();
        list.images.sort();
        Ok(list)
    }

    fn look(&mut self, folder: &Path, list: &mut ImageList) -> Result<()> {
        for path in entries(folder)? {
            match Entry::of(&path) {
                Entry::Image => list.images.push(path),
                Entry::Folder => self.enter(&path, list)?,
                Entry::LeftOut(reason) => list.left_out.add(reason, &path),
            }
        }
        Ok(())
    }

    /// Each folder is read once: a link may lead back to a folder around it, or to one beside it.
    fn enter(&mut self, folder: &Path, list: &mut ImageList) -> Result<()> {
        let Ok(full) = folder.canonicalize() else {
            list.left_out.add(Reason::Refused, folder);
            return Ok(());
        };
        if self.without.iter().any(|other| other.canonicalize().is_ok_and(|other| other == full)) {
            return Ok(());
        }
        if !self.around.insert(full) {
            list.left_out.add(Reason::SecondName, folder);
            return Ok(());
        }
        if self.sub_folders {
            if self.look(folder, list).is_err() {
                list.left_out.add(Reason::Refused, folder);
            }
        } else {
            count_inside(folder, &mut list.left_out);
        }
        Ok(())
    }
}

/// Counts the images that are not taken because they lie in a sub-folder. It goes by the endings, follows
/// no links, and stops after many names, because the folder may hold anything.
fn count_inside(folder: &Path, left_out: &mut LeftOut) {
    const MOST: usize = 20_000;
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for path in entries(&folder).unwrap_or_default() {
            seen += 1;
            if seen > MOST {
                return;
            }
            if is_hidden(path.file_name().unwrap_or_default()) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if has_ending(&path, IMAGE_ENDINGS) {
                left_out.add(Reason::SubFolder, &path);
            }
        }
    }
}

impl ImageList {
    /// Of a file and the links to it, only the file stays.
    fn leave_out_second_names(&mut self) {
        let is_link = |path: &Path| path.is_symlink();
        if !self.images.iter().any(|path| is_link(path)) {
            return;
        }
        let mut seen = HashSet::new();
        let (links, mut files): (Vec<_>, Vec<_>) =
            self.images.drain(..).partition(|path| is_link(path));
        seen.extend(files.iter().filter_map(|path| path.canonicalize().ok()));
        for link in links {
            if link.canonicalize().is_ok_and(|full| !seen.insert(full)) {
                self.left_out.add(Reason::SecondName, &link);
            } else {
                files.push(link);
            }
        }
        self.images = files;
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

/// The entries of a folder, sorted.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(FileKind::Dataset, "list", folder)(error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// The sub-folders of a folder that are not hidden, sorted.
pub(super) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_folder = |path: &PathBuf| Entry::of(path) == Entry::Folder;
    Ok(entries(folder)?.into_iter().filter(is_folder).collect())
}

/// The frames of a video, in the order of the numbers in their names: `9.jpg`, `10.jpg`, `100.jpg`.
pub(super) fn frames(folder: &Path) -> Result<ImageList> {
    let mut list = list_images(folder)?;
    list.images.sort_by_cached_key(|path| natural_key(path.file_name().unwrap_or_default()));
    Ok(list)
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
pub(super) fn some_images(folder: &Path, what: &str, walk: Walk<'_>) -> Result<ImageList> {
    if !folder.is_dir() {
        return Err(failed(folder, format!("expected a folder with {what}")));
    }
    let list = walk.list(folder)?;
    if list.images.is_empty() {
        let mut reason = format!("expected {what} (PNG, JPEG, BMP, TIFF or WebP)");
        if !list.left_out.is_empty() {
            reason = format!("{reason}; {}", list.left_out.to_string().replace('\n', "; "));
        }
        return Err(failed(folder, reason));
    }
    Ok(list)
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
    use super::super::testing::{touch, write};
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

    #[test]
    fn every_file_is_taken_or_counted() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let png = b"\x89PNG\r\n\x1a\n and so on";
        for name in ["a.png", "b.JFIF", "c.jpe", "d.Tiff", "more/deep/e.png", "more/.x/f.png"] {
            write(root, name, png);
        }
        for name in ["0001", "part.001"] {
            write(root, name, png);
        }
        for name in
            [".g.png", "._a.png", "Thumbs.db", "notes.txt", "h.gif", "i.png.part", "j.png~", "0002"]
        {
            write(root, name, b"text");
        }
        let list = list_images(root).unwrap();
        let names = |list: &ImageList| -> Vec<String> {
            let relative = list.images.iter().map(|path| path.strip_prefix(root).unwrap());
            relative.map(|path| path.display().to_string()).collect()
        };
        assert_eq!(names(&list), ["0001", "a.png", "b.JFIF", "c.jpe", "d.Tiff", "part.001"]);
        let counts = |list: &ImageList| {
            list.left_out.reasons().map(|(r, files)| (r, files.count)).collect::<Vec<_>>()
        };
        use Reason::{Hidden, NoImage, OtherFormat, SubFolder, Unfinished};
        let others = [(Hidden, 3), (NoImage, 2), (Unfinished, 2), (OtherFormat, 1)];
        assert_eq!(counts(&list), [&others[..], &[(SubFolder, 1)]].concat());
        let text = list.left_out.to_string();
        assert!(text.contains("more/deep/e.png") && text.contains("h.gif"), "{text}");

        let all = Walk::new(true, &[]).list(root).unwrap();
        assert_eq!(all.images.len(), 7);
        assert!(names(&all).contains(&"more/deep/e.png".to_owned()));
        assert_eq!(all.left_out.count(Hidden), 4);
        let without = Walk::new(true, &[root.join("more")]).list(root).unwrap();
        assert_eq!(without.images, list.images);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_once() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root, &["in/a.png", "in/sub/b.png", "out/c.png"]);
        let link = |to: &Path, name: &str| symlink(to, root.join("in").join(name)).unwrap();
        link(&root.join("in"), "back");
        link(&root.join("in/sub"), "twice");
        link(&root.join("in/a.png"), "a-again.png");
        link(&root.join("out"), "elsewhere");
        link(&root.join("out/c.png"), "c.png");
        link(&root.join("nowhere.png"), "dead.png");
        link(&root.join("in/sub/back-too"), "sub/back-too");
        let list = Walk::new(true, &[]).list(&root.join("in")).unwrap();
        // `c.png` is reached by two links; one of them counts.
        assert_eq!(list.images.len(), 3, "{list:?}");
        assert_eq!(list.left_out.count(Reason::DeadLink), 2);
        assert_eq!(list.left_out.count(Reason::SecondName), 4);
    }
}
