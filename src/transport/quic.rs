//! QUIC endpoints on UDP sockets and SCION ports.
//!
//! Connections speak HTTP/3, and over SCION also HTTP/1.1 over QUIC streams, as Go programs for
//! SCION do ([`qs`]). [`Listener::run`] serves a UDP socket. [`Listener::driver_over_scion`] makes
//! the endpoint of a SCION port. [`driver`] drives quinn's state machine ([`quinn_proto`]).
//!
//! 0-RTT is not offered: its packets arrive before the handshake has validated the address of the
//! client, and a tracker hands out that address.

mod driver;
mod group;
mod handshakes;
mod memory;
mod out;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod udp;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::{ConnectionError, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::request::Origin;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::qs;
use super::http::three::EXTRA_BYTES;
use super::{Limits, Options, Shared};
use crate::scion::socket::quic::V1;
use crate::scion::socket::{Recipient, ScionSocket};
use crate::service::Service;
pub(super) use driver::{Driver, Received};
pub(crate) use group::Seat;
use handshakes::{Handshakes, UsedTokens};
use socket::QuicSocket;
use udp::Receiver;

/// Protocols of a UDP listener, by their names in TLS (ALPN).
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h3"];
/// Protocols of a SCION listener, in order of preference.
pub(crate) const PROTOCOLS_OVER_SCION: &[&[u8]] = &[b"h3", qs::PROTOCOL];

/// Unidirectional streams that a client may have open. HTTP/3 has a control stream, a QPACK encoder
/// and a QPACK decoder stream. Clients may open more, of reserved types, to test that servers
/// ignore them. `qs` needs two.
const UNI_STREAMS: u32 = 6;
/// Unacknowledged reply bytes of all streams of a connection.
const SEND_WINDOW: u64 = 128 * 1024;
/// An idle connection with HTTP/3, in bytes: quinn, TLS and our own state.
const IDLE_BYTES: usize = 48 * 1024;
/// Bytes of packets that quinn keeps for each stream besides their contents, before it copies them
/// together.
const PACKET_BYTES: usize = 32 * 1024;
/// Longest reply in bytes: 500 peers as dictionaries.
const REPLY_BYTES: usize = 64 * 1024;

/// The most bytes that one connection can make the server keep: when packets are missing in all
/// streams, no request is complete, and no reply is acknowledged. Replies and requests exclude each
/// other on a stream; the larger one counts.
pub(crate) const fn connection_bytes(limits: &Limits) -> usize {
    let streams = limits.streams as usize;
    let received =
        stream_window(limits) * streams + PACKET_BYTES * (streams + UNI_STREAMS as usize);
    let request = limits.head_bytes + EXTRA_BYTES;
    let waiting = if request > REPLY_BYTES {
        request
    } else {
        REPLY_BYTES
    };
    IDLE_BYTES + received + SEND_WINDOW as usize + waiting * streams
}

/// The receive window of a stream in bytes: a request and what follows it.
const fn stream_window(limits: &Limits) -> usize {
    limits.head_bytes + 2 * EXTRA_BYTES
}

/// State shared by all endpoints of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    config: Arc<ServerConfig>,
    options: Arc<Options>,
    service: Arc<Service>,
    handshakes: Arc<AtomicUsize>,
}

impl Listener {
    /// `tls` must offer [`PROTOCOLS`], or for SCION [`PROTOCOLS_OVER_SCION`]. `initial_rtt` is the
    /// assumed round trip until one is measured. Without it, QUIC assumes 333 ms.
    pub(crate) fn new(
        tls: rustls::ServerConfig,
        initial_rtt: Option<Duration>,
        options: Arc<Options>,
        service: Arc<Service>,
    ) -> io::Result<Self> {
        let limits = service.limits();
        let most = connection_bytes(&limits);
        tracing::debug!(bytes = most, "the most that a QUIC connection can hold");
        let config = server_config(tls, &limits, initial_rtt)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let handshakes = Arc::default();
        service.gauges.add_handshakes(Arc::clone(&handshakes));
        Ok(Self {
            config: Arc::new(config),
            options,
            service,
            handshakes,
        })
    }

    /// Serves a UDP socket until `shutdown`, then drains open connections for at most the drain
    /// time. `seat` is the socket's place among the sockets of its port.
    pub(crate) async fn run(
        &self,
        socket: UdpSocket,
        seat: Seat,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let socket = Arc::new(QuicSocket::new(socket)?);
        self.run_on(socket, seat, shutdown).await
    }

    async fn run_on(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        seat: Seat,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        // Each socket has its own keys for connection ids and stateless resets. The packets of a
        // client that changes its port may reach another socket, which hands them over. With
        // common keys that socket could be made to reset the connection of the first one, by anyone
        // who sees the packets (RFC 9000 section 21.11).
        let mut endpoint = EndpointConfig::default();
        // quinn would also offer drafts.
        endpoint.supported_versions(vec![V1]);
        seat.mark(&mut endpoint);
        let origin_of = |remote: SocketAddr| Some(Origin::ip(remote.ip()));
        let service = Arc::clone(&self.service);
        let mut receiver = Receiver::new(Arc::clone(&socket), &endpoint, service);
        let driver = self.driver(socket, endpoint, None, origin_of, shutdown.clone());
        let mut driver = driver.seated(seat);
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

    /// Makes the endpoint of a SCION socket. It does not receive: see [`Driver::poll`]. The origin
    /// of a request is the source of its packets.
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
        let mut config = Arc::clone(&self.config);
        if recipient.is_none() {
            // The driver drops packets from another host.
            Arc::make_mut(&mut config).migration(true);
        }
        let handshakes = Handshakes::new(Arc::clone(&self.handshakes));
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

/// Configures QUIC for a tracker: few streams, small windows, no early data. Makes random keys for
/// tokens.
fn server_config(
    mut tls: rustls::ServerConfig,
    limits: &Limits,
    initial_rtt: Option<Duration>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls)?;
    let mut transport = TransportConfig::default();
    // The receive windows. The connection's window holds those of all streams, so that no stream
    // can block the others.
    let stream_window = u32::try_from(stream_window(limits)).unwrap_or(u32::MAX);
    let window = stream_window.saturating_mul(limits.streams);
    transport
        // Every handshake reserves an entry per stream, used or not.
        .max_concurrent_bidi_streams(limits.streams.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(stream_window.into())
        .receive_window(window.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        // Replies are one or two packets. A search for a larger packet size would cost more than it
        // saves.
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
        .retry_token_lifetime(UsedTokens::LIFETIME)
        // The origin of a connection must not change. On IP, `Listener::driver` lets the port change.
        .migration(false);
    Ok(config)
}

/// Whether a connection was lost instead of closed by either side.
pub(super) fn is_abort(error: &ConnectionError) -> bool {
    !matches!(
        error,
        ConnectionError::ApplicationClosed(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::LocallyClosed
            | ConnectionError::TimedOut
    )
}
