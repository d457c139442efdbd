//! The section `connections`: limits of connections, bytes and time for clients over TCP and QUIC.

use std::time::Duration;

use super::value;
use crate::transport::Limits;

/// See [`Config::connections`](super::Config::connections).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Connections {
    /// Most open TCP connections (HTTP, HTTPS).
    #[config(
        env = "SCION_TRACKER_TCP_CONNECTIONS",
        default = 32768,
        validate(*tcp > 0, "tcp is at least 1")
    )]
    pub tcp: usize,

    /// Most open QUIC connections (HTTP/3).
    #[config(
        env = "SCION_TRACKER_QUIC_CONNECTIONS",
        default = 16384,
        validate(*quic > 0, "quic is at least 1")
    )]
    pub quic: usize,

    /// Most open connections of one host (IPv6: of one /64), TCP and QUIC together. Trusted proxies are
    /// exempt.
    #[config(
        env = "SCION_TRACKER_CONNECTIONS_PER_SOURCE",
        default = 1024,
        validate(*per_source > 0, "per_source is at least 1")
    )]
    pub per_source: u32,

    /// The part of the tracker's `memory` that all connections together may hold. Without it, a
    /// quarter of `memory`.
    ///
    /// When it is nearly used up, connections are closed: those of the host that holds most first, and
    /// of these the idle ones first. When it is used up, new connections are refused.
    #[config(
        env = "SCION_TRACKER_CONNECTIONS_MEMORY",
        deserialize_with = value::size,
        validate(*memory >= 1 << 20, "memory is at least 1MiB")
    )]
    pub memory: Option<usize>,

    /// QUIC handshakes in flight above which clients must first prove their address, which takes a round
    /// trip. 0: always.
    #[config(env = "SCION_TRACKER_HANDSHAKES_BEFORE_RETRY", default = 256)]
    pub handshakes_before_retry: usize,

    /// Most QUIC handshakes in flight. At this limit the source with the most handshakes loses one to a
    /// source with fewer; others are refused.
    #[config(
        env = "SCION_TRACKER_HANDSHAKES",
        default = 4096,
        validate(*handshakes > 0, "handshakes is at least 1")
    )]
    pub handshakes: usize,

    /// Largest request line and headers together. A scrape of 100 torrents takes 7,100 bytes.
    #[config(
        env = "SCION_TRACKER_HEAD_SIZE",
        default = "10KiB",
        deserialize_with = value::size,
        validate((256..=1 << 20).contains(head_size), "head_size is from 256 bytes to 1 MiB")
    )]
    pub head_size: usize,

    /// Most requests in flight per connection of HTTP/2 or HTTP/3.
    #[config(
        env = "SCION_TRACKER_STREAMS",
        default = 16,
        validate((1..=1024).contains(streams), "streams is from 1 to 1024")
    )]
    pub streams: u32,

    /// Time limit of a TLS or QUIC handshake, and of the PROXY protocol header.
    #[config(
        env = "SCION_TRACKER_HANDSHAKE_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub handshake_timeout: Duration,

    /// Time limit of a request line and headers, from the first byte on; of the first request over TCP,
    /// from the start of the connection.
    #[config(
        env = "SCION_TRACKER_HEAD_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub head_timeout: Duration,

    /// Time limit for a client to take a reply.
    #[config(
        env = "SCION_TRACKER_REPLY_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub reply_timeout: Duration,

    /// How long a connection is kept after its last answered request.
    #[config(
        env = "SCION_TRACKER_IDLE_TIMEOUT",
        default = "30s",
        deserialize_with = value::duration
    )]
    pub idle_timeout: Duration,
}

impl Connections {
    /// The limits, with `memory` bytes for all connections.
    pub(super) fn limits(&self, memory: usize) -> Limits {
        Limits {
            memory,
            tcp_connections: self.tcp,
            quic_connections: self.quic,
            connections_per_source: self.per_source,
            handshakes_before_retry: self.handshakes_before_retry,
            handshakes: self.handshakes,
            head_bytes: self.head_size,
            handshake: self.handshake_timeout,
            head: self.head_timeout,
            reply: self.reply_timeout,
            idle: self.idle_timeout,
            streams: self.streams,
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn the_defaults_are_those_of_the_transports() {
        assert_eq!(Config::default().limits(), Limits::default());
    }
}
