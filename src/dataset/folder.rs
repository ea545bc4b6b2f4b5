//! Folders with arbitrary names.

use std::path::PathBuf;

use super::category::{Category, Dataset, GOOD, MaskFile, Sample};
use super::errors::{failed, unknown};
use super::listing::{Masks, images, name, some_images};
use crate::error::Result;
use crate::random::Random;

/// One category, from arbitrary folders of good and defective images.
///
/// Part of the good images is held out for the test, unless a folder of good test images is given.
///
/// ```no_run
/// use padim::dataset::{Dataset, Folder};
///
/// let bolts = Folder::new("bolts", "photos/good").with_defects("photos/bent").with_masks("masks");
/// let category = bolts.category("bolts")?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Folder {
    name: String,
    good: PathBuf,
    good_test: Option<PathBuf>,
    defects: Vec<PathBuf>,
    masks: Option<PathBuf>,
    test_share: f64,
    seed: u64,
}

impl Folder {
    /// A category called `name`, with its good images in the folder `good`.
    pub fn new(name: impl Into<String>, good: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            good: good.into(),
            good_test: None,
            defects: Vec::new(),
            masks: None,
            test_share: 0.2,
            seed: 0,
        }
    }

    /// Adds a folder of defective images. The folder's name is the kind of defect. Call it once for
    /// each kind.
    #[must_use]
    pub fn with_defects(mut self, folder: impl Into<PathBuf>) -> Self {
        self.defects.push(folder.into());
        self
    }

    /// Sets the folder of the masks: `<stem>_mask.png` or `<stem>.png` for each defective image,
    /// directly in it or in a sub-folder named like the defect's folder.
    #[must_use]
    pub fn with_masks(self, folder: impl Into<PathBuf>) -> Self {
        Self { masks: Some(folder.into()), ..self }
    }

    /// Sets a folder of good test images. All images in `good` are then for training.
    #[must_use]
    pub fn with_good_test(self, folder: impl Into<PathBuf>) -> Self {
        Self { good_test: Some(folder.into()), ..self }
    }

    /// Sets the share of the good images that is drawn for the test, in `[0, 1)`, and the seed of
    /// the draw. Default: 0.2 and 0.
    #[must_use]
    pub fn with_split(self, test_share: f64, seed: u64) -> Self {
        Self { test_share, seed, ..self }
    }
}

impl Dataset for Folder {
    fn categories(&self) -> Result<Vec<String>> {
        Ok(vec![self.name.clone()])
    }

    fn category(&self, category: &str) -> Result<Category> {
        if category != self.name {
            return Err(unknown(&self.good, category, std::slice::from_ref(&self.name)));
        }
        let good = some_images(&self.good, "images of good parts")?;
        let (train, good_test) = match &self.good_test {
            Some(folder) => (good, images(folder)?),
            None => {
                if !(0.0..1.0).contains(&self.test_share) {
                    let reason = format!("must be in 0..1, is {}", self.test_share);
                    return Err(crate::error::Error::config("test_share", reason));
                }
                let count = (good.len() as f64 * self.test_share).round() as usize;
                let mut held_out = vec![false; good.len()];
                for place in Random::new(self.seed).sample(good.len(), count) {
                    held_out[place] = true;
                }
                let (test, train): (Vec<_>, Vec<_>) =
                    good.into_iter().zip(held_out).partition(|(_, held_out)| *held_out);
                let paths = |pairs: Vec<(PathBuf, bool)>| pairs.into_iter().map(|p| p.0).collect();
                (paths(train), paths(test))
            }
        };
        if train.is_empty() {
            return Err(failed(&self.good, "no image remains for training; lower the test share"));
        }
        let mut test: Vec<Sample> = good_test.into_iter().map(Sample::good).collect();
        for folder in &self.defects {
            let defect = match name(folder)? {
                // `GOOD` is reserved for images without a defect.
                taken if taken == GOOD => "defect".into(),
                other => other,
            };
            let masks = self.masks.as_ref().map(|masks| {
                let own = masks.join(folder.file_name().unwrap_or_default());
                Masks::list(if own.is_dir() { &own } else { masks })
            });
            let masks = masks.transpose()?;
            for path in some_images(folder, "images of defective parts")? {
                let mask = masks.as_ref().map(|masks| masks.of(&path)).transpose()?;
                test.push(Sample::new(path, &defect, mask.map(MaskFile::Picture)));
            }
        }
        let train = train.into_iter().map(Sample::good).collect();
        Ok(Category { name: self.name.clone(), train, test })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dataset_error, touch};
    use super::*;

    #[test]
    fn good_images_are_split_by_seed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let good: Vec<String> = (0..20).map(|i| format!("fine/{i:02}.png")).collect();
        touch(root, &good.iter().map(String::as_str).collect::<Vec<_>>());
        touch(root, &["bent/a.png", "cracked/a.jpg", "truth/a.png", "truth/cracked/a_mask.png"]);
        let nuts = Folder::new("nuts", root.join("fine"))
            .with_defects(root.join("bent"))
            .with_defects(root.join("cracked"))
            .with_masks(root.join("truth"));
        assert_eq!(nuts.categories().unwrap(), ["nuts"]);
        let category = nuts.category("nuts").unwrap();
        assert_eq!((category.train.len(), category.test.len()), (16, 4 + 2));
        assert_eq!(category, nuts.category("nuts").unwrap());
        let other = nuts.clone().with_split(0.2, 1).category("nuts").unwrap();
        assert_ne!(category.train, other.train);
        let mut all: Vec<_> = category.train.iter().chain(&category.test[..4]).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup();
        assert_eq!(all.len(), 20);
        let masks: Vec<_> = category.test[4..].iter().map(|s| s.mask.clone()).collect();
        let picture = |file: &str| Some(MaskFile::Picture(root.join("truth").join(file)));
        assert_eq!(masks, [picture("a.png"), picture("cracked/a_mask.png")]);
        let defects: Vec<&str> = category.test[4..].iter().map(|s| s.defect.as_str()).collect();
        assert_eq!(defects, ["bent", "cracked"]);

        let own = nuts.clone().with_good_test(root.join("bent")).category("nuts").unwrap();
        assert_eq!((own.train.len(), own.test.len()), (20, 3));
    }

    #[test]
    fn says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root, &["fine/a.png", "bent/b.png", "truth/c.png"]);
        let nuts = Folder::new("nuts", root.join("fine"));
        assert!(dataset_error(nuts.category("bolts")).contains("nuts"));
        assert!(
            dataset_error(Folder::new("x", root.join("no")).category("x")).contains("good parts")
        );
        let bent = nuts.clone().with_defects(root.join("bent")).with_masks(root.join("truth"));
        assert!(dataset_error(bent.category("nuts")).contains("b.png"));
        assert!(dataset_error(nuts.clone().with_split(0.9, 0).category("nuts")).contains("share"));
        assert!(nuts.with_split(1.0, 0).category("nuts").is_err());
    }
}
