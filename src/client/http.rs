//! Makes one GET request over HTTP/1.1, plain or over TLS, on its own connection. Over SCION the
//! connection is that of [`super::qs`].

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{
    Cause, HttpReply, MAX_REPLY, RequestError, TrackerAddr, TrackerUrl, USER_AGENT, resolve,
};

/// Requests a URL. Uses TLS if there is a TLS configuration.
pub(super) async fn get(
    tls: Option<&Arc<ClientConfig>>,
    url: &TrackerUrl,
) -> Result<HttpReply, RequestError> {
    let (stream, addr) = connect(&resolve(url).await?).await?;
    let Some(tls) = tls else {
        return exchange(stream, url).await;
    };
    let mut config = ClientConfig::clone(tls);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server_name(url)?, stream)
        .await
        .map_err(|source| RequestError::Io {
            addr: TrackerAddr::Ip(addr),
            source,
        })?;
    exchange(stream, url).await
}

/// The name that the certificate must have: the host, which may be an address.
pub(super) fn server_name(url: &TrackerUrl) -> Result<ServerName<'static>, RequestError> {
    ServerName::try_from(url.host().to_owned())
        .map_err(|_| RequestError::ServerName(url.host().to_owned()))
}

/// Connects to the first address that answers.
async fn connect(addrs: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), RequestError> {
    let mut rest = addrs;
    loop {
        let [addr, others @ ..] = rest else {
            // Resolving returns at least one address.
            return Err(RequestError::Unexpected);
        };
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok((stream, *addr)),
            Err(source) if others.is_empty() => {
                return Err(RequestError::Io {
                    addr: TrackerAddr::Ip(*addr),
                    source,
                });
            }
            Err(_) => rest = others,
        }
    }
}

pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &TrackerUrl,
) -> Result<HttpReply, RequestError> {
    let failed = |error: hyper::Error| RequestError::Http(Cause::new(error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // The task ends with this set, at the latest when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get(url.target())
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| RequestError::Request(Cause::new(error)))?;
    let reply = sender.send_request(request).await.map_err(failed)?;
    let (head, body) = reply.into_parts();
    match Limited::new(body, MAX_REPLY).collect().await {
        Ok(body) => Ok(HttpReply {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        }),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestError::TooLong),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(failed(*error)),
            // Reading the body has no other errors.
            Err(_) => Err(RequestError::TooLong),
        },
    }
}
