//! Reads any text as a configuration file, and as lists of the environment.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::config(bytes));
