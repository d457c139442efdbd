//! Reads any bytes as each reply of a SCION daemon, and shows its paths.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::daemon_messages(bytes));
