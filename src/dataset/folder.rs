//! Folders with arbitrary names.

use std::path::{Path, PathBuf};

use super::category::{Category, Dataset};
use super::errors::{failed, unknown};
use super::gather::Gathering;
use super::good::{GOOD, means_good};
use super::listing::{ImageList, Walk, folders, name, some_images};
use crate::error::{Error, Result};
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
    /// Whether good images are also looked for in sub-folders.
    sub_folders: bool,
}

/// Names of folders with masks, in lower case.
const MASK_NAMES: [&str; 5] = ["masks", "mask", "ground_truth", "groundtruth", "gt"];

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
            sub_folders: true,
        }
    }

    /// Guesses from the names of the sub-folders of `root`: those with a name that means good (`good`,
    /// `OK`, `normal`, .., or one of `good_names`), perhaps one with masks, and each other one with a kind
    /// of defect. If none means good, the images beside the sub-folders are the good ones. The category
    /// is called like the folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the folder cannot be read.
    pub fn guess(root: impl AsRef<Path>, good_names: &[String]) -> Result<Self> {
        let root = root.as_ref();
        let mut others = folders(root)?;
        let mut take = |wanted: &dyn Fn(&str) -> bool| -> Result<Option<PathBuf>> {
            let names: Vec<String> = others.iter().map(|path| name(path)).collect::<Result<_>>()?;
            Ok(names.iter().position(|name| wanted(name)).map(|place| others.remove(place)))
        };
        let good = take(&|name| means_good(name, good_names))?;
        // The training images of a data set that has its tests elsewhere.
        let good = match good {
            None => take(&|name| name.eq_ignore_ascii_case("train"))?,
            some => some,
        };
        let masks = take(&|name| MASK_NAMES.contains(&name.to_lowercase().as_str()))?;
        let mut folder = Self::new(name(root)?, good.as_deref().unwrap_or(root));
        folder.masks = masks;
        match good {
            Some(_) => folder.defects = others,
            None => folder.sub_folders = false,
        }
        Ok(folder)
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
        // Folders of other images may lie in the folder of good ones.
        let others: Vec<PathBuf> =
            self.defects.iter().chain(&self.masks).chain(&self.good_test).cloned().collect();
        let walk = || Walk::new(self.sub_folders, &others);
        let mut gathering = Gathering::new(&self.name);
        let good = some_images(&self.good, "images of good parts", walk())?;
        match &self.good_test {
            Some(folder) => {
                gathering.train(good);
                let tests = Walk::new(true, &[]).list(folder)?;
                gathering.test(tests, GOOD, folder, None)?;
            }
            None => {
                let (train, test) = self.split(good)?;
                gathering.train(train);
                gathering.test(test, GOOD, &self.good, None)?;
            }
        }
        for folder in &self.defects {
            let defect = match name(folder)? {
                // `GOOD` is reserved for images without a defect.
                taken if taken == GOOD => "defect".into(),
                other => other,
            };
            let masks = self.masks.as_ref().map(|masks| {
                let own = masks.join(folder.file_name().unwrap_or_default());
                if own.is_dir() { own } else { masks.clone() }
            });
            let without: Vec<PathBuf> = self.masks.iter().cloned().collect();
            let walk = Walk::new(true, &without);
            let list = some_images(folder, "images of defective parts", walk)?;
            gathering.test(list, &defect, folder, masks.as_deref())?;
        }
        Ok(gathering.category())
    }
}

impl Folder {
    /// Draws the good images for the test.
    fn split(&self, good: ImageList) -> Result<(ImageList, ImageList)> {
        if !(0.0..1.0).contains(&self.test_share) {
            let reason = format!("must be in 0..1, is {}", self.test_share);
            return Err(Error::config("test_share", reason));
        }
        let ImageList { images, left_out } = good;
        let count = (images.len() as f64 * self.test_share).round() as usize;
        let mut held_out = vec![false; images.len()];
        for place in Random::new(self.seed).sample(images.len(), count) {
            held_out[place] = true;
        }
        let (mut train, mut test) = (ImageList::default(), ImageList::default());
        for (path, held_out) in images.into_iter().zip(held_out) {
            if held_out { &mut test } else { &mut train }.images.push(path);
        }
        if train.images.is_empty() {
            return Err(failed(&self.good, "no image remains for training; lower the test share"));
        }
        train.left_out = left_out;
        Ok((train, test))
    }
}

#[cfg(test)]
mod tests {
    use super::super::category::MaskFile;
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
        let warnings = bent.category("nuts").unwrap().intake().warnings;
        let text: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|line| line.contains("no defective image has a mask")), "{text:?}");
        assert!(dataset_error(nuts.clone().with_split(0.9, 0).category("nuts")).contains("share"));
        assert!(nuts.with_split(1.0, 0).category("nuts").is_err());
    }

    #[test]
    fn names_tell_which_folder_is_what() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root, &["a/OK/0.png", "a/OK/1.png", "a/NG/2.png", "a/.git/3.png", "a/GT/2.png"]);
        let report = |folder: &str, names: &[String]| {
            let guess = Folder::guess(root.join(folder), names).unwrap().with_split(0.0, 0);
            guess.category(folder).unwrap().intake()
        };
        let known = report("a", &[]);
        assert_eq!((known.training, known.defects["NG"].with_mask), (2, 1));
        // Without a name for good, the images of sub-folders are not learned as good.
        touch(root, &["b/0.png", "b/gut/1.png", "b/schlecht/2.png"]);
        let unknown = report("b", &[]);
        assert_eq!((unknown.training, unknown.defects.len()), (1, 0));
        assert!(unknown.to_string().contains("sub-folder"), "{unknown}");
        let named = report("b", &["gut".into()]);
        assert_eq!((named.training, named.defects["schlecht"].images), (1, 1));
        // Defective images may lie in the folder of good ones.
        let inside = Folder::new("b", root.join("b")).with_defects(root.join("b/schlecht"));
        let inside = inside.with_split(0.0, 0).category("b").unwrap().intake();
        assert_eq!((inside.training, inside.defects["schlecht"].images), (2, 1));
    }
}
