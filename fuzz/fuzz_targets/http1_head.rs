//! Parses any bytes as the head of an HTTP/1.1 request. More bytes never change the result.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http1_head(bytes));
