//! SCION as a datagram socket: what is sent and received are QUIC or BEP 15 datagrams, what goes over
//! the underlay socket are SCION packets. No path lookup: a server answers along the reversed path.
//!
//! One UDP socket serves both transports of a SCION endpoint, as border routers deliver to one port:
//! - quinn takes the socket as its [`AsyncUdpSocket`] ([`ScionSocket::endpoint`]). Remotes have
//!   made-up IPv6 addresses there, which [`ScionSocket::origin`] turns back.
//! - BEP 15 datagrams go to the [`Datagrams`] given to [`ScionSocket::new`], a batch at a time, and are
//!   answered in place; the replies go out together.
//!
//! [`underlay`] is the UDP socket, [`inbox`] handles what comes in. What is decided is decided in
//! [`gate`], [`remotes`], [`sent`] and [`quic`], without sockets and clocks.

mod allowance;
mod gate;
mod inbox;
mod names;
mod quic;
mod remotes;
mod sent;
mod underlay;

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
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, UdpPoller};
use scion_tracker_core::address::{Host, ScionAddr};
use scion_tracker_core::codec::scion::{BuildError, Packet, PacketError, Path, Scmp, Template};
use tokio::sync::broadcast;

use crate::counters::{Counter, Counters};
use crate::scion::topology::Topology;
use allowance::Allowance;
pub(crate) use gate::{Gate, Request};
pub(crate) use inbox::Datagrams;
use inbox::Inbox;
use names::Names;
pub(crate) use remotes::{Cause, Failure, Limits};
use remotes::{GivenBack, Now, Remotes, Report, Route};
use sent::Sent;
use underlay::{AlwaysRoom, Underlay};

/// The largest UDP payload that is sure to get through: QUIC's minimum. Path MTUs of 1280 and less
/// are announced, headers take 80 to 260 bytes of what the underlay carries.
pub(crate) const MIN_PAYLOAD: u16 = 1200;

/// The round trip that QUIC assumes over SCION before it has measured one: packets that are not answered
/// are sent again after three times as long, over another path if the first has failed.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(150);

/// Rounds of receiving without anything for quinn, before other tasks get their turn.
const FRUITLESS: usize = 16;
/// Failures of paths that a slow listener is told of.
const FAILURES: usize = 16;
/// Echo requests that are answered in a burst, and as many a second.
const ECHOES: u32 = 200;
/// Packets that routers gave back and that are sent again over another path, in the same way.
const RESENDS: u32 = 1000;

thread_local! {
    /// Packets on their way to the underlay.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a server gives to its socket.
pub(crate) struct Serving {
    /// Answers what is not QUIC.
    pub(crate) datagrams: Box<dyn Datagrams>,
    /// Count what happens on the socket.
    pub(crate) counters: Arc<Counters>,
}

/// A SCION endpoint on an underlay UDP socket.
pub(crate) struct ScionSocket {
    underlay: Underlay,
    underlay_addr: SocketAddr,
    gate: Gate,
    names: Names,
    remotes: Mutex<Remotes>,
    inbox: Mutex<Inbox>,
    /// Of a client. A server opens nothing, and its memory is for others.
    sent: Option<Mutex<Sent>>,
    failures: broadcast::Sender<Failure>,
    counters: Arc<Counters>,
    start: Instant,
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
        let start = Instant::now();
        let sent = serving.is_none().then(Mutex::default);
        let (datagrams, counters) = match serving {
            Some(serving) => (Some(serving.datagrams), serving.counters),
            None => (None, Arc::default()),
        };
        let underlay = Underlay::new(underlay)?;
        let inbox = Inbox::new(now(start), datagrams, underlay.max_transmit_segments());
        Ok(Arc::new(Self {
            underlay,
            underlay_addr,
            gate: Gate::new(local, topology),
            names: Names::default(),
            remotes: Mutex::new(Remotes::new(limits)),
            inbox: Mutex::new(inbox),
            sent,
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
        let socket = Arc::clone(self);
        let config = Self::endpoint_config();
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
    }

    /// What an endpoint on such a socket has to keep to.
    pub(crate) fn endpoint_config() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        // The bit that QUIC always sets, unless both sides agree not to, tells it from BEP 15.
        config.grease_quic_bit(false).supported_versions(vec![1]);
        config
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

    /// Takes note of what an SCMP error says. Sends what it gives back over a path that works, while
    /// the allowance lasts: whoever forges such errors has us send what they quote.
    fn failed(&self, packet: &Packet<'_>, scmp: &Scmp<'_>, resends: &mut Allowance, now: Now) {
        let mut remotes = self.remotes.lock();
        let report = remotes.failed(&self.names, self.local(), packet, scmp, now);
        drop(remotes);
        let Some(Report { failure, again }) = report else {
            self.counters.count(Counter::ScionScmpIgnored);
            return;
        };
        if let Some((route, given_back)) = again {
            self.send_again(&route, given_back, || resends.take(now.since_start));
        }
        if let Some(failure) = failure {
            self.counters.count(Counter::ScionPathsFailed);
            tracing::debug!(?failure, "a path has failed");
            // Nobody may be listening.
            let _ = self.failures.send(failure);
        }
    }

    fn send_again(&self, route: &Route, given_back: GivenBack<'_>, may: impl FnOnce() -> bool) {
        let sent = self.sent.as_ref().map(Mutex::lock);
        let datagram = match given_back {
            GivenBack::Whole(datagram) => Some(datagram),
            GivenBack::Beginning(it) => sent.as_ref().and_then(|sent| sent.find(it)),
        };
        if let Some(datagram) = datagram
            && may()
        {
            self.counters.count(Counter::ScionResent);
            self.transmit(route, datagram, None);
        }
    }

    fn transmit(&self, route: &Route, payload: &[u8], segment: Option<usize>) {
        OUT.with_borrow_mut(|out| {
            out.clear();
            let built = match segment.filter(|segment| *segment < payload.len()) {
                Some(segment) => route
                    .template
                    .write_segments(payload, segment, out)
                    .map(Some),
                None => route.template.write(payload, out).map(|()| None),
            };
            match built {
                Ok(segment_size) => self.send(route.next_hop, out, segment_size),
                Err(_) => self.counters.count(Counter::ScionUnanswerable),
            }
        });
    }

    /// What the socket does not take is lost: QUIC sends it again, and all else is asked for again.
    fn send(&self, to: SocketAddr, packets: &[u8], segment_size: Option<usize>) {
        if !self.underlay.send(to, packets, segment_size) {
            self.counters.count(Counter::ScionSendFailures);
        }
    }
}

impl AsyncUdpSocket for ScionSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysRoom)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Some(sent) = &self.sent {
            let length = transmit.segment_size.unwrap_or(transmit.contents.len());
            let mut sent = sent.lock();
            let datagrams = transmit.contents.chunks(length.max(1));
            datagrams.for_each(|datagram| sent.keep(datagram));
        }
        let issued = quic::issued(transmit.contents);
        let route = self.remotes.lock().route(transmit.destination, issued);
        // An error would end the connection; its next packet brings the entry back.
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
        let mut inbox = self.inbox.lock();
        for _ in 0..FRUITLESS {
            let count = inbox.hand_on(self, bufs, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            let count = ready!(self.underlay.poll_receive(cx, inbox.received()))?;
            inbox.filled(count, now(self.start));
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
        1
    }

    fn may_fragment(&self) -> bool {
        self.underlay.may_fragment()
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
