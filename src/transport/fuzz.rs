//! Properties of the HTTP decoders and of the limits of connections that hold for any input. See
//! [`crate::fuzz`].

mod admission;

use std::net::IpAddr;

use scion_tracker_core::request::Origin;

use super::http::origin::Proxies;

pub use super::http::fuzz::{http1_head, proxy_header};
pub use super::http::three::fuzz::{http3_control, http3_request};
pub use admission::admission;

/// The address of a trusted proxy, and that of another host. Requests from both are tested: only
/// the headers of the proxy name the client.
pub(super) const SOURCES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
];

/// Trusts that proxy.
pub(super) fn proxies() -> Proxies {
    Proxies::new([SOURCES[0].into()], false, "x-forwarded-for")
}

/// The origins of requests, without a proven place.
pub(super) fn origins() -> impl Iterator<Item = Origin> {
    SOURCES.into_iter().map(Origin::ip)
}

/// Ways to cut a message in two, as the network might. At most 64, so that long messages do not
/// take long.
pub(super) fn cuts(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    (0..bytes.len())
        .step_by(1 + bytes.len() / 64)
        .map(|at| bytes.split_at(at))
}
