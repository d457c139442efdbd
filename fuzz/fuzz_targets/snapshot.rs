//! Reads any bytes as a snapshot of the swarms, and as the peers in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::snapshot(bytes));
