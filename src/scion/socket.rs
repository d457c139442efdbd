//! A SCION endpoint as a datagram socket: QUIC and BEP 15 datagrams above, SCION packets on an underlay UDP
//! socket below. It looks up no paths: a server answers along the reversed path of a packet, a client sets its
//! paths.
//!
//! It answers nothing itself. [`ScionSocket::poll_receive`] and [`ScionSocket::read`] give the datagrams for this
//! endpoint with their source, path and underlay address;
//! [`transport::scion`](crate::transport::scion) says who answers them. SCMP errors concern the paths in
//! use and stay here. A client's QUIC endpoint takes the socket as its
//! [`AsyncUdpSocket`](::quinn::AsyncUdpSocket) ([`ScionSocket::endpoint`]). QUIC knows remotes by synthetic
//! IPv6 addresses, which [`ScionSocket::endpoint_of`] turns back.
//!
//! [`underlay`] is the UDP socket. [`filter`], [`remotes`], [`sent`] and [`quic`] decide, without sockets and
//! clocks.

mod batch;
mod cids;
mod filter;
pub(crate) mod quic;
mod quinn;
mod remotes;
mod sent;
mod synthetic;
mod underlay;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use ::quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use parking_lot::Mutex;
use scion_tracker_core::address::{Host, ScionAddr};
use scion_tracker_core::codec::scion::{
    BuildError, Message, Packet, PacketError, Path, Scmp, Template, Unsealed,
};
use scion_tracker_core::request::Origin;
use tokio::sync::broadcast;

use crate::counters::{Counter, Counters};
use crate::scion::rate::RateLimiter;
pub(crate) use batch::{EchoRequest, Incoming, PacketBatch};
pub(crate) use cids::Recipient;
use cids::{ConnectionIds, Generator};
use filter::{Admitted, Filter};
pub(crate) use filter::{Datagram, Routers};
use quinn::Unread;
use remotes::{Arrival, Change, Now, Remotes, Report, Returned, Route};
pub(crate) use remotes::{Cause, Failure, Limits};
use sent::Sent;
use synthetic::SyntheticAddrs;
pub(crate) use underlay::Replies;
use underlay::Underlay;

/// The largest UDP payload that is sure to get through: QUIC's minimum. Path MTUs of 1280 and less
/// are announced, headers take 80 to 260 bytes of what the underlay carries.
pub(crate) const MIN_PAYLOAD: u16 = 1200;

/// The round trip that QUIC assumes over SCION before it has measured one: packets that are not answered
/// are sent again after three times as long, over another path if the first has failed.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(150);

/// Failures of paths that wait for a slow listener.
const FAILURES: usize = 16;
/// Packets that routers returned and that are sent again over another path: at once, and per second.
const RESENDS: u32 = 1000;

thread_local! {
    /// Packets on their way to the underlay.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A SCION endpoint on an underlay UDP socket.
pub(crate) struct ScionSocket {
    underlay: Underlay,
    underlay_addr: SocketAddr,
    filter: Filter,
    addrs: SyntheticAddrs,
    ids: ConnectionIds,
    remotes: Mutex<Remotes>,
    resends: Mutex<RateLimiter>,
    /// What a QUIC endpoint of quinn has not read yet.
    unread: Mutex<Option<Box<Unread>>>,
    /// Of a client. A server opens no connections.
    sent: Option<Mutex<Sent>>,
    failures: broadcast::Sender<Failure>,
    counters: Arc<Counters>,
    start: Instant,
}

/// Why packets cannot be sent over a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// The bytes are no path.
    #[error("malformed path")]
    Malformed(#[from] PacketError),
    /// The path does not fit a header.
    #[error("unusable path")]
    Unusable(#[from] BuildError),
}

impl ScionSocket {
    /// A client endpoint of this host on an underlay socket, whose port is the SCION port, too: border
    /// routers deliver there. Needs a tokio runtime.
    pub(crate) fn client(underlay: UdpSocket, host: Host) -> io::Result<Arc<Self>> {
        let sent = Some(Mutex::default());
        let (limits, counters) = (Limits::default(), Arc::default());
        // Packets matter only if QUIC or BEP 15 expects them, wherever they come from.
        Self::new(underlay, host, Routers::Unknown, limits, counters, sent)
    }

    /// A server endpoint, as [`ScionSocket::client`]. Packets from other ASes are taken from these border
    /// routers only. Events are counted in `counters`.
    pub(crate) fn server(
        underlay: UdpSocket,
        host: Host,
        routers: Routers,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> io::Result<Arc<Self>> {
        if matches!(routers, Routers::Unknown) {
            tracing::warn!(
                "the ISD-AS of clients from other ASes is not proven over SCION: the border routers of {} are \
                 unknown. Name a topology file, a daemon or the routers (scion.topology, scion.daemon, \
                 scion.routers)",
                host.ia
            );
        }
        Self::new(underlay, host, routers, limits, counters, None)
    }

    /// A client endpoint on a new underlay socket.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn bind(host: Host, underlay: SocketAddr) -> io::Result<Arc<Self>> {
        Self::client(UdpSocket::bind(underlay)?, host)
    }

    fn new(
        underlay: UdpSocket,
        host: Host,
        routers: Routers,
        limits: Limits,
        counters: Arc<Counters>,
        sent: Option<Mutex<Sent>>,
    ) -> io::Result<Arc<Self>> {
        let underlay_addr = underlay.local_addr()?;
        let local = ScionAddr::new(host.ia, host.ip(), underlay_addr.port())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let ids = ConnectionIds::default();
        Ok(Arc::new(Self {
            underlay: Underlay::new(underlay)?,
            underlay_addr,
            filter: Filter::new(local, routers),
            addrs: SyntheticAddrs::default(),
            remotes: Mutex::new(Remotes::new(limits, ids.clone())),
            ids,
            resends: Mutex::new(RateLimiter::new(RESENDS)),
            unread: Mutex::default(),
            sent,
            failures: broadcast::Sender::new(FAILURES),
            counters,
            start: Instant::now(),
        }))
    }

    /// The own SCION address.
    pub(crate) const fn local(&self) -> ScionAddr {
        self.filter.local()
    }

    /// What happens on the socket is counted here.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
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

    /// The configuration that a QUIC endpoint on such a socket needs.
    pub(crate) fn endpoint_config() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        // The bit that QUIC always sets, unless both sides agree not to, tells it from BEP 15.
        config.grease_quic_bit(false).supported_versions(vec![1]);
        config
    }

    /// The configuration for an endpoint whose connection ids prove to this socket to whom they were given,
    /// and where to name that remote.
    pub(crate) fn proving_endpoint_config(&self) -> (EndpointConfig, Recipient) {
        let mut config = Self::endpoint_config();
        let (ids, recipient) = (self.ids.clone(), Recipient::new());
        let named = recipient.clone();
        config.cid_generator(move || Box::new(Generator::new(ids.clone(), named.clone())));
        (config, recipient)
    }

    /// Waits for packets and receives as many as are there.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<io::Result<()>> {
        batch.filled(0, batch.now());
        let len = ready!(self.underlay.poll_receive(cx, &mut batch.received))?;
        batch.filled(len, now(self.start));
        Poll::Ready(Ok(()))
    }

    /// Reads packet number `at` of a batch. `None` if it is not for the owner of this endpoint: it is
    /// dropped and counted, or is an SCMP error about a path in use.
    #[inline]
    pub(crate) fn read<'a>(&self, batch: &'a PacketBatch, at: usize) -> Option<Incoming<'a>> {
        let Some((bytes, underlay)) = batch.received.datagram(at) else {
            self.counters.count(Counter::ScionMalformed);
            return None;
        };
        match self.filter.admit(bytes, underlay) {
            Ok(Admitted::Datagram(datagram, packet)) => {
                if !packet.checksum_is_right() {
                    self.counters.count(Counter::ScionWrongChecksum);
                }
                Some(Incoming::Datagram(datagram))
            }
            Ok(Admitted::Control(packet)) => {
                let echo = self.control(&packet, batch.now());
                echo.then_some(Incoming::Echo(EchoRequest { bytes, underlay }))
            }
            Err(reject) => {
                self.counters.count(reject.into());
                None
            }
        }
    }

    /// Handles a control message. Returns whether it is an echo request, which others answer.
    fn control(&self, packet: &Packet<'_>, now: Now) -> bool {
        let Message::Scmp(scmp) = packet.message else {
            return false;
        };
        match scmp {
            Scmp::EchoRequest(_) => return true,
            Scmp::EchoReply(_) | Scmp::Other { .. } => {
                self.counters.count(Counter::ScionScmpIgnored);
            }
            _ => self.scmp_error(packet, &scmp, now),
        }
        false
    }

    /// Notes the sender of a QUIC packet among the remotes, so that it can be sent to. Returns the
    /// synthetic address by which QUIC knows it; `None` if it cannot be answered.
    pub(crate) fn note_remote(
        &self,
        datagram: &Datagram<'_>,
        batch: &PacketBatch,
    ) -> Option<SocketAddr> {
        let addr = self.addrs.of(datagram.source);
        let arrival = Arrival {
            path: datagram.path,
            via: self.filter.via(datagram.path, datagram.underlay),
            token: quic::addressed_to(datagram.payload),
            now: batch.now(),
        };
        let change = self
            .remotes
            .lock()
            .packet_received((addr, datagram.source), &arrival, || {
                self.route_back(datagram)
            });
        match change {
            Ok(Change::None) => {}
            Ok(Change::Added) => self.counters.count(Counter::ScionRemotesAdded),
            Ok(Change::PathAdopted) => self.counters.count(Counter::ScionPathsAdopted),
            Err(_) => {
                self.counters.count(Counter::ScionUnanswerable);
                return None;
            }
        }
        Some(addr)
    }

    /// The route of answers to a datagram.
    fn route_back(&self, datagram: &Datagram<'_>) -> Result<Route, BuildError> {
        let Datagram {
            source,
            path,
            underlay,
            ..
        } = *datagram;
        let template = Template::between(self.local(), source, path)?;
        let next_hop = self.filter.next_hop(template.path(), underlay);
        Ok(Route { template, next_hop })
    }

    /// Queues the answer to a datagram, along its path and without an entry among the remotes. `serve` writes
    /// the payload and returns its length, zero for no answer. Returns what [`Unsealed::seal`] needs before
    /// [`ScionSocket::send_replies`]; `None` if nothing was queued.
    #[inline]
    pub(crate) fn queue_reply(
        &self,
        request: &Datagram<'_>,
        replies: &mut Replies,
        serve: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<Unsealed> {
        match self.filter.answer(request, replies.buffer()?, serve) {
            Ok(answer) => {
                let (packet, next_hop) = answer?;
                replies.queue(packet.packet_len(), next_hop);
                Some(packet)
            }
            Err(reject) => {
                self.counters.count(reject.into());
                None
            }
        }
    }

    /// Sends the queued replies. Returns how many the socket has not taken.
    pub(crate) fn send_replies(&self, replies: &mut Replies) -> usize {
        self.underlay.send_all(replies)
    }

    /// Room for the replies to a batch.
    pub(crate) fn replies(&self) -> Replies {
        Replies::new(self.underlay.max_transmit_segments())
    }

    /// Sends one datagram back along the path of another, without an entry among the remotes. False if that
    /// is not possible.
    pub(crate) fn reply(&self, to: &Datagram<'_>, payload: &[u8]) -> bool {
        let route = self.route_back(to);
        if let Ok(route) = &route {
            self.transmit(route, payload, None);
        }
        route.is_ok()
    }

    /// Answers an echo request with a packet that is no longer.
    pub(crate) fn reply_to_echo(&self, request: &EchoRequest<'_>) {
        let mut reply = Vec::new();
        match self.filter.answer_echo(request, &mut reply) {
            Ok(next_hop) => {
                self.counters.count(Counter::ScionEchoes);
                self.send(next_hop, &reply, None);
            }
            Err(reject) => self.counters.count(reject.into()),
        }
    }

    /// The endpoint behind a synthetic address of this socket. To be asked when a connection opens. For
    /// addresses of other sockets the answer has no meaning. `None` if it is an IPv6 host that others
    /// have pushed out of the table.
    pub(crate) fn endpoint_of(&self, remote: SocketAddr) -> Option<ScionAddr> {
        self.remotes.lock().endpoint(remote)
    }

    /// The origin of requests from this host, whose packets were admitted.
    pub(crate) fn origin(&self, host: Host) -> Origin {
        Origin {
            host,
            isd_as: self.filter.proves(host.ia),
        }
    }

    /// Sets the paths to a remote: `path` (as daemons give it, with its border router; no bytes for a
    /// host of the own AS), and `spare` for when an SCMP error names `path`. Returns the address for QUIC to
    /// connect to.
    pub(crate) fn set_paths(
        &self,
        remote: ScionAddr,
        path: (&[u8], SocketAddr),
        spare: Option<(&[u8], SocketAddr)>,
    ) -> Result<SocketAddr, PathError> {
        let route = |(path, next_hop): (&[u8], SocketAddr)| {
            let template = Template::new(self.local(), remote, Path::parse(path)?)?;
            Ok::<_, PathError>(Route { template, next_hop })
        };
        let (path, spare) = (route(path)?, spare.map(route).transpose()?);
        let addr = self.addrs.of(remote);
        let mut remotes = self.remotes.lock();
        remotes.set_paths((addr, remote), path, spare, now(self.start));
        Ok(addr)
    }

    /// Time since the last packet of a remote, or since [`ScionSocket::set_paths`]. `None` if it has no
    /// paths.
    pub(crate) fn silent_for(&self, remote: ScionAddr) -> Option<Duration> {
        let remotes = self.remotes.lock();
        remotes.silent_for(self.addrs.of(remote), now(self.start))
    }

    /// The failures of paths in use, from now on.
    pub(crate) fn failures(&self) -> broadcast::Receiver<Failure> {
        self.failures.subscribe()
    }

    /// Number of remotes in the table.
    #[cfg(test)]
    pub(crate) fn remotes(&self) -> usize {
        self.remotes.lock().len()
    }

    /// Notes what an SCMP error says about a path. Sends the returned packet again over a path that works, but
    /// only so many per second: whoever forges such errors has us send what they quote.
    fn scmp_error(&self, packet: &Packet<'_>, scmp: &Scmp<'_>, now: Now) {
        let mut remotes = self.remotes.lock();
        let report = remotes.scmp_error(&self.addrs, self.local(), packet, scmp, now);
        drop(remotes);
        let Some(Report { failure, again }) = report else {
            self.counters.count(Counter::ScionScmpIgnored);
            return;
        };
        if let Some((route, returned)) = again {
            self.send_again(&route, returned, now);
        }
        if let Some(failure) = failure {
            self.counters.count(Counter::ScionPathsFailed);
            tracing::debug!(?failure, "a path has failed");
            // Nobody may be listening.
            let _ = self.failures.send(failure);
        }
    }

    fn send_again(&self, route: &Route, returned: Returned<'_>, now: Now) {
        let sent = self.sent.as_ref().map(Mutex::lock);
        let datagram = match returned {
            Returned::Whole(datagram) => Some(datagram),
            Returned::Beginning(it) => sent.as_ref().and_then(|sent| sent.find(it)),
        };
        if let Some(datagram) = datagram
            && self.resends.lock().allow(now.since_start)
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

    /// What the socket does not take is lost: QUIC sends it again, and clients ask again for the rest.
    fn send(&self, to: SocketAddr, packets: &[u8], segment_size: Option<usize>) {
        if !self.underlay.send(to, packets, segment_size) {
            self.counters.count(Counter::ScionSendFailures);
        }
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
