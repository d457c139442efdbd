//! Parses any datagram as a reply over UDP, as the client does.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| scion_tracker::fuzz::client_udp_reply(bytes));
