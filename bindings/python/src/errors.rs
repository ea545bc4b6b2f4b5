//! Errors of padim as exceptions of `padim._errors`.

use padim::Error;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The exception for an error.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Cancelled => "Cancelled",
        Error::InvalidConfig { .. } | Error::TooFewImages { .. } | Error::NoStatistics => {
            "ConfigError"
        }
        Error::Io { .. } => "FileError",
        Error::Decode { .. }
        | Error::ImageTooLarge { .. }
        | Error::UnusableImage { .. }
        | Error::ShapeMismatch { .. }
        | Error::NotFinite { .. } => "ImageError",
        Error::InvalidDetectorFile { .. }
        | Error::UnsupportedVersion { .. }
        | Error::BackboneNotEmbedded { .. }
        | Error::BackboneMismatch { .. } => "DetectorFileError",
        _ => "Error",
    };
    named(py, class, &error.to_string())
}

/// An exception of `padim._errors` by its name.
pub fn named(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made =
        py.import("padim._errors").and_then(|module| module.getattr(class)?.call1((message,)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(_) => PyRuntimeError::new_err(message.to_owned()),
    }
}

/// Runs work without Python's lock.
pub fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> padim::Result<T> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| exception(py, &error))
}
