//! Parses any bytes as a request stream of HTTP/3 (frames, QPACK, fields). More bytes never change
//! the result.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http3_request(bytes));
