//! Drives the QUIC connections of a socket in one task: handles received datagrams, answers
//! requests at once and sends datagrams.
//!
//! The driver does not receive by itself. [`Driver::poll`] gets a function that receives, so that
//! the same code serves a UDP socket ([`super::udp`]) and a SCION port
//! ([`transport::scion`](crate::transport::scion)).
//!
//! quinn uses one task per socket and two per connection, with channels between them. Here a
//! connection is processed once after a batch of datagrams, so its replies and acknowledgements
//! leave in as few datagrams as possible.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn::AsyncUdpSocket;
use quinn_proto::{
    Connection as Quic, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig,
    EndpointEvent, Incoming, ServerConfig,
};
use scion_tracker_core::request::Origin;

use super::group::Seat;
use super::handshakes::{Handshakes, UsedTokens};
use super::memory;
use super::out::Out;
use super::state::{ConnectionState, EXCESSIVE_LOAD, NO_ERROR, source_of};
use super::timers::Timers;
use crate::counters::Counter;
use crate::scion::socket::Recipient;
use crate::transport::Shared;
use crate::transport::connections::Over;
use crate::transport::connections::memory::Held;
use crate::transport::http::qs::WakeQueue;
use crate::transport::http::three::RequestQueue;

/// Batches received before other tasks get their turn.
const BATCHES: usize = 8;
/// Most requests that are answered together. With more, clients wait for each other: with 64,
/// server and clients were idle in turn.
const TOGETHER: usize = 8;
/// Returns the client behind a remote address of the socket, if it is known.
type OriginOf = Box<dyn Fn(SocketAddr) -> Option<Origin> + Send>;

/// A received datagram.
pub(in crate::transport) struct Received<'a> {
    pub(in crate::transport) payload: &'a [u8],
    pub(in crate::transport) remote: SocketAddr,
    /// The address it was sent to, if the socket reports it.
    pub(in crate::transport) local: Option<IpAddr>,
    pub(in crate::transport) ecn: Option<EcnCodepoint>,
}

/// An endpoint with its connections.
pub(in crate::transport) struct Driver {
    endpoint: Endpoint,
    /// Longer datagrams are dropped.
    max_datagram: usize,
    /// Tells the socket the remote that the next connection id is for, if the socket needs that.
    recipient: Option<Recipient>,
    out: Out,
    /// The buffer for packets of the endpoint itself, which belong to no connection.
    response: Vec<u8>,
    origin_of: OriginOf,
    shared: Arc<Shared>,
    handshakes: Handshakes,
    tokens: UsedTokens,
    seat: Option<Seat>,
    /// By connection handle.
    connections: Vec<Option<Box<Connection>>>,
    /// Number of connections, including closed ones that are not removed yet.
    held: usize,
    /// Connections that need processing.
    ready: Vec<ConnectionHandle>,
    queue: RequestQueue,
    wakeups: Arc<WakeQueue>,
    timers: Timers,
    stopping: bool,
}

/// A connection and its protocol.
pub(super) struct Connection {
    pub(super) quic: Quic,
    pub(super) state: ConnectionState,
    /// Its memory, until the connection is removed.
    pub(super) held: Held,
    /// Whether it is in `ready`.
    ready: bool,
}

impl Driver {
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        endpoint: EndpointConfig,
        recipient: Option<Recipient>,
        server: Arc<ServerConfig>,
        origin_of: OriginOf,
        shared: Arc<Shared>,
        handshakes: Handshakes,
    ) -> Self {
        let may_fragment = socket.may_fragment();
        Self {
            max_datagram: max_datagram(&endpoint),
            endpoint: Endpoint::new(Arc::new(endpoint), Some(server), !may_fragment, None),
            recipient,
            out: Out::new(socket),
            response: Vec::new(),
            origin_of,
            shared,
            handshakes,
            tokens: UsedTokens::default(),
            seat: None,
            connections: Vec::new(),
            held: 0,
            ready: Vec::new(),
            queue: RequestQueue::default(),
            wakeups: Arc::default(),
            timers: Timers::new(),
            stopping: false,
        }
    }

    /// Receives until nothing is left, and processes the connections. `receive` passes a batch of
    /// datagrams to [`Driver::handle`]. Ready when a stopped driver has no connection left, or when
    /// `receive` fails.
    pub(in crate::transport) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        // While the socket cannot send, nothing is read: replies could not be sent either.
        if self.out.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut more = true;
        for _ in 0..BATCHES {
            match receive(self, cx) {
                Poll::Ready(received) => received?,
                Poll::Pending => {
                    more = false;
                    break;
                }
            }
            self.drive(cx);
            if self.out.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
        if let Some(seat) = &mut self.seat {
            for packet in seat.take(cx) {
                self.handle(&packet.received(), Instant::now());
            }
        }
        for handle in self.wakeups.take(cx) {
            mark(&mut self.connections, &mut self.ready, handle);
        }
        self.drive(cx);
        while self.timers.poll(cx).is_ready() {
            self.expire();
            self.drive(cx);
        }
        if self.out.poll_ready(cx).is_ready() && more {
            cx.waker().wake_by_ref();
        }
        if self.stopping && self.held == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Gives the endpoint a place among the endpoints of its port.
    pub(super) fn seated(mut self, seat: Seat) -> Self {
        self.seat = Some(seat);
        self
    }

    /// Passes a datagram to its connection, or to the endpoint that has the connection.
    pub(in crate::transport) fn handle(&mut self, datagram: &Received<'_>, now: Instant) {
        if datagram.payload.len() > self.max_datagram {
            return;
        }
        if let Some(handed_over) = self.seat.as_ref().and_then(|seat| seat.hand_over(datagram)) {
            if !handed_over {
                let counters = &self.shared.service.counters;
                counters.count(Counter::QuicUnforwarded);
            }
            return;
        }
        self.response.clear();
        let event = self.endpoint.handle(
            now,
            datagram.remote,
            datagram.local,
            datagram.ecn,
            BytesMut::from(datagram.payload),
            &mut self.response,
        );
        match event {
            // The handshake validates the host of a client, which is the origin of its requests and
            // must not change. Its port may change, as behind a NAT (RFC 9000 section 9.3).
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                    return;
                };
                let known = connection.quic.remote_address();
                // quinn itself allows no change over SCION.
                if datagram.remote.ip() != known.ip() && self.recipient.is_none() {
                    let counters = &self.shared.service.counters;
                    return counters.count(Counter::QuicElsewhere);
                }
                connection.quic.handle_event(event);
                if !connection.ready {
                    connection.ready = true;
                    self.ready.push(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now),
            Some(DatagramEvent::Response(transmit)) => {
                self.out.send_or_drop(&transmit, &self.response);
            }
            None => {}
        }
    }

    /// Accepts a connection, asks for address validation with Retry, or refuses.
    ///
    /// An address that is not validated may be forged, so such a packet does not count against the
    /// connections of that address. A validated one counts from here on. Handshakes in progress
    /// have their own limit: at that limit, the source with the most handshakes loses one.
    fn admit(&mut self, incoming: Incoming, now: Instant) {
        let Shared {
            service, options, ..
        } = &*self.shared;
        let limits = service.limits();
        let Some(origin) = (self.origin_of)(incoming.remote_address()) else {
            // The table of remotes was full and has lost this one. The client tries again.
            return self.endpoint.ignore(incoming);
        };
        let validated = incoming.remote_address_validated();
        let in_flight = self.handshakes.in_flight();
        if !validated {
            let before_retry = limits.handshakes_before_retry.min(limits.handshakes);
            let full = service.connections.is_full(Over::Quic, origin.host);
            if full || in_flight >= before_retry {
                return self.retry(incoming, &origin);
            }
        }
        // Closed ones stay for a moment.
        let crowded = self.held >= limits.quic_connections + limits.handshakes;
        // A Retry token is known by the connection id that it was issued for.
        let retried = validated && !incoming.may_retry();
        let issued_for = (incoming.remote_address(), *incoming.orig_dst_cid());
        if crowded || (retried && !self.tokens.use_once(issued_for, now)) {
            return self.refuse(incoming, &origin);
        }
        let source = source_of(&origin, options);
        let open = match validated {
            true => match service.connections.enter(Over::Quic, source) {
                Ok(open) => Some(open),
                Err(_) => return self.refuse(incoming, &origin),
            },
            false => None,
        };
        let counted = source.filter(|_| validated);
        if in_flight >= limits.handshakes {
            match self.handshakes.to_give_up(counted) {
                Some(handle) if validated => self.give_up(handle, now),
                _ => return self.refuse(incoming, &origin),
            }
        }
        // An address that is not validated may be forged, so its memory is charged to no source yet.
        let held = match &open {
            Some(open) => open.hold(memory::CONNECTION_BYTES),
            None => self
                .shared
                .service
                .connections
                .hold(None, memory::CONNECTION_BYTES),
        };
        let Ok(held) = held else {
            return self.refuse(incoming, &origin);
        };
        self.name_recipient(incoming.remote_address());
        self.response.clear();
        let accepted = self
            .endpoint
            .accept(incoming, now, &mut self.response, None);
        let (handle, quic) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The packet is not a valid Initial.
                self.shared.count(Counter::QuicAborted, &origin);
                if let Some(transmit) = error.response {
                    self.out.send_or_drop(&transmit, &self.response);
                }
                return;
            }
        };
        held.register(&self.wakeups.waker(handle));
        let connection = Connection {
            quic,
            held,
            state: ConnectionState::Handshake {
                handle,
                origin,
                until: now + limits.handshake,
                open,
                _counted: self.handshakes.begin(counted, handle),
            },
            ready: false,
        };
        if self.connections.len() <= handle.0 {
            self.connections.resize_with(handle.0 + 1, || None);
        }
        self.connections[handle.0] = Some(Box::new(connection));
        self.held += 1;
        mark(&mut self.connections, &mut self.ready, handle);
    }

    /// Asks the client to show that it receives at its address.
    fn retry(&mut self, incoming: Incoming, origin: &Origin) {
        self.shared.count(Counter::QuicRetries, origin);
        self.name_recipient(incoming.remote_address());
        // Fails only for a validated address.
        if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.response) {
            self.out.send_or_drop(&transmit, &self.response);
        }
    }

    fn refuse(&mut self, incoming: Incoming, origin: &Origin) {
        self.shared.count(Counter::QuicRefused, origin);
        let transmit = self.endpoint.refuse(incoming, &mut self.response);
        self.out.send_or_drop(&transmit, &self.response);
    }

    /// Ends a handshake in favor of another source.
    fn give_up(&mut self, handle: ConnectionHandle, now: Instant) {
        if let Some(Some(connection)) = self.connections.get_mut(handle.0) {
            connection.state.count(Counter::QuicEvicted, &self.shared);
            let quic = &mut connection.quic;
            quic.close(now, EXCESSIVE_LOAD, Bytes::new());
            self.response.clear();
            if let Some(transmit) = quic.poll_transmit(now, 1, &mut self.response) {
                self.out.send_or_drop(&transmit, &self.response);
            }
        }
        self.endpoint.handle_event(handle, EndpointEvent::drained());
        self.remove(handle);
    }

    /// Forgets a connection that the endpoint has forgotten.
    fn remove(&mut self, handle: ConnectionHandle) {
        self.timers.set(handle, None);
        if let Some(connection) = self.connections.get_mut(handle.0)
            && connection.take().is_some()
        {
            self.held -= 1;
        }
    }

    fn name_recipient(&self, remote: SocketAddr) {
        if let Some(recipient) = &self.recipient {
            recipient.set(remote);
        }
    }

    /// Processes the ready connections.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.ready.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut ready = std::mem::take(&mut self.ready);
        let mut flushed = 0;
        for (at, handle) in ready.iter().enumerate() {
            self.process_events(*handle, now);
            if self.queue.len() < TOGETHER && at + 1 < ready.len() {
                continue;
            }
            self.serve(now);
            for handle in &ready[flushed..=at] {
                // A connection that cannot send for now is queued again.
                self.flush(*handle, cx, now);
            }
            flushed = at + 1;
        }
        ready.clear();
        if self.ready.is_empty() {
            self.ready = ready;
        }
    }

    /// Processes the events of a connection and queues its requests.
    fn process_events(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
            return;
        };
        let Connection { quic, state, .. } = &mut **connection;
        while let Some(event) = quic.poll() {
            let (shared, wakeups, queue) = (&self.shared, &self.wakeups, &mut self.queue);
            state.handle(event, quic, shared, wakeups, queue, now);
        }
        state.proceed(quic, &self.shared, &mut self.queue, now);
    }

    /// Answers the queued requests.
    fn serve(&mut self, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        self.queue.answer(&self.shared, |queued| {
            if let Some(Some(connection)) = self.connections.get_mut(queued.connection.0) {
                let Connection { quic, state, .. } = &mut **connection;
                state.answer(&queued, quic, &self.shared, now);
            }
        });
    }

    /// Sends the datagrams of a connection.
    fn flush(&mut self, handle: ConnectionHandle, cx: &mut Context<'_>, now: Instant) {
        loop {
            // Sending, or a response of the endpoint, may cause events.
            self.process_events(handle, now);
            self.serve(now);
            let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                return;
            };
            connection.account(&self.shared, now);
            let Connection { quic, ready, .. } = &mut **connection;
            *ready = false;
            let mut again = false;
            while let Some(event) = quic.poll_endpoint_events() {
                let drained = event.is_drained();
                if let Some(recipient) = &self.recipient {
                    recipient.set(quic.remote_address());
                }
                let answer = self.endpoint.handle_event(handle, event);
                if drained {
                    return self.remove(handle);
                }
                if let Some(event) = answer {
                    quic.handle_event(event);
                    again = true;
                }
            }
            if again {
                continue;
            }
            if self.out.poll_ready(cx).is_pending() {
                *ready = true;
                self.ready.push(handle);
                break;
            }
            let segments = self.out.segments();
            let Some(transmit) = quic.poll_transmit(now, segments, self.out.buffer()) else {
                break;
            };
            self.out.send_buffer(transmit);
        }
        let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
            return;
        };
        let Connection { quic, state, .. } = &mut **connection;
        let deadline = match (quic.poll_timeout(), state.deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.timers.set(handle, deadline);
    }

    /// Processes the connections that have passed their deadline.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(handle) = self.timers.expired(now) {
            let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                continue;
            };
            let Connection { quic, state, .. } = &mut **connection;
            if state.is_done(now) {
                self.endpoint.handle_event(handle, EndpointEvent::drained());
                self.remove(handle);
                continue;
            }
            if quic.poll_timeout().is_some_and(|at| at <= now) {
                quic.handle_timeout(now);
            }
            if state.deadline().is_some_and(|at| at <= now) {
                state.time_out(quic, &self.shared, now);
            }
            mark(&mut self.connections, &mut self.ready, handle);
        }
    }

    /// Stops accepting connections and closes the open ones.
    pub(in crate::transport) fn stop(&mut self) {
        self.stopping = true;
        self.endpoint.set_server_config(None);
        let now = Instant::now();
        for (at, connection) in self.connections.iter_mut().enumerate() {
            let Some(connection) = connection else {
                continue;
            };
            let Connection {
                quic, state, ready, ..
            } = &mut **connection;
            state.go_away(quic, &self.shared, now);
            if !*ready {
                *ready = true;
                self.ready.push(ConnectionHandle(at));
            }
        }
    }
}

/// The longest datagram that an endpoint accepts.
pub(super) fn max_datagram(endpoint: &EndpointConfig) -> usize {
    usize::try_from(endpoint.get_max_udp_payload_size()).unwrap_or(usize::MAX)
}

/// Queues a connection for processing, unless it is already queued.
fn mark(
    connections: &mut [Option<Box<Connection>>],
    ready: &mut Vec<ConnectionHandle>,
    handle: ConnectionHandle,
) {
    if let Some(Some(connection)) = connections.get_mut(handle.0)
        && !connection.ready
    {
        connection.ready = true;
        ready.push(handle);
    }
}

impl Drop for Driver {
    /// Closes the connections of a driver that is dropped instead of stopped.
    fn drop(&mut self) {
        let now = Instant::now();
        for connection in self.connections.iter_mut().flatten() {
            connection.quic.close(now, NO_ERROR, Bytes::new());
            self.response.clear();
            if let Some(transmit) = connection.quic.poll_transmit(now, 1, &mut self.response) {
                self.out.send_or_drop(&transmit, &self.response);
            }
        }
    }
}
