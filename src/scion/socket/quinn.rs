//! Implements quinn's [`AsyncUdpSocket`] for [`ScionSocket`].
//!
//! The endpoint of a client uses all of it. The server only sends through it:
//! [`transport::scion`](crate::transport::scion) demultiplexes what it receives.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::batch::{Incoming, PacketBatch};
use super::underlay::AlwaysWritable;
use super::{ScionSocket, quic};
use crate::counters::Counter;

/// Batches without a QUIC datagram before other tasks get their turn.
const EMPTY_BATCHES: usize = 16;

/// A batch, and the index of its next unread packet.
#[derive(Debug)]
pub(super) struct Unread {
    batch: PacketBatch,
    next: usize,
}

impl Unread {
    pub(super) fn new() -> Self {
        Self {
            batch: PacketBatch::new(),
            next: 0,
        }
    }

    /// Copies datagrams into the buffers until they are full or the batch is read. Returns the
    /// number of buffers filled.
    fn read(
        &mut self,
        socket: &ScionSocket,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut count = 0;
        while count < bufs.len().min(metas.len()) && self.next < self.batch.len() {
            let incoming = socket.read(&self.batch, self.next);
            self.next += 1;
            let datagram = match incoming {
                Some(Incoming::Datagram(datagram)) => datagram,
                // A client does not answer echo requests.
                Some(Incoming::Echo(_)) => {
                    socket.counters.count(Counter::ScionScmpIgnored);
                    continue;
                }
                None => continue,
            };
            let Some(addr) = socket.note_remote(&datagram, &self.batch) else {
                continue;
            };
            let len = datagram.payload.len();
            // Drops a datagram longer than quinn accepts.
            let Some(room) = bufs[count].get_mut(..len) else {
                continue;
            };
            room.copy_from_slice(datagram.payload);
            metas[count] = RecvMeta {
                addr,
                len,
                stride: len,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        count
    }
}

impl AsyncUdpSocket for ScionSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.answered.is_none() || quic::is_long(transmit.contents) {
            let length = transmit.segment_size.unwrap_or(transmit.contents.len());
            let mut sent = self.sent.lock();
            let datagrams = transmit.contents.chunks(length.max(1));
            datagrams.for_each(|datagram| sent.keep(transmit.destination, datagram));
        }
        let issued = quic::issued(transmit.contents);
        let route = self.remotes.lock().route(transmit.destination, issued);
        // An error would close the connection. The next packet of the remote adds the entry again.
        match route {
            Some(route) => self.transmit(&route, transmit.contents, transmit.segment_size),
            None => self.counters.count(Counter::ScionRemotesUnknown),
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut unread = self.unread.lock();
        let unread = unread.get_or_insert_with(|| Box::new(Unread::new()));
        for _ in 0..EMPTY_BATCHES {
            let count = unread.read(self, bufs, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_receive(cx, &mut unread.batch))?;
            unread.next = 0;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addrs.of(self.local()))
    }

    fn max_transmit_segments(&self) -> usize {
        self.underlay.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        true
    }
}
