//! A SCION endpoint as a datagram socket: carries QUIC and BEP 15 datagrams in SCION packets over a
//! UDP socket, the underlay.
//!
//! The socket looks up no paths. A server answers along the reversed path of a packet. A client
//! sets its paths.
//!
//! The socket answers nothing by itself. [`ScionSocket::poll_receive`] and [`ScionSocket::read`]
//! return the datagrams for this endpoint with their source, path and underlay address.
//! [`transport::scion`](crate::transport::scion) decides who answers them. The socket handles SCMP
//! errors about its paths itself. The QUIC endpoint of a client uses it as
//! [`AsyncUdpSocket`](::quinn::AsyncUdpSocket) ([`ScionSocket::endpoint`]). QUIC knows remotes by
//! synthetic IPv6 addresses. [`ScionSocket::endpoint_of`] returns the SCION address of one.
//!
//! [`underlay`] is the UDP socket. [`answered`], [`filter`], [`remotes`], [`sent`] and [`quic`] use no
//! sockets and no clocks.

mod answered;
mod batch;
mod cids;
mod endhost;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod quic;
mod quinn;
mod remotes;
mod returned;
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
use answered::Answered;
pub(crate) use batch::{EchoRequest, Incoming, PacketBatch};
pub(crate) use cids::Recipient;
use cids::{ConnectionIds, Generator};
use endhost::Endhost;
use filter::{Admitted, Filter};
pub(crate) use filter::{Datagram, ENDHOST_PORT, Routers};
use quinn::Unread;
use remotes::{Arrival, Change, Now, Remotes, Route};
pub(crate) use remotes::{Cause, Failure, Limits};
use returned::Waiting;
use sent::Sent;
use synthetic::SyntheticAddrs;
pub(crate) use underlay::Replies;
use underlay::{Refused, Underlay};

/// UDP payload of the packets that open a QUIC connection, in bytes (RFC 9000 section 14.1). SCION
/// headers take another 44 to 260 bytes. Paths with an MTU of 1280 carry both if the headers take at
/// most 80 bytes, which is a path of two or three ASes between IPv4 hosts. On longer ones the underlay is
/// fragmented.
pub(crate) const MIN_PAYLOAD: u16 = 1200;

/// Round trip that QUIC assumes over SCION before it has measured one. A packet without an answer
/// is sent again after three times as long, over another path if the first one has failed.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(150);

/// Failures of paths that are kept for a slow listener.
const FAILURES: usize = 16;
/// Packets returned by routers that are sent again over another path: in one burst, and per second.
const RESENDS: u32 = 1000;

thread_local! {
    /// The packets being sent to the underlay.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A SCION endpoint on an underlay UDP socket.
pub(crate) struct ScionSocket {
    underlay: Underlay,
    underlay_addr: SocketAddr,
    /// Port [`ENDHOST_PORT`] of our host. Only for receiving.
    endhost: Option<Endhost>,
    filter: Filter,
    addrs: SyntheticAddrs,
    ids: ConnectionIds,
    remotes: Mutex<Remotes>,
    resends: Mutex<RateLimiter>,
    /// Packets that quinn's endpoint has not read yet.
    unread: Mutex<Option<Box<Unread>>>,
    /// Kept datagrams that open connections.
    sent: Mutex<Sent>,
    /// Datagrams of a client that wait for another path.
    waiting: Mutex<Waiting>,
    /// Latest BEP 15 replies of a server.
    answered: Option<Mutex<Answered>>,
    failures: broadcast::Sender<Failure>,
    counters: Arc<Counters>,
    start: Instant,
}

/// Why a path cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// The bytes are not a valid path.
    #[error("malformed path")]
    Malformed(#[from] PacketError),
    /// The path does not fit into a header.
    #[error("unusable path")]
    Unusable(#[from] BuildError),
}

impl ScionSocket {
    /// A client endpoint of this host on an underlay socket. The port of the socket is also the
    /// SCION port: border routers deliver to it. Needs a tokio runtime.
    pub(crate) fn client(underlay: UdpSocket, host: Host) -> io::Result<Arc<Self>> {
        let (limits, counters) = (Limits::default(), Arc::default());
        // A client accepts packets from any router: QUIC and BEP 15 drop those they do not expect.
        Self::new(
            (underlay, None),
            host,
            Routers::Unknown,
            limits,
            counters,
            (Sent::of_client(), None),
        )
    }

    /// A server endpoint, otherwise like [`ScionSocket::client`]. Accepts packets from other ASes
    /// only from these border routers. Counts events in `counters`.
    ///
    /// Also receives packets for its own SCION address on the second socket, which is bound to
    /// [`ENDHOST_PORT`]. Sends from the first one.
    pub(crate) fn server(
        underlay: (UdpSocket, Option<UdpSocket>),
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
        let memory = (Sent::of_server(), Some(Answered::new()));
        Self::new(underlay, host, routers, limits, counters, memory)
    }

    /// A client endpoint on a new underlay socket.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn bind(host: Host, underlay: SocketAddr) -> io::Result<Arc<Self>> {
        Self::client(UdpSocket::bind(underlay)?, host)
    }

    fn new(
        (underlay, endhost): (UdpSocket, Option<UdpSocket>),
        host: Host,
        routers: Routers,
        limits: Limits,
        counters: Arc<Counters>,
        (sent, answered): (Sent, Option<Answered>),
    ) -> io::Result<Arc<Self>> {
        let underlay_addr = underlay.local_addr()?;
        let local = ScionAddr::new(host.ia, host.ip(), underlay_addr.port())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let ids = ConnectionIds::default();
        Ok(Arc::new(Self {
            underlay: Underlay::new(underlay)?,
            underlay_addr,
            endhost: endhost.map(Endhost::new).transpose()?,
            filter: Filter::new(local, routers),
            addrs: SyntheticAddrs::default(),
            remotes: Mutex::new(Remotes::new(limits, ids.clone())),
            ids,
            resends: Mutex::new(RateLimiter::new(RESENDS)),
            unread: Mutex::default(),
            answered: answered.map(Mutex::new),
            sent: Mutex::new(sent),
            waiting: Mutex::default(),
            failures: broadcast::Sender::new(FAILURES),
            counters,
            start: Instant::now(),
        }))
    }

    /// Our SCION address.
    pub(crate) const fn local(&self) -> ScionAddr {
        self.filter.local()
    }

    /// The counters of the socket.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The address of the underlay socket.
    #[cfg(test)]
    pub(crate) const fn underlay_addr(&self) -> SocketAddr {
        self.underlay_addr
    }

    /// Makes a QUIC endpoint on this socket. It accepts connections if it has a server
    /// configuration.
    pub(crate) fn endpoint(self: &Arc<Self>, server: Option<ServerConfig>) -> io::Result<Endpoint> {
        let socket = Arc::clone(self);
        let config = Self::endpoint_config();
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
    }

    /// The configuration of a QUIC endpoint on a SCION socket.
    pub(crate) fn endpoint_config() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        // QUIC may clear this bit if both sides agree. Here it must be set, because it
        // distinguishes QUIC from BEP 15.
        config.grease_quic_bit(false).supported_versions(vec![1]);
        config
    }

    /// The configuration of an endpoint with connection ids that prove to this socket who received
    /// them. Set the [`Recipient`] before the endpoint makes ids.
    pub(crate) fn proving_endpoint_config(&self) -> (EndpointConfig, Recipient) {
        let mut config = Self::endpoint_config();
        let (ids, recipient) = (self.ids.clone(), Recipient::new());
        let named = recipient.clone();
        config.cid_generator(move || Box::new(Generator::new(ids.clone(), named.clone())));
        (config, recipient)
    }

    /// Waits for packets and receives as many as are available on one of the sockets.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<io::Result<()>> {
        batch.filled(0, batch.now());
        let len = match &self.endhost {
            None => ready!(self.underlay.poll_receive(cx, &mut batch.received)),
            Some(endhost) if endhost.may_be_readable(cx) => {
                ready!(self.poll_both(endhost, cx, batch))
            }
            Some(_) => ready!(self.underlay.poll_receive(cx, &mut batch.received)),
        }?;
        batch.filled(len, now(self.start));
        Poll::Ready(Ok(()))
    }

    /// The sockets take turns, so that neither starves the other.
    #[cold]
    fn poll_both(
        &self,
        endhost: &Endhost,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<io::Result<usize>> {
        let endhost_first = batch.take_turn();
        let received = &mut batch.received;
        if endhost_first && let Poll::Ready(done) = endhost.poll_receive(received) {
            return Poll::Ready(done);
        }
        match self.underlay.poll_receive(cx, received) {
            Poll::Pending if !endhost_first => endhost.poll_receive(received),
            polled => polled,
        }
    }

    /// Reads packet number `at` of a batch. `None` if the packet was dropped and counted, or was an
    /// SCMP error about a path in use.
    #[inline(always)]
    pub(crate) fn read<'a>(&self, batch: &'a PacketBatch, at: usize) -> Option<Incoming<'a>> {
        let Some((bytes, underlay)) = batch.received.datagram(at) else {
            self.counters.count(Counter::ScionMalformed);
            return None;
        };
        match self.filter.admit(bytes, underlay) {
            Ok(Admitted::Datagram(datagram, checksum_is_right)) => {
                if !checksum_is_right {
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

    /// Adds the sender of a QUIC packet to the table of remotes. Returns its synthetic address for
    /// QUIC, `None` if it cannot be answered.
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
            Ok(Change::Added) => {
                self.counters.count(Counter::ScionRemotesAdded);
                self.note_path(datagram, batch.now());
            }
            Ok(Change::PathAdopted) => {
                self.counters.count(Counter::ScionPathsAdopted);
                self.note_path(datagram, batch.now());
            }
            Err(_) => {
                self.counters.count(Counter::ScionUnanswerable);
                return None;
            }
        }
        Some(addr)
    }

    /// The route of the answers to a datagram.
    fn route_back(&self, datagram: &Datagram<'_>) -> Result<Route, BuildError> {
        self.route_to(datagram.source, datagram.path, datagram.underlay)
    }

    /// The route along the reverse of a path, over which a packet came from this underlay address.
    fn route_to(
        &self,
        to: ScionAddr,
        path: Path<'_>,
        underlay: SocketAddr,
    ) -> Result<Route, BuildError> {
        let template = Template::between(self.local(), to, path)?;
        let next_hop = self.filter.next_hop(template.path(), to, underlay);
        Ok(Route { template, next_hop })
    }

    /// Queues the answer to a datagram, along its path and without an entry in the table of
    /// remotes. `serve` writes the payload and returns its length, 0 for no answer. Returns what
    /// must be sealed with [`Unsealed::seal`] before [`ScionSocket::send_replies`], `None` if
    /// nothing was queued. Remembers the reply for the case that a router returns it.
    #[inline]
    pub(crate) fn queue_reply(
        &self,
        request: &Datagram<'_>,
        batch: &PacketBatch,
        replies: &mut Replies,
        serve: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<Unsealed> {
        match self.filter.answer(request, replies.buffer()?, serve) {
            Ok(answer) => {
                let (packet, next_hop) = answer?;
                replies.queue(packet.packet_len(), next_hop);
                // Inside an AS there are no links.
                if let Some(answered) = &self.answered
                    && !request.path.is_empty()
                {
                    let mut answered = answered.lock();
                    answered.note_reply(request);
                    let held = answered.take_held(request.source.host.ia, batch.now());
                    drop(answered);
                    self.try_held(held, request, batch.now());
                }
                Some(packet)
            }
            Err(reject) => {
                self.counters.count(reject.into());
                None
            }
        }
    }

    /// Sends the queued replies. Returns the number that the socket did not accept.
    pub(crate) fn send_replies(&self, replies: &mut Replies) -> usize {
        let Refused { count, too_long } = self.underlay.send_all(replies);
        if too_long > 0 {
            self.counters.add(Counter::ScionTooLong, too_long as u64);
        }
        count
    }

    /// Makes room for the replies to a batch.
    pub(crate) fn replies(&self) -> Replies {
        Replies::new(self.underlay.max_transmit_segments())
    }

    /// Sends one datagram back along the path of another, without an entry in the table of remotes.
    /// Returns whether it was sent.
    pub(crate) fn reply(&self, to: &Datagram<'_>, payload: &[u8]) -> bool {
        let route = self.route_back(to);
        if let Ok(route) = &route {
            self.transmit(route, payload, None);
        }
        route.is_ok()
    }

    /// Answers an echo request. The answer is not longer than the request.
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

    /// The endpoint behind a synthetic address of this socket. Call it when a connection opens. For
    /// addresses of other sockets the result has no meaning. `None` for an IPv6 host that was
    /// removed from the full table.
    pub(crate) fn endpoint_of(&self, remote: SocketAddr) -> Option<ScionAddr> {
        self.remotes.lock().endpoint(remote)
    }

    /// The origin of requests from this host. Its packets must have been admitted.
    pub(crate) fn origin(&self, host: Host) -> Origin {
        Origin {
            host,
            isd_as: self.filter.proves(host.ia),
        }
    }

    /// Sets the paths to a remote: `path`, and `spare` for when an SCMP error reports `path`. Paths
    /// are as the daemon returns them, with their border router, and have no bytes for a host of
    /// our own AS. Returns the address for QUIC to connect to.
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
        let now = now(self.start);
        let mut remotes = self.remotes.lock();
        remotes.set_paths((addr, remote), path, spare, now);
        drop(remotes);
        self.send_waiting(remote, now);
        Ok(addr)
    }

    /// Time since the last packet of a remote, or since [`ScionSocket::set_paths`]. `None` if it
    /// has no paths.
    pub(crate) fn silent_for(&self, remote: ScionAddr) -> Option<Duration> {
        let remotes = self.remotes.lock();
        remotes.silent_for(self.addrs.of(remote), now(self.start))
    }

    /// Subscribes to the failures of paths in use.
    pub(crate) fn failures(&self) -> broadcast::Receiver<Failure> {
        self.failures.subscribe()
    }

    /// Number of remotes in the table.
    pub(crate) fn remotes(&self) -> usize {
        self.remotes.lock().len()
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

    /// A datagram that the socket does not accept is lost. QUIC sends it again, and clients repeat
    /// other requests.
    fn send(&self, to: SocketAddr, packets: &[u8], segment_size: Option<usize>) {
        let Refused { count, too_long } = self.underlay.send(to, packets, segment_size);
        if count > 0 {
            self.counters.add(Counter::ScionSendFailures, count as u64);
            self.counters.add(Counter::ScionTooLong, too_long as u64);
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
        // Path timestamps have 32 bits.
        unix: u32::try_from(unix.as_secs()).unwrap_or(u32::MAX),
    }
}
