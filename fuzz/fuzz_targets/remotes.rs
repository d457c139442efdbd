//! Runs the table of SCION remotes with any sequence of packets, SCMP errors and times.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::remotes(bytes));
