//! The C interface of padim. `include/padim.h` is made from this crate; the README beside it has examples.
//!
//! Handles are numbers ([`handles`]): a wrong or freed one is an error, because no pointer of the caller is
//! followed for them. Memory of the caller is read and written in [`memory`] only. No panic leaves the library
//! ([`status`]).

// One rule for all functions, in the header's beginning: what the pointers point to.
#![allow(clippy::missing_safety_doc)]

mod detector;
mod fit;
mod handles;
mod input;
mod memory;
mod prediction;
mod status;

pub use detector::*;
pub use fit::*;
pub use input::*;
pub use prediction::*;
pub use status::*;
