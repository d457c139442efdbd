//! Receives the datagrams of QUIC from a UDP socket.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::AsyncUdpSocket;
use quinn::udp::{BATCH_SIZE, RecvMeta};
use quinn_proto::{EcnCodepoint, EndpointConfig};

use super::driver::{Driver, Received, max_datagram};

/// Size of a buffer for datagrams that the kernel has coalesced.
const COALESCED: usize = 1 << 16;

/// A socket and the buffers of a batch.
pub(super) struct Receiver {
    socket: Arc<dyn AsyncUdpSocket>,
    buffers: Box<[u8]>,
}

impl Receiver {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, endpoint: &EndpointConfig) -> Self {
        let datagram = max_datagram(endpoint).min(COALESCED);
        let buffer = (datagram * socket.max_receive_segments()).min(COALESCED);
        Self {
            socket,
            buffers: vec![0; buffer * BATCH_SIZE].into(),
        }
    }

    /// Receives a batch and passes it to the driver.
    pub(super) fn poll(
        &mut self,
        driver: &mut Driver,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let size = self.buffers.len() / BATCH_SIZE;
        let mut chunks = self.buffers.chunks_mut(size);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = match self.socket.poll_recv(cx, &mut buffers, &mut metas) {
            Poll::Ready(Ok(count)) => count,
            // UDP has no such error, but anyone can cause it with an ICMP message.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let now = Instant::now();
        for (at, meta) in metas.iter().take(count).enumerate() {
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
