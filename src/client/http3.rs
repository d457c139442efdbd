//! One GET over HTTP/3, on a connection of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Request, StatusCode, header};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, VarInt};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::{MAX_REPLY, RequestError, TrackerUrl, USER_AGENT, resolve};

/// H3_NO_ERROR (RFC 9114, section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Asks for `target`, path and query. Each address of the host gets an equal share of the time.
pub(super) async fn get(
    tls: &Arc<ClientConfig>,
    url: &TrackerUrl,
    target: &str,
    deadline: Instant,
) -> Result<(StatusCode, Bytes), RequestError> {
    let addrs = resolve(url).await?;
    let mut failure = RequestError::Unexpected;
    for (i, addr) in addrs.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + left / (addrs.len() - i) as u32;
        let (endpoint, connection) = match connect(tls, url, *addr, share).await {
            Ok(connected) => connected,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        let reply = exchange(connection.clone(), url, target).await;
        connection.close(NO_ERROR, b"");
        // The close has to get out, but nobody waits for long.
        let _ = timeout(std::time::Duration::from_millis(100), endpoint.wait_idle()).await;
        return reply;
    }
    Err(failure)
}

async fn connect(
    tls: &Arc<ClientConfig>,
    url: &TrackerUrl,
    addr: SocketAddr,
    deadline: Instant,
) -> Result<(Endpoint, Connection), RequestError> {
    let local: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = Endpoint::client(SocketAddr::new(local, 0))
        .map_err(|source| RequestError::Io { addr, source })?;
    let mut config = ClientConfig::clone(tls);
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config = QuicClientConfig::try_from(config)?;
    let connecting = endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(config)), addr, url.host())
        .map_err(|source| RequestError::QuicConnect { addr, source })?;
    match timeout_at(deadline, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(source)) => Err(RequestError::Quic { addr, source }),
        Err(_) => Err(RequestError::Quic {
            addr,
            source: quinn::ConnectionError::TimedOut,
        }),
    }
}

async fn exchange(
    connection: Connection,
    url: &TrackerUrl,
    target: &str,
) -> Result<(StatusCode, Bytes), RequestError> {
    let connection = h3_quinn::Connection::new(connection);
    let (mut driver, mut sender) = h3::client::new(connection).await?;
    // Ends with this set, at the latest when this function does.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    let request = Request::get(format!("https://{}{target}", url.authority()))
        .header(header::USER_AGENT, USER_AGENT)
        .body(())?;
    let mut stream = sender.send_request(request).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status();
    let mut body = BytesMut::new();
    while let Some(data) = stream.recv_data().await? {
        if body.len() + data.remaining() > MAX_REPLY {
            return Err(RequestError::TooLong);
        }
        body.put(data);
    }
    Ok((status, body.freeze()))
}
