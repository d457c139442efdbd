//! Reads any text as a SCION topology file and as a range of ports.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::topology(bytes));
