//! Opens and closes connections in any order, with a model of the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::admission(bytes));
