//! Parses any text as a SCION address. An accepted address prints and parses again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::address::{IsdAs, ScionAddr};

fuzz_target!(|text: &str| {
    if let Ok(ia) = text.parse::<IsdAs>() {
        assert_eq!(ia.to_string().parse(), Ok(ia));
    }
    if let Ok(addr) = text.parse::<ScionAddr>() {
        assert_eq!(addr.to_string().parse(), Ok(addr));
        assert_eq!(addr.url_authority().parse(), Ok(addr));
    }
});
