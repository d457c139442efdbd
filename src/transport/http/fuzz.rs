//! What has to hold of the head of an HTTP/1.1 request.

use super::head::{self, HeadError};
use super::origin::Client;
use crate::transport::fuzz::{cuts, origins, proxies};

/// What has been made out of a head stays so, whatever comes behind it; and strangers are taken for
/// nobody else.
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
