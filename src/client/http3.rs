//! Makes one GET request over HTTP/3, on its own connection, over plain IP or SCION. Over SCION also
//! makes the QUIC connections of [`super::qs`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Request, header};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, TransportErrorCode, VarInt,
};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::dialed::Dialed;
use super::qs;
use super::scion::{Call, Silence};
use super::{
    Cause, HttpReply, MAX_REPLY, RequestError, TrackerAddr, TrackerUrl, USER_AGENT, resolve,
};
use crate::scion::socket::INITIAL_RTT;

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// H3_NO_ERROR (RFC 9114, section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Timeout of the first attempt over SCION, including the handshake. Each further attempt may take
/// twice as long. After packets are lost on several paths in turn, both ends of a connection wait
/// ever longer before they send again. A new connection starts with short waits, and on a path that
/// works.
const FIRST_ATTEMPT: Duration = Duration::from_secs(4);
/// Number of attempts. The last one has all the time that is left.
const ATTEMPTS: u32 = 4;

/// Requests a URL. Each address of the host gets an equal share of the
/// time.
pub(super) async fn get(
    tls: &Arc<ClientConfig>,
    url: &TrackerUrl,
    deadline: Instant,
) -> Result<HttpReply, RequestError> {
    let config = quinn::ClientConfig::new(crypto(tls, Over::Http3)?);
    let addrs = resolve(url).await?;
    let mut failure = RequestError::Unexpected;
    for (i, addr) in addrs.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + left / (addrs.len() - i) as u32;
        let tracker = TrackerAddr::Ip(*addr);
        let io = |source| RequestError::Io {
            addr: tracker,
            source,
        };
        // Fails if the host has no route to the address.
        let (endpoint, socket) = match open(*addr).await {
            Ok(opened) => opened,
            Err(error) => {
                failure = io(error);
                continue;
            }
        };
        let connecting = async {
            tokio::select! {
                connected = connect(&endpoint, config.clone(), *addr, tracker, url) => connected,
                () = socket.refused() => Err(io(io::ErrorKind::ConnectionRefused.into())),
            }
        };
        let connection = match timeout_at(share, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                failure = error;
                continue;
            }
            Err(_) => {
                failure = quic(tracker, quinn::ConnectionError::TimedOut);
                continue;
            }
        };
        return ask(connection, url).await;
    }
    Err(failure)
}

/// The protocol on a QUIC connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// HTTP/3.
    Http3,
    /// HTTP/1.1 on one pair of streams, over SCION only.
    Qs,
}

/// Like [`get`], over SCION. If the connection is lost, the request is made again: a repeated GET
/// does no harm.
pub(super) async fn get_over_scion(
    tls: &Arc<ClientConfig>,
    url: &TrackerUrl,
    deadline: Instant,
    call: &Call,
    over: Over,
) -> Result<HttpReply, RequestError> {
    let addr = TrackerAddr::Scion(call.remote());
    let mut config = quinn::ClientConfig::new(crypto(tls, over)?);
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(INITIAL_RTT)
        // Requests are one or two packets. A search for a larger packet size would cost more than
        // it saves.
        .mtu_discovery_config(None);
    config.transport_config(Arc::new(transport));
    let (endpoint, name) = call
        .endpoint()
        .map_err(|source| RequestError::Io { addr, source })?;
    let attempt = async || {
        let connection = connect(&endpoint, config.clone(), name, addr, url).await?;
        let lost = connection.clone();
        let reply = match over {
            Over::Http3 => ask(connection, url).await,
            Over::Qs => qs::ask(&connection, url, addr).await,
        };
        reply.map_err(|error| match lost.close_reason() {
            Some(reason) if is_lost(&reason) => quic(addr, reason),
            _ => error,
        })
    };
    let request = async {
        for n in 0..ATTEMPTS - 1 {
            match timeout(FIRST_ATTEMPT * (1 << n), attempt()).await {
                Ok(Err(RequestError::Quic { source, .. }))
                    if source.downcast_ref().is_some_and(is_lost) =>
                {
                    tracing::debug!("attempt {n} to ask {addr} failed: {source}");
                }
                Ok(done) => return done,
                Err(_) => tracing::debug!("attempt {n} to ask {addr} timed out"),
            }
        }
        attempt().await
    };
    call.during(Silence::SwitchPath, deadline, request).await
}

/// Whether a connection ended because packets were lost, and not because one end rejected it. A
/// tracker ends a handshake that takes too long with APPLICATION_ERROR (RFC 9000, section 10.2.3).
fn is_lost(reason: &quinn::ConnectionError) -> bool {
    match reason {
        quinn::ConnectionError::TimedOut | quinn::ConnectionError::Reset => true,
        quinn::ConnectionError::ConnectionClosed(close) => {
            close.error_code == TransportErrorCode::APPLICATION_ERROR
        }
        _ => false,
    }
}

fn crypto(tls: &Arc<ClientConfig>, over: Over) -> Result<Arc<QuicClientConfig>, RequestError> {
    let mut config = ClientConfig::clone(tls);
    config.alpn_protocols = vec![match over {
        Over::Http3 => b"h3".to_vec(),
        Over::Qs => qs::PROTOCOL.to_vec(),
    }];
    let config = QuicClientConfig::try_from(config)
        .map_err(|error| RequestError::QuicSetup(Cause::new(error)))?;
    Ok(Arc::new(config))
}

async fn open(addr: SocketAddr) -> io::Result<(Endpoint, Arc<Dialed>)> {
    let socket = Dialed::new(addr).await?;
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::clone(&socket) as _,
        Arc::new(TokioRuntime),
    )?;
    Ok((endpoint, socket))
}

/// Connects to the address `name` of the endpoint. The certificate must match the host of the URL.
async fn connect(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    name: SocketAddr,
    addr: TrackerAddr,
    url: &TrackerUrl,
) -> Result<Connection, RequestError> {
    endpoint
        .connect_with(config, name, url.host())
        .map_err(|error| quic(addr, error))?
        .await
        .map_err(|error| quic(addr, error))
}

fn quic(addr: TrackerAddr, error: impl std::error::Error + Send + Sync + 'static) -> RequestError {
    let source = Cause::new(error);
    RequestError::Quic { addr, source }
}

fn http3(error: impl std::error::Error + Send + Sync + 'static) -> RequestError {
    RequestError::Http3(Cause::new(error))
}

async fn ask(connection: Connection, url: &TrackerUrl) -> Result<HttpReply, RequestError> {
    let over = h3_quinn::Connection::new(connection.clone());
    let (mut driver, mut sender) = h3::client::new(over).await.map_err(http3)?;
    // The task ends with this set, at the latest when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    let reply = exchange(&mut sender, url).await;
    // Before the sender is dropped: then the driver closes the connection, at a time of its own.
    close(&connection, NO_ERROR).await;
    reply
}

/// Closes a connection and waits briefly until the close is sent: without it, the tracker would keep the
/// connection until its idle timeout. The draining period after it is not needed here.
pub(super) async fn close(connection: &Connection, code: VarInt) {
    if connection.close_reason().is_some() {
        return;
    }
    let datagrams = || connection.stats().udp_tx.datagrams;
    let before = datagrams();
    connection.close(code, b"");
    // A closed connection sends nothing but the close.
    let closed = datagrams();
    // If something was sent in between, on another thread, that was probably the close.
    let patience = match closed > before {
        true => Duration::from_millis(5),
        false => Duration::from_millis(100),
    };
    let sent = async {
        while datagrams() == closed {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(patience, sent).await;
}

async fn exchange(sender: &mut Sender, url: &TrackerUrl) -> Result<HttpReply, RequestError> {
    let request = Request::get(format!("https://{}{}", url.authority(), url.target()))
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(|error| RequestError::Request(Cause::new(error)))?;
    let mut stream = sender.send_request(request).await.map_err(http3)?;
    stream.finish().await.map_err(http3)?;
    let (head, ()) = stream.recv_response().await.map_err(http3)?.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = stream.recv_data().await.map_err(http3)? {
        if body.len() + data.remaining() > MAX_REPLY {
            return Err(RequestError::TooLong);
        }
        body.put(data);
    }
    Ok(HttpReply {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
    })
}
