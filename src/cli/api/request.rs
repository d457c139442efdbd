//! One request to the admin API, over a Unix socket, TCP or TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::Trust;

/// Most bytes of an answer: 10,000 entries have less.
const ANSWER_BYTES: usize = 64 << 20;
/// The port of the admin API.
const PORT: u16 = 1212;

/// A URL of an admin API: a scheme and a host, and a port unless it is 1212.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Url {
    is_tls: bool,
    host: String,
    port: u16,
}

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected http:// or https:// with a host, and a port unless it is 1212, as in https://tracker.example:1212"
)]
pub(in crate::cli) struct UrlError;

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UrlError),
        };
        let authority = uri.authority().ok_or(UrlError)?;
        let is_plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !is_plain || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(UrlError);
        }
        Ok(Self {
            is_tls,
            host: authority.host().into(),
            port: authority.port_u16().unwrap_or(PORT),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Where an admin API is.
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(Url, Option<TlsConnector>),
}

impl Address {
    pub(super) fn url(url: Url, trust: &Trust) -> anyhow::Result<Self> {
        let tls = match url.is_tls {
            true => Some(TlsConnector::from(Arc::new(trust.config()?))),
            false => None,
        };
        Ok(Self::Tcp(url, tls))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(url, _) => url.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum Content {
    None,
    Json(String),
    Text(String),
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Sends one request, and waits for the answer.
pub(super) fn ask(
    address: &Address,
    token: Option<&str>,
    (method, path): (&Method, &str),
    content: Content,
    time: Duration,
) -> anyhow::Result<Answer> {
    let host = match address {
        Address::Unix(_) => "localhost".into(),
        Address::Tcp(Url { host, port, .. }, _) => format!("{host}:{port}"),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = match content {
        Content::None => String::new(),
        Content::Json(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            body
        }
        Content::Text(body) => {
            request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8");
            body
        }
    };
    let request = request.body(Full::new(Bytes::from(body)))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let answer =
        runtime.block_on(async { timeout(time, connect_and_send(address, request)).await });
    // Does not wait for a name lookup that still runs.
    runtime.shutdown_background();
    answer.with_context(|| format!("{address} does not answer within {} s", time.as_secs()))?
}

async fn connect_and_send(
    address: &Address,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    match address {
        Address::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        Address::Tcp(url, tls) => {
            let bare = url.host.trim_start_matches('[').trim_end_matches(']');
            let cannot = |error: io::Error| anyhow::anyhow!("cannot connect to {url}: {error}");
            let stream = TcpStream::connect((bare, url.port)).await.map_err(cannot)?;
            match tls {
                None => send(stream, request).await,
                Some(tls) => {
                    let name = ServerName::try_from(bare.to_owned())?;
                    let stream = tls.connect(name, stream).await.map_err(cannot)?;
                    send(stream, request).await
                }
            }
        }
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = exchange.as_mut() => answer,
        ended = connection => {
            ended?;
            // What was read before the end is still there.
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let shown = |text: &str| text.parse::<Url>().map(|url| url.to_string()).ok();
        for (text, expected) in [
            ("http://a", Some("http://a:1212")),
            ("https://a.example:80/", Some("https://a.example:80")),
            ("https://[::1]", Some("https://[::1]:1212")),
            ("a", None),
            ("ftp://a", None),
            ("http://a/api", None),
            ("http://a?b", None),
            ("http://user@a", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
