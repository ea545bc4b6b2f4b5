#![no_main]

#[path = "../allocations.rs"]
mod allocations;
#[path = "../decoders.rs"]
mod decoders;
#[path = "../../tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

use decoders::LIMIT;

libfuzzer_sys::fuzz_target!(init: decoders::hide_panics(), |bytes: &[u8]| hostile::mask(bytes));
