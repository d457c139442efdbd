//! A path that a remote uses, and what is known of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use scion_tracker_core::codec::scion::Path;

use super::{Arrival, Now, Route};
use crate::scion::socket::MIN_PAYLOAD;

/// A path that a remote uses.
#[derive(Debug)]
pub(super) struct PathState {
    /// The path in the packets of the remote. Empty if we chose the path.
    pub(super) received: Box<[u8]>,
    /// See [`Arrival::via`].
    pub(super) via: Option<SocketAddr>,
    pub(super) route: Arc<Route>,
    pub(super) expiry: Option<u32>,
    /// When a packet last arrived over the path.
    pub(super) last_received: Duration,
    /// Whether such a packet had a known connection id, or we chose the path.
    pub(super) proven: bool,
    /// Whether an SCMP error reported the path, and no packet has arrived over it since.
    pub(super) failed: bool,
}

impl PathState {
    pub(super) fn received(arrival: &Arrival<'_>, route: Route) -> Self {
        Self {
            received: arrival.path.as_bytes().into(),
            via: arrival.via,
            proven: false,
            ..Self::chosen(route, arrival.now)
        }
    }

    pub(super) fn chosen(route: Route, now: Now) -> Self {
        Self {
            received: Box::default(),
            via: None,
            expiry: route.template.path().expiry(),
            route: Arc::new(route),
            last_received: now.since_start,
            proven: true,
            failed: false,
        }
    }

    pub(super) fn is_of(&self, arrival: &Arrival<'_>) -> bool {
        *self.received == *arrival.path.as_bytes() && self.via == arrival.via
    }

    pub(super) fn packet_received(&mut self, known: bool, now: Now) {
        self.last_received = now.since_start;
        self.proven |= known;
        // The packet may be older than the SCMP error: sent before the link failed.
        self.failed = false;
    }

    /// Whether QUIC packets of the minimum size fit with our headers (RFC 9000 section 14). Larger
    /// packets are probes that may fail, but a path that does not carry the minimum size is
    /// useless.
    pub(super) fn fits(&self, mtu: u16) -> bool {
        usize::from(mtu) >= self.route.template.overhead() + usize::from(MIN_PAYLOAD)
    }

    pub(super) fn expires_by(&self, unix: u32) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= unix)
    }

    /// Whether packets can take the path, as far as it is known.
    pub(super) fn works(&self, now: Now) -> bool {
        !self.failed && !self.expires_by(now.unix)
    }
}

/// Number of interfaces of one path that another one also has. Interfaces are compared by their number,
/// because hop fields do not name their AS.
pub(in crate::scion::socket) fn shared(one: Path<'_>, other: Path<'_>) -> usize {
    let shared = one
        .interfaces()
        .filter(|it| other.interfaces().any(|other| other == *it));
    shared.count()
}
