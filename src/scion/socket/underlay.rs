//! The UDP socket under a SCION socket. Receives and sends batches, and sends the datagrams of
//! QUIC.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::UdpPoller;
use quinn::udp::{Transmit, UdpSocketState};

use crate::socket::mmsg::{BATCH, ReceiveBatch, SendBatch};
use crate::socket::{Readable, receive_plain_datagrams};

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
pub(super) struct Underlay {
    socket: Readable<UdpSocket>,
    state: UdpSocketState,
}

impl Underlay {
    /// Needs a tokio runtime.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        receive_plain_datagrams(&socket)?;
        let socket = Readable::udp(socket)?;
        Ok(Self { socket, state })
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

    /// Sends one datagram, or several of one length. Returns whether the socket accepted them.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> bool {
        let transmit = Transmit {
            destination: to,
            // Border routers do not forward it.
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        let socket = self.socket.get_ref();
        self.state.send(socket.into(), &transmit).is_ok()
    }

    /// Sends the queued datagrams. Returns the number that the socket did not accept.
    pub(super) fn send_all(&self, replies: &mut Replies) -> usize {
        replies.send(self.socket.get_ref())
    }

    pub(super) fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
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
