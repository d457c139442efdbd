//! Transports: accept, decode, call the tracker, encode.
//!
//! Here is what they share: the limits that keep a stranger from using up the machine.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use scion_tracker_core::request::Origin;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::{Counter, Network};
use crate::service::Service;
use http::origin::Proxies;

pub(crate) mod connections;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod http;
pub(crate) mod quic;
mod receive;
pub(crate) mod scion;
pub(crate) mod tcp;
pub(crate) mod udp;

/// How the connections of a listener are served.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whom to believe about where requests come from. There is no PROXY protocol over QUIC.
    pub(crate) proxies: Proxies,
    /// Where else the server is, as HTTP/1.1 and HTTP/2 say (RFC 7838): see [`tcp::alt_svc`].
    pub(crate) alt_svc: Option<HeaderValue>,
}

/// What all connections of a listener share.
#[derive(Debug)]
struct Shared {
    service: Arc<Service>,
    options: Arc<Options>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// Counts what happened to a connection of this client.
    fn count(&self, counter: Counter, client: &Origin) {
        let network = Network::of(client);
        self.service.counters.count_over(counter, network);
    }
}

/// What a stranger may use of connections, bytes and time, over TCP and QUIC.
///
/// Every wait for a client has one of these deadlines. Sizes and numbers are upper limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// TCP connections open at once, of all listeners together.
    pub(crate) tcp_connections: usize,
    /// QUIC connections open at once, of all listeners together. An idle one takes about 22 KB.
    pub(crate) quic_connections: usize,
    /// Connections of one source open at once, TCP and QUIC together. A source is a host in its
    /// ISD-AS, IPv6 hosts by their /64. Trusted proxies are not counted as sources.
    pub(crate) connections_per_source: u32,
    /// Bytes that all connections over TCP and QUIC hold together: see [`connections::memory`].
    pub(crate) memory: usize,
    /// QUIC handshakes in flight above which a client first has to show, by a Retry, that it receives
    /// at its address (RFC 9000 section 8.1.2).
    pub(crate) handshakes_before_retry: usize,
    /// QUIC handshakes in flight above which newcomers are refused.
    pub(crate) handshakes: usize,
    /// Bytes of a request's head: request line and headers, or the field section of HTTP/2 and HTTP/3.
    /// A scrape of 100 hashes takes 7,100.
    pub(crate) head_bytes: usize,
    /// Time for a TLS or QUIC handshake, and for the PROXY protocol header.
    pub(crate) handshake: Duration,
    /// Time from the first byte of a request's head to its last.
    pub(crate) head: Duration,
    /// Time for a client to take a reply.
    pub(crate) reply: Duration,
    /// Time for which a connection without a request is kept.
    pub(crate) idle: Duration,
    /// Requests in flight on one connection of HTTP/2 or HTTP/3.
    pub(crate) streams: u32,
    /// Time for connections to come to an end when the server stops.
    pub(crate) drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 32_768,
            quic_connections: 16_384,
            connections_per_source: 1_024,
            memory: 1 << 30,
            handshakes_before_retry: 256,
            handshakes: 4_096,
            head_bytes: 10 * 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            reply: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            streams: 16,
            drain: Duration::from_secs(4),
        }
    }
}
