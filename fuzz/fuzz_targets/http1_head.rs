//! The head of an HTTP/1.1 request is read, or refused, by its first bytes and for good.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::http1_head(bytes));
