//! The UDP socket under a SCION socket: batches in, batches and what QUIC transmits out.

#![allow(
    unsafe_code,
    reason = "socket options that no crate in use has, and tokio's registration of a descriptor"
)]

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::UdpPoller;
use quinn::udp::{Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::socket::mmsg::{BATCH, addressed};

/// The longest datagram that is looked at: a SCION header of at most 1020 bytes, UDP's 8, the 1472 that
/// QUIC takes from anybody, and some for extension headers.
const DATAGRAM: usize = 2560;
/// The longest reply to BEP 15, header included.
const REPLY: usize = 1472;

/// Datagrams as they came in.
pub(super) type Received = addressed::Inbox<DATAGRAM>;
/// Replies to BEP 15.
pub(super) type Replies = addressed::Outbox<REPLY>;

/// The socket. Reads by themselves wait; what it will not take is lost, as on a full link.
pub(super) struct Underlay {
    /// Only for reading: one that is also watched for room to write wakes the runtime for each packet
    /// that has gone out.
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
}

impl Underlay {
    /// Needs a tokio runtime.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        receive_plainly(&socket)?;
        // SAFETY: a UdpSocket owns its descriptor, which is open and the same as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, state })
    }

    /// Waits for datagrams and takes as many as are there.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        received: &mut Received,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let count = match received.receive(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            // That was all: the next one is announced anew, there is no need to look for it.
            if count < BATCH {
                ready.clear_ready();
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// Sends one datagram, or several of one length. Returns whether the socket has taken them.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> bool {
        let transmit = Transmit {
            destination: to,
            // Border routers do not carry it over.
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        let socket = self.socket.get_ref();
        self.state.send(socket.into(), &transmit).is_ok()
    }

    /// Sends what is in line. Returns how many the socket has not taken.
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

/// Switches off what [`UdpSocketState`] has switched on for its own way of receiving: each datagram by
/// itself (coalesced ones of one border router are of several SCION hosts), and nothing told about it
/// that SCION tells.
fn receive_plainly(socket: &UdpSocket) -> io::Result<()> {
    let [destination, class] = match socket.local_addr()? {
        SocketAddr::V4(_) => [
            (libc::IPPROTO_IP, libc::IP_PKTINFO),
            (libc::IPPROTO_IP, libc::IP_RECVTOS),
        ],
        SocketAddr::V6(_) => [
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        ],
    };
    for (level, option) in [destination, class, (libc::SOL_UDP, libc::UDP_GRO)] {
        let off: libc::c_int = 0;
        // SAFETY: the option takes an int, and its length is given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(&off).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            // Before Linux 5.0 nothing is coalesced.
            if error.raw_os_error() != Some(libc::ENOPROTOOPT) {
                return Err(error);
            }
        }
    }
    Ok(())
}

impl fmt::Debug for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underlay")
            .field("socket", self.socket.get_ref())
            .finish_non_exhaustive()
    }
}

/// Says that there is room: [`Underlay::send`] does not wait for any.
#[derive(Debug)]
pub(super) struct AlwaysRoom;

impl UdpPoller for AlwaysRoom {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
