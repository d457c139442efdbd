//! QUIC endpoints, over whatever datagram socket that is, and what is spoken on their connections: HTTP/3
//! everywhere, and over SCION also the HTTP/1.1 of the SCION world's Go programs ([`qs`]).
//!
//! [`run`] makes an endpoint on a UDP socket, [`run_over_scion`] on a SCION socket, which also says who
//! is behind the addresses of its remotes. QUIC is quinn's.
//!
//! There is no 0-RTT: its packets come before the handshake has proven where the client is, and a
//! tracker hands that address to others.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, TokioRuntime, TransportConfig,
    VarInt,
};
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::request::Origin;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::Over;
use super::http3::{self, EXTRA_BYTES};
use super::qs;
use super::{Limits, Options, Shared};
use crate::counters::Counter;
use crate::service::Service;
use crate::socket::scion::ScionSocket;

/// What a UDP listener speaks, by its name in TLS (ALPN).
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h3"];
/// What a SCION listener speaks. Of a client that speaks both, the first.
pub(crate) const PROTOCOLS_OVER_SCION: &[&[u8]] = &[b"h3", qs::PROTOCOL];

/// Error codes that end a connection before its protocol is known, or after its last one: as HTTP/3 has
/// them (RFC 9114 section 8.1).
const NO_ERROR: u32 = 0x100;
const EXCESSIVE_LOAD: u32 = 0x107;

/// Unidirectional streams that a client may have open. HTTP/3: control, QPACK encoder and decoder, and
/// some to no purpose, which clients open to see whether that is borne. `qs` needs two.
const UNI_STREAMS: u32 = 6;
/// Reply bytes on their way, of all streams of a connection.
const SEND_WINDOW: u64 = 128 * 1024;
/// Connections that wait to be accepted, and their datagrams; we accept at once.
const INCOMING: usize = 4096;
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 * 1024 * 1024;

/// Serves a UDP socket until `shutdown`, and then what is open for the drain time at most. `tls` has to
/// offer [`PROTOCOLS`].
pub(crate) async fn run(
    socket: UdpSocket,
    tls: rustls::ServerConfig,
    options: Arc<Options>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let config = server_config(tls, &options.limits)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket,
        Arc::new(TokioRuntime),
    )?;
    serve(
        endpoint,
        |remote| Some(Origin::ip(remote.ip())),
        options,
        service,
        shutdown,
    )
    .await;
    Ok(())
}

/// The same over SCION, with [`PROTOCOLS_OVER_SCION`]: requests come from where their packets come from.
pub(crate) async fn run_over_scion(
    socket: Arc<ScionSocket>,
    tls: rustls::ServerConfig,
    options: Arc<Options>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let config = server_config(tls, &options.limits)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let endpoint = socket.endpoint(Some(config))?;
    let origin_of = |remote| {
        let ScionAddr { host, .. } = socket.origin(remote)?;
        Some(Origin { host })
    };
    serve(endpoint, origin_of, options, service, shutdown).await;
    Ok(())
}

/// QUIC for a tracker: few streams, small windows, no early data. The keys for tokens are made here, at
/// random.
fn server_config(
    mut tls: rustls::ServerConfig,
    limits: &Limits,
) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls)?;
    let mut transport = TransportConfig::default();
    // What a stream may send before it is read; all of them fit, so none can hold up the others.
    let stream_window = u32::try_from(limits.head_bytes + 2 * EXTRA_BYTES).unwrap_or(u32::MAX);
    let window = stream_window.saturating_mul(limits.streams);
    transport
        // Each costs an entry at every handshake, used or not.
        .max_concurrent_bidi_streams(limits.streams.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(stream_window.into())
        .receive_window(window.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        // Replies are a packet or two: looking for a larger packet size takes more than it gives.
        .mtu_discovery_config(None)
        .allow_spin(false)
        .max_idle_timeout(Some(
            VarInt::try_from(limits.idle.as_millis() as u64)
                .unwrap_or(VarInt::MAX)
                .into(),
        ));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(1);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        // The origin of a connection is proven once, by its handshake.
        .migration(false)
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

/// Serves an endpoint until `shutdown`. `origin_of` says who is behind a remote address of it, if
/// that is known.
async fn serve(
    endpoint: Endpoint,
    origin_of: impl Fn(SocketAddr) -> Option<Origin>,
    options: Arc<Options>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) {
    // Ends every connection when this future is dropped instead of being stopped.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let shared = Arc::new(Shared {
        service,
        options,
        shutdown: stop,
        tasks: TaskTracker::new(),
    });
    let handshakes = Arc::new(AtomicUsize::new(0));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shutdown.cancelled() => break,
        };
        // There is none any more when the endpoint has lost its socket.
        let Some(incoming) = incoming else { break };
        match origin_of(incoming.remote_address()) {
            Some(origin) => admit(incoming, origin, &handshakes, &shared),
            // Pushed out of the table of remotes by others: it comes again.
            None => incoming.ignore(),
        }
    }
    // No new connections, from here on.
    endpoint.set_server_config(None);
    shared.tasks.close();
    // Each connection ends itself within the drain time.
    shared.tasks.wait().await;
    endpoint.close(VarInt::from_u32(NO_ERROR), b"");
    endpoint.wait_idle().await;
}

/// Starts a connection's task, or answers with Retry, or not at all.
///
/// What comes from an address that is not validated may be forged, so it counts against nobody's share
/// of connections; handshakes in flight have a limit of their own.
fn admit(incoming: Incoming, origin: Origin, handshakes: &Arc<AtomicUsize>, shared: &Arc<Shared>) {
    let Shared {
        service, options, ..
    } = &**shared;
    let limits = &options.limits;
    let validated = incoming.remote_address_validated();
    let in_flight = handshakes.load(Ordering::Relaxed);
    let full = options.connections.is_full(Over::Quic, origin.host);
    if in_flight >= limits.handshakes || (full && validated) {
        service.counters.count(Counter::QuicRefused);
        incoming.refuse();
        return;
    }
    if !validated && (full || in_flight >= limits.handshakes_before_retry) {
        service.counters.count(Counter::QuicRetries);
        // Fails only for a validated address.
        let _ = incoming.retry();
        return;
    }
    let Ok(connecting) = incoming.accept() else {
        // Not a first packet of QUIC, after all.
        service.counters.count(Counter::QuicAborted);
        return;
    };
    let handshake = Handshake::new(Arc::clone(handshakes));
    let tasks = &shared.tasks;
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        let done = tokio::select! {
            done = timeout(shared.options.limits.handshake, connecting) => done,
            () = shared.shutdown.cancelled() => return,
        };
        drop(handshake);
        let Ok(Ok(connection)) = done else {
            shared.service.counters.count(Counter::QuicAborted);
            return;
        };
        let proxied = shared.options.proxies.trusts(origin.host.ip()) && !origin.is_scion();
        let source = (!proxied).then_some(origin.host);
        let Ok(_open) = shared.options.connections.enter(Over::Quic, source) else {
            shared.service.counters.count(Counter::QuicRefused);
            connection.close(VarInt::from_u32(EXCESSIVE_LOAD), b"");
            return;
        };
        shared.service.counters.count(Counter::QuicConnections);
        if protocol(&connection).as_deref() == Some(qs::PROTOCOL) {
            qs::serve(connection, origin, shared).await;
        } else {
            http3::serve(connection, origin, shared).await;
        }
    });
}

/// What both sides have agreed to speak.
fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?;
    data.downcast::<HandshakeData>().ok()?.protocol
}

/// Whether a connection was lost, and not closed by either side.
pub(super) fn is_abort(error: &ConnectionError) -> bool {
    !matches!(
        error,
        ConnectionError::ApplicationClosed(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::LocallyClosed
            | ConnectionError::TimedOut
    )
}

/// A handshake in flight, counted for as long as this lives.
#[derive(Debug)]
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn new(handshakes: Arc<AtomicUsize>) -> Self {
        handshakes.fetch_add(1, Ordering::Relaxed);
        Self(handshakes)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
