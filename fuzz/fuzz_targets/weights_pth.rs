#![no_main]

#[path = "../allocations.rs"]
mod allocations;
#[path = "../../tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::pickle(bytes));
