//! What a data set consists of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, GrayImage, RgbImage};

use super::errors::failed;
use super::good::GOOD;
use super::left_out::LeftOut;
use super::npy;
use super::pose::Pose;
use super::report::IntakeWarning;
use crate::error::{Error, Result};
use crate::preprocess::{
    DecodeOptions, ImageInput, Mask, Preprocessor, decode_file_with, image_header,
};

/// A collection of images in categories. A category is a kind of part, with its own model.
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
    /// [`Error::Dataset`] if there is no category, [`Error::Io`] if a file or folder cannot be read.
    fn categories(&self) -> Result<Vec<String>>;

    /// The images of a category.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] if the category is unknown or incomplete, [`Error::Io`] if a file or
    /// folder cannot be read.
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
#[non_exhaustive]
pub struct Category {
    /// Its name.
    pub name: String,
    /// The good images to fit with.
    pub train: Vec<Sample>,
    /// The images to evaluate with.
    pub test: Vec<Sample>,
    /// What the reader of the folders has left out.
    pub(super) left_out: LeftOut,
    /// What the reader of the folders found suspicious.
    pub(super) warnings: Vec<IntakeWarning>,
}

impl Category {
    /// A category of these images.
    pub fn new(name: impl Into<String>, train: Vec<Sample>, test: Vec<Sample>) -> Self {
        let (left_out, warnings) = Default::default();
        Self { name: name.into(), train, test, left_out, warnings }
    }

    /// Whether there are defective test images and each has a mask, so that localization can be
    /// evaluated.
    pub fn has_masks(&self) -> bool {
        let mut defective = self.test.iter().filter(|image| image.is_defective()).peekable();
        defective.peek().is_some() && defective.all(|image| image.mask.is_some())
    }
}

/// An image file with its label and mask.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The image's file.
    pub path: PathBuf,
    /// The kind of defect; [`GOOD`] if there is none.
    pub defect: String,
    /// The ground-truth mask, if there is one.
    pub mask: Option<MaskFile>,
    /// How the image is rotated and cropped before preprocessing, if at all.
    pub pose: Option<Pose>,
}

/// The file and format of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskFile {
    /// An image that is not 0 where the defect is, as [`Mask`] says.
    Picture(PathBuf),
    /// A frame of an array `[frames, height, width]` in a `.npy` file: any value other than 0 means
    /// a defect (ShanghaiTech Campus).
    Frame {
        /// The file.
        path: PathBuf,
        /// The frame's index, from 0.
        number: usize,
    },
}

impl MaskFile {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Picture(path) | Self::Frame { path, .. } => path,
        }
    }

    /// The mask as an image. Pixels must stay as they are stored beside an image that is not turned, so the
    /// options are those of the image.
    pub(super) fn open(&self, options: DecodeOptions) -> Result<DynamicImage> {
        match self {
            Self::Picture(path) => decode_file_with(path, options),
            Self::Frame { path, number } => {
                let (truth, [height, width]) = npy::frame(path, *number, options.limits)?;
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

    /// An image with its kind of defect and, if known, its mask.
    pub fn new(path: PathBuf, defect: impl Into<String>, mask: Option<MaskFile>) -> Self {
        Self { path, defect: defect.into(), mask, pose: None }
    }

    /// Whether the image shows a defect.
    pub fn is_defective(&self) -> bool {
        self.defect != GOOD
    }

    /// Decodes the image, then rotates and crops it if it has a `pose`.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::preprocess::decode_file).
    pub fn open(&self) -> Result<DynamicImage> {
        self.open_with(DecodeOptions::default())
    }

    /// As [`open`](Self::open), with these options, or within these limits.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::preprocess::decode_file).
    pub fn open_with(&self, options: impl Into<DecodeOptions>) -> Result<DynamicImage> {
        let image = decode_file_with(&self.path, options)?;
        match &self.pose {
            Some(pose) => Ok(pose.of_image(&image)?.into()),
            None => Ok(image),
        }
    }

    /// The ground-truth mask in the network's input of `size` `[height, width]`: row-major, `true`
    /// where defective, all `false` for a good image.
    ///
    /// # Errors
    ///
    /// As [`decode_file`](crate::preprocess::decode_file), [`Error::Dataset`] for a defective image
    /// without a mask and for a mask that has neither the size nor the aspect of its image, and
    /// [`Error::ShapeMismatch`] if the preprocessed mask does not have `size`.
    pub fn truth(&self, preprocessor: &Preprocessor, size: [usize; 2]) -> Result<Vec<bool>> {
        if !self.is_defective() {
            return Ok(vec![false; size[0] * size[1]]);
        }
        let Some(mask) = &self.mask else {
            return Err(failed(&self.path, "this defective image has no mask"));
        };
        let mask = mask.open(preprocessor.decode_options())?;
        // What cannot be read tells its error elsewhere.
        self.require_fit(&Mask::of(&mask), self.size(preprocessor))?;
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

    /// The size `[height, width]` of the decoded image, if its header can be read.
    pub(super) fn size(&self, preprocessor: &Preprocessor) -> Option<[usize; 2]> {
        let header = image_header(&self.path).ok()?;
        Some(header.decoded_size(preprocessor.config().orientation))
    }

    /// Checks that a mask has the size or the aspect of its image of `size`.
    pub(super) fn require_fit(&self, mask: &Mask, size: Option<[usize; 2]>) -> Result<()> {
        let Some(size) = size.filter(|size| !mask.fits(*size)) else { return Ok(()) };
        let path = self.mask.as_ref().map_or(self.path.as_path(), MaskFile::path);
        let reason = format!(
            "this mask has {:?} pixels (height, width), but its image {} has {size:?}; they must have the \
             same size or the same aspect",
            mask.size(),
            self.path.display()
        );
        Err(failed(path, reason))
    }

    /// The image, resized and cropped as for the network, for display.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn picture(&self, preprocessor: &Preprocessor) -> Result<RgbImage> {
        preprocessor.crop_picture(&self.open_with(preprocessor.decode_options())?)
    }
}

impl From<&Sample> for ImageInput {
    fn from(sample: &Sample) -> Self {
        if sample.pose.is_none() {
            return Self::Path(sample.path.clone());
        }
        let (name, sample) = (sample.path.display().to_string(), sample.clone());
        Self::deferred(name, move |options| sample.open_with(options))
    }
}
