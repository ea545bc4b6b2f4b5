//! Errors of data sets.

use std::path::Path;

use crate::error::Error;

pub(super) fn failed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Dataset { path: path.to_owned(), reason: reason.into() }
}

/// The error for an unknown category.
pub(super) fn unknown(root: &Path, name: &str, known: &[String]) -> Error {
    failed(root, format!("there is no category {name:?}; there are {}", known.join(", ")))
}
