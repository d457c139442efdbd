//! Parses any text as a path policy and applies it to a path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::path_policy(bytes));
