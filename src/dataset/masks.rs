//! Finds the masks of images.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::left_out::{LeftOut, Reason};
use super::listing::{Walk, has_ending};
use crate::error::Result;

/// Formats in which every value survives.
const EXACT: &[&str] = &["png", "bmp", "dib", "tif", "tiff"];

/// The masks in a folder and its sub-folders.
#[derive(Default)]
pub(super) struct Masks {
    /// By the sub-folder and the name without its ending.
    by_name: BTreeMap<(PathBuf, OsString), Mask>,
    left_out: LeftOut,
}

struct Mask {
    path: PathBuf,
    /// The image that has it.
    image: Option<PathBuf>,
}

/// What was found for an image.
#[derive(Default)]
pub(super) struct Found {
    pub mask: Option<PathBuf>,
    /// Another image with the same mask.
    pub shared_with: Option<PathBuf>,
}

impl Masks {
    /// Lists the masks; there are none if there is no such folder.
    pub fn list(folder: &Path) -> Result<Self> {
        let mut masks = Self::default();
        if !folder.is_dir() {
            return Ok(masks);
        }
        let list = Walk::new(true, &[]).list(folder)?;
        masks.left_out = list.left_out;
        for path in list.images {
            if path.extension().is_some() && !has_ending(&path, EXACT) {
                masks.left_out.add(Reason::LossyMask, &path);
                continue;
            }
            let name = (sub_folder(&path, folder), stem(&path));
            match masks.by_name.entry(name) {
                Entry::Occupied(_) => masks.left_out.add(Reason::SecondMask, &path),
                Entry::Vacant(place) => {
                    place.insert(Mask { path, image: None });
                }
            }
        }
        Ok(masks)
    }

    /// The mask of an image in `folder`: `<stem>_mask.png`, or else `<stem>.png`, in the same sub-folder
    /// or in none.
    pub fn of(&mut self, image: &Path, folder: &Path) -> Found {
        let stem = stem(image);
        let mut with_suffix = stem.clone();
        with_suffix.push("_mask");
        let places = [sub_folder(image, folder), PathBuf::new()];
        let names = places
            .iter()
            .flat_map(|place| [&with_suffix, &stem].map(|name| (place.clone(), name.clone())));
        let Some(name) = names.into_iter().find(|name| self.by_name.contains_key(name)) else {
            return Found::default();
        };
        let mask = self.by_name.get_mut(&name);
        let shared_with = mask.and_then(|mask| mask.image.replace(image.to_owned()));
        Found { mask: self.by_name.get(&name).map(|mask| mask.path.clone()), shared_with }
    }

    /// What was left out, when all images have been asked for.
    pub fn left_out(mut self) -> LeftOut {
        for ((place, stem), mask) in &self.by_name {
            if mask.image.is_some() {
                continue;
            }
            // `000.png` beside `000_mask.png`.
            let mut with_suffix = stem.clone();
            with_suffix.push("_mask");
            let second = self.by_name.contains_key(&(place.clone(), with_suffix));
            let reason = if second { Reason::SecondMask } else { Reason::MaskWithoutImage };
            self.left_out.add(reason, &mask.path);
        }
        self.left_out
    }
}

fn stem(path: &Path) -> OsString {
    path.file_stem().unwrap_or_default().to_owned()
}

fn sub_folder(path: &Path, root: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    folder.strip_prefix(root).unwrap_or(Path::new("")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::touch;
    use super::*;

    #[test]
    fn every_mask_is_used_or_counted() {
        let root = tempfile::tempdir().unwrap();
        let (masks, images) = (root.path().join("masks"), root.path().join("images"));
        touch(&masks, &["a_mask.png", "a.png", "b.tif", "b.bmp", "c.jpg", "z.png", "sub/d.png"]);
        let mut all = Masks::list(&masks).unwrap();
        let mut of = |name: &str| {
            let Found { mask, shared_with } = all.of(&images.join(name), &images);
            let mask = mask.map(|mask| mask.strip_prefix(&masks).unwrap().display().to_string());
            (mask.unwrap_or_default(), shared_with.is_some())
        };
        assert_eq!(of("a.jpg"), ("a_mask.png".into(), false));
        assert_eq!(of("a.png"), ("a_mask.png".into(), true));
        assert_eq!(of("b.png"), ("b.bmp".into(), false));
        assert_eq!(of("c.png"), (String::new(), false));
        assert_eq!(of("sub/d.jpg"), ("sub/d.png".into(), false));
        // Masks may all lie in one folder.
        assert_eq!(of("other/a.jpg"), ("a_mask.png".into(), true));
        let left_out = all.left_out();
        assert_eq!(left_out.count(Reason::SecondMask), 2);
        assert_eq!(left_out.count(Reason::LossyMask), 1);
        assert_eq!(left_out.count(Reason::MaskWithoutImage), 1);
    }
}
