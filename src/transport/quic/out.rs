//! Sends datagrams.
//!
//! They are not collected: a client that has its reply at once asks again while the replies of others are
//! still being made. With 64 datagrams per system call, server and clients waited for each other in turn,
//! and waking up took more CPU time than the saved calls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::EcnCodepoint;
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_proto::Transmit;

/// At most so many datagrams of one connection leave with one system call.
const SEGMENTS: usize = 10;

/// The sending side of a socket.
#[derive(Debug)]
pub(super) struct Out {
    socket: Arc<dyn AsyncUdpSocket>,
    writable: Pin<Box<dyn UdpPoller>>,
    buffer: Vec<u8>,
    /// The content of the buffer, if the socket has not taken it yet.
    waiting: Option<Transmit>,
}

impl Out {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self {
            writable: Arc::clone(&socket).create_io_poller(),
            socket,
            buffer: Vec::new(),
            waiting: None,
        }
    }

    /// How many datagrams of a connection may be sent at once.
    pub(super) fn segments(&self) -> usize {
        self.socket.max_transmit_segments().min(SEGMENTS)
    }

    /// Ready when the socket has taken the buffer.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(transmit) = self.waiting.take() {
            if self.send(&transmit).is_err() {
                self.waiting = Some(transmit);
                // The next call finds any other error.
                let _ = ready!(self.writable.as_mut().poll_writable(cx));
            }
        }
        Poll::Ready(())
    }

    /// Where a datagram is to be written, while this is ready, before [`Out::send_buffer`].
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.clear();
        &mut self.buffer
    }

    /// Sends the buffer, or keeps it until the socket takes it.
    pub(super) fn send_buffer(&mut self, transmit: Transmit) {
        if self.send(&transmit).is_err() {
            self.waiting = Some(transmit);
        }
    }

    /// Sends a datagram if that is possible now. For datagrams that the client asks for again.
    pub(super) fn send_or_drop(&mut self, transmit: &Transmit, bytes: &[u8]) {
        if self.waiting.is_none() {
            self.buffer().extend_from_slice(bytes);
            let _ = self.send(transmit);
        }
    }

    /// Fails only if the socket takes no more for now. A datagram that cannot be sent at all is lost, as on any
    /// network.
    fn send(&self, transmit: &Transmit) -> Result<(), Full> {
        let sent = self.socket.try_send(&quinn::udp::Transmit {
            destination: transmit.destination,
            ecn: transmit
                .ecn
                .and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents: &self.buffer[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Full),
            _ => Ok(()),
        }
    }
}

/// The socket takes no more for now.
struct Full;
