//! Sends the datagrams of QUIC endpoints.
//!
//! Datagrams of several connections are not collected. A client that has its reply at once sends
//! its next request while the server answers others. With 64 datagrams per system call, server and
//! clients waited for each other in turn, and waking up cost more CPU time than the system calls
//! saved.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::EcnCodepoint;
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_proto::Transmit;

/// Most datagrams of one connection in one system call.
const SEGMENTS: usize = 10;

/// The sending side of a socket.
#[derive(Debug)]
pub(super) struct Out {
    socket: Arc<dyn AsyncUdpSocket>,
    writable: Pin<Box<dyn UdpPoller>>,
    buffer: Vec<u8>,
    /// The buffered datagram that the socket has not accepted yet.
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

    /// Most datagrams of one connection in one system call.
    pub(super) fn segments(&self) -> usize {
        self.socket.max_transmit_segments().min(SEGMENTS)
    }

    /// Ready when the socket has accepted the buffer.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(transmit) = self.waiting.take() {
            if self.send(&transmit).is_err() {
                self.waiting = Some(transmit);
                // The next call reports any other error.
                let _ = ready!(self.writable.as_mut().poll_writable(cx));
            }
        }
        Poll::Ready(())
    }

    /// The buffer to write a datagram to. Call it when [`Out::poll_ready`] is ready, and before
    /// [`Out::send_buffer`].
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.clear();
        &mut self.buffer
    }

    /// Sends the buffer, or keeps it until the socket accepts it.
    pub(super) fn send_buffer(&mut self, transmit: Transmit) {
        if self.send(&transmit).is_err() {
            self.waiting = Some(transmit);
        }
    }

    /// Sends a datagram now or drops it. For datagrams that the client requests again.
    pub(super) fn send_or_drop(&mut self, transmit: &Transmit, bytes: &[u8]) {
        if self.waiting.is_none() {
            self.buffer().extend_from_slice(bytes);
            let _ = self.send(transmit);
        }
    }

    /// Fails only if the socket is full. Other errors lose the datagram, as any network may.
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

/// The socket accepts no more for now.
struct Full;
