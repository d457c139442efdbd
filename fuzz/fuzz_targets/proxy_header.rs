//! Reads any bytes as a PROXY protocol header. More bytes never change the result.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::proxy_header(bytes));
