//! What decoders read from, and their limits.

use std::io::{BufRead, Seek};

use image::Limits;

/// What decoders read from.
pub(super) trait Source: BufRead + Seek {}

impl<R: BufRead + Seek> Source for R {}

/// Limits of a decoder's memory.
pub(super) fn allow(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}
