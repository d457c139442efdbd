//! Parses any text as the URL of a tracker, and as the target of a redirect.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::client_url(bytes));
