//! Reads image folders that are laid out like the MVTec AD data set.
//!
//! ```text
//! screw/train/good/000.png                      good parts, to fit with
//! screw/test/good/000.png                       good parts, to evaluate with
//! screw/test/scratch/000.png                    defective parts, a folder for each kind of defect
//! screw/ground_truth/scratch/000_mask.png       where the defect is (may be left out altogether)
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const IMAGE_EXTENSIONS: &[&str] = &["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];
/// Masks must be exact, so the formats that may be lossy are not among them.
const MASK_EXTENSIONS: &[&str] = &["png", "bmp", "tif", "tiff"];
const GOOD: &str = "good";

/// One category (kind of part) of a data set in the MVTec layout. Only the paths are read; whether
/// the files hold images shows when they are decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MvtecCategory {
    /// The category's name, which is that of its folder.
    pub name: String,
    /// The good images to fit with, sorted.
    pub train: Vec<PathBuf>,
    /// The images to evaluate with, sorted by path.
    pub test: Vec<TestImage>,
}

/// An image to evaluate with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestImage {
    /// The image.
    pub path: PathBuf,
    /// The kind of defect, which is the name of the image's folder; "good" if there is none.
    pub defect: String,
    /// The picture in which the defect's pixels are brighter than mid-grey. Good images have none.
    pub mask: Option<PathBuf>,
}

impl TestImage {
    /// Whether the image shows a defect.
    pub fn is_defective(&self) -> bool {
        self.defect != GOOD
    }
}

impl MvtecCategory {
    /// Lists the images of the category in the folder `root`.
    ///
    /// The mask of `test/<defect>/<stem>.*` is `ground_truth/<defect>/<stem>_mask.png` or
    /// `<stem>.png`; BMP and TIFF will do as well.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] if `train/good` or `test` is missing, if there is no image in
    /// `train/good`, or if there is a folder `ground_truth` but a defective image has no mask in
    /// it; [`Error::Io`] if a folder cannot be listed.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let good = train_folder(root);
        if !good.is_dir() {
            let reason = "expected a folder with the images of good parts to fit with";
            return Err(dataset(&good, reason));
        }
        let test_folder = root.join("test");
        if !test_folder.is_dir() {
            let reason = "expected a folder with the test images, in sub-folders named \"good\" \
                          and after the defects";
            return Err(dataset(&test_folder, reason));
        }

        let train = files(&good, IMAGE_EXTENSIONS)?;
        if train.is_empty() {
            let reason = format!("expected images of good parts ({})", IMAGE_EXTENSIONS.join(", "));
            return Err(dataset(&good, reason));
        }

        let truth = root.join("ground_truth");
        let truth = truth.is_dir().then_some(truth);
        let mut test = Vec::new();
        for folder in folders(&test_folder)? {
            let defect_name = folder.file_name().unwrap_or_default();
            let defect = defect_name.to_string_lossy().into_owned();
            let images = files(&folder, IMAGE_EXTENSIONS)?;
            let Some(truth) = truth.as_ref().filter(|_| defect != GOOD) else {
                test.extend(images.into_iter().map(|path| TestImage {
                    path,
                    defect: defect.clone(),
                    mask: None,
                }));
                continue;
            };
            let mask_folder = truth.join(defect_name);
            let masks = Masks::list(&mask_folder)?;
            for path in images {
                let Some(mask) = masks.of(&path) else {
                    let reason = format!(
                        "this defective image has no mask; expected <name>_mask.png or <name>.png \
                         in {} (without any ground_truth folder, no masks are needed)",
                        mask_folder.display()
                    );
                    return Err(dataset(&path, reason));
                };
                test.push(TestImage { path, defect: defect.clone(), mask: Some(mask) });
            }
        }
        Ok(Self { name: name(root)?, train, test })
    }

    /// Whether there are defective test images and each has a mask, so that localisation can be
    /// evaluated.
    pub fn has_masks(&self) -> bool {
        let mut defective = self.test.iter().filter(|image| image.is_defective()).peekable();
        defective.peek().is_some() && defective.all(|image| image.mask.is_some())
    }
}

/// The folders of the categories in `root`, sorted: `root` itself if it is a category (it has a
/// folder `train/good`), otherwise those of its sub-folders that are.
///
/// # Errors
///
/// [`Error::Dataset`] if there is none, [`Error::Io`] if `root` cannot be listed.
pub fn mvtec_categories(root: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let root = root.as_ref();
    let is_category = |folder: &PathBuf| train_folder(folder).is_dir();
    if train_folder(root).is_dir() {
        return Ok(vec![root.to_owned()]);
    }
    let categories: Vec<_> = folders(root)?.into_iter().filter(is_category).collect();
    if categories.is_empty() {
        let reason = "expected a category in the MVTec layout (a folder that has train/good), or a \
                      folder of categories";
        return Err(dataset(root, reason));
    }
    Ok(categories)
}

/// The masks of one defect's folder by their stems.
struct Masks(BTreeMap<OsString, PathBuf>);

impl Masks {
    fn list(folder: &Path) -> Result<Self> {
        let mut masks = BTreeMap::new();
        if folder.is_dir() {
            for path in files(folder, MASK_EXTENSIONS)? {
                let stem = path.file_stem().unwrap_or_default().to_owned();
                masks.entry(stem).or_insert(path);
            }
        }
        Ok(Self(masks))
    }

    fn of(&self, image: &Path) -> Option<PathBuf> {
        let stem = image.file_stem()?;
        let mut with_suffix = stem.to_owned();
        with_suffix.push("_mask");
        self.0.get(&with_suffix).or_else(|| self.0.get(stem)).cloned()
    }
}

fn dataset(path: &Path, reason: impl Into<String>) -> Error {
    Error::Dataset { path: path.to_owned(), reason: reason.into() }
}

fn train_folder(root: &Path) -> PathBuf {
    root.join("train").join(GOOD)
}

/// The folder's name as the user wrote it, so that a link keeps its own; asks the file system only
/// where the path does not end in a name ("." or "..").
fn name(root: &Path) -> Result<String> {
    if let Some(name) = root.file_name() {
        return Ok(name.to_string_lossy().into_owned());
    }
    let full = root.canonicalize().map_err(Error::io("resolve", root))?;
    Ok(full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned())
}

/// What is in a folder, sorted, without hidden entries (editors and file managers leave those).
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let wanted = |path: &PathBuf| has_extension(path.extension(), extensions) && path.is_file();
    Ok(entries(folder)?.into_iter().filter(wanted).collect())
}

fn has_extension(extension: Option<&OsStr>, wanted: &[&str]) -> bool {
    extension.is_some_and(|e| wanted.iter().any(|w| e.eq_ignore_ascii_case(w)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    fn dataset_error(result: Result<impl std::fmt::Debug>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }), "{error:?}");
        error.to_string()
    }

    fn screw() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        touch(
            &root.path().join("screw"),
            &[
                "train/good/001.PNG",
                "train/good/000.jpg",
                "train/good/.hidden.png",
                "train/good/notes.txt",
                "test/good/000.png",
                "test/scratch/000.png",
                "test/scratch/001.v2.png",
                "test/dent/000.png",
                "test/.cache/000.png",
                "test/readme.png",
                "ground_truth/scratch/000_mask.png",
                "ground_truth/scratch/000.png",
                "ground_truth/scratch/001.v2.BMP",
                "ground_truth/dent/000_mask.tif",
            ],
        );
        root
    }

    #[test]
    fn lists_images_with_their_masks() {
        let root = screw();
        let root = root.path().join("screw");
        let category = MvtecCategory::open(&root).unwrap();
        assert_eq!(category.name, "screw");
        let train = ["000.jpg", "001.PNG"].map(|f| root.join("train/good").join(f));
        assert_eq!(category.train, train);
        let image = |defect: &str, file: &str, mask: Option<&str>| TestImage {
            path: root.join("test").join(defect).join(file),
            defect: defect.into(),
            mask: mask.map(|m| root.join("ground_truth").join(defect).join(m)),
        };
        let test = [
            image("dent", "000.png", Some("000_mask.tif")),
            image("good", "000.png", None),
            image("scratch", "000.png", Some("000_mask.png")),
            image("scratch", "001.v2.png", Some("001.v2.BMP")),
        ];
        assert_eq!(category.test, test);
        let defective = category.test.iter().map(TestImage::is_defective);
        assert!(defective.eq([true, false, true, true]));
        assert!(category.has_masks());
    }

    #[test]
    fn the_name_survives_odd_paths() {
        let root = screw();
        for path in ["screw", "screw/", "screw/.", "screw/test/..", "screw/../screw/"] {
            let category = MvtecCategory::open(root.path().join(path)).unwrap();
            assert_eq!(category.name, "screw", "{path}");
        }
    }

    #[test]
    fn a_missing_mask_is_an_error_only_if_there_are_masks() {
        let root = screw();
        let root = root.path().join("screw");
        touch(&root, &["test/scratch/007.png"]);
        let message = dataset_error(MvtecCategory::open(&root));
        assert!(message.contains("007.png") && message.contains("mask"), "{message}");

        std::fs::remove_dir_all(root.join("ground_truth")).unwrap();
        let category = MvtecCategory::open(&root).unwrap();
        assert_eq!(category.test.len(), 5);
        assert!(!category.has_masks());
        assert!(category.test.iter().all(|image| image.mask.is_none()));

        // A ground_truth folder that lacks the defect's folder is incomplete too.
        std::fs::create_dir(root.join("ground_truth")).unwrap();
        dataset_error(MvtecCategory::open(&root));
    }

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let open = || dataset_error(MvtecCategory::open(root.path()));
        assert!(open().contains("good"));
        std::fs::create_dir_all(root.path().join("train/good")).unwrap();
        assert!(open().contains("test"));
        std::fs::create_dir_all(root.path().join("test")).unwrap();
        touch(root.path(), &["train/good/a.txt"]);
        assert!(open().contains("images of good parts"));
        touch(root.path(), &["train/good/a.webp"]);
        let category = MvtecCategory::open(root.path()).unwrap();
        assert!(category.test.is_empty() && !category.has_masks());
    }

    #[test]
    fn finds_categories() {
        let root = screw();
        touch(root.path(), &["bottle/train/good/0.png", "docs/0.png", ".old/train/good/0.png"]);
        let both = ["bottle", "screw"].map(|c| root.path().join(c));
        assert_eq!(mvtec_categories(root.path()).unwrap(), both);
        assert_eq!(mvtec_categories(&both[1]).unwrap(), both[1..]);
        dataset_error(mvtec_categories(root.path().join("docs")));
        let missing = mvtec_categories(root.path().join("nowhere"));
        assert!(matches!(missing, Err(Error::Io { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn paths_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join(OsStr::from_bytes(b"p\xffrt"));
        touch(&root, &["train/good/0.png"]);
        for (folder, file) in
            [("test", &b"\xfe.png"[..]), ("ground_truth", b"\xfe_mask.png"), ("test", b"\xfe.\xff")]
        {
            let folder = root.join(folder).join(OsStr::from_bytes(b"d\xfd"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(OsStr::from_bytes(file)), b"").unwrap();
        }
        let category = MvtecCategory::open(&root).unwrap();
        assert_eq!(category.name, "p\u{fffd}rt");
        assert_eq!(category.test.len(), 1);
        assert!(category.has_masks());
    }
}
