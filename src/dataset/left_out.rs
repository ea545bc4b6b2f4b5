//! What a reader of a folder has left out, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a file or folder was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It is hidden, or made by an operating system: `.name`, `._name`, `Thumbs.db`.
    Hidden,
    /// It is no image, by its ending or, without a known ending, by its content.
    NoImage,
    /// It is the second name (a link) of a file or folder that was read under another name, or it leads
    /// back to a folder around it.
    SecondName,
    /// It is a pipe, a socket or a device.
    NoFile,
    /// It is unfinished or a backup: `.part`, `.tmp`, `name~`.
    Unfinished,
    /// It is an image in a format that this crate does not read.
    OtherFormat,
    /// It is an image in a sub-folder, where this reader does not look.
    SubFolder,
    /// It is a link that leads nowhere.
    DeadLink,
    /// It cannot be read; the system refuses it.
    Refused,
    /// It is in the training folder beside the good images, under a name that does not mean good.
    NotGood,
    /// It is a test image beside the folders of the kinds, so that its kind is unknown.
    NoKind,
    /// It is a mask for an image that has another mask.
    SecondMask,
    /// It is a mask in a format that may be lossy, so that its values are not exact.
    LossyMask,
    /// It is a mask, and there is no image with its name.
    MaskWithoutImage,
}

impl Reason {
    /// Whether something is probably wrong, so that people should look.
    pub fn is_suspicious(self) -> bool {
        !matches!(self, Self::Hidden | Self::NoImage | Self::SecondName | Self::NoFile)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Hidden => "hidden, or made by the system",
            Self::NoImage => "no image",
            Self::SecondName => "a link to what was read already",
            Self::NoFile => "no file, but a pipe or a device",
            Self::Unfinished => "unfinished, or a backup",
            Self::OtherFormat => "an image in a format that is not read; convert it to PNG",
            Self::SubFolder => "an image in a sub-folder; name that folder to take it",
            Self::DeadLink => "a link that leads nowhere",
            Self::Refused => "not readable: the system refuses it",
            Self::NotGood => {
                "beside the good training images, under a name that does not mean good"
            }
            Self::NoKind => "beside the folders of kinds; put it into one of them",
            Self::SecondMask => "a second mask of one image",
            Self::LossyMask => "a mask in a lossy format; convert it to PNG",
            Self::MaskWithoutImage => "a mask without an image of its name",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// How many files and folders were left out for each reason, and the first of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeftOut {
    reasons: BTreeMap<Reason, Files>,
}

/// A number of files, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Files {
    /// How many.
    pub count: usize,
    /// The first.
    pub first: PathBuf,
}

impl LeftOut {
    /// The files and folders of each reason.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, &Files)> {
        self.reasons.iter().map(|(&reason, files)| (reason, files))
    }

    /// The number for one reason.
    pub fn count(&self, reason: Reason) -> usize {
        self.reasons.get(&reason).map_or(0, |files| files.count)
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(super) fn add(&mut self, reason: Reason, path: &Path) {
        let files = self.reasons.entry(reason);
        files.or_insert_with(|| Files { count: 0, first: path.to_owned() }).count += 1;
    }

    pub(super) fn extend(&mut self, other: Self) {
        for (reason, files) in other.reasons {
            match self.reasons.get_mut(&reason) {
                Some(own) => own.count += files.count,
                None => {
                    self.reasons.insert(reason, files);
                }
            }
        }
    }
}

/// A line for each reason, with the first file.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (reason, Files { count, first })) in self.reasons().enumerate() {
            let line = if number == 0 { "" } else { "\n" };
            let first = first.display();
            match count {
                1 => write!(f, "{line}left out: {first} ({reason})")?,
                _ => write!(f, "{line}left out: {count} such as {first} ({reason})")?,
            }
        }
        Ok(())
    }
}
