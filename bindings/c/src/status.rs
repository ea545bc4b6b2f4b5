//! Status codes and messages of errors.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use padim::Error;

/// The version of this interface. It grows when a function or a struct changes in a way that old programs cannot
/// use.
pub const PADIM_ABI_VERSION: u32 = 1;

/// The result of a call.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadimStatus {
    /// The call has succeeded.
    PadimOk = 0,
    /// An argument is wrong: a null pointer, an unknown handle, a size.
    PadimErrorArgument = 1,
    /// A setting is wrong, or the images do not suffice for it.
    PadimErrorConfig = 2,
    /// The operating system refused to read or write a file.
    PadimErrorIo = 3,
    /// An image cannot be used: it is damaged, too large, or of an unsupported kind.
    PadimErrorImage = 4,
    /// A file is not a usable detector.
    PadimErrorDetector = 5,
    /// Anything else.
    PadimErrorOther = 6,
    /// A bug in padim. The detector and the other handles stay usable.
    PadimErrorPanic = 7,
}

/// Why a call fails.
pub(crate) struct Failure {
    status: PadimStatus,
    message: String,
}

impl Failure {
    /// A wrong argument.
    pub fn argument(message: impl Into<String>) -> Self {
        Self { status: PadimStatus::PadimErrorArgument, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::InvalidConfig { .. }
            | Error::TooFewImages { .. }
            | Error::Unsupported { .. } => PadimStatus::PadimErrorConfig,
            Error::Io { .. } => PadimStatus::PadimErrorIo,
            Error::Decode { .. }
            | Error::ImageTooLarge { .. }
            | Error::UnusableImage { .. }
            | Error::ShapeMismatch { .. }
            | Error::NotFinite { .. } => PadimStatus::PadimErrorImage,
            Error::InvalidDetectorFile { .. }
            | Error::UnsupportedVersion { .. }
            | Error::BackboneNotEmbedded { .. }
            | Error::BackboneMismatch { .. } => PadimStatus::PadimErrorDetector,
            Error::Panicked { .. } => PadimStatus::PadimErrorPanic,
            _ => PadimStatus::PadimErrorOther,
        };
        Self { status, message: error.to_string() }
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Runs the body of a function of the interface.
pub(crate) fn guard(work: impl FnOnce() -> Outcome<()>) -> PadimStatus {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return PadimStatus::PadimOk,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            let message = format!("a bug in padim: {text}");
            Failure { status: PadimStatus::PadimErrorPanic, message }
        }
    };
    let message = CString::new(failure.message.replace('\0', " ")).unwrap_or_default();
    MESSAGE.with(|place| *place.borrow_mut() = message);
    failure.status
}

/// The message of the last call of this thread that failed; empty if none has. It is valid until the next call of
/// this thread that fails.
#[unsafe(no_mangle)]
pub extern "C" fn padim_last_error() -> *const c_char {
    MESSAGE.with(|place| place.borrow().as_ptr())
}

/// The version of the interface of this library: equal to PADIM_ABI_VERSION of the header that fits.
#[unsafe(no_mangle)]
pub extern "C" fn padim_abi_version() -> u32 {
    PADIM_ABI_VERSION
}

/// The version of padim, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn padim_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
