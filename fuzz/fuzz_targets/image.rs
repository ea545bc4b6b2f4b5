#![no_main]

#[path = "../allocations.rs"]
mod allocations;
#[path = "../../tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

/// A TIFF's reader reserves up to 256 MiB for its directory before it can be given limits. It does not
/// touch what the file has no values for (`tests/memory.rs`).
const LIMIT: usize = 256 << 20;

// Panics of decoders are caught and made errors; those that get out end the run all the same, but without
// their message, which `cargo test` gives.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| hostile::image(bytes)
);
