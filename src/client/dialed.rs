//! A UDP socket for quinn that notices when nothing listens on the remote port.
//!
//! quinn's own socket is not connected and ignores errors, so a connection attempt to a closed port
//! lasts until its timeout. A connected socket gets the ICMP error "port unreachable" as
//! `ECONNREFUSED`. The kernel drops datagrams from other addresses.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// A connected UDP socket.
pub(super) struct Dialed {
    socket: UdpSocket,
    state: UdpSocketState,
    refused: Notify,
}

impl Dialed {
    /// Opens a socket to this address.
    pub(super) async fn new(remote: SocketAddr) -> io::Result<Arc<Self>> {
        let local: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
        socket.connect(remote).await?;
        Ok(Arc::new(Self {
            state: UdpSocketState::new((&socket).into())?,
            socket,
            refused: Notify::new(),
        }))
    }

    /// Waits until the remote host reports that nothing listens on the port.
    pub(super) async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Notes a refusal. quinn must not see an error: it would give up the endpoint.
    fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.refused.notify_one();
        }
    }
}

impl AsyncUdpSocket for Dialed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), transmit)
        });
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // A datagram that is too long probes the path. Others are sent again.
                self.note(&error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv((&self.socket).into(), bufs, meta)
            });
            match received {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => self.note(&error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialed").field(&self.socket).finish()
    }
}

/// Wakes the one connection of the endpoint when the socket can send.
#[derive(Debug)]
struct Writable(Arc<Dialed>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.socket.poll_send_ready(cx)
    }
}
