//! The one error type of the crate.

use std::path::{Path, PathBuf};

use crate::fingerprint::Fingerprint;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, what was expected and what to do about it.
///
/// Its text says everything, the operating system's or a decoder's reason included. So
/// [`source`](std::error::Error::source) is `None`: programs that print a chain of errors print each reason
/// once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, or a combination of settings, that cannot work. Occurs when a configuration is
    /// checked, before any work is done.
    #[error("invalid configuration: {field}: {reason}")]
    InvalidConfig {
        /// The setting, as it is named in its configuration.
        field: &'static str,
        /// What is wrong with its value, and what would be right.
        reason: String,
    },

    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was attempted ("read", "write", ...).
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },

    /// An image could not be decoded: the file is damaged, is not an image, or is of a format that
    /// this crate does not read (it reads PNG, JPEG, BMP, TIFF and WebP).
    #[error("cannot decode the image {name}: {reason}; PNG, JPEG, BMP, TIFF and WebP can be read")]
    Decode {
        /// The image's path, or a description of where it came from.
        name: String,
        /// The decoder's reason.
        reason: image::ImageError,
    },

    /// A file would decode to an image that is larger than the [`DecodeLimits`](crate::preprocess::DecodeLimits).
    #[error(
        "the image {name} is too large: {what}; if the file can be trusted, raise the limits by \
         `with_decode_limits`"
    )]
    ImageTooLarge {
        /// The image's path.
        name: String,
        /// Its size, and what is allowed.
        what: String,
    },

    /// An image decoded, but cannot be used as it is (no pixels, too small for the crop, values
    /// that are not numbers).
    #[error("cannot use the image {name}: {reason}")]
    UnusableImage {
        /// The image's path, or a description of where it came from.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor, map or list has other dimensions than its user expects.
    #[error("{what}: expected {expected}, got {actual}")]
    ShapeMismatch {
        /// What has the wrong shape.
        what: &'static str,
        /// The shape that was expected.
        expected: String,
        /// The shape that came.
        actual: String,
    },

    /// Values that must be finite numbers are NaN or infinite.
    #[error("NaN or infinite values in {what}; check the input images and the backbone's weights")]
    NotFinite {
        /// What holds the values.
        what: String,
    },

    /// Too few images were given to estimate a covariance. PaDiM needs at least two good images;
    /// a useful model usually needs fifty or more.
    #[error(
        "a Gaussian needs at least 2 training images, got {count}; give more images of good parts"
    )]
    TooFewImages {
        /// How many images were given.
        count: usize,
    },

    /// The covariance matrix of a position cannot be inverted, which happens when epsilon is too
    /// small for the range of the features.
    #[error(
        "the covariance at grid position {position} is not positive definite; use a larger epsilon"
    )]
    NotPositiveDefinite {
        /// The row-major index of the position in the grid.
        position: usize,
    },

    /// A detector was asked to take in more images or to fit again, but nothing was kept of those it
    /// was fitted with.
    #[error(
        "the detector has kept nothing of its images; make it with `PartialFit::finish_extendable`"
    )]
    NoStatistics,

    /// A fit or a calibration was stopped by its own progress callback.
    #[error("stopped by the progress callback")]
    Cancelled,

    /// A detector was fitted with registered images, and its file holds only the registration's name,
    /// since code cannot be saved. It would score images that lie as they come.
    #[error(
        "the detector was fitted with images registered by {name:?}, which no file can hold; give it \
         again by `with_registration`"
    )]
    RegistrationMissing {
        /// The registration's name.
        name: String,
    },

    /// A file of weights cannot be read: damaged, truncated, or not a checkpoint.
    #[error("cannot read weights from {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A file of weights is not on this machine.
    #[error(
        "cannot find the weights {file} in {}; download {url} into the first of these folders (what \
         `sha256sum {file}` prints must begin with {digits}), or let `Weights::fetch` do so (cargo \
         feature `download`)",
        list(folders)
    )]
    WeightsNotFound {
        /// The file's name.
        file: String,
        /// How its SHA-256 begins, in hexadecimal digits.
        digits: String,
        /// Where it can be had.
        url: String,
        /// The folders in which it was looked for.
        folders: Vec<PathBuf>,
    },

    /// A file of weights could not be downloaded.
    #[error("cannot download {url}: {reason}")]
    Download {
        /// The file's address.
        url: String,
        /// What was expected, and what came.
        reason: String,
    },

    /// A file of weights lacks a tensor that the network needs.
    #[error(
        "the weights lack the tensor `{name}` (shape {expected:?}); is this a checkpoint of the right network?"
    )]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },

    /// A file of weights has a tensor that the network does not know.
    #[error(
        "the weights hold a tensor `{name}` that the network does not have; is this a checkpoint of the right network?"
    )]
    UnexpectedTensor {
        /// The tensor's name.
        name: String,
    },

    /// A tensor of the weights has another shape than the network needs.
    #[error("the tensor `{name}` has shape {actual:?}, the network needs {expected:?}")]
    TensorShape {
        /// The tensor's name.
        name: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },

    /// A tensor of the weights has a data type from which the network cannot be built.
    #[error(
        "the tensor `{name}` has data type {actual}, the network needs f32, f16 or bf16; convert the checkpoint first"
    )]
    TensorType {
        /// The tensor's name.
        name: String,
        /// The data type in the file.
        actual: String,
    },

    /// A detector was loaded with a backbone whose weights are not those it was fitted with. Its
    /// scores would be meaningless.
    #[error(
        "the detector was fitted with backbone weights {expected}, but those given are {actual}; load \
         it with the weights that it was fitted with"
    )]
    BackboneMismatch {
        /// The fingerprint stored in the detector.
        expected: Fingerprint,
        /// The fingerprint of the backbone that was given.
        actual: Fingerprint,
    },

    /// A detector cannot be saved or loaded in the way that was asked for, because its backbone is
    /// not in the file.
    #[error("{reason}")]
    BackboneNotEmbedded {
        /// Why, and what to call instead.
        reason: String,
    },

    /// A file is not a detector, or is damaged.
    #[error("{} is not a usable padim detector: {reason}", path.display())]
    InvalidDetectorFile {
        /// The file.
        path: PathBuf,
        /// Which invariant of the format is broken.
        reason: String,
    },

    /// A detector file was written by a newer version of this crate.
    #[error("{} has detector format version {version}, this version of padim reads up to {supported}; update padim", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        version: u32,
        /// The newest version that this crate reads.
        supported: u32,
    },

    /// A metric has no value for the given labels (an AUROC without a defective example, say).
    #[error("{metric} is undefined: {reason}")]
    UndefinedMetric {
        /// The metric.
        metric: &'static str,
        /// Why it has no value.
        reason: String,
    },

    /// A folder is not laid out as its dataset reader expects.
    #[error("{}: {reason}", path.display())]
    Dataset {
        /// The folder or file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },

    /// Code that was called panicked: a decoder, a backbone, or an image's own
    /// ([`ImageInput::Deferred`](crate::ImageInput::Deferred)).
    #[error("{what} panicked: {message}")]
    Panicked {
        /// What was being done.
        what: &'static str,
        /// What the panic said.
        message: String,
    },

    /// A [`line::Line`](crate::line::Line) takes no images any more.
    #[error("the line is closed: {reason}")]
    LineClosed {
        /// Why.
        reason: String,
    },

    /// There is no device of this name, on this machine or in this build.
    #[error(
        "there is no device {name:?}: this build looks for {}, and found {}; other kinds need a cargo \
         feature of their name (cuda, metal, vulkan, webgpu, wgpu), and a driver",
        looked_for.join(", "),
        found.join(", ")
    )]
    NoDevice {
        /// What was asked for.
        name: String,
        /// What there is, with names and descriptions.
        found: Vec<String>,
        /// The kinds of devices that this build looks for.
        looked_for: Vec<String>,
    },

    /// The device failed to compute or to hand back its results.
    #[error("the device failed: {reason}")]
    Device {
        /// The device's reason.
        reason: String,
    },
}

impl Error {
    pub(crate) fn config(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidConfig { field, reason: reason.into() }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::Io { action, path, reason }
    }

    pub(crate) fn shape(
        what: &'static str,
        expected: impl Into<String>,
        actual: impl std::fmt::Debug,
    ) -> Self {
        Self::ShapeMismatch { what, expected: expected.into(), actual: format!("{actual:?}") }
    }
}

/// Folders for a message. There is none where the environment names no home.
fn list(folders: &[PathBuf]) -> String {
    match folders {
        [] => "the folder `PADIM_WEIGHTS_DIR`, which is not set".to_owned(),
        _ => folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}
