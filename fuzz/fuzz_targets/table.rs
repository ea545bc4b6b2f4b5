#![no_main]

#[path = "../allocations.rs"]
mod allocations;
#[path = "../../tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

const LIMIT: usize = 64 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::table(bytes));
