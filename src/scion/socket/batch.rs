//! A batch of received packets.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::filter::Datagram;
use super::remotes::Now;
use super::underlay::Received;

/// The packets received by one call of
/// [`ScionSocket::poll_receive`](super::ScionSocket::poll_receive). Read each with
/// [`ScionSocket::read`](super::ScionSocket::read).
pub(crate) struct PacketBatch {
    pub(super) received: Received,
    len: usize,
    now: Now,
    /// Whether the second socket is asked first next time.
    turn: bool,
}

/// A packet for the owner of the endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Incoming<'a> {
    /// A UDP datagram.
    Datagram(Datagram<'a>),
    /// An SCMP echo request.
    Echo(EchoRequest<'a>),
}

/// An SCMP echo request ("ping") and its underlay source. Contains only the bytes of the request, because
/// [`Incoming`] must be small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EchoRequest<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) underlay: SocketAddr,
}

impl PacketBatch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Self {
            received: Received::new(),
            len: 0,
            now: Now {
                since_start: Duration::ZERO,
                unix: 0,
            },
            turn: false,
        }
    }

    /// Number of packets.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// When they were received, measured from the start of the socket.
    pub(crate) const fn received_at(&self) -> Duration {
        self.now.since_start
    }

    pub(super) const fn now(&self) -> Now {
        self.now
    }

    /// Whether the second of two sockets is asked first, which is so every other time.
    pub(super) const fn take_turn(&mut self) -> bool {
        self.turn = !self.turn;
        !self.turn
    }

    pub(super) const fn filled(&mut self, len: usize, now: Now) {
        self.len = len;
        self.now = now;
    }
}

impl fmt::Debug for PacketBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBatch")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
