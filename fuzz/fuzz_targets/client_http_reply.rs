//! Handles any status, headers and body as the reply of a tracker over HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::client_http_reply(bytes));
