//! SCION as a datagram socket: what is sent and received are QUIC or BEP 15 datagrams, what goes over
//! the underlay socket are SCION packets. No path lookup: a server answers along the reversed path.
//!
//! One UDP socket serves both transports of a SCION endpoint, as border routers deliver to one port:
//! - quinn takes the socket as its [`AsyncUdpSocket`] ([`ScionSocket::endpoint`]). Remotes have
//!   made-up IPv6 addresses there, which [`ScionSocket::origin`] turns back.
//! - BEP 15 datagrams go to the [`Datagrams`] given to [`ScionSocket::new`], in place; their replies go
//!   out together ([`outbox`]).
//!
//! What is decided is decided in [`gate`], [`remotes`] and [`quic`], without sockets and clocks.

mod allowance;
mod gate;
mod names;
mod outbox;
mod quic;
mod remotes;
pub(crate) mod topology;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime, UdpPoller,
};
use scion_tracker_core::address::{Host, ScionAddr};
use scion_tracker_core::codec::scion::{
    BuildError, Echo, Message, Packet, PacketError, Path, Scmp, Template, Udp,
};
use tokio::sync::broadcast;

use crate::counters::{Counter, Counters};
use allowance::Allowance;
pub(crate) use gate::{Admitted, Gate};
use names::Names;
use outbox::Outbox;
use quic::Negotiator;
use remotes::{Arrival, Heard, Now, Remotes, Route};
pub(crate) use remotes::{Cause, Failure, Limits};
use topology::Topology;

/// The largest UDP payload that is sure to get through: QUIC's minimum. Path MTUs of 1280 and less
/// are announced, headers take 80 to 260 bytes of what the underlay carries.
pub(crate) const MIN_PAYLOAD: u16 = 1200;

/// Underlay buffers, each as large as what the kernel coalesces at most.
const BUFFERS: usize = 32;
const BUFFER: usize = 1 << 16;
/// Rounds of receiving without anything for quinn, before other tasks get their turn.
const FRUITLESS: usize = 16;
/// Failures of paths that a slow listener is told of.
const FAILURES: usize = 16;
/// Echo requests that are answered in a burst, and as many a second.
const ECHOES: u32 = 200;

/// Answers a BEP 15 datagram: takes the source, the request, and a buffer for the reply, of which it
/// returns how much it has filled; 0 for no reply.
pub(crate) type Datagrams = Box<dyn Fn(ScionAddr, &[u8], &mut [u8]) -> usize + Send + Sync>;

thread_local! {
    /// Packets on their way to the underlay.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a server gives to its socket.
pub(crate) struct Serving {
    /// Answers what is not QUIC.
    pub(crate) datagrams: Datagrams,
    /// Count what happens on the socket.
    pub(crate) counters: Arc<Counters>,
}

/// A SCION endpoint on an underlay UDP socket.
pub(crate) struct ScionSocket {
    underlay: Arc<dyn AsyncUdpSocket>,
    underlay_addr: SocketAddr,
    gate: Gate,
    names: Names,
    remotes: Mutex<Remotes>,
    inbox: Mutex<Inbox>,
    datagrams: Option<Datagrams>,
    failures: broadcast::Sender<Failure>,
    counters: Arc<Counters>,
    start: Instant,
}

/// What has come in and not been handed on.
struct Inbox {
    buffers: Box<[u8]>,
    metas: [RecvMeta; BUFFERS],
    /// Buffers that hold something.
    filled: usize,
    /// The next datagram: buffer and offset.
    next: (usize, usize),
    now: Now,
    strangers: Strangers,
    /// Replies to datagrams that are not QUIC.
    outbox: Option<Outbox>,
}

/// What strangers get who have shown nothing.
struct Strangers {
    negotiator: Negotiator,
    echoes: Allowance,
}

/// Why a remote cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The bytes of the path are not a path.
    #[error("malformed path")]
    Path(#[from] PacketError),
    /// No header can be made of it.
    #[error("unusable path")]
    Build(#[from] BuildError),
}

impl ScionSocket {
    /// A SCION endpoint of this host on an underlay socket, whose port is the SCION port as well: a
    /// border router delivers there. With a topology, answers go to the border routers named in it.
    /// Needs a tokio runtime.
    pub(crate) fn new(
        underlay: UdpSocket,
        host: Host,
        topology: Option<Topology>,
        limits: Limits,
        serving: Option<Serving>,
    ) -> io::Result<Arc<Self>> {
        let underlay_addr = underlay.local_addr()?;
        let local = ScionAddr::new(host.ia, host.ip(), underlay_addr.port())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        underlay.set_nonblocking(true)?;
        let outbox = match &serving {
            Some(_) => Some(Outbox::new(&underlay)?),
            None => None,
        };
        let start = Instant::now();
        let (datagrams, counters) = match serving {
            Some(serving) => (Some(serving.datagrams), serving.counters),
            None => (None, Arc::default()),
        };
        Ok(Arc::new(Self {
            underlay: TokioRuntime.wrap_udp_socket(underlay)?,
            underlay_addr,
            gate: Gate::new(local, topology),
            names: Names::default(),
            remotes: Mutex::new(Remotes::new(limits)),
            inbox: Mutex::new(Inbox::new(now(start), outbox)),
            datagrams,
            failures: broadcast::Sender::new(FAILURES),
            counters,
            start,
        }))
    }

    /// As [`ScionSocket::new`], on a socket of its own and with defaults.
    pub(crate) fn bind(host: Host, underlay: SocketAddr) -> io::Result<Arc<Self>> {
        Self::new(
            UdpSocket::bind(underlay)?,
            host,
            None,
            Limits::default(),
            None,
        )
    }

    /// Our own SCION address.
    pub(crate) const fn local(&self) -> ScionAddr {
        self.gate.local()
    }

    /// The address of the underlay socket.
    #[cfg(test)]
    pub(crate) const fn underlay_addr(&self) -> SocketAddr {
        self.underlay_addr
    }

    /// A QUIC endpoint on this socket; a server if it has a configuration for one.
    pub(crate) fn endpoint(self: &Arc<Self>, server: Option<ServerConfig>) -> io::Result<Endpoint> {
        let mut config = EndpointConfig::default();
        // The bit that QUIC always sets, unless both sides agree not to, tells it from BEP 15.
        config.grease_quic_bit(false).supported_versions(vec![1]);
        let socket = Arc::clone(self);
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
    }

    /// The host behind an address that the endpoint of this socket shows for a remote: to be asked
    /// right when a connection comes in. For addresses of other endpoints the answer means nothing.
    /// `None` if it is an IPv6 host that has been pushed out of the table since.
    pub(crate) fn origin(&self, remote: SocketAddr) -> Option<ScionAddr> {
        self.remotes.lock().endpoint(remote)
    }

    /// Makes a remote callable over `path` (as daemons give it, with its border router; without
    /// bytes for a host in our own AS), and over `spare` when an SCMP error names `path`. Returns the
    /// address to connect to. Called again with other paths, it switches.
    pub(crate) fn call(
        &self,
        remote: ScionAddr,
        path: (&[u8], SocketAddr),
        spare: Option<(&[u8], SocketAddr)>,
    ) -> Result<SocketAddr, CallError> {
        let route = |(path, next_hop): (&[u8], SocketAddr)| {
            let template = Template::new(self.local(), remote, Path::parse(path)?)?;
            Ok::<_, CallError>(Route { template, next_hop })
        };
        let (path, spare) = (route(path)?, spare.map(route).transpose()?);
        let name = self.names.name(remote);
        let mut remotes = self.remotes.lock();
        remotes.call((name, remote), path, spare, now(self.start));
        Ok(name)
    }

    /// For how long nothing has come from a remote, counted from [`ScionSocket::call`] at the
    /// earliest. `None` if it is not called.
    pub(crate) fn silence(&self, remote: ScionAddr) -> Option<Duration> {
        let remotes = self.remotes.lock();
        remotes.silence(self.names.name(remote), now(self.start))
    }

    /// Paths that fail under remotes from now on.
    pub(crate) fn failures(&self) -> broadcast::Receiver<Failure> {
        self.failures.subscribe()
    }

    /// Number of remotes in the table.
    #[cfg(test)]
    pub(crate) fn remotes(&self) -> usize {
        self.remotes.lock().len()
    }

    /// Handles a datagram from the underlay. Returns what quinn gets of it: the name of the remote
    /// and the payload.
    fn receive<'a>(
        &self,
        datagram: &'a [u8],
        underlay: SocketAddr,
        now: Now,
        strangers: &mut Strangers,
        outbox: &mut Option<Outbox>,
    ) -> Option<(SocketAddr, &'a [u8])> {
        let (packet, udp, source) = match self.gate.admit(datagram) {
            Ok(Admitted::Datagram {
                packet,
                udp,
                source,
            }) => (packet, udp, source),
            Ok(Admitted::Control(packet)) => {
                self.control(&packet, underlay, now, strangers);
                return None;
            }
            Err(reject) => {
                self.counters.count(reject.into());
                return None;
            }
        };
        if !packet.checksum_is_right() {
            self.counters.count(Counter::ScionWrongChecksum);
        }
        if let (Some(datagrams), Some(outbox)) = (&self.datagrams, outbox)
            && is_bep15(udp.payload)
        {
            let gate = &self.gate;
            let collected = outbox
                .collect(|reply| gate.answer((&packet, &udp, source), underlay, reply, datagrams));
            match collected {
                Ok(false) => {}
                Ok(true) => self.send_collected(outbox),
                Err(reject) => self.counters.count(reject.into()),
            }
            return None;
        }
        let answer = || {
            let template = Template::answering(&packet, &udp)?;
            let next_hop = self.gate.next_hop(source, &template, underlay);
            Ok(Route { template, next_hop })
        };
        if self.negotiates(&udp, now, &mut strangers.negotiator, answer) {
            return None;
        }
        let name = self.names.name(source);
        let arrival = Arrival {
            path: packet.path,
            via: self.gate.via(underlay),
            token: quic::addressed_to(udp.payload),
            now,
        };
        let heard = self.remotes.lock().heard((name, source), &arrival, answer);
        match heard {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Added) => self.counters.count(Counter::ScionRemotesAdded),
            Ok(Heard::Adopted) => self.counters.count(Counter::ScionPathsAdopted),
            Err(_) => {
                self.counters.count(Counter::ScionUnanswerable);
                return None;
            }
        }
        Some((name, udp.payload))
    }

    fn control(
        &self,
        packet: &Packet<'_>,
        underlay: SocketAddr,
        now: Now,
        strangers: &mut Strangers,
    ) {
        let Message::Scmp(scmp) = packet.message else {
            return;
        };
        match scmp {
            Scmp::EchoRequest(request) => {
                return self.echo(packet, &request, underlay, now, strangers);
            }
            Scmp::EchoReply(_) | Scmp::Other { .. } => {
                self.counters.count(Counter::ScionScmpIgnored);
                return;
            }
            _ => {}
        }
        let mut remotes = self.remotes.lock();
        let failure = remotes.failed(&self.names, self.local(), packet, &scmp, now);
        drop(remotes);
        let Some(failure) = failure else {
            self.counters.count(Counter::ScionScmpIgnored);
            return;
        };
        self.counters.count(Counter::ScionPathsFailed);
        tracing::debug!(?failure, "a path has failed");
        // Nobody may be listening.
        let _ = self.failures.send(failure);
    }

    fn echo(
        &self,
        packet: &Packet<'_>,
        request: &Echo<'_>,
        underlay: SocketAddr,
        now: Now,
        strangers: &mut Strangers,
    ) {
        if !strangers.echoes.take(now.since_start) {
            self.counters.count(Counter::ScionEchoesRefused);
            return;
        }
        let mut reply = Vec::new();
        match self.gate.answer_echo(packet, request, underlay, &mut reply) {
            Ok(next_hop) => {
                self.counters.count(Counter::ScionEchoes);
                // It is asked again if this is lost.
                let _ = self.send(next_hop, &reply, None);
            }
            Err(reject) => self.counters.count(reject.into()),
        }
    }

    /// Answers packets of other QUIC versions, without making an entry for their sender.
    fn negotiates(
        &self,
        udp: &Udp<'_>,
        now: Now,
        negotiator: &mut Negotiator,
        answer: impl FnOnce() -> Result<Route, BuildError>,
    ) -> bool {
        let mut reply = Vec::new();
        if !negotiator.handles(udp.payload, now.since_start, &mut reply) {
            return false;
        }
        if !reply.is_empty()
            && let Ok(route) = answer()
        {
            self.counters.count(Counter::ScionVersionsNegotiated);
            // It comes back if this is lost.
            let _ = self.transmit(&route, &reply, None);
        }
        true
    }

    fn send_collected(&self, outbox: &mut Outbox) {
        let failed = outbox.send();
        if failed > 0 {
            self.counters.add(Counter::UdpSendFailures, failed as u64);
        }
    }

    fn transmit(&self, route: &Route, payload: &[u8], segment: Option<usize>) -> io::Result<()> {
        OUT.with_borrow_mut(|out| {
            out.clear();
            let built = match segment.filter(|segment| *segment < payload.len()) {
                Some(segment) => route
                    .template
                    .write_segments(payload, segment, out)
                    .map(Some),
                None => route.template.write(payload, out).map(|()| None),
            };
            let Ok(segment_size) = built else {
                self.counters.count(Counter::ScionUnanswerable);
                return Ok(());
            };
            self.send(route.next_hop, out, segment_size)
        })
    }

    fn send(&self, to: SocketAddr, packets: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        self.underlay.try_send(&Transmit {
            destination: to,
            // Border routers do not carry it over.
            ecn: None,
            contents: packets,
            segment_size,
            src_ip: None,
        })
    }
}

impl AsyncUdpSocket for ScionSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.underlay).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let issued = quic::issued(transmit.contents);
        let route = self.remotes.lock().route(transmit.destination, issued);
        let Some(route) = route else {
            // An error would end the connection; its next packet brings the entry back.
            self.counters.count(Counter::ScionRemotesUnknown);
            return Ok(());
        };
        self.transmit(&route, transmit.contents, transmit.segment_size)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock();
        for _ in 0..FRUITLESS {
            let count = inbox.hand_on(self, bufs, meta);
            if let Some(outbox) = &mut inbox.outbox {
                self.send_collected(outbox);
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            ready!(inbox.fill(&*self.underlay, cx))?;
            inbox.now = now(self.start);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.names.name(self.local()))
    }

    fn max_transmit_segments(&self) -> usize {
        self.underlay.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        // The kernel coalesces what comes from one border router; here it is taken apart again.
        1
    }

    fn may_fragment(&self) -> bool {
        self.underlay.may_fragment()
    }
}

impl Inbox {
    fn new(now: Now, outbox: Option<Outbox>) -> Self {
        Self {
            buffers: vec![0; BUFFERS * BUFFER].into(),
            metas: [RecvMeta::default(); BUFFERS],
            filled: 0,
            next: (0, 0),
            now,
            strangers: Strangers {
                negotiator: Negotiator::new(),
                echoes: Allowance::new(ECHOES),
            },
            outbox,
        }
    }

    fn fill(
        &mut self,
        underlay: &dyn AsyncUdpSocket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunks = self.buffers.chunks_mut(BUFFER);
        let mut bufs: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.filled = ready!(underlay.poll_recv(cx, &mut bufs, &mut self.metas))?;
        self.next = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Handles the datagrams that are there until the buffers are full.
    fn hand_on(
        &mut self,
        socket: &ScionSocket,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut count = 0;
        while count < bufs.len().min(metas.len()) && self.next.0 < self.filled {
            let (buffer, offset) = self.next;
            let RecvMeta {
                addr, len, stride, ..
            } = self.metas[buffer];
            let rest = &self.buffers[buffer * BUFFER..][..len.min(BUFFER)][offset..];
            let datagram = &rest[..stride.clamp(1, BUFFER).min(rest.len())];
            self.next = if datagram.len() == rest.len() {
                (buffer + 1, 0)
            } else {
                (buffer, offset + datagram.len())
            };
            let received = socket.receive(
                datagram,
                addr,
                self.now,
                &mut self.strangers,
                &mut self.outbox,
            );
            let Some((addr, payload)) = received else {
                continue;
            };
            // Longer than quinn has said that it takes.
            let Some(room) = bufs[count].get_mut(..payload.len()) else {
                continue;
            };
            room.copy_from_slice(payload);
            let len = payload.len();
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

impl fmt::Debug for ScionSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScionSocket")
            .field("local", &self.local())
            .field("underlay", &self.underlay_addr)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Whether this is a request of BEP 15 and not QUIC: connect with its magic number, or an announce or
/// scrape, whose action stands behind the connection id. A QUIC packet looks so once in 2^31; it is
/// then lost and sent again.
fn is_bep15(datagram: &[u8]) -> bool {
    const CONNECT: [u8; 12] = [0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    datagram.len() >= 16
        && (datagram.starts_with(&CONNECT) || matches!(datagram[8..12], [0, 0, 0, 1 | 2]))
}

fn now(start: Instant) -> Now {
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        since_start: start.elapsed(),
        // Path timestamps are of 32 bits.
        unix: u32::try_from(unix.as_secs()).unwrap_or(u32::MAX),
    }
}
