//! Parses any query. An accepted one gives the same result after writing and parsing it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::query;

fuzz_target!(|text: &str| {
    if let Ok(mut announce) = query::parse_announce(text) {
        // The passkey is a part of the tracker's URL, which clients have already.
        announce.announce.passkey = None;
        let mut written = String::new();
        query::write_announce(&announce, &mut written);
        assert_eq!(query::parse_announce(&written), Ok(announce));
    }
    if let Ok(scrape) = query::parse_scrape(text, 100) {
        let mut written = String::new();
        query::write_scrape(&scrape.hashes, &mut written);
        let again = query::parse_scrape(&written, 100).map(|it| it.hashes);
        assert_eq!(again, Ok(scrape.hashes));
    }
});
