//! Parses any datagram as a BEP 15 request and as a reply.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::bep15::{self, Request, UrlBuffer};
use scion_tracker_core::codec::compact::Layout;

fuzz_target!(|datagram: &[u8]| {
    match bep15::parse(datagram, 74) {
        Ok(Request::Announce { url, .. }) => {
            let _ = url.read(&mut UrlBuffer::new());
        }
        Ok(Request::Scrape { hashes, .. }) => assert!((1..=74).contains(&hashes.count())),
        Ok(Request::Connect { .. }) | Err(_) => {}
    }
    for layout in [Layout::Ip4, Layout::Ip6, Layout::Scion4, Layout::Scion6, Layout::Scion46] {
        let _ = bep15::parse_reply(datagram, layout);
    }
});
