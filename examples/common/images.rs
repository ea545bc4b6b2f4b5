//! The images of a folder, as the library lists them. What is left out is told.

use std::path::{Path, PathBuf};

use padim::dataset::{ImageList, list_images, list_images_below};

use super::{Outcome, tell};

/// The images in a folder, without its subfolders, sorted.
pub fn images_in(folder: &Path) -> Outcome<Vec<PathBuf>> {
    told(folder, list_images(folder)?)
}

/// An image, or the images of a folder with its subfolders, sorted.
pub fn images_below(path: &Path) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    told(path, list_images_below(path)?)
}

fn told(folder: &Path, list: ImageList) -> Outcome<Vec<PathBuf>> {
    if !list.left_out.is_empty() {
        tell!("{}", list.left_out);
    }
    if list.images.is_empty() {
        return Err(format!("{} holds no images", folder.display()).into());
    }
    Ok(list.images)
}
