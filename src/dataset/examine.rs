//! Looks into the files of a category before a fit.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::category::{Category, Sample};
use super::report::{IntakeReport, IntakeWarning};
use crate::error::Result;
use crate::preprocess::{ExifOrientation, ImageHeader, Mask, Preprocessor, image_header};

/// A crop that hides more than this share of a picture is worth a warning.
const MOST_HIDDEN: f64 = 0.1;

/// A larger difference of aspects, as a logarithm, is told: about 2 %.
const ANOTHER_ASPECT: f64 = 0.02;

/// What the crop does, and what helps.
const CROP_ADVICE: &str = "to see whole pictures, use `PadimConfig::with_input_size` \
                           (`--resize square:224 --crop none`)";

impl Category {
    /// As [`intake`](Self::intake), and looks into the files: their sizes, how much of each picture the
    /// network sees, and whether masks can be what they should be. It reads the headers of all images and
    /// all masks.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`](crate::Error::Dataset) for a mask that has neither the size nor the aspect of
    /// its image; the errors of [`decode_file`](crate::preprocess::decode_file) for a mask that cannot be
    /// read. An image that cannot be read is a warning here, if its header tells.
    pub fn examine(&self, preprocessor: &Preprocessor) -> Result<IntakeReport> {
        let mut report = self.intake();
        let looks: Vec<Look> = self
            .train
            .par_iter()
            .chain(&self.test)
            .map(|sample| Look::at(sample, preprocessor))
            .collect::<Result<_>>()?;
        let looks: Vec<(&Sample, Look)> = self.train.iter().chain(&self.test).zip(looks).collect();
        let shares = looks.iter().filter_map(|(_, look)| look.seen_share);
        report.seen_share = shares.reduce(f64::min);
        let text = "an image cannot be read, or is no image";
        report.warnings.extend(about(&looks, text, |look| look.header.is_none()));
        report.warnings.extend(hidden(&looks));
        let training = &looks[..self.train.len()];
        report.warnings.extend(aspects(training));
        report.warnings.extend(unlike_most(training));
        report.warnings.extend(turned(training, preprocessor.config().orientation));
        report.warnings.extend(masks(&looks));
        Ok(report)
    }
}

/// What a look into the files of a sample has found.
struct Look {
    /// `None` if it cannot be read.
    header: Option<ImageHeader>,
    /// `[height, width]` of the decoded image.
    size: Option<[usize; 2]>,
    seen_share: Option<f64>,
    mask: Option<MaskLook>,
}

struct MaskLook {
    marked: usize,
    pixels: usize,
    /// How many marked pixels the crop hides.
    hidden: usize,
    unusual: Option<String>,
}

impl Look {
    fn at(sample: &Sample, preprocessor: &Preprocessor) -> Result<Self> {
        let header = image_header(&sample.path).ok();
        let size = header.map(|header| header.decoded_size(preprocessor.config().orientation));
        let geometry = size.and_then(|size| preprocessor.geometry(size).ok());
        // A rotated image is cropped before it is preprocessed.
        let geometry = geometry.filter(|_| sample.pose.is_none());
        let seen_share = geometry.map(|geometry| geometry.seen_share());
        let mask = match &sample.mask {
            Some(file) if sample.is_defective() => {
                let mask = Mask::of(&file.open(preprocessor.decode_options())?);
                sample.require_fit(&mask, size)?;
                Some(MaskLook::of(&mask, preprocessor, sample.pose.is_none()))
            }
            _ => None,
        };
        Ok(Self { header, size, seen_share, mask })
    }
}

impl MaskLook {
    fn of(mask: &Mask, preprocessor: &Preprocessor, cropped: bool) -> Self {
        let count = |marked: &[bool]| marked.iter().filter(|&&marked| marked).count();
        let marked = count(mask.marked());
        let [_, width] = mask.size();
        let seen = preprocessor.geometry(mask.size()).ok().filter(|_| cropped).map(|geometry| {
            let [rows, columns] = geometry.seen();
            rows.map(|row| count(&mask.marked()[row * width..][columns.clone()])).sum()
        });
        Self {
            marked,
            pixels: mask.marked().len(),
            hidden: seen.map_or(0, |seen: usize| marked - seen),
            unusual: mask.unusual_values().map(str::to_owned),
        }
    }
}

type Looks<'a> = [(&'a Sample, Look)];

/// A warning about the wanted files; `None` if there are none.
fn about(
    looks: &Looks<'_>,
    text: impl Into<String>,
    wanted: impl Fn(&Look) -> bool,
) -> Option<IntakeWarning> {
    let found = looks.iter().filter(|(_, look)| wanted(look));
    IntakeWarning::about(text, found.map(|(sample, _)| sample.path.as_path()))
}

/// What the crop hides of pictures and of defects.
fn hidden(looks: &Looks<'_>) -> Vec<IntakeWarning> {
    let share_of = |look: &Look| {
        let mask = look.mask.as_ref().filter(|mask| mask.marked > 0)?;
        Some(mask.hidden as f64 / mask.marked as f64)
    };
    let all = |look: &Look| share_of(look) == Some(1.0);
    let part = |look: &Look| share_of(look).is_some_and(|share| share > MOST_HIDDEN && share < 1.0);
    let picture = |look: &Look| look.seen_share.is_some_and(|share| share < 1.0 - MOST_HIDDEN);
    let hides = |what: &str| format!("the crop hides {what}; {CROP_ADVICE}");
    [
        about(looks, hides("the whole defect"), all),
        about(looks, hides("more than a tenth of the defect"), part),
        about(looks, hides("more than a tenth of the picture"), picture),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Training images of several aspects.
fn aspects(looks: &Looks<'_>) -> Option<IntakeWarning> {
    let aspect = |look: &Look| {
        let [height, width] = look.size.filter(|size| !size.contains(&0))?;
        Some(width as f64 / height as f64)
    };
    let mut rising: Vec<f64> = looks.iter().filter_map(|(_, look)| aspect(look)).collect();
    rising.sort_by(f64::total_cmp);
    let (least, middle, most) = (*rising.first()?, *rising.get(rising.len() / 2)?, *rising.last()?);
    let differs = |aspect: f64| (aspect / middle).ln().abs() > ANOTHER_ASPECT;
    let others = rising.iter().filter(|aspect| differs(**aspect)).count();
    let text = match 2 * others > rising.len() {
        true => format!(
            "the training images have many aspects (width / height {least:.2} to {most:.2}), so the same \
             part of a product lies elsewhere in each after the resize"
        ),
        false => format!(
            "a training image has another aspect than most (width / height {middle:.2}), so parts of it \
             lie elsewhere after the resize"
        ),
    };
    about(looks, text, |look| aspect(look).is_some_and(differs))
}

/// Training images of another kind of values than most.
fn unlike_most(looks: &Looks<'_>) -> Option<IntakeWarning> {
    let mut by_kind: BTreeMap<(u8, bool), Vec<&Path>> = BTreeMap::new();
    for (sample, look) in looks {
        if let Some(ImageHeader { bits, is_float, .. }) = look.header {
            by_kind.entry((bits, is_float)).or_default().push(&sample.path);
        }
    }
    let most = by_kind.iter().max_by_key(|(_, files)| files.len()).map(|(kind, _)| *kind)?;
    let others: Vec<&Path> =
        by_kind.into_iter().filter(|(kind, _)| *kind != most).flat_map(|(_, f)| f).collect();
    let text = format!(
        "a training image has not {} bits a channel as most have, so its brightness may mean another",
        most.0
    );
    IntakeWarning::about(text, others)
}

/// Training images with a noted orientation beside others without, or with different ones.
fn turned(looks: &Looks<'_>, choice: ExifOrientation) -> Option<IntakeWarning> {
    let orientation = |look: &Look| look.header.map(|header| header.orientation);
    let first = orientation(&looks.first()?.1);
    if looks.iter().all(|(_, look)| orientation(look) == first) {
        return None;
    }
    let text = match choice {
        ExifOrientation::Ignore => {
            "the training images have different orientations (EXIF), which are ignored, so parts may lie \
             differently"
        }
        _ => {
            "the training images have different orientations (EXIF), which are applied; do the parts lie \
             alike?"
        }
    };
    about(looks, text, |look| orientation(look).is_some_and(|orientation| orientation != 1))
}

/// Masks that may not mean what they seem to.
fn masks(looks: &Looks<'_>) -> Vec<IntakeWarning> {
    let with_mask: Vec<(&Sample, &MaskLook)> =
        looks.iter().filter_map(|(sample, look)| Some((*sample, look.mask.as_ref()?))).collect();
    let about = |wanted: &dyn Fn(&MaskLook) -> bool, text: String| {
        let found = with_mask.iter().filter(|(_, mask)| wanted(mask));
        let path = |sample: &'_ Sample| sample.mask.as_ref().map(|file| file.path().to_owned());
        let paths: Vec<_> = found.filter_map(|(sample, _)| path(sample)).collect();
        IntakeWarning::about(text, paths.iter().map(|path| path.as_path()))
    };
    let mut unusual: Vec<&str> =
        with_mask.iter().filter_map(|(_, mask)| mask.unusual.as_deref()).collect();
    unusual.sort_unstable();
    unusual.dedup();
    let values = |values: &&str| {
        let text = format!("a mask has the values {values}; any value but 0 counts as defective");
        about(&|mask: &MaskLook| mask.unusual.as_deref() == Some(*values), text)
    };
    let mut warnings: Vec<IntakeWarning> = unusual.iter().filter_map(values).collect();
    let empty = "the mask of a defective image is empty; the image has no defective pixel then";
    warnings.extend(about(&|mask| mask.marked == 0, empty.into()));
    let full = "a mask marks the whole picture; is its background 0?";
    warnings.extend(about(&|mask| mask.marked == mask.pixels && mask.pixels > 0, full.into()));
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use image::{GrayImage, Luma, RgbImage};

    use super::super::category::MaskFile;
    use super::*;
    use crate::preprocess::{Normalization, PreprocessConfig, Resize};

    /// A category with one defective image of 240x96 pixels and this mask.
    fn category(root: &Path, mask: &GrayImage) -> Category {
        let (image, truth) = (root.join("image.png"), root.join("truth.png"));
        RgbImage::new(240, 96).save(&image).unwrap();
        mask.save(&truth).unwrap();
        let defective = Sample::new(image.clone(), "scratch", Some(MaskFile::Picture(truth)));
        Category::new("part", vec![Sample::good(image)], vec![defective])
    }

    fn report(mask: &GrayImage, config: PreprocessConfig) -> Result<IntakeReport> {
        let root = tempfile::tempdir().unwrap();
        let preprocessor = Preprocessor::new(config, Normalization::IMAGENET).unwrap();
        category(root.path(), mask).examine(&preprocessor)
    }

    fn mask(columns: std::ops::Range<u32>, value: u8) -> GrayImage {
        let marked = |x: u32, y: u32| columns.contains(&x) && (30..60).contains(&y);
        GrayImage::from_fn(240, 96, |x, y| Luma([if marked(x, y) { value } else { 0 }]))
    }

    #[test]
    fn a_defect_that_the_crop_hides_is_told() {
        let whole = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
        let cropped =
            PreprocessConfig::default().with_resize(Resize::ShortSide(256)).with_crop(Some(224));
        let text = |mask: &GrayImage| report(mask, cropped.clone()).unwrap().to_string();
        assert!(text(&mask(0..10, 255)).contains("the whole defect"));
        assert!(text(&mask(0..110, 255)).contains("tenth of the defect"));
        let middle = text(&mask(110..130, 255));
        assert!(!middle.contains("of the defect") && middle.contains("of the picture"), "{middle}");
        let seen = report(&mask(0..10, 255), whole).unwrap();
        assert_eq!(seen.seen_share, Some(1.0));
        assert!(!seen.to_string().contains("crop"), "{seen}");
    }

    #[test]
    fn masks_that_may_mean_something_else_are_told() {
        let text =
            |mask: &GrayImage| report(mask, PreprocessConfig::default()).unwrap().to_string();
        assert!(text(&mask(110..130, 100)).contains("the values 0 and 100"));
        assert!(text(&mask(0..0, 255)).contains("is empty"));
        let full = GrayImage::from_pixel(240, 96, Luma([255]));
        assert!(text(&full).contains("marks the whole picture"));
        assert!(!text(&mask(110..130, 1)).contains("mask"));
        let square = GrayImage::new(96, 96);
        let error = report(&square, PreprocessConfig::default()).unwrap_err().to_string();
        assert!(error.contains("[96, 96]") && error.contains("[96, 240]"), "{error}");
    }

    #[test]
    fn a_training_image_of_another_aspect_is_told() {
        let root = tempfile::tempdir().unwrap();
        let image = |name: &str, [width, height]: [u32; 2]| -> PathBuf {
            let path = root.path().join(name);
            RgbImage::new(width, height).save(&path).unwrap();
            path
        };
        let sizes = [("a.png", [64, 48]), ("b.png", [128, 96]), ("c.png", [48, 64])];
        let train = sizes.map(|(name, size)| Sample::good(image(name, size)));
        let category = Category::new("part", train.to_vec(), Vec::new());
        let preprocessor =
            Preprocessor::new(PreprocessConfig::default(), Normalization::IMAGENET).unwrap();
        let text = category.examine(&preprocessor).unwrap().to_string();
        assert!(text.contains("another aspect") && text.contains("c.png"), "{text}");
        assert!(text.contains("1.33"), "{text}");

        let sizes =
            [("a.png", [64, 48]), ("b.png", [90, 96]), ("c.png", [48, 64]), ("d.png", [99, 48])];
        let train = sizes.map(|(name, size)| Sample::good(image(name, size)));
        let category = Category::new("part", train.to_vec(), Vec::new());
        let text = category.examine(&preprocessor).unwrap().to_string();
        assert!(text.contains("many aspects") && text.contains("0.75 to 2.06"), "{text}");

        // A pixel of difference is no other aspect.
        let train = [("a.png", [512, 511]), ("b.png", [512, 512])];
        let train = train.map(|(name, size)| Sample::good(image(name, size)));
        let category = Category::new("part", train.to_vec(), Vec::new());
        let text = category.examine(&preprocessor).unwrap().to_string();
        assert!(!text.contains("aspect"), "{text}");
    }
}
