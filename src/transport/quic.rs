//! QUIC endpoints on UDP sockets and SCION ports, and the protocols of their connections: HTTP/3
//! everywhere, and over SCION also the HTTP/1.1 of the SCION world's Go programs ([`qs`]).
//!
//! [`Listener::run`] serves a UDP socket, [`Listener::driver_over_scion`] makes what a SCION port needs. QUIC is
//! quinn's state machine ([`quinn_proto`]); [`driver`] drives it.
//!
//! There is no 0-RTT: its packets come before the handshake has proven where the client is, and a
//! tracker hands that address to others.

mod driver;
mod out;
mod state;
mod timers;
mod udp;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::{ConnectionError, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::request::Origin;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::qs;
use super::http::three::EXTRA_BYTES;
use super::{Limits, Options, Shared};
use crate::scion::socket::{Recipient, ScionSocket};
use crate::service::Service;
pub(super) use driver::{Driver, Received};
use udp::Receiver;

/// What a UDP listener speaks, by its name in TLS (ALPN).
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h3"];
/// What a SCION listener speaks. Of a client that speaks both, the first.
pub(crate) const PROTOCOLS_OVER_SCION: &[&[u8]] = &[b"h3", qs::PROTOCOL];

/// Unidirectional streams that a client may have open. HTTP/3: control, QPACK encoder and decoder, and
/// some to no purpose, which clients open to see whether that is borne. `qs` needs two.
const UNI_STREAMS: u32 = 6;
/// Reply bytes on their way, of all streams of a connection.
const SEND_WINDOW: u64 = 128 * 1024;

/// What all endpoints of a listener share.
#[derive(Debug)]
pub(crate) struct Listener {
    config: Arc<ServerConfig>,
    options: Arc<Options>,
    service: Arc<Service>,
    handshakes: Arc<AtomicUsize>,
}

impl Listener {
    /// `tls` has to offer [`PROTOCOLS`], or for SCION [`PROTOCOLS_OVER_SCION`]. `initial_rtt` is the
    /// round trip that is assumed before one is measured; without it, QUIC's own of 333 ms.
    pub(crate) fn new(
        tls: rustls::ServerConfig,
        initial_rtt: Option<Duration>,
        options: Arc<Options>,
        service: Arc<Service>,
    ) -> io::Result<Self> {
        let config = server_config(tls, &service.limits(), initial_rtt)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self {
            config: Arc::new(config),
            options,
            service,
            handshakes: Arc::default(),
        })
    }

    /// Serves a UDP socket until `shutdown`, and then what is open for the drain time at most.
    pub(crate) async fn run(
        &self,
        socket: UdpSocket,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        // Each socket has keys of its own for connection ids and stateless resets. A client that changes
        // its port may find itself at another socket, which must not reset a connection that the first
        // one holds: whoever sees its packets could have that done (RFC 9000 section 21.11).
        let endpoint = EndpointConfig::default();
        let origin_of = |remote: SocketAddr| Some(Origin::ip(remote.ip()));
        let mut receiver = Receiver::new(Arc::clone(&socket), &endpoint);
        let mut driver = self.driver(socket, endpoint, None, origin_of, shutdown.clone());
        let mut stopping = pin!(shutdown.cancelled());
        let mut stopped = false;
        poll_fn(|cx| {
            if !stopped && stopping.as_mut().poll(cx).is_ready() {
                stopped = true;
                driver.stop();
            }
            driver.poll(cx, |driver, cx| receiver.poll(driver, cx))
        })
        .await
    }

    /// An endpoint on a SCION socket, without what receives: see [`Driver::poll`]. Requests come from where
    /// their packets come from.
    pub(super) fn driver_over_scion(
        &self,
        socket: &Arc<ScionSocket>,
        shutdown: CancellationToken,
    ) -> Driver {
        let remotes = Arc::clone(socket);
        let origin_of = move |remote| {
            let ScionAddr { host, .. } = remotes.endpoint_of(remote)?;
            Some(remotes.origin(host))
        };
        let (endpoint, recipient) = socket.proving_endpoint_config();
        let socket = Arc::<ScionSocket>::clone(socket);
        self.driver(socket, endpoint, Some(recipient), origin_of, shutdown)
    }

    fn driver(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        endpoint: EndpointConfig,
        recipient: Option<Recipient>,
        origin_of: impl Fn(SocketAddr) -> Option<Origin> + Send + 'static,
        shutdown: CancellationToken,
    ) -> Driver {
        let shared = Arc::new(Shared {
            service: Arc::clone(&self.service),
            options: Arc::clone(&self.options),
            shutdown,
            tasks: TaskTracker::new(),
        });
        let (config, handshakes) = (Arc::clone(&self.config), Arc::clone(&self.handshakes));
        Driver::new(
            socket,
            endpoint,
            recipient,
            config,
            Box::new(origin_of),
            shared,
            handshakes,
        )
    }
}

/// QUIC for a tracker: few streams, small windows, no early data. The keys for tokens are made here, at
/// random.
fn server_config(
    mut tls: rustls::ServerConfig,
    limits: &Limits,
    initial_rtt: Option<Duration>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
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
    if let Some(initial_rtt) = initial_rtt {
        transport.initial_rtt(initial_rtt);
    }
    let mut tokens = quinn_proto::ValidationTokenConfig::default();
    tokens.sent(1);
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        // The origin of a connection is proven once, by its handshake.
        .migration(false);
    Ok(config)
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
    fn new(handshakes: &Arc<AtomicUsize>) -> Self {
        handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(handshakes))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
