//! Receives the datagrams of QUIC from a UDP socket.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use quinn::AsyncUdpSocket;
use quinn::udp::{BATCH_SIZE, RecvMeta};
use quinn_proto::{EcnCodepoint, EndpointConfig};

use super::driver::{Driver, Received, max_datagram};
use crate::service::Service;
use crate::transport::receive::ReceiveErrors;

/// Size of a buffer for datagrams that the kernel has coalesced.
const COALESCED: usize = 1 << 16;

/// A socket and the buffers of a batch.
pub(super) struct Receiver {
    socket: Arc<dyn AsyncUdpSocket>,
    buffers: Box<[u8]>,
    /// Where the socket says what it has put into each buffer. Kept, because it takes long to clear.
    metas: [RecvMeta; BATCH_SIZE],
    errors: ReceiveErrors,
    service: Arc<Service>,
}

impl Receiver {
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        endpoint: &EndpointConfig,
        service: Arc<Service>,
    ) -> Self {
        let datagram = max_datagram(endpoint).min(COALESCED);
        let buffer = (datagram * socket.max_receive_segments()).min(COALESCED);
        Self {
            socket,
            buffers: vec![0; buffer * BATCH_SIZE].into(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            errors: ReceiveErrors::new("QUIC"),
            service,
        }
    }

    /// Receives a batch and passes it to the driver. Pauses after an error that passes.
    pub(super) fn poll(
        &mut self,
        driver: &mut Driver,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.errors.poll_paused(cx));
        let size = self.buffers.len() / BATCH_SIZE;
        let mut chunks = self.buffers.chunks_mut(size);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = match self.socket.poll_recv(cx, &mut buffers, &mut self.metas) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => {
                return self.errors.bear(Err(error), &self.service.counters, cx);
            }
            Poll::Pending => return Poll::Pending,
        };
        let now = Instant::now();
        for (at, meta) in self.metas.iter().take(count).enumerate() {
            for datagram in 0..meta.len.div_ceil(meta.stride.max(1)) {
                let start = at * size + datagram * meta.stride;
                let end = (start + meta.stride).min(at * size + meta.len);
                let received = Received {
                    payload: &self.buffers[start..end],
                    remote: meta.addr,
                    local: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                };
                driver.handle(&received, now);
            }
        }
        Poll::Ready(Ok(()))
    }
}
