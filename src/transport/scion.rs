//! Serves a SCION port: BEP 15, QUIC and SCMP echo on one UDP socket, because border routers
//! deliver to one port.
//!
//! The [`Demultiplexer`] reads received packets:
//! - BEP 15 requests go to the UDP handler in batches. Their replies are sent together.
//! - QUIC packets go to the QUIC driver. Packets of other QUIC versions are answered here, without
//!   an entry for their sender.
//! - SCMP echo requests are answered here, up to a rate.
//!
//! A port has either or both of BEP 15 and QUIC. Without QUIC it needs no certificate.
//!
//! # Why a port has one socket and one task
//!
//! A listener on IP has a socket per worker, and the kernel distributes clients among the sockets
//! by a hash of their address and port (SO_REUSEPORT). Over SCION that has no effect. The kernel
//! sees only the border router, which sends the packets of all clients from one address and port,
//! so they all reach one socket. With several border routers at most as many sockets would be busy,
//! and a client that changes its path could reach a socket that does not know its connection.
//!
//! To distribute clients the kernel would have to hash the SCION source within the packet (a filter
//! with SO_ATTACH_REUSEPORT_CBPF). SCMP errors come from routers, so they would have to be passed
//! on to the socket that they concern. Until then a port uses at most one core, and QUIC handshakes
//! exhaust it first.

mod version;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use arrayvec::ArrayVec;
use scion_tracker_core::codec::scion::Unsealed;
use tokio_util::sync::CancellationToken;

use super::quic::{self, Driver, Received};
use super::receive::ReceiveErrors;
use super::udp;
use crate::counters::Counter;
use crate::scion::rate::RateLimiter;
use crate::scion::socket::{Datagram, Incoming, PacketBatch, Replies, ScionSocket};
use crate::socket::mmsg::BATCH;
use version::Negotiator;

/// Batches received before other tasks get their turn.
const BATCHES: usize = 16;
/// SCMP echo requests answered in one burst, and per second.
const ECHOES: u32 = 200;

/// Serves a SCION socket until `shutdown`, then drains open connections for at most the drain time.
///
/// `udp` serves BEP 15. `quic` serves HTTP/3 and HTTP/1.1 over QUIC. At least one of them is
/// required.
pub(crate) async fn run(
    socket: Arc<ScionSocket>,
    udp: Option<udp::OverScion>,
    quic: Option<&quic::Listener>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut driver = quic.map(|quic| quic.driver_over_scion(&socket, shutdown.clone()));
    let mut demultiplexer = Demultiplexer::new(socket, udp);
    let mut stopping = pin!(shutdown.cancelled());
    let mut stopped = false;
    poll_fn(|cx| {
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            match &mut driver {
                Some(driver) => driver.stop(),
                None => return Poll::Ready(Ok(())),
            }
        }
        match &mut driver {
            Some(driver) => driver.poll(cx, |driver, cx| demultiplexer.poll(cx, Some(driver))),
            None => demultiplexer.poll_alone(cx),
        }
    })
    .await
}

/// Requests of a batch.
type Requests<'a> = ArrayVec<Datagram<'a>, BATCH>;

/// Reads packets, and answers them or passes them on.
struct Demultiplexer {
    socket: Arc<ScionSocket>,
    batch: PacketBatch,
    udp: Option<Udp>,
    negotiator: Negotiator,
    echoes: RateLimiter,
    errors: ReceiveErrors,
}

/// The BEP 15 handler and its unsent replies.
struct Udp {
    handler: udp::OverScion,
    replies: Replies,
}

impl Demultiplexer {
    fn new(socket: Arc<ScionSocket>, udp: Option<udp::OverScion>) -> Self {
        let udp = udp.map(|handler| Udp {
            handler,
            replies: socket.replies(),
        });
        Self {
            socket,
            batch: PacketBatch::new(),
            udp,
            negotiator: Negotiator::new(),
            echoes: RateLimiter::new(ECHOES),
            errors: ReceiveErrors::new("SCION"),
        }
    }

    /// Serves a port without QUIC. Ready only when receiving fails.
    fn poll_alone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..BATCHES {
            ready!(self.poll(cx, None))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Receives a batch and handles it. Pauses after an error that passes.
    fn poll(&mut self, cx: &mut Context<'_>, quic: Option<&mut Driver>) -> Poll<io::Result<()>> {
        ready!(self.errors.poll_paused(cx));
        if let Err(error) = ready!(self.socket.poll_receive(cx, &mut self.batch)) {
            return self.errors.bear(Err(error), self.socket.counters(), cx);
        }
        self.handle_batch(quic);
        Poll::Ready(Ok(()))
    }

    fn handle_batch(&mut self, mut quic: Option<&mut Driver>) {
        let Self {
            socket,
            batch,
            udp,
            negotiator,
            echoes,
            ..
        } = self;
        let counters = socket.counters();
        let mut requests = Requests::new();
        let now = Instant::now();
        for at in 0..batch.len() {
            let datagram = match socket.read(batch, at) {
                Some(Incoming::Datagram(datagram)) => datagram,
                Some(Incoming::Echo(request)) => {
                    match echoes.allow(batch.received_at()) {
                        true => socket.reply_to_echo(&request),
                        false => counters.count(Counter::ScionEchoesRefused),
                    }
                    continue;
                }
                None => continue,
            };
            let quic = match &mut quic {
                Some(quic) if udp.is_none() || !is_bep15(datagram.payload) => quic,
                // The handler drops and counts packets that are not BEP 15.
                _ => {
                    requests.push(datagram);
                    continue;
                }
            };
            if negotiates(negotiator, socket, batch, &datagram) {
                continue;
            }
            if let Some(remote) = socket.note_remote(&datagram, batch) {
                let received = Received {
                    payload: datagram.payload,
                    remote,
                    local: None,
                    ecn: None,
                };
                quic.handle(&received, now);
            }
        }
        if let Some(udp) = udp
            && !requests.is_empty()
        {
            let failed = udp.answer(socket, batch, &requests);
            if failed > 0 {
                counters.add(Counter::UdpSendFailures, failed as u64);
            }
        }
    }
}

/// Answers a packet of another QUIC version, without an entry for its sender. Returns whether it
/// was one.
fn negotiates(
    negotiator: &mut Negotiator,
    socket: &ScionSocket,
    batch: &PacketBatch,
    datagram: &Datagram<'_>,
) -> bool {
    let mut reply = Vec::new();
    if !negotiator.handles(datagram.payload, batch.received_at(), &mut reply) {
        return false;
    }
    if !reply.is_empty() && socket.reply(datagram, &reply) {
        socket.counters().count(Counter::ScionVersionsNegotiated);
    }
    true
}

impl Udp {
    /// Answers the requests of a batch. Returns the number of replies that could not be sent.
    fn answer(
        &mut self,
        socket: &ScionSocket,
        batch: &PacketBatch,
        requests: &[Datagram<'_>],
    ) -> usize {
        let Self { handler, replies } = self;
        handler.begin_batch(requests);
        let mut unsealed: ArrayVec<Unsealed, BATCH> = ArrayVec::new();
        for request in requests {
            let origin = socket.origin(request.source.host);
            let serve = |reply: &mut [u8]| handler.answer(request, &origin, reply);
            unsealed.extend(socket.queue_reply(request, batch, replies, serve));
        }
        handler.end_batch();
        for (unsealed, packet) in unsealed.iter().zip(replies.queued_mut()) {
            unsealed.seal(packet);
        }
        socket.send_replies(replies)
    }
}

impl fmt::Debug for Demultiplexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Demultiplexer")
            .field("socket", &self.socket)
            .field("udp", &self.udp.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether a datagram is a BEP 15 request and not QUIC: a connect request has a magic number, an
/// announce or a scrape has its action after the connection id. One of 2^31 QUIC packets looks like
/// that. It is lost, and the client sends it again.
fn is_bep15(datagram: &[u8]) -> bool {
    const CONNECT: [u8; 12] = [0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    datagram.len() >= 16
        && (datagram.starts_with(&CONNECT) || matches!(datagram[8..12], [0, 0, 0, 1 | 2]))
}

#[cfg(test)]
pub(super) mod tests;
