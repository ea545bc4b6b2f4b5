//! Fills a category with the images of folders.

use std::path::{Path, PathBuf};

use super::category::{Category, MaskFile, Sample};
use super::good::GOOD;
use super::listing::ImageList;
use super::masks::{Found, Masks};
use super::report::IntakeWarning;

/// A category while its folders are read.
pub(super) struct Gathering {
    category: Category,
    /// Images that have the same mask as another image.
    sharing: Vec<PathBuf>,
    /// The first folder of masks.
    masks: Option<PathBuf>,
}

impl Gathering {
    pub fn new(name: impl Into<String>) -> Self {
        let category = Category::new(name, Vec::new(), Vec::new());
        Self { category, sharing: Vec::new(), masks: None }
    }

    pub fn train(&mut self, list: ImageList) {
        self.category.left_out.extend(list.left_out);
        self.category.train.extend(list.images.into_iter().map(Sample::good));
    }

    /// Adds images of `folder` with this kind of defect, and their masks out of the folder `masks`.
    pub fn test(
        &mut self,
        list: ImageList,
        defect: &str,
        folder: &Path,
        masks: Option<&Path>,
    ) -> crate::error::Result<()> {
        self.category.left_out.extend(list.left_out);
        let mut found = match masks.filter(|_| defect != GOOD) {
            Some(masks) => {
                self.masks.get_or_insert_with(|| masks.to_owned());
                Some(Masks::list(masks)?)
            }
            None => None,
        };
        for path in list.images {
            let mask = found.as_mut().map(|masks| masks.of(&path, folder));
            let Found { mask, shared_with } = mask.unwrap_or_default();
            self.sharing.extend(shared_with.map(|_| path.clone()));
            self.category.test.push(Sample::new(path, defect, mask.map(MaskFile::Picture)));
        }
        self.category.left_out.extend(found.map(Masks::left_out).unwrap_or_default());
        Ok(())
    }

    pub fn left_out(&mut self) -> &mut super::left_out::LeftOut {
        &mut self.category.left_out
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        self.category.warnings.push(IntakeWarning::general(text));
    }

    pub fn category(mut self) -> Category {
        let text =
            "an image has the same mask as another image of its name; is it the same image twice?";
        let sharing = IntakeWarning::about(text, self.sharing.iter().map(PathBuf::as_path));
        self.category.warnings.extend(sharing);
        let is_defective = |image: &Sample| image.is_defective();
        if let Some(folder) = self.masks
            && self.category.test.iter().any(is_defective)
            && self.category.test.iter().all(|image| image.mask.is_none())
        {
            let text = "there is a folder for masks, but no defective image has a mask of its name \
                        (<name>_mask.png or <name>.png); localization is not evaluated";
            self.category.warnings.extend(IntakeWarning::about(text, [folder.as_path()]));
        }
        self.category
    }
}
