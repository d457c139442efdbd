//! Drives the connections of a socket: datagrams in, requests answered on the spot, datagrams out, all in
//! one task.
//!
//! quinn has a task for the socket and two for each connection, with channels between them. Here a
//! connection is looked at once when its datagrams are in: what it has to say, acknowledgements and all,
//! leaves in as few datagrams as will hold it.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn::AsyncUdpSocket;
use quinn::udp::{BATCH_SIZE, RecvMeta};
use quinn_proto::{
    Connection as Quic, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig,
    Incoming, ServerConfig,
};
use scion_tracker_core::request::Origin;

use super::Handshake;
use super::out::Out;
use super::state::{ConnectionState, NO_ERROR};
use super::timers::Timers;
use crate::counters::Counter;
use crate::transport::Shared;
use crate::transport::connections::Over;
use crate::transport::http::qs::WakeQueue;
use crate::transport::http::three::RequestQueue;

/// Batches of datagrams that are received before other tasks get their turn.
const BATCHES: usize = 8;
/// RequestQueue that are served together. More make their clients wait for each other: with 64, server and
/// clients took turns at having nothing to do.
const TOGETHER: usize = 8;
/// Room for datagrams that the kernel has put together.
const COALESCED: usize = 1 << 16;

/// An endpoint with its connections.
pub(super) struct Driver<O> {
    endpoint: Endpoint,
    socket: Arc<dyn AsyncUdpSocket>,
    buffers: Box<[u8]>,
    out: Out,
    /// What the endpoint itself has to say, when a datagram belongs to no connection.
    response: Vec<u8>,
    origin_of: O,
    shared: Arc<Shared>,
    handshakes: Arc<AtomicUsize>,
    /// By handle.
    connections: Vec<Option<Box<Connection>>>,
    /// How many these are, closed ones that are not yet forgotten included.
    held: usize,
    /// Connections with something to do.
    ready: Vec<ConnectionHandle>,
    queue: RequestQueue,
    wakeups: Arc<WakeQueue>,
    timers: Timers,
    stopping: bool,
}

/// A connection with what is spoken on it.
struct Connection {
    quic: Quic,
    stage: ConnectionState,
    /// Whether it is among those with something to do.
    ready: bool,
}

impl<O: Fn(SocketAddr) -> Option<Origin>> Driver<O> {
    /// `origin_of` says who is behind a remote address of the socket, if that is known.
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        endpoint: EndpointConfig,
        server: Arc<ServerConfig>,
        origin_of: O,
        shared: Arc<Shared>,
        handshakes: Arc<AtomicUsize>,
    ) -> Self {
        let datagram = usize::try_from(endpoint.get_max_udp_payload_size()).unwrap_or(COALESCED);
        let buffer = (datagram * socket.max_receive_segments()).min(COALESCED);
        let may_fragment = socket.may_fragment();
        Self {
            endpoint: Endpoint::new(Arc::new(endpoint), Some(server), !may_fragment, None),
            out: Out::new(Arc::clone(&socket)),
            socket,
            buffers: vec![0; buffer * BATCH_SIZE].into(),
            response: Vec::new(),
            origin_of,
            shared,
            handshakes,
            connections: Vec::new(),
            held: 0,
            ready: Vec::new(),
            queue: RequestQueue::default(),
            wakeups: Arc::default(),
            timers: Timers::new(),
            stopping: false,
        }
    }

    /// Serves until the shutdown, and then what is open, until its last connection is over.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let shutdown = self.shared.shutdown.clone();
        let mut stopping = pin!(shutdown.cancelled());
        poll_fn(|cx| {
            if !self.stopping && stopping.as_mut().poll(cx).is_ready() {
                self.stop();
            }
            self.poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As long as nothing can be sent nothing is read: what is to come would have to be sent, too.
        if self.out.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut more = true;
        for _ in 0..BATCHES {
            match self.receive(cx) {
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

    /// Receives a batch of datagrams and hands them to their connections.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let size = self.buffers.len() / BATCH_SIZE;
        let mut chunks = self.buffers.chunks_mut(size);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = match self.socket.poll_recv(cx, &mut buffers, &mut metas) {
            Poll::Ready(Ok(count)) => count,
            // Undefined for UDP, and to be had by anybody who sends an ICMP message.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let now = Instant::now();
        for (at, meta) in metas.iter().take(count).enumerate() {
            for datagram in 0..meta.len.div_ceil(meta.stride.max(1)) {
                let start = at * size + datagram * meta.stride;
                let end = (start + meta.stride).min(at * size + meta.len);
                let datagram = BytesMut::from(&self.buffers[start..end]);
                self.handle(datagram, meta, now);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn handle(&mut self, datagram: BytesMut, meta: &RecvMeta, now: Instant) {
        self.response.clear();
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let event = self.endpoint.handle(
            now,
            meta.addr,
            meta.dst_ip,
            ecn,
            datagram,
            &mut self.response,
        );
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                    return;
                };
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

    /// Begins a connection, or answers with Retry, or not at all.
    ///
    /// What comes from an address that is not validated may be forged, so it counts against nobody's
    /// share of connections; handshakes in flight have a limit of their own.
    fn admit(&mut self, incoming: Incoming, now: Instant) {
        let Shared {
            service, options, ..
        } = &*self.shared;
        let limits = &options.limits;
        let Some(origin) = (self.origin_of)(incoming.remote_address()) else {
            // Pushed out of the table of remotes by others: it comes again.
            return self.endpoint.ignore(incoming);
        };
        let validated = incoming.remote_address_validated();
        let in_flight = self.handshakes.load(Ordering::Relaxed);
        let full = options.connections.is_full(Over::Quic, origin.host);
        // Closed ones stay for some round trips more, and how long those take is the client's to say.
        let crowded = self.held >= limits.quic_connections + limits.handshakes;
        if in_flight >= limits.handshakes || crowded || (full && validated) {
            service.counters.count(Counter::QuicRefused);
            let transmit = self.endpoint.refuse(incoming, &mut self.response);
            return self.out.send_or_drop(&transmit, &self.response);
        }
        if !validated && (full || in_flight >= limits.handshakes_before_retry) {
            service.counters.count(Counter::QuicRetries);
            // Fails only for a validated address.
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.response) {
                self.out.send_or_drop(&transmit, &self.response);
            }
            return;
        }
        let accepted = self
            .endpoint
            .accept(incoming, now, &mut self.response, None);
        let (handle, quic) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Not a first packet of QUIC, after all.
                service.counters.count(Counter::QuicAborted);
                if let Some(transmit) = error.response {
                    self.out.send_or_drop(&transmit, &self.response);
                }
                return;
            }
        };
        let connection = Connection {
            quic,
            stage: ConnectionState::Handshake {
                handle,
                origin,
                until: now + limits.handshake,
                _counted: Handshake::new(&self.handshakes),
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

    /// Lets each connection with something to do do it.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.ready.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut ready = std::mem::take(&mut self.ready);
        let mut spoken = 0;
        for (at, handle) in ready.iter().enumerate() {
            self.listen(*handle, now);
            if self.queue.len() < TOGETHER && at + 1 < ready.len() {
                continue;
            }
            self.serve(now);
            for handle in &ready[spoken..=at] {
                // Those that cannot send any more are in line again, for when that is possible.
                self.speak(*handle, cx, now);
            }
            spoken = at + 1;
        }
        ready.clear();
        if self.ready.is_empty() {
            self.ready = ready;
        }
    }

    /// Takes notice of what has happened to a connection. RequestQueue are in line then.
    fn listen(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
            return;
        };
        let Connection { quic, stage, .. } = &mut **connection;
        while let Some(event) = quic.poll() {
            let (shared, wakeups, queue) = (&self.shared, &self.wakeups, &mut self.queue);
            stage.handle(event, quic, shared, wakeups, queue, now);
        }
        if let ConnectionState::Qs { .. } = stage {
            stage.pump(quic, &self.shared, now);
        }
    }

    /// Answers the queued requests.
    fn serve(&mut self, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        self.queue.answer(&self.shared, |queued| {
            if let Some(Some(connection)) = self.connections.get_mut(queued.connection.0) {
                let Connection { quic, stage, .. } = &mut **connection;
                stage.answer(&queued, quic, &self.shared, now);
            }
        });
    }

    /// Sends what a connection has to say.
    fn speak(&mut self, handle: ConnectionHandle, cx: &mut Context<'_>, now: Instant) {
        loop {
            // Having sent something or been answered by the endpoint may be news, too.
            self.listen(handle, now);
            self.serve(now);
            let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                return;
            };
            let Connection { quic, ready, .. } = &mut **connection;
            *ready = false;
            let mut again = false;
            while let Some(event) = quic.poll_endpoint_events() {
                let drained = event.is_drained();
                let answer = self.endpoint.handle_event(handle, event);
                if drained {
                    self.timers.set(handle, None);
                    self.connections[handle.0] = None;
                    self.held -= 1;
                    return;
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
        let Connection { quic, stage, .. } = &mut **connection;
        let deadline = match (quic.poll_timeout(), stage.deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.timers.set(handle, deadline);
    }

    /// Tells the connections whose time has come.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(handle) = self.timers.expired(now) {
            let Some(Some(connection)) = self.connections.get_mut(handle.0) else {
                continue;
            };
            let Connection { quic, stage, .. } = &mut **connection;
            if quic.poll_timeout().is_some_and(|at| at <= now) {
                quic.handle_timeout(now);
            }
            if stage.deadline().is_some_and(|at| at <= now) {
                stage.time_out(quic, &self.shared, now);
            }
            mark(&mut self.connections, &mut self.ready, handle);
        }
    }

    /// No new connections from here on; those that are there come to their end.
    fn stop(&mut self) {
        self.stopping = true;
        self.endpoint.set_server_config(None);
        let now = Instant::now();
        for (at, connection) in self.connections.iter_mut().enumerate() {
            let Some(connection) = connection else {
                continue;
            };
            let Connection { quic, stage, ready } = &mut **connection;
            stage.go_away(quic, &self.shared, now);
            if !*ready {
                *ready = true;
                self.ready.push(ConnectionHandle(at));
            }
        }
    }
}

/// Puts a connection in line, unless it is.
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

impl<O> Drop for Driver<O> {
    /// Whoever drops a server instead of stopping it leaves nobody waiting.
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
