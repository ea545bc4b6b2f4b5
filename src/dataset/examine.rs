//! Looks into the files of a category before a fit.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::category::{Category, Sample};
use super::report::{IntakeReport, IntakeWarning};
use crate::error::Result;
use crate::preprocess::{Mask, Preprocessor, image_size};

/// A crop that hides more than this share of a picture is worth a warning.
const MOST_HIDDEN: f64 = 0.1;

/// What the crop does, and what helps.
const CROP_ADVICE: &str = "to see whole pictures, use `PadimConfig::with_input_size` \
                           (`--resize square:256 --crop none`)";

impl Category {
    /// As [`intake`](Self::intake), and looks into the files: their sizes, how much of each picture the
    /// network sees, and whether masks can be what they should be. It reads the headers of all images and
    /// all masks.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] for a mask that has neither the size nor the aspect of its image; the errors of
    /// [`decode_file`](crate::preprocess::decode_file) for a mask that cannot be read. An image that
    /// cannot be read is no error here.
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
        report.warnings.extend(hidden(&looks));
        report.warnings.extend(sizes(&looks[..self.train.len()]));
        report.warnings.extend(masks(&looks));
        Ok(report)
    }
}

/// What a look into the files of a sample has found.
struct Look {
    /// `[height, width]`; `None` if the file cannot be read, or is not preprocessed as it is.
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
        let size = image_size(&sample.path).ok();
        let geometry = size.and_then(|size| preprocessor.geometry(size).ok());
        // A rotated image is cropped before it is preprocessed.
        let geometry = geometry.filter(|_| sample.pose.is_none());
        let seen_share = geometry.map(|geometry| {
            let [rows, columns] = geometry.seen();
            let [height, width] = geometry.original_size();
            (rows.len() * columns.len()) as f64 / (height * width) as f64
        });
        let mask = match &sample.mask {
            Some(file) if sample.is_defective() => {
                let mask = Mask::of(&file.open(preprocessor.decode_options())?);
                sample.require_fit(&mask, size)?;
                Some(MaskLook::of(&mask, preprocessor, sample.pose.is_none()))
            }
            _ => None,
        };
        Ok(Self { size, seen_share, mask })
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

/// What the crop hides of pictures and of defects.
fn hidden(looks: &Looks<'_>) -> Vec<IntakeWarning> {
    let paths = |wanted: &dyn Fn(&Look) -> bool, text: String| {
        let found = looks.iter().filter(|(_, look)| wanted(look));
        IntakeWarning::about(text, found.map(|(sample, _)| sample.path.as_path()))
    };
    let share_of = |look: &Look| {
        let mask = look.mask.as_ref().filter(|mask| mask.marked > 0)?;
        Some(mask.hidden as f64 / mask.marked as f64)
    };
    let all = |look: &Look| share_of(look) == Some(1.0);
    let part = |look: &Look| share_of(look).is_some_and(|share| share > MOST_HIDDEN && share < 1.0);
    let picture = |look: &Look| look.seen_share.is_some_and(|share| share < 1.0 - MOST_HIDDEN);
    [
        paths(&all, format!("the crop hides the whole defect; {CROP_ADVICE}")),
        paths(&part, format!("the crop hides more than a tenth of the defect; {CROP_ADVICE}")),
        paths(&picture, format!("the crop hides more than a tenth of the picture; {CROP_ADVICE}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Training images of several sizes.
fn sizes(looks: &Looks<'_>) -> Option<IntakeWarning> {
    let mut by_aspect: BTreeMap<[usize; 2], Vec<&Path>> = BTreeMap::new();
    for (sample, look) in looks {
        let Some([height, width]) = look.size.filter(|size| !size.contains(&0)) else { continue };
        let divisor = greatest_common_divisor(height, width);
        let files = by_aspect.entry([height / divisor, width / divisor]).or_default();
        files.push(&sample.path);
    }
    let most = by_aspect.iter().max_by_key(|(_, files)| files.len()).map(|(aspect, _)| *aspect)?;
    let others: Vec<&Path> =
        by_aspect.into_iter().filter(|(aspect, _)| *aspect != most).flat_map(|(_, f)| f).collect();
    let text = "a training image has another aspect than most, so parts of it lie elsewhere after the resize";
    IntakeWarning::about(text, others)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
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
