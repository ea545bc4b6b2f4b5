//! The layout of BTAD (beanTech Anomaly Detection).

use std::path::{Path, PathBuf};

use super::category::{Category, Dataset};
use super::errors::{failed, unknown};
use super::gather::Gathering;
use super::good::GOOD;
use super::listing::{Walk, category_folder, category_names, some_images};
use crate::error::Result;

/// A folder in the BTAD layout: `01/train/ok`, `01/test/ok`, `01/test/ko`, and `01/ground_truth/ko`
/// with masks named like their images.
#[derive(Debug, Clone)]
pub struct Btad {
    root: PathBuf,
}

impl Btad {
    /// The data set in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Dataset for Btad {
    fn categories(&self) -> Result<Vec<String>> {
        let is_category = |folder: &Path| folder.join("train/ok").is_dir();
        category_names(&self.root, is_category, "folders that have train/ok, as in BTAD")
    }

    fn category(&self, category: &str) -> Result<Category> {
        let Some(folder) = category_folder(&self.root, category)? else {
            return Err(unknown(&self.root, category, &self.categories()?));
        };
        let walk = || Walk::new(true, &[]);
        let mut gathering = Gathering::new(category);
        let training =
            some_images(&folder.join("train/ok"), "images of good parts to fit with", walk());
        gathering.train(training?);
        let masks = folder.join("ground_truth/ko");
        for kind in ["ok", "ko"] {
            let images_of = folder.join("test").join(kind);
            if !images_of.is_dir() {
                return Err(failed(&images_of, "expected a folder with test images"));
            }
            let defect = if kind == "ok" { GOOD } else { kind };
            gathering.test(walk().list(&images_of)?, defect, &images_of, Some(&masks))?;
        }
        Ok(gathering.category())
    }
}

#[cfg(test)]
mod tests {
    use super::super::category::Sample;
    use super::super::testing::{dataset_error, touch};
    use super::*;

    #[test]
    fn lists_good_and_defective_images() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            "01/train/ok/0000.bmp",
            "01/test/ok/0001.bmp",
            "01/test/ko/0002.bmp",
            "01/ground_truth/ko/0002.png",
            "02/train/ok/0000.png",
        ];
        touch(root.path(), &files);
        let btad = Btad::new(root.path());
        assert_eq!(btad.categories().unwrap(), ["01", "02"]);
        let category = btad.category("01").unwrap();
        assert_eq!(category.train, [Sample::good(root.path().join("01/train/ok/0000.bmp"))]);
        assert_eq!(category.test.len(), 2);
        assert!(!category.test[0].is_defective() && category.test[1].is_defective());
        assert!(category.has_masks());
        assert!(dataset_error(btad.category("02")).contains("test"));
        assert!(dataset_error(btad.category("03")).contains("01, 02"));
        touch(root.path(), &["01/test/ko/0003.bmp"]);
        let warnings = btad.category("01").unwrap().intake().warnings;
        assert!(warnings[0].to_string().contains("0003.bmp"), "{warnings:?}");
    }
}
