//! A value that is made on first use.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Result;

/// A cell whose value is made once. Making it may fail.
#[derive(Debug)]
pub(crate) struct Once<T> {
    value: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Once<T> {
    /// The value, if it has been made.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, made by `make` if there is none yet. Other threads that need it wait meanwhile,
    /// so `make` must not use rayon (see `threads.rs`).
    pub fn get_or_try_make(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        // Ignores poisoning: a panic in `make` has stored no value.
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.value.get() {
            Some(value) => Ok(value),
            None => {
                let value = make()?;
                Ok(self.value.get_or_init(|| value))
            }
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), making: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn it_is_made_once_whoever_needs_it() {
        let (cell, made) = (Once::default(), AtomicUsize::new(0));
        let failed = cell.get_or_try_make(|| Err(Error::TooFewImages { count: 0 }));
        assert!(failed.is_err());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = cell.get_or_try_make(|| Ok(made.fetch_add(1, Ordering::SeqCst)));
                    assert_eq!(*value.unwrap(), 0);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
