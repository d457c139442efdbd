//! Parses any body as an announce reply and as a scrape reply. No peer of an accepted reply has port 0.
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
