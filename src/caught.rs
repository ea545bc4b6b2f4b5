//! Catches panics of foreign code.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// A caught panic: what was being done, and the panic's message.
pub(crate) struct Panic {
    pub what: &'static str,
    pub message: String,
}

impl Panic {
    pub fn error(self) -> Error {
        Error::Panicked { what: self.what, message: self.message }
    }
}

/// The result of `work`, or its panic. State that the panic left half changed must not be used again.
pub(crate) fn caught<R>(what: &'static str, work: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Panic { what, message: text.unwrap_or_else(|| "without a message".to_owned()) }
    })
}

/// The result of `work`, or its panic as an error with `name` in its message.
pub(crate) fn caught_for<R>(
    what: &'static str,
    name: &str,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    caught(what, work).unwrap_or_else(|mut panic| {
        panic.message = format!("{name}: {}", panic.message);
        Err(panic.error())
    })
}
