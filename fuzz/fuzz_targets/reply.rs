//! Any body is an announce reply, a scrape reply, a refusal, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::reply;

fuzz_target!(|body: &[u8]| {
    if let Ok(answer) = reply::parse_announce_reply(body) {
        assert!(
            answer
                .peers
                .iter()
                .all(|peer| peer.endpoint.addr.port() != 0)
        );
    }
    let _ = reply::parse_scrape_reply(body);
});
