//! Which files of a folder are images. All examples ask here.

use std::path::{Path, PathBuf};

use super::Outcome;

/// File name extensions of images.
const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];

/// What a file in a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Image,
    Folder,
    /// Hidden, or being written (`.tmp`, `.part`): nothing to tell about.
    Ignored,
    /// Never an image, and why.
    Other(String),
}

impl Entry {
    /// Looks at a file; links are followed.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with('.') || ["tmp", "part"].contains(&&*extension) {
            return Self::Ignored;
        }
        match std::fs::metadata(path) {
            Ok(about) if about.is_dir() => Self::Folder,
            Ok(about) if !about.is_file() => Self::Other("no file".into()),
            Ok(_) if EXTENSIONS.contains(&&*extension) => Self::Image,
            Ok(_) => Self::Other(format!("no image by its name ({})", EXTENSIONS.join(", "))),
            Err(_) if path.is_symlink() => Self::Other("a link that leads nowhere".into()),
            // It is gone already.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Ignored,
            Err(error) => Self::Other(format!("cannot be read: {error}")),
        }
    }
}

/// The images in a folder, without its subfolders, sorted.
pub fn images_in(folder: &Path) -> padim::Result<Vec<PathBuf>> {
    padim::images_in(folder)
}

/// An image, or the images of a folder with its subfolders, sorted.
pub fn images_below(path: &Path) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut images = Vec::new();
    collect(path, &mut images)?;
    images.sort();
    if images.is_empty() {
        return Err(format!("{} holds no images", path.display()).into());
    }
    Ok(images)
}

fn collect(folder: &Path, images: &mut Vec<PathBuf>) -> Outcome {
    let failed = |e| format!("cannot read {}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match Entry::of(&path) {
            Entry::Image => images.push(path),
            Entry::Folder => collect(&path, images)?,
            Entry::Ignored | Entry::Other(_) => {}
        }
    }
    Ok(())
}
