//! Parses any bytes as the unidirectional streams of an HTTP/3 client, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http3_control(bytes));
