//! The account of what a data set gave: what was taken for what, what was left out, and what is suspicious.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::left_out::LeftOut;
use crate::error::{Error, Result};

/// What a category of a data set gave. [`Category::intake`](super::Category::intake) knows what lies in the folders,
/// [`Category::examine`](super::Category::examine) has looked into the files, too.
///
/// `Display` writes a few lines, warnings last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IntakeReport {
    /// The category's name.
    pub category: String,
    /// How many images are for training.
    pub training: usize,
    /// How many test images are good.
    pub good_tests: usize,
    /// The defective test images by the kind of defect.
    pub defects: BTreeMap<String, DefectCount>,
    /// What was left out, and why.
    pub left_out: LeftOut,
    /// The smallest share of a picture that resize and crop show to the network, in 0..=1; `None` if the
    /// files were not examined.
    pub seen_share: Option<f64>,
    /// What is suspicious.
    pub warnings: Vec<IntakeWarning>,
}

/// The defective test images of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DefectCount {
    /// How many there are.
    pub images: usize,
    /// How many of them have a mask.
    pub with_mask: usize,
}

/// Something suspicious.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IntakeWarning {
    /// What it is, and what to do.
    pub text: String,
    /// How many files it concerns; 0 if it is about the set as a whole.
    pub count: usize,
    /// The first of these files.
    pub first: Option<PathBuf>,
}

impl IntakeWarning {
    /// A warning about the set as a whole.
    pub(super) fn general(text: impl Into<String>) -> Self {
        Self { text: text.into(), count: 0, first: None }
    }

    /// A warning about these files; `None` if there are none.
    pub(super) fn about<'a>(
        text: impl Into<String>,
        files: impl IntoIterator<Item = &'a Path>,
    ) -> Option<Self> {
        let mut files = files.into_iter();
        let first = files.next()?.to_owned();
        Some(Self { text: text.into(), count: 1 + files.count(), first: Some(first) })
    }
}

impl fmt::Display for IntakeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.first, self.count) {
            (Some(first), 1) => write!(f, "{} ({})", self.text, first.display()),
            (Some(first), count) => {
                write!(f, "{} ({count} files, the first is {})", self.text, first.display())
            }
            (None, _) => f.write_str(&self.text),
        }
    }
}

impl IntakeReport {
    /// Makes warnings errors.
    ///
    /// # Errors
    ///
    /// [`Error::Dataset`] with all warnings, if there are any.
    pub fn require_no_warning(&self) -> Result<()> {
        let Some(first) = self.warnings.first() else { return Ok(()) };
        let path = first.first.clone().unwrap_or_else(|| PathBuf::from(&self.category));
        let texts: Vec<String> = self.warnings.iter().map(IntakeWarning::to_string).collect();
        Err(Error::Dataset { path, reason: texts.join("; ") })
    }
}

impl fmt::Display for IntakeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { category, training, good_tests, defects, .. } = self;
        write!(f, "{category}: {training} images to fit with")?;
        match (good_tests, defects.len()) {
            (0, 0) => f.write_str(", none to test")?,
            _ => write!(f, "; to test: {good_tests} good")?,
        }
        if *good_tests > 0 && defects.is_empty() {
            f.write_str(", none defective")?;
        }
        for (kind, DefectCount { images, with_mask }) in defects {
            write!(f, ", {images} {kind}")?;
            match with_mask {
                0 => f.write_str(" (no mask)")?,
                all if all == images => {}
                some => write!(f, " ({some} with a mask)")?,
            }
        }
        if let Some(share) = self.seen_share.filter(|share| *share < 0.9995) {
            let percent = 100.0 * share;
            write!(f, "\n  the network sees {percent:.0} % of a picture; the crop hides the rest")?;
        }
        for (reason, files) in self.left_out.reasons().filter(|(reason, _)| !reason.is_suspicious())
        {
            write!(
                f,
                "\n  left out: {} ({reason}), such as {}",
                files.count,
                files.first.display()
            )?;
        }
        for warning in &self.warnings {
            write!(f, "\n  warning: {warning}")?;
        }
        Ok(())
    }
}
