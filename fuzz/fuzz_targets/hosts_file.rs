//! Looks up any name in any file of SCION host names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::hosts_file(bytes));
