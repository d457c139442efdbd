//! A socket that the runtime watches for something to read, and for nothing else.

use std::fmt;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A nonblocking socket, registered with the runtime for reading.
///
/// A socket that is also watched for room to write wakes the runtime for each datagram that has left.
pub(crate) struct Readable<S: AsRawFd>(AsyncFd<S>);

impl Readable<UdpSocket> {
    /// Registers a socket. Needs a tokio runtime.
    pub(crate) fn udp(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        register(socket)
    }
}

impl Readable<TcpListener> {
    /// Registers a listener. Needs a tokio runtime.
    pub(crate) fn tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        register(listener)
    }
}

/// Only for types that own their descriptor and always return the same one.
fn register<S: AsRawFd>(socket: S) -> io::Result<Readable<S>> {
    // SAFETY: the callers pass a socket of std, which owns its descriptor, keeps it open until it is
    // dropped, and returns the same one at each call. `Readable` lends it only by shared reference, so
    // nobody can replace it while it is registered; it is dropped together with the registration.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(Readable(registered?))
}

impl<S: AsRawFd> Readable<S> {
    /// The socket.
    pub(crate) fn get_ref(&self) -> &S {
        self.0.get_ref()
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_readable(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, S>>> {
        self.0.poll_read_ready(cx)
    }

    /// Waits until there may be something to read.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, S>> {
        self.0.readable().await
    }
}

impl<S: AsRawFd + fmt::Debug> fmt::Debug for Readable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readable").field(self.get_ref()).finish()
    }
}
