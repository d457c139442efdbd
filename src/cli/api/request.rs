//! One request to the admin API, over a Unix socket, TCP or TLS. The answer is read whole, or as it comes.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
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
    let request = build(address, token, (method, path), content)?;
    let exchange = async {
        timeout(time, async {
            let response = respond(connect(address).await?, request).await?;
            whole(response).await
        })
        .await
    };
    run(exchange)?
        .with_context(|| format!("{address} does not answer within {} s", time.as_secs()))?
}

/// Runs a future to its end. Does not wait for a name lookup that still runs.
fn run<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(done)
}

/// Why an answer without end is no longer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Ended {
    /// By the signal that ends this program.
    Interrupted,
    /// Nobody wants more.
    Enough,
    /// By the tracker.
    Stream,
}

/// How long to wait for an answer without end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For its head.
    pub(super) head: Duration,
    /// For its next bytes.
    pub(super) bytes: Duration,
}

/// Asks for an answer without end, and hands its bytes on as they come, until `take` wants no more or `stop`
/// ends. An answer with another status than 200 is returned.
pub(super) fn follow<S: Future<Output = ()>>(
    address: &Address,
    token: Option<&str>,
    path: &str,
    waits: Waits,
    stop: impl FnOnce() -> anyhow::Result<S>,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<Result<Ended, Answer>> {
    let request = build(address, token, (&Method::GET, path), Content::None)?;
    let exchange = async {
        let stop = stop()?;
        let reading = async {
            let response = timeout(waits.head, async {
                respond(connect(address).await?, request).await
            });
            let late = || {
                format!(
                    "{address} does not answer within {} s",
                    waits.head.as_secs()
                )
            };
            let mut response = response.await.with_context(late)??;
            if response.status() != StatusCode::OK {
                let answer = timeout(waits.head, whole(response));
                return Ok(Err(answer.await.with_context(late)??));
            }
            loop {
                let frame = timeout(waits.bytes, response.frame()).await;
                let frame = frame.with_context(|| {
                    format!("{address} has sent nothing for {} s", waits.bytes.as_secs())
                })?;
                match frame {
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data()
                            && !take(&bytes)?
                        {
                            return Ok(Ok(Ended::Enough));
                        }
                    }
                    // A connection that breaks is an end that nobody announced.
                    None | Some(Err(_)) => return Ok(Ok(Ended::Stream)),
                }
            }
        };
        tokio::select! {
            read = reading => read,
            () = stop => Ok(Ok(Ended::Interrupted)),
        }
    };
    run(exchange)?
}

fn build(
    address: &Address,
    token: Option<&str>,
    (method, path): (&Method, &str),
    content: Content,
) -> anyhow::Result<Request<Full<Bytes>>> {
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
    Ok(request.body(Full::new(Bytes::from(body)))?)
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: &Address) -> anyhow::Result<Box<dyn Stream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(url, tls) => {
            let bare = url.host.trim_start_matches('[').trim_end_matches(']');
            let cannot = |error: io::Error| anyhow::anyhow!("cannot connect to {url}: {error}");
            let stream = TcpStream::connect((bare, url.port)).await.map_err(cannot)?;
            match tls {
                None => Ok(Box::new(stream)),
                Some(tls) => {
                    let name = ServerName::try_from(bare.to_owned())?;
                    let stream = tls.connect(name, stream).await.map_err(cannot)?;
                    Ok(Box::new(stream))
                }
            }
        }
    }
}

/// Sends a request, and waits for the head of the answer. A task carries its body.
async fn respond(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES);
    let body = body.collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?;
    Ok(Answer {
        status,
        body: body.to_bytes(),
    })
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
