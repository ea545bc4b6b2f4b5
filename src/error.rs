//! The one error type of the crate.

use std::path::{Path, PathBuf};

use crate::fingerprint::Fingerprint;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error: what went wrong, what was expected and what to do.
///
/// The message contains everything, including the reason of the operating system or a decoder. So
/// [`source`](std::error::Error::source) is `None`, and programs that print a chain of errors print
/// each reason once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or a combination of settings is invalid. Occurs when a configuration is checked,
    /// before any work is done.
    #[error("invalid configuration: {field}: {reason}")]
    #[non_exhaustive]
    InvalidConfig {
        /// The name of the setting in its configuration.
        field: &'static str,
        /// What is wrong with its value, and which values are valid.
        reason: String,
    },

    /// The operating system refused to read or write a file.
    #[error("cannot {action} the {kind} {}: {reason}", path.display())]
    #[non_exhaustive]
    Io {
        /// The attempted action ("read", "write", ...).
        action: &'static str,
        /// The kind of file.
        kind: FileKind,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },

    /// An image could not be decoded: the file is damaged, is not an image, or has an unsupported
    /// format. PNG, JPEG, BMP, TIFF and WebP are supported.
    #[error("cannot decode the image {name}: {reason}; use PNG, JPEG, BMP, TIFF or WebP")]
    #[non_exhaustive]
    Decode {
        /// The image's path, or a description of its origin.
        name: String,
        /// The decoder's reason.
        reason: image::ImageError,
    },

    /// A file would decode to an image that exceeds the
    /// [`DecodeLimits`](crate::preprocess::DecodeLimits).
    #[error(
        "the image {name} is too large: {what}; if the file can be trusted, raise the limits by \
         `with_decode_limits`"
    )]
    #[non_exhaustive]
    ImageTooLarge {
        /// The image's path.
        name: String,
        /// Its size and the limit.
        what: String,
    },

    /// A decoded image cannot be used, for example because it has no pixels, is smaller than the crop,
    /// or holds NaN.
    #[error("cannot use the image {name}: {reason}")]
    #[non_exhaustive]
    UnusableImage {
        /// The image's path, or a description of its origin.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor, map or list has an unexpected shape.
    #[error("{what}: expected {expected}, got {actual}")]
    #[non_exhaustive]
    ShapeMismatch {
        /// What has the wrong shape.
        what: &'static str,
        /// The expected shape.
        expected: String,
        /// The actual shape.
        actual: String,
    },

    /// Values that must be finite numbers are NaN or infinite.
    #[error("NaN or infinite values in {what}; check the input images and the backbone's weights")]
    #[non_exhaustive]
    NotFinite {
        /// The object that holds the values.
        what: String,
    },

    /// There are too few images to estimate a covariance. PaDiM needs at least two good images; a
    /// useful model usually needs fifty or more.
    #[error(
        "a Gaussian needs at least 2 training images, got {count}; give more images of good parts"
    )]
    #[non_exhaustive]
    TooFewImages {
        /// The number of images.
        count: usize,
    },

    /// The covariance matrix of a position cannot be inverted, because epsilon is too small for the
    /// range of the features.
    #[error(
        "the covariance at grid position {position} is not positive definite; use a larger epsilon"
    )]
    #[non_exhaustive]
    NotPositiveDefinite {
        /// The row-major index of the position in the grid.
        position: usize,
    },

    /// A detector cannot be extended or refitted, because it has not kept the statistics of its images.
    #[error(
        "the detector has no statistics of its images; make it with `PartialFit::finish_extendable`"
    )]
    NoStatistics,

    /// The progress callback stopped a fit or a calibration.
    #[error("stopped by the progress callback")]
    Cancelled,

    /// A loaded detector lacks the registration of its fit, because a file holds only the name of a
    /// custom registration. Without it, scores would be wrong.
    #[error(
        "the detector was fitted with the registration {name:?}, which a file cannot hold; set it \
         again by `with_registration`"
    )]
    #[non_exhaustive]
    RegistrationMissing {
        /// The registration's name.
        name: String,
    },

    /// A file of weights cannot be read: it is damaged, truncated, or not a checkpoint.
    #[error("cannot read weights from {}: {reason}", path.display())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    WeightsNotFound {
        /// The file's name.
        file: String,
        /// The first hexadecimal digits of its SHA-256.
        digits: String,
        /// The address for the download.
        url: String,
        /// The folders that were searched.
        folders: Vec<PathBuf>,
    },

    /// A file of weights could not be downloaded.
    #[error("cannot download {url}: {reason}")]
    #[non_exhaustive]
    Download {
        /// The file's address.
        url: String,
        /// What was expected and what came.
        reason: String,
    },

    /// A file of weights lacks a tensor that the network needs.
    #[error(
        "the weights lack the tensor `{name}` (shape {expected:?}); is this a checkpoint of the right network?"
    )]
    #[non_exhaustive]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },

    /// A file of weights has a tensor that the network does not have.
    #[error(
        "the weights hold a tensor `{name}` that the network does not have; is this a checkpoint of the right network?"
    )]
    #[non_exhaustive]
    UnexpectedTensor {
        /// The tensor's name.
        name: String,
    },

    /// A tensor of the weights has a wrong shape.
    #[error("the tensor `{name}` has shape {actual:?}, the network needs {expected:?}")]
    #[non_exhaustive]
    TensorShape {
        /// The tensor's name.
        name: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },

    /// A tensor of the weights has an unsupported data type.
    #[error(
        "the tensor `{name}` has data type {actual}, the network needs f32, f16 or bf16; convert the checkpoint first"
    )]
    #[non_exhaustive]
    TensorType {
        /// The tensor's name.
        name: String,
        /// The data type in the file.
        actual: String,
    },

    /// A detector was loaded with a backbone whose weights differ from those of its fit. Its scores
    /// would be meaningless.
    #[error(
        "the detector was fitted with the backbone weights {expected}, got {actual}; use the weights \
         of the fit"
    )]
    #[non_exhaustive]
    BackboneMismatch {
        /// The fingerprint stored in the detector.
        expected: Fingerprint,
        /// The fingerprint of the backbone that was given.
        actual: Fingerprint,
    },

    /// A detector cannot be saved, loaded or moved in this way, because its backbone cannot be in the
    /// file or is not in it.
    #[error("{reason}")]
    #[non_exhaustive]
    BackboneNotEmbedded {
        /// The reason, and what to call instead.
        reason: String,
    },

    /// A file is not a detector, or is damaged.
    #[error("{} is not a usable padim detector: {reason}", path.display())]
    #[non_exhaustive]
    InvalidDetectorFile {
        /// The file.
        path: PathBuf,
        /// The broken invariant of the format.
        reason: String,
    },

    /// A detector file was written by a newer version of this crate.
    #[error("{} has detector format version {version}, this version of padim reads up to {supported}; update padim", path.display())]
    #[non_exhaustive]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        version: u32,
        /// The newest version that this crate reads.
        supported: u32,
    },

    /// A metric is undefined for the given labels, for example an AUROC without a defective image.
    #[error("{metric} is undefined: {reason}")]
    #[non_exhaustive]
    UndefinedMetric {
        /// The metric.
        metric: &'static str,
        /// Why it is undefined.
        reason: String,
    },

    /// A folder does not have the layout that its dataset reader expects.
    #[error("{}: {reason}", path.display())]
    #[non_exhaustive]
    Dataset {
        /// The folder or file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },

    /// A decoder, a backbone or a user's closure
    /// ([`ImageInput::Deferred`](crate::ImageInput::Deferred)) panicked.
    #[error("{what} panicked: {message}")]
    #[non_exhaustive]
    Panicked {
        /// The step that panicked.
        what: &'static str,
        /// The panic's message.
        message: String,
    },

    /// A [`line::Line`](crate::line::Line) no longer accepts images.
    #[error("the line is closed: {reason}")]
    #[non_exhaustive]
    LineClosed {
        /// Why it is closed.
        reason: String,
    },

    /// There is no device with this name on this machine or in this build.
    #[error(
        "there is no device {name:?}: this build looks for {}, and found {}; other kinds need the \
         cargo feature with their name (cuda, metal, vulkan, webgpu, wgpu), and a driver",
        looked_for.join(", "),
        found.join(", ")
    )]
    #[non_exhaustive]
    NoDevice {
        /// The requested name.
        name: String,
        /// The devices that exist, with names and descriptions.
        found: Vec<String>,
        /// The kinds of devices that this build looks for.
        looked_for: Vec<String>,
    },

    /// The device failed to compute or to return its results.
    #[error("the device failed: {reason}")]
    #[non_exhaustive]
    Device {
        /// The device's reason.
        reason: String,
    },

    /// An error of user code ([`Error::other`]).
    #[error("{reason}")]
    #[non_exhaustive]
    Other {
        /// The error itself.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A feature that this type does not have.
    #[error("{what} is not available {place}: {advice}")]
    #[non_exhaustive]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// Where it is missing.
        place: &'static str,
        /// What to use instead.
        advice: &'static str,
    },
}

/// The kind of a file, in [`Error::Io`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// An image, or a folder of images.
    Image,
    /// A detector or a partial fit.
    Detector,
    /// Weights of a network.
    Weights,
    /// A data set: its folders, tables and arrays.
    Dataset,
    /// A picture of results.
    Picture,
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Detector => "detector file",
            Self::Weights => "weights file",
            Self::Dataset => "data set file",
            Self::Picture => "picture",
        })
    }
}

impl Error {
    /// Wraps an error of user code, such as a backbone, an image closure or a registration.
    ///
    /// ```
    /// use padim::{Error, ImageInput};
    ///
    /// let camera = ImageInput::deferred("camera 3", |_options| Err(Error::other("no trigger")));
    /// ```
    pub fn other(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other { reason: source.into() }
    }

    pub(crate) fn config(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidConfig { field, reason: reason.into() }
    }

    pub(crate) fn io(
        kind: FileKind,
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::Io { action, kind, path, reason }
    }

    pub(crate) fn shape(
        what: &'static str,
        expected: impl Into<String>,
        actual: impl std::fmt::Debug,
    ) -> Self {
        Self::ShapeMismatch { what, expected: expected.into(), actual: format!("{actual:?}") }
    }
}

/// Lists folders for a message. There is none if the environment does not define a home folder.
fn list(folders: &[PathBuf]) -> String {
    match folders {
        [] => "the folder `PADIM_WEIGHTS_DIR`, which is not set".to_owned(),
        _ => folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}
