//! What has to hold of the decoders of HTTP, whatever they are given. See [`crate::fuzz`].

use std::net::IpAddr;

use scion_tracker_core::request::Origin;

use super::http::origin::Proxies;

pub use super::http::fuzz::http1_head;
pub use super::http::three::fuzz::{http3_control, http3_request};

/// Where a proxy is, and somebody else. Requests of both are read, as only the first one's headers say
/// where they come from.
pub(super) const SOURCES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
];

/// That proxy.
pub(super) fn proxies() -> Proxies {
    Proxies::new([SOURCES[0].into()], false, "x-forwarded-for")
}

/// A requester whose place nobody but itself can say.
pub(super) fn origins() -> impl Iterator<Item = Origin> {
    SOURCES.into_iter().map(Origin::ip)
}

/// Where to cut a message in two, as the network might: at 64 places at most, so that long ones do not
/// take long.
pub(super) fn cuts(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    (0..bytes.len())
        .step_by(1 + bytes.len() / 64)
        .map(|at| bytes.split_at(at))
}
