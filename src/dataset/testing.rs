//! What the tests of data sets share.

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
