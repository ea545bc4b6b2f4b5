//! The layout of VisA (Visual Anomaly).

use std::path::PathBuf;

use super::category::{Category, Dataset, MaskFile, Sample};
use super::errors::{failed, unknown};
use super::good::GOOD;
use super::table::rows;
use crate::error::Result;

/// VisA as published: a folder for each kind of part, and `split_csv/1cls.csv`, which lists the
/// training images, the test images and their masks.
#[derive(Debug, Clone)]
pub struct Visa {
    root: PathBuf,
}

impl Visa {
    /// The data set in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn split(&self) -> PathBuf {
        self.root.join("split_csv/1cls.csv")
    }
}

const COLUMNS: &[&str] = &["object", "split", "label", "image", "mask"];

impl Dataset for Visa {
    fn categories(&self) -> Result<Vec<String>> {
        let split = self.split();
        let rows = rows(&split, COLUMNS)?;
        let mut names: Vec<String> =
            rows.iter().filter_map(|row| row.field("object").map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(failed(&split, "lists no image"));
        }
        Ok(names)
    }

    fn category(&self, name: &str) -> Result<Category> {
        let split = self.split();
        let mut category = Category::new(name, Vec::new(), Vec::new());
        for row in rows(&split, COLUMNS)? {
            let field = |name: &str| row.field(name).unwrap_or_default();
            if field("object") != name {
                continue;
            }
            let path = self.root.join(field("image"));
            let good = field("label") == "normal";
            let mask = (!good).then(|| MaskFile::Picture(self.root.join(field("mask"))));
            let defect = if good { GOOD } else { "anomaly" };
            let sample = Sample::new(path, defect, mask);
            match field("split") {
                "train" if good => category.train.push(sample),
                "test" => category.test.push(sample),
                _ => return Err(row.failed("is neither a good training image nor a test image")),
            }
        }
        if category.train.is_empty() {
            return Err(unknown(&split, name, &self.categories()?));
        }
        Ok(category)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dataset_error, write};
    use super::*;
    use crate::preprocess::{DecodeOptions, Mask};
    use image::GrayImage;

    #[test]
    fn the_split_says_what_is_for_training() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(
            root,
            "split_csv/1cls.csv",
            b"object,split,label,image,mask\n\
              candle,train,normal,candle/Data/Images/Normal/0.JPG,\n\
              candle,test,normal,candle/Data/Images/Normal/1.JPG,\n\
              candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n\
              fryum,train,normal,fryum/Data/Images/Normal/0.JPG,\n",
        );
        let visa = Visa::new(root);
        assert_eq!(visa.categories().unwrap(), ["candle", "fryum"]);
        let category = visa.category("candle").unwrap();
        assert_eq!((category.train.len(), category.test.len()), (1, 2));
        assert!(category.has_masks());
        // Masks hold small label values.
        let mask = root.join("candle/Data/Masks/Anomaly/0.png");
        std::fs::create_dir_all(mask.parent().unwrap()).unwrap();
        GrayImage::from_raw(3, 1, vec![0, 1, 4]).unwrap().save(&mask).unwrap();
        let mask = category.test[1].mask.as_ref().unwrap().open(DecodeOptions::default()).unwrap();
        assert_eq!(Mask::of(&mask).marked(), [false, true, true]);
        assert!(dataset_error(visa.category("pcb")).contains("candle, fryum"));
        let message = dataset_error(Visa::new(root.join("candle")).categories());
        assert!(message.contains("1cls.csv"), "{message}");
    }
}
