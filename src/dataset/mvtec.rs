//! The layout of MVTec AD.

use std::path::{Path, PathBuf};

use super::category::{Category, Dataset};
use super::errors::{failed, unknown};
use super::gather::Gathering;
use super::good::{GOOD, means_good};
use super::left_out::Reason;
use super::listing::{
    Entry, Walk, category_folder, category_names, entries, folders, name, some_images,
};
use crate::error::Result;

/// A folder in the MVTec AD layout: a category, or a folder of categories.
///
/// ```text
/// screw/train/good/000.png                      good parts, to fit with
/// screw/test/good/000.png                       good parts, to evaluate with
/// screw/test/scratch/000.png                    defective parts, a folder for each kind of defect
/// screw/ground_truth/scratch/000_mask.png       where the defect is (may be left out altogether)
/// ```
///
/// The mask of `test/<defect>/<stem>.*` is `ground_truth/<defect>/<stem>_mask.png` or `<stem>.png`;
/// BMP and TIFF masks work as well. Images may lie in sub-folders of these folders. Instead of `good`, a
/// folder may be called `OK`, `normal`, `pass` or similar. [`Category::intake`] tells what was left out.
#[derive(Debug, Clone)]
pub struct Mvtec {
    root: PathBuf,
    good_names: Vec<String>,
}

impl Mvtec {
    /// The data set in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), good_names: Vec::new() }
    }

    /// Adds a name of folders with good images, in any case, beside the usual ones: `good`, `OK`,
    /// `normal`, `pass` and others.
    #[must_use]
    pub fn with_good_name(mut self, name: impl Into<String>) -> Self {
        self.good_names.push(name.into());
        self
    }

    /// Lists the images of the category in `folder`.
    ///
    /// # Errors
    ///
    /// As [`Dataset::category`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Category> {
        let folder = folder.as_ref();
        Self::new(folder).read(folder)
    }

    fn read(&self, root: &Path) -> Result<Category> {
        let mut gathering = Gathering::new(name(root)?);
        let training = self.training(root)?;
        for folder in &training {
            let walk = Walk::new(true, &[]);
            gathering.train(some_images(folder, "images of good parts to fit with", walk)?);
        }
        for path in entries(&root.join("train"))? {
            let reason = match Entry::of(&path) {
                Entry::Folder if training.contains(&path) => continue,
                Entry::Folder | Entry::Image => Reason::NotGood,
                Entry::LeftOut(reason) => reason,
            };
            gathering.left_out().add(reason, &path);
        }
        self.read_test(root, &mut gathering)?;
        Ok(gathering.category())
    }

    fn read_test(&self, root: &Path, gathering: &mut Gathering) -> Result<()> {
        let test_folder = root.join("test");
        if !test_folder.is_dir() {
            gathering.warn(format!(
                "there is no folder {}; expected test images in sub-folders named \"good\" and after \
                 the defects",
                test_folder.display()
            ));
            return Ok(());
        }
        let truth = root.join("ground_truth");
        let truth = truth.is_dir().then_some(truth);
        let mut kinds = Vec::new();
        for folder in entries(&test_folder)? {
            match Entry::of(&folder) {
                Entry::Folder => kinds.push(folder),
                Entry::Image => gathering.left_out().add(Reason::NoKind, &folder),
                Entry::LeftOut(reason) => gathering.left_out().add(reason, &folder),
            }
        }
        for folder in &kinds {
            let defect_name = folder.file_name().unwrap_or_default();
            let own = defect_name.to_string_lossy();
            let defect = if means_good(&own, &self.good_names) { GOOD } else { &*own };
            let masks = truth.as_ref().map(|truth| truth.join(defect_name));
            let list = Walk::new(true, &[]).list(folder)?;
            gathering.test(list, defect, folder, masks.as_deref())?;
        }
        // Masks of kinds that have no images.
        for folder in truth.map_or(Ok(Vec::new()), |truth| folders(&truth))? {
            if !kinds.iter().any(|kind| kind.file_name() == folder.file_name()) {
                let masks = Walk::new(true, &[]).list(&folder)?.images;
                masks.iter().for_each(|m| gathering.left_out().add(Reason::MaskWithoutImage, m));
            }
        }
        Ok(())
    }

    /// The folders with the good training images of a category.
    fn training(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let train = root.join("train");
        if !train.is_dir() {
            let reason = "expected a folder with images of good parts to fit with, in a sub-folder \
                          named \"good\"";
            return Err(failed(&train, reason));
        }
        let all = folders(&train)?;
        let names: Vec<String> = all.iter().map(|folder| name(folder)).collect::<Result<_>>()?;
        let good =
            all.into_iter().zip(&names).filter(|(_, name)| means_good(name, &self.good_names));
        let good: Vec<PathBuf> = good.map(|(folder, _)| folder).collect();
        if good.is_empty() {
            let found = match names.as_slice() {
                [] => "it has no sub-folder".to_owned(),
                names => format!("its sub-folders are {}", names.join(", ")),
            };
            let reason = format!(
                "expected a sub-folder \"good\" with images of good parts to fit with; {found}; if one \
                 of them means good, name it by `Mvtec::with_good_name` (`--good NAME`)"
            );
            return Err(failed(&train, reason));
        }
        Ok(good)
    }

    fn is_category(&self, root: &Path) -> bool {
        self.training(root).is_ok()
    }
}

impl Dataset for Mvtec {
    fn categories(&self) -> Result<Vec<String>> {
        if self.is_category(&self.root) {
            return Ok(vec![name(&self.root)?]);
        }
        let expected = "a category in the MVTec layout (a folder that has train/good), or a folder of \
                        categories; other folders are read by `Folder::guess` (the example \
                        evaluate: `--dataset folder:DIR`)";
        category_names(&self.root, |folder| self.is_category(folder), expected)
    }

    fn category(&self, category: &str) -> Result<Category> {
        if self.is_category(&self.root) && name(&self.root)? == category {
            return self.read(&self.root);
        }
        match category_folder(&self.root, category)? {
            Some(folder) => self.read(&folder),
            None => Err(unknown(&self.root, category, &self.categories()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::category::{MaskFile, Sample};
    use super::super::testing::{dataset_error, touch};
    use super::*;
    use crate::error::Error;

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
        let category = Mvtec::open(&root).unwrap();
        assert_eq!(category.name, "screw");
        let train = ["000.jpg", "001.PNG"].map(|f| Sample::good(root.join("train/good").join(f)));
        assert_eq!(category.train, train);
        let image = |defect: &str, file: &str, mask: Option<&str>| Sample {
            path: root.join("test").join(defect).join(file),
            defect: defect.into(),
            mask: mask.map(|m| MaskFile::Picture(root.join("ground_truth").join(defect).join(m))),
            pose: None,
        };
        let test = [
            image("dent", "000.png", Some("000_mask.tif")),
            image("good", "000.png", None),
            image("scratch", "000.png", Some("000_mask.png")),
            image("scratch", "001.v2.png", Some("001.v2.BMP")),
        ];
        assert_eq!(category.test, test);
        let defective = category.test.iter().map(Sample::is_defective);
        assert!(defective.eq([true, false, true, true]));
        assert!(category.has_masks());
    }

    #[test]
    fn the_name_survives_odd_paths() {
        let root = screw();
        for path in ["screw", "screw/", "screw/.", "screw/test/..", "screw/../screw/"] {
            let category = Mvtec::open(root.path().join(path)).unwrap();
            assert_eq!(category.name, "screw", "{path}");
        }
    }

    #[test]
    fn what_lies_in_the_wrong_place_is_told() {
        let root = screw();
        let root = root.path().join("screw");
        touch(&root, &["test/scratch/007.png", "test/dent/000.jpg", "ground_truth/bent/1.png"]);
        touch(&root, &["train/bad/1.png", "train/loose.png", "train/OK/more/2.png"]);
        let report = Mvtec::open(&root).unwrap().intake();
        assert_eq!((report.training, report.good_tests), (3, 1));
        let scratch = report.defects["scratch"];
        assert_eq!((scratch.images, scratch.with_mask), (3, 2));
        let count = |reason| report.left_out.count(reason);
        assert_eq!((count(Reason::NotGood), count(Reason::NoKind)), (2, 1));
        assert_eq!((count(Reason::MaskWithoutImage), count(Reason::SecondMask)), (1, 1));
        let text = report.to_string();
        for part in
            ["has no mask", "007.png", "the same mask", "train/bad", "readme.png", "bent/1.png"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(report.require_no_warning().unwrap_err().to_string().contains("007.png"));

        std::fs::remove_dir_all(root.join("ground_truth")).unwrap();
        let category = Mvtec::open(&root).unwrap();
        assert!(!category.has_masks() && category.test.iter().all(|image| image.mask.is_none()));
        assert!(!category.intake().to_string().contains("has no mask"));
        // With masks of other names only, nothing could be evaluated without a word.
        touch(&root, &["ground_truth/scratch/other.png"]);
        let text = Mvtec::open(&root).unwrap().intake().to_string();
        assert!(text.contains("no defective image has a mask"), "{text}");
    }

    #[test]
    fn good_parts_have_many_names() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root, &["train/OK/0.png", "test/Normal/1.png", "test/NG/2.png"]);
        let report = Mvtec::open(root).unwrap().intake();
        assert_eq!((report.training, report.good_tests, report.defects.len()), (1, 1, 1));
        std::fs::rename(root.join("train/OK"), root.join("train/gut")).unwrap();
        std::fs::rename(root.join("test/Normal"), root.join("test/gut")).unwrap();
        let message = dataset_error(Mvtec::open(root));
        assert!(message.contains("gut") && message.contains("--good"), "{message}");
        let own = Mvtec::new(root).with_good_name("Gut");
        let name = own.categories().unwrap().remove(0);
        assert_eq!(own.category(&name).unwrap().intake().good_tests, 1);
    }

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let open = || dataset_error(Mvtec::open(root.path()));
        assert!(open().contains("good"));
        std::fs::create_dir_all(root.path().join("train/good")).unwrap();
        assert!(open().contains("images of good parts"));
        touch(root.path(), &["train/good/a.txt"]);
        assert!(open().contains("images of good parts"));
        touch(root.path(), &["train/good/a.webp"]);
        let category = Mvtec::open(root.path()).unwrap();
        assert!(category.test.is_empty() && !category.has_masks());
        let text = category.intake().to_string();
        assert!(text.contains("there is no folder") && text.contains("a.txt"), "{text}");
    }

    #[test]
    fn finds_categories() {
        let root = screw();
        touch(root.path(), &["bottle/train/good/0.png", "docs/0.png", ".old/train/good/0.png"]);
        let both = Mvtec::new(root.path());
        assert_eq!(both.categories().unwrap(), ["bottle", "screw"]);
        assert_eq!(both.category("screw").unwrap().name, "screw");
        let single = Mvtec::new(root.path().join("screw"));
        assert_eq!(single.categories().unwrap(), ["screw"]);
        assert_eq!(single.category("screw").unwrap(), both.category("screw").unwrap());
        let message = dataset_error(both.category("nut"));
        assert!(message.contains("\"nut\"") && message.contains("bottle, screw"), "{message}");
        dataset_error(Mvtec::new(root.path().join("docs")).categories());
        let missing = Mvtec::new(root.path().join("nowhere")).categories();
        assert!(matches!(missing, Err(Error::Io { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn paths_need_not_be_unicode() {
        use std::ffi::OsStr;
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
        let category = Mvtec::open(&root).unwrap();
        assert_eq!(category.name, "p\u{fffd}rt");
        assert_eq!(category.test.len(), 1);
        assert!(category.has_masks());
    }
}
