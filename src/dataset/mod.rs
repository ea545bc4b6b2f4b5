//! Collections of images to fit with and to evaluate with.
//!
//! Each layout is a [`Dataset`]; [`RotatedCrops`] makes another one of any of them. Only paths and tables
//! are read here: whether files hold images shows when they are decoded.

mod btad;
mod folder;
mod listing;
mod mvtec;
mod npy;
mod rotated;
mod shanghaitech;
mod table;
mod visa;

use std::path::PathBuf;
use std::sync::Arc;

use image::{DynamicImage, GrayImage, RgbImage};

pub use btad::Btad;
pub use folder::Folder;
pub use mvtec::Mvtec;
pub use rotated::{Pose, RotatedCrops};
pub use shanghaitech::ShanghaiTech;
pub use table::Table;
pub use visa::Visa;

use crate::detector::ImageInput;
use crate::error::{Error, Result};
use crate::preprocess::{DecodeLimits, Preprocessor, decode_file_with};

/// A collection of images, in categories (kinds of parts) that have a model each.
///
/// ```no_run
/// use padim::dataset::{Dataset, Mvtec};
///
/// let mvtec = Mvtec::new("mvtec_anomaly_detection");
/// for name in mvtec.categories()? {
///     let category = mvtec.category(&name)?;
///     println!("{name}: {} to fit with, {} to test", category.train.len(), category.test.len());
/// }
/// # Ok::<(), padim::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The names of the categories, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] if there is none, [`Error::Io`] if something cannot be read.
    fn categories(&self) -> Result<Vec<String>>;

    /// The images of a category.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] if the category is unknown or incomplete, [`Error::Io`] if something cannot
    /// be read.
    fn category(&self, name: &str) -> Result<Category>;
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn categories(&self) -> Result<Vec<String>> {
        (**self).categories()
    }

    fn category(&self, name: &str) -> Result<Category> {
        (**self).category(name)
    }
}

/// One kind of part.
#[derive(Debug, Clone, PartialEq)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// The good images to fit with.
    pub train: Vec<Sample>,
    /// The images to evaluate with.
    pub test: Vec<Sample>,
}

impl Category {
    /// Whether there are defective test images and each has a mask, so that localisation can be
    /// evaluated.
    pub fn has_masks(&self) -> bool {
        let mut defective = self.test.iter().filter(|image| image.is_defective()).peekable();
        defective.peek().is_some() && defective.all(|image| image.mask.is_some())
    }
}

/// What good images are called.
pub const GOOD: &str = "good";

/// An image, what is wrong with it, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The image's file.
    pub path: PathBuf,
    /// The kind of defect; [`GOOD`] if there is none.
    pub defect: String,
    /// Where the defect is.
    pub mask: Option<MaskFile>,
    /// How the image is to be turned and cut before anything else is done to it.
    pub pose: Option<Pose>,
}

/// Where a mask comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskFile {
    /// A picture that is brighter than mid-grey where the defect is.
    Picture(PathBuf),
    /// A picture of numbers, of which any but 0 stand for a defect (VisA).
    Labels(PathBuf),
    /// A frame of an array `[frames, height, width]` in a `.npy` file, not 0 where the defect is
    /// (ShanghaiTech Campus).
    Frame {
        /// The file.
        path: PathBuf,
        /// The frame's number, from 0.
        number: usize,
    },
}

impl MaskFile {
    /// The mask as a picture of black and white.
    fn open(&self, limits: DecodeLimits) -> Result<DynamicImage> {
        match self {
            Self::Picture(path) => decode_file_with(path, limits),
            Self::Labels(path) => {
                let mut labels = decode_file_with(path, limits)?.into_luma16();
                labels.iter_mut().for_each(|v| *v = if *v == 0 { 0 } else { u16::MAX });
                Ok(labels.into())
            }
            Self::Frame { path, number } => {
                let (truth, [height, width]) = npy::frame(path, *number, limits)?;
                let white = |truth: &bool| if *truth { u8::MAX } else { 0 };
                let raw = truth.iter().map(white).collect();
                let picture = GrayImage::from_raw(width as u32, height as u32, raw);
                picture.map(DynamicImage::from).ok_or_else(|| failed(path, "is too large"))
            }
        }
    }
}

impl Sample {
    /// A good image.
    pub fn good(path: PathBuf) -> Self {
        Self::new(path, GOOD, None)
    }

    /// An image with a kind of defect and, where it is known, its place.
    pub fn new(path: PathBuf, defect: impl Into<String>, mask: Option<MaskFile>) -> Self {
        Self { path, defect: defect.into(), mask, pose: None }
    }

    /// Whether the image shows a defect.
    pub fn is_defective(&self) -> bool {
        self.defect != GOOD
    }

    /// Decodes the image, and turns and cuts it if it is to be.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::decode_file).
    pub fn open(&self) -> Result<DynamicImage> {
        self.open_with(DecodeLimits::default())
    }

    /// As [`open`](Self::open), within these limits.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::decode_file).
    pub fn open_with(&self, limits: DecodeLimits) -> Result<DynamicImage> {
        let image = decode_file_with(&self.path, limits)?;
        match &self.pose {
            Some(pose) => Ok(pose.of_image(&image)?.into()),
            None => Ok(image),
        }
    }

    /// Where the defect is in the network's input, which has `size` `[height, width]`: row-major, and
    /// nowhere if there is none.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::decode_file), [`Error::Dataset`] for a defective image without a mask, and
    /// [`Error::ShapeMismatch`] for a mask that gets another size.
    pub fn truth(&self, preprocessor: &Preprocessor, size: [usize; 2]) -> Result<Vec<bool>> {
        if !self.is_defective() {
            return Ok(vec![false; size[0] * size[1]]);
        }
        let Some(mask) = &self.mask else {
            return Err(failed(&self.path, "this defective image has no mask"));
        };
        let mask = mask.open(preprocessor.decode_limits())?;
        let truth = match &self.pose {
            Some(pose) => {
                pose.of_mask(&mask).and_then(|mask| preprocessor.process_mask(&mask.into()))
            }
            None => preprocessor.process_mask(&mask),
        };
        let truth = truth.map_err(|error| match error {
            Error::UnusableImage { reason, .. } => {
                let name = format!("(the mask of {})", self.path.display());
                Error::UnusableImage { name, reason }
            }
            other => other,
        })?;
        if truth.len() != size[0] * size[1] {
            let expected =
                format!("{} pixels, as the input of {}", size[0] * size[1], self.path.display());
            return Err(Error::shape("mask", expected, truth.len()));
        }
        Ok(truth)
    }

    /// The image as it was taken, for a person to see.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn picture(&self, preprocessor: &Preprocessor) -> Result<RgbImage> {
        preprocessor.crop_picture(&self.open_with(preprocessor.decode_limits())?)
    }
}

impl From<&Sample> for ImageInput {
    fn from(sample: &Sample) -> Self {
        if sample.pose.is_none() {
            return Self::Path(sample.path.clone());
        }
        let (name, sample) = (sample.path.display().to_string(), sample.clone());
        Self::deferred(name, move |limits| sample.open_with(limits))
    }
}

fn failed(path: &std::path::Path, reason: impl Into<String>) -> Error {
    Error::Dataset { path: path.to_owned(), reason: reason.into() }
}

/// That a category is not among those there are.
fn unknown(root: &std::path::Path, name: &str, known: &[String]) -> Error {
    failed(root, format!("there is no category {name:?}; there are {}", known.join(", ")))
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    use crate::error::{Error, Result};

    pub fn touch(root: &Path, files: &[&str]) {
        for file in files {
            write(root, file, b"");
        }
    }

    pub fn write(root: &Path, file: &str, content: &[u8]) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn dataset_error(result: Result<impl std::fmt::Debug>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }), "{error:?}");
        error.to_string()
    }
}
