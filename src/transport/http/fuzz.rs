//! Checks of the head of an HTTP/1.1 request and of a PROXY protocol header, for fuzzing and tests.

use super::head::{self, HeadError};
use super::origin::{Client, Proxied, read_proxy_header};
use crate::transport::fuzz::{cuts, origins, proxies};

/// Checks that more bytes never change the result for a head, and that an untrusted client cannot
/// set its origin.
pub fn http1_head(bytes: &[u8]) {
    let proxies = proxies();
    for origin in origins() {
        let whole = head::read(bytes, origin, &proxies);
        for (part, _) in cuts(bytes) {
            match head::read(part, origin, &proxies) {
                Err(HeadError::Incomplete) => {}
                early => assert_eq!(format!("{early:?}"), format!("{whole:?}")),
            }
        }
        if let Ok(head) = whole {
            assert!((1..=bytes.len()).contains(&head.length));
            assert!(!head.request.target.is_empty());
            assert!(
                proxies.trusts(origin.host.ip())
                    || matches!(head.request.client, Client::Known(it) if it == origin)
            );
        }
    }
}

/// Checks that more bytes never change the result for a PROXY protocol header, and that the header
/// lies within the bytes.
pub fn proxy_header(bytes: &[u8]) {
    let whole = read_proxy_header(bytes);
    for (part, _) in cuts(bytes) {
        match read_proxy_header(part) {
            Proxied::Incomplete => {}
            early => assert_eq!(early, whole),
        }
    }
    if let Proxied::Header { length, .. } = whole {
        assert!((1..=bytes.len()).contains(&length));
        assert_eq!(read_proxy_header(&bytes[..length]), whole);
    }
}
