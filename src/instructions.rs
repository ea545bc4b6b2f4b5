//! The processor's instruction set.
//!
//! Fast code exists for several instruction sets, and the best that the processor has is used. The
//! environment variable `PADIM_ENGINE` names the best that may be used (`portable`, `avx2`, `avx512`), so
//! that others can be measured and tested on the same machine. `off`: networks run on Burn's kernels.

use std::sync::OnceLock;

use pulp::Arch;

use crate::error::{Error, Result};

/// The name of the environment variable.
const VARIABLE: &str = "PADIM_ENGINE";

/// Instruction sets, from the slowest to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// What every processor has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, BW, CD, DQ and VL).
    Avx512,
}

const NAMES: [(&str, Level); 3] =
    [("portable", Level::Portable), ("avx2", Level::Avx2), ("avx512", Level::Avx512)];

/// The best of this processor.
fn available() -> Level {
    match Arch::new() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => Level::Avx512,
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => Level::Avx2,
        _ => Level::Portable,
    }
}

/// The value that switches off the engine of the networks.
const OFF: &str = "off";

/// The level that a value of the variable names.
fn parse(value: Option<&str>, available: Level) -> Result<Level> {
    let Some(value) = value.filter(|value| *value != OFF) else { return Ok(available) };
    match NAMES.iter().find(|(name, _)| *name == value) {
        Some(&(_, level)) if level <= available => Ok(level),
        Some(_) => {
            let (best, _) = NAMES[available as usize];
            let reason = format!("this processor has no {value:?}; its best is {best:?}");
            Err(Error::config(VARIABLE, reason))
        }
        None => {
            let names = NAMES.map(|(name, _)| name).join(", ");
            Err(Error::config(VARIABLE, format!("expected one of {names}, {OFF}, got {value:?}")))
        }
    }
}

/// The level that the environment names.
fn read() -> Result<Level> {
    let value = std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
    parse(value.as_deref(), available())
}

/// Whether networks may run on the engine.
pub(crate) fn engine_is_on() -> bool {
    std::env::var_os(VARIABLE).is_none_or(|value| value != OFF)
}

/// Checks the environment variable.
///
/// # Errors
///
/// [`Error::InvalidConfig`] if it names no instruction set, or one that the processor does not have.
pub(crate) fn check() -> Result<()> {
    read().map(drop)
}

/// The level to use. A wrong variable is an error of [`check`]; here, it is ignored.
fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| read().unwrap_or_else(|_| available()))
}

/// The instruction set for kernels that are compiled for several.
pub(crate) fn arch() -> Arch {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2().map_or(Arch::Scalar, Arch::V3),
        Level::Portable => Arch::Scalar,
        _ => Arch::new(),
    }
}

/// AVX2, for kernels that are written for it. Processors with AVX-512 have it, too.
#[cfg(target_arch = "x86_64")]
pub(crate) fn avx2() -> Option<pulp::x86::V3> {
    if level() >= Level::Avx2 { pulp::x86::V3::try_new() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_caps_what_the_processor_has() {
        for available in NAMES {
            assert_eq!(parse(None, available.1).unwrap(), available.1);
            assert_eq!(parse(Some("off"), available.1).unwrap(), available.1);
            for (name, level) in NAMES {
                match parse(Some(name), available.1) {
                    Ok(capped) => assert!(capped == level && level <= available.1),
                    Err(error) => {
                        assert!(level > available.1);
                        let text = error.to_string();
                        assert!(text.contains(name) && text.contains(available.0), "{text}");
                    }
                }
            }
        }
        let error = parse(Some("sse"), Level::Avx512).unwrap_err().to_string();
        assert!(error.contains("PADIM_ENGINE") && error.contains("avx2"), "{error}");
    }
}
