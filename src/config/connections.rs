//! What a client may use of connections, bytes and time, over TCP and QUIC.

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
    /// TCP connections (HTTP, HTTPS) open at once.
    #[config(env = "SCION_TRACKER_TCP_CONNECTIONS", default = 32768)]
    pub tcp: usize,

    /// QUIC connections (HTTP/3) open at once. An idle one takes some 45 KB.
    #[config(env = "SCION_TRACKER_QUIC_CONNECTIONS", default = 16384)]
    pub quic: usize,

    /// Connections of one host (IPv6: of one /64) open at once, TCP and QUIC together. Trusted
    /// proxies are exempt.
    #[config(env = "SCION_TRACKER_CONNECTIONS_PER_SOURCE", default = 1024)]
    pub per_source: u32,

    /// QUIC handshakes in flight above which clients first have to show, at the cost of a round
    /// trip, that they receive at their address.
    #[config(env = "SCION_TRACKER_HANDSHAKES_BEFORE_RETRY", default = 256)]
    pub handshakes_before_retry: usize,

    /// QUIC handshakes in flight above which newcomers are refused.
    #[config(env = "SCION_TRACKER_HANDSHAKES", default = 4096)]
    pub handshakes: usize,

    /// Request line and headers. A scrape of 100 torrents takes 7,100 bytes.
    #[config(
        env = "SCION_TRACKER_HEAD_SIZE",
        default = "10KiB",
        deserialize_with = value::size,
        validate((256..=1 << 20).contains(head_size), "head_size is from 256 bytes to 1 MiB")
    )]
    pub head_size: usize,

    /// Requests in flight on one connection of HTTP/2 or HTTP/3.
    #[config(
        env = "SCION_TRACKER_STREAMS",
        default = 16,
        validate((1..=1024).contains(streams), "streams is from 1 to 1024")
    )]
    pub streams: u32,

    /// Time for a TLS or QUIC handshake, and for the PROXY protocol header.
    #[config(
        env = "SCION_TRACKER_HANDSHAKE_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub handshake_timeout: Duration,

    /// Time for a request's head to arrive, from its first byte on; for the first one over TCP, from
    /// when the connection was accepted.
    #[config(
        env = "SCION_TRACKER_HEAD_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub head_timeout: Duration,

    /// Time for a client to take a reply.
    #[config(
        env = "SCION_TRACKER_REPLY_TIMEOUT",
        default = "10s",
        deserialize_with = value::duration
    )]
    pub reply_timeout: Duration,

    /// How long a connection without a request is kept.
    #[config(
        env = "SCION_TRACKER_IDLE_TIMEOUT",
        default = "30s",
        deserialize_with = value::duration
    )]
    pub idle_timeout: Duration,
}

impl Connections {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
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
        assert_eq!(Config::default().connections.limits(), Limits::default());
    }
}
