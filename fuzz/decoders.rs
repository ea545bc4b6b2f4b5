//! What the targets of image decoders share.

/// A TIFF's reader reserves up to 256 MiB for its directory before it can be given limits. It does not
/// touch what the file has no values for (`tests/memory.rs`).
pub const LIMIT: usize = 256 << 20;

/// Panics of decoders are caught and made errors; those that get out end the run all the same, but without
/// their message, which `cargo test` gives.
pub fn hide_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}
