//! The unidirectional streams of an HTTP/3 client are read alike in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http3_control(bytes));
