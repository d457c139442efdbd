//! Parses any query. An accepted one gives the same result after writing and parsing it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::query;

fuzz_target!(|text: &str| {
    if let Ok(announce) = query::parse_announce(text) {
        let mut written = String::new();
        query::write_announce(&announce, &mut written);
        assert_eq!(query::parse_announce(&written), Ok(announce));
    }
    if let Ok(hashes) = query::parse_scrape(text, 100) {
        let mut written = String::new();
        query::write_scrape(&hashes, &mut written);
        assert_eq!(query::parse_scrape(&written, 100), Ok(hashes));
    }
});
