//! A request stream of HTTP/3 (frames, QPACK, fields) is read, or refused, by its first bytes and for good.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http3_request(bytes));
