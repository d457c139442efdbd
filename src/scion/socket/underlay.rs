//! The UDP socket under a SCION socket. Receives and sends batches, and sends the datagrams of
//! QUIC.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::UdpPoller;
use quinn::udp::{Transmit, UdpSocketState};

use crate::socket::mmsg::{BATCH, ReceiveBatch, SendBatch};
use crate::socket::{Readable, allow_fragments, receive_plain_datagrams};

/// Longest received datagram in bytes: a SCION header of at most 1020, a UDP header of 8, a QUIC
/// datagram of at most 1472, and room for extension headers.
const DATAGRAM: usize = 2560;
/// Longest reply to BEP 15 in bytes, with headers.
const REPLY: usize = 1472;

/// Received datagrams.
pub(super) type Received = ReceiveBatch<DATAGRAM>;
/// Replies to BEP 15.
pub(crate) type Replies = SendBatch<REPLY>;

/// The socket. Receiving waits, sending does not: a datagram that the socket does not accept is
/// lost, as on a full link.
///
/// Datagrams may be fragmented, by this host and on the way. The headers of SCION leave too little of many
/// links for the smallest packets of QUIC.
pub(super) struct Underlay {
    socket: Readable<UdpSocket>,
    state: UdpSocketState,
    /// Whether the log has said that a datagram was too long.
    told_too_long: AtomicBool,
}

/// Datagrams that the socket did not accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// All of them.
    pub(super) count: usize,
    /// Those that were longer than the MTU of their link (`EMSGSIZE`).
    pub(super) too_long: usize,
}

impl Underlay {
    /// Needs a tokio runtime.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        receive_plain_datagrams(&socket)?;
        // Where the kernel does not allow it, long datagrams are refused and counted.
        if let Err(error) = allow_fragments(&socket) {
            tracing::info!(%error, "cannot allow fragments of SCION packets");
        }
        Ok(Self {
            socket: Readable::udp(socket)?,
            state,
            told_too_long: AtomicBool::new(false),
        })
    }

    /// Waits for datagrams and receives as many as are available.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        received: &mut Received,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_readable(cx))?;
            let count = match received.receive(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            // That was all. The runtime reports the next datagram, so there is no need to try
            // again.
            if count < BATCH {
                ready.clear_ready();
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// Sends one datagram, or several of one length.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> Refused {
        match (self.try_send(to, contents, segment_size), segment_size) {
            (Ok(()), _) => Refused::default(),
            // The kernel cuts no datagrams that it would have to fragment.
            (Err(error), Some(length)) if error.kind() != io::ErrorKind::WouldBlock => {
                let mut refused = Refused::default();
                for datagram in contents.chunks(length.max(1)) {
                    if let Err(error) = self.try_send(to, datagram, None) {
                        self.refused(&mut refused, &error, (to, datagram.len()));
                    }
                }
                refused
            }
            (Err(error), _) => {
                let mut refused = Refused::default();
                self.refused(&mut refused, &error, (to, contents.len()));
                refused
            }
        }
    }

    fn try_send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            // Border routers do not forward it.
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        let socket = self.socket.get_ref();
        self.state.try_send(socket.into(), &transmit)
    }

    fn refused(&self, refused: &mut Refused, error: &io::Error, (to, length): (SocketAddr, usize)) {
        refused.count += 1;
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            refused.too_long += 1;
            self.tell_too_long(Some((to, length)));
        }
    }

    /// Says once that a datagram was too long.
    #[cold]
    fn tell_too_long(&self, datagram: Option<(SocketAddr, usize)>) {
        if !self.told_too_long.swap(true, Ordering::Relaxed) {
            let (to, length) = datagram.unzip();
            tracing::warn!(
                to = to.map(tracing::field::display),
                length,
                "the kernel refuses SCION packets that are longer than the MTU of their link. The counter \
                 scion_too_long counts further ones"
            );
        }
    }

    /// Sends the queued datagrams.
    pub(super) fn send_all(&self, replies: &mut Replies) -> Refused {
        let count = replies.send(self.socket.get_ref());
        let too_long = replies.too_long();
        if too_long > 0 {
            self.tell_too_long(None);
        }
        Refused { count, too_long }
    }

    pub(super) fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }
}

impl fmt::Debug for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underlay")
            .field("socket", self.socket.get_ref())
            .finish_non_exhaustive()
    }
}

/// Always writable: [`Underlay::send`] does not wait.
#[derive(Debug)]
pub(super) struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_that_are_too_long_are_counted() {
        let underlay = Underlay::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        assert_eq!(underlay.send(to, &[0; 65_507], None), Refused::default());
        let too_long = Refused {
            count: 1,
            too_long: 1,
        };
        assert_eq!(underlay.send(to, &[0; 65_508], None), too_long);
        assert!(underlay.told_too_long.load(Ordering::Relaxed));
        // In one message the segments are too long. One by one they are not.
        let segments = underlay.send(to, &[0; 80_000], Some(40_000));
        assert_eq!(segments, Refused::default());
        for length in [65_507, 40_000, 40_000] {
            assert_eq!(receiver.recv(&mut [0; 70_000]).unwrap(), length);
        }
    }

    /// The longest datagram over IPv6 is longer than the MTU of the loopback interface, 65,536 bytes.
    #[tokio::test]
    async fn datagrams_that_are_longer_than_an_ipv6_link_are_fragmented() {
        const LONGEST: usize = 65_527;
        let underlay = Underlay::new(UdpSocket::bind("[::1]:0").unwrap()).unwrap();
        let receiver = UdpSocket::bind("[::1]:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let refused = underlay.send(to, &[0; LONGEST], None);
        assert_eq!(refused, Refused::default());
        assert_eq!(receiver.recv(&mut [0; 70_000]).unwrap(), LONGEST);
    }
}
