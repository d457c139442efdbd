//! Announces to trackers and scrapes them: the client side of every transport, using the codecs of
//! the core.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use scion_tracker::client::{Client, Options, TrackerUrl};
//!
//! let client = Client::new(&Options::default())?;
//! let url: TrackerUrl = "udp://tracker.example.org:6969".parse()?;
//! let swarm = "0123456789abcdef0123456789abcdef01234567".parse()?;
//! for (hash, counts) in client.scrape(&url, &[swarm]).await?.files {
//!     println!("{hash}: {} seeds, {} leechers", counts.seeders, counts.leechers);
//! }
//! # Ok(())
//! # }
//! ```

mod dialed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod http3;
mod peer_id;
mod qs;
mod scion;
mod trust;
mod udp;
mod url;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::bep15::Malformed;
use scion_tracker_core::codec::query::{self, AnnounceQuery};
use scion_tracker_core::codec::reply::{
    AnnounceAnswer, Failure, ReplyError, ScrapeAnswer, parse_announce_reply, parse_scrape_reply,
};
use scion_tracker_core::request::{Claim, ScionClaim};
use scion_tracker_core::types::InfoHash;
use tokio::time::{Instant, timeout_at};

pub use peer_id::{Software, software};
pub use scion::{
    Acl, AclError, AclErrorKind, PathInterface, PathStatus, ScionError, ScionOptions, ScionPath,
    ScionPaths,
};
pub use trust::{Trust, TrustError};
pub use url::{Scheme, TrackerUrl, UrlError};

pub use crate::scion::daemon::{CallError, DaemonAddr, DaemonAddrError, DaemonError};
#[cfg(feature = "cli")]
pub(crate) use scion::USUAL_PORTS;

use crate::scion::topology::{DispatchedPorts, Topology};
use http3::Over;
use scion::Scion;

/// Longest reply that is read, in bytes.
pub const MAX_REPLY: usize = 1 << 20;

/// Most redirects that a request follows.
pub const MAX_REDIRECTS: usize = 5;

const USER_AGENT: &str = concat!("scion-tracker/", env!("CARGO_PKG_VERSION"));

/// Options of a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Timeout of a whole request: name lookup, connection, handshake, retransmissions, reply.
    pub timeout: Duration,
    /// The certificates that are trusted over HTTPS and HTTP/3.
    pub trust: Trust,
    /// How trackers over SCION are found and reached.
    pub scion: ScionOptions,
}

impl Default for Options {
    /// A timeout of 30 seconds, which over UDP leaves time for one retransmission, and the
    /// certificates of the system.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            trust: Trust::System,
            scion: ScionOptions::default(),
        }
    }
}

/// The address of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrackerAddr {
    /// On plain IP.
    Ip(SocketAddr),
    /// Over SCION.
    Scion(ScionAddr),
}

impl fmt::Display for TrackerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Scion(addr) => addr.fmt(f),
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The host has no address.
    #[error("cannot find an address of {host}")]
    Resolve {
        /// The host in the URL.
        host: String,
        /// The error of the lookup. `None` if the name exists but has no address.
        source: Option<io::Error>,
    },
    /// The tracker cannot be reached over SCION.
    #[error(transparent)]
    Scion(#[from] ScionError),
    /// The connection failed, or could not be opened.
    #[error("the connection to {addr} failed")]
    Io {
        /// The last address that was tried.
        addr: TrackerAddr,
        /// The error of the connection.
        source: io::Error,
    },
    /// The host of the URL cannot be the name in a certificate.
    #[error("{0} cannot be the name in a certificate")]
    ServerName(String),
    /// TLS cannot be used over QUIC.
    #[error("cannot use TLS over QUIC")]
    QuicSetup(#[source] Cause),
    /// The QUIC connection failed.
    #[error("the QUIC connection to {addr} failed")]
    Quic {
        /// The last address that was tried.
        addr: TrackerAddr,
        /// The error of the connection.
        source: Cause,
    },
    /// The HTTP/3 request failed.
    #[error("the HTTP/3 request failed")]
    Http3(#[source] Cause),
    /// The HTTP/1.1 request failed.
    #[error("the HTTP request failed")]
    Http(#[source] Cause),
    /// The URL does not fit into an HTTP request.
    #[error("cannot make an HTTP request from the URL")]
    Request(#[source] Cause),
    /// A status other than 200.
    #[error("the tracker answered with status {status}{}", Excerpt(.body))]
    Status {
        /// The status.
        status: ::http::StatusCode,
        /// Body of the reply.
        body: Bytes,
    },
    /// The reply is longer than [`MAX_REPLY`].
    #[error("the reply is longer than {MAX_REPLY} bytes")]
    TooLong,
    /// The tracker redirects the request, but the redirect cannot be followed.
    #[error("cannot follow the tracker's redirect to {location}")]
    Redirect {
        /// The field `Location` of the reply.
        location: String,
        /// Why it cannot be followed.
        source: RedirectError,
    },
    /// The reply is encoded, although the request accepts no encoding.
    #[error("the reply is encoded as {0}, which was not asked for")]
    Encoding(String),
    /// There was no complete answer within the timeout.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The reply over HTTP cannot be decoded.
    #[error("cannot decode the reply")]
    Reply(#[source] ReplyError),
    /// The reply over UDP cannot be decoded.
    #[error("cannot decode the reply")]
    Malformed(#[from] Malformed),
    /// The reply over UDP answers another kind of request.
    #[error("the reply answers another kind of request")]
    Unexpected,
    /// The tracker refused the request.
    #[error("the tracker refuses: {0}")]
    Refused(Failure),
}

/// Why a redirect cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// It leads from an encrypted connection to an unencrypted one.
    #[error("it leads from an encrypted connection to an unencrypted one")]
    Downgrade,
    /// It leads to another protocol.
    #[error("only redirects to http:// and https:// are followed")]
    Scheme,
    /// It is not a URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The request has followed [`MAX_REDIRECTS`] redirects already.
    #[error("the request has already followed {MAX_REDIRECTS} redirects")]
    TooMany,
}

/// An error of an HTTP or QUIC library. Its text is for people and may change with the library. The
/// library's types are not part of the interface of this crate.
#[derive(Debug)]
pub struct Cause(Box<dyn std::error::Error + Send + Sync>);

impl Cause {
    fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }

    /// The error of the library, if it has this type.
    pub(crate) fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl RequestError {
    /// Whether the tracker's certificate is from an authority that is not in [`Options::trust`],
    /// for example because it is self-signed.
    pub fn is_of_unknown_authority(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                let tls = source.get_ref().and_then(|inner| inner.downcast_ref());
                matches!(
                    tls,
                    Some(rustls::Error::InvalidCertificate(
                        rustls::CertificateError::UnknownIssuer
                    ))
                )
            }
            // quinn keeps only the alert that it sent (RFC 9001 section 4.8).
            Self::Quic { source, .. } => {
                let alert = u8::from(rustls::AlertDescription::UnknownCA);
                matches!(
                    source.downcast_ref(),
                    Some(quinn::ConnectionError::TransportError(error))
                        if error.code == quinn::TransportErrorCode::crypto(alert)
                )
            }
            _ => false,
        }
    }
}

impl From<ReplyError> for RequestError {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Failure(failure) => Self::Refused(failure),
            other => Self::Reply(other),
        }
    }
}

/// Formats the start of a body on one line.
struct Excerpt<'a>(&'a Bytes);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0[..self.0.len().min(200)]);
        let words: Vec<_> = text.split_whitespace().collect();
        if words.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", words.join(" ").escape_debug())
    }
}

/// Announces to trackers and scrapes them.
///
/// Keeps the socket and the connection id of a UDP tracker while the id may be used, one minute,
/// and then closes the socket.
#[derive(Debug)]
pub struct Client {
    timeout: Duration,
    tls: Arc<rustls::ClientConfig>,
    /// For `http://` over SCION.
    any_tls: Arc<rustls::ClientConfig>,
    scion: Arc<Scion>,
    udp: udp::Sessions,
}

impl Client {
    /// Loads the trusted certificates.
    pub fn new(options: &Options) -> Result<Self, TrustError> {
        let scion = Arc::new(Scion::new(&options.scion));
        Ok(Self {
            timeout: options.timeout,
            tls: Arc::new(options.trust.config()?),
            any_tls: Arc::new(Trust::Anyone.config()?),
            udp: udp::Sessions::new(Arc::clone(&scion)),
            scion,
        })
    }

    /// Announces. `compact` and `no_peer_id` have no effect over UDP.
    pub async fn announce(
        &self,
        url: &TrackerUrl,
        announce: &AnnounceQuery,
    ) -> Result<AnnounceAnswer, RequestError> {
        if url.scheme() == Scheme::Udp {
            return self
                .in_time(async |deadline| {
                    udp::announce(&self.udp, url, &announce.announce, deadline).await
                })
                .await;
        }
        let mut text = String::new();
        query::write_announce(announce, &mut text);
        let url = url.announce();
        let reply = self
            .in_time(async |deadline| self.get(&url, &text, deadline).await)
            .await?;
        Ok(parse_announce_reply(&reply)?)
    }

    /// Asks for the counts of swarms. A UDP scrape takes at most 74 hashes, so more hashes need
    /// several requests. Over HTTP the limit depends on the tracker.
    pub async fn scrape(
        &self,
        url: &TrackerUrl,
        hashes: &[InfoHash],
    ) -> Result<ScrapeAnswer, RequestError> {
        if url.scheme() == Scheme::Udp {
            return self
                .in_time(async |deadline| udp::scrape(&self.udp, url, hashes, deadline).await)
                .await;
        }
        let mut text = String::new();
        query::write_scrape(hashes, &mut text);
        let url = url.scrape();
        let reply = self
            .in_time(async |deadline| self.get(&url, &text, deadline).await)
            .await?;
        Ok(parse_scrape_reply(&reply)?)
    }

    /// Asks the daemon for the paths to a tracker over SCION.
    pub async fn paths(&self, url: &TrackerUrl) -> Result<ScionPaths, RequestError> {
        let tracker = self.scion.require(url)?;
        self.in_time(async |_| Ok(self.scion.paths(tracker).await?))
            .await
    }

    /// Returns our own ISD-AS for requests to a tracker over SCION. `None` over plain IP, or if
    /// neither the options nor the daemon tell it.
    pub async fn isd_as(&self, url: &TrackerUrl) -> Option<IsdAs> {
        let tracker = self.scion.find(url).ok()??;
        self.in_time(async |_| Ok(self.scion.isd_as(tracker).await?))
            .await
            .ok()
    }

    /// Whether requests to this URL go over SCION.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "only the program asks")
    )]
    pub(crate) fn is_over_scion(&self, url: &TrackerUrl) -> bool {
        self.scion.find(url).is_ok_and(|found| found.is_some())
    }

    /// What is known of the AS in which a peer listens that announces to this tracker: over SCION the AS
    /// of this host, over plain IP the one that the peer claims, if that is the AS of this host. `None`
    /// for a peer that is not on SCION. Without daemon and topology file, the ports are unknown.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "only the program asks")
    )]
    pub(crate) async fn peer_as(&self, url: &TrackerUrl, claim: &Claim) -> Option<Topology> {
        let unknown = |ia| Topology::new(ia, HashMap::new(), DispatchedPorts::Unknown);
        let over_scion = self.scion.find(url).ok()?;
        let claimed = match claim.scion {
            ScionClaim::At(at) => Some(at.host.ia),
            _ => claim.ia,
        };
        let ia = match over_scion {
            Some(_) => self.isd_as(url).await?,
            None => claimed?,
        };
        let ours = self.in_time(async |_| Ok(self.scion.own_as().await)).await;
        let ours = ours.ok().flatten().filter(|it| it.isd_as() == ia);
        Some(ours.unwrap_or_else(|| unknown(ia)))
    }

    /// Makes a GET request with this query, and follows redirects. Returns the body of a reply with
    /// status 200. The query of a redirect is used as it is: it has ours if the tracker wants it.
    async fn get(
        &self,
        url: &TrackerUrl,
        query: &str,
        deadline: Instant,
    ) -> Result<Bytes, RequestError> {
        let mut url = url.asking(query);
        let mut followed = 0;
        loop {
            let reply = self.get_once(&url, deadline).await?;
            let Some(location) = reply.location() else {
                return reply.into_body();
            };
            let next = match followed {
                MAX_REDIRECTS => Err(RedirectError::TooMany),
                _ => redirected(&url, &location),
            };
            url = next.map_err(|source| RequestError::Redirect { location, source })?;
            followed += 1;
        }
    }

    async fn get_once(
        &self,
        url: &TrackerUrl,
        deadline: Instant,
    ) -> Result<HttpReply, RequestError> {
        match (url.scheme(), self.scion.find(url)?) {
            // SCION has no TCP.
            (Scheme::Https | Scheme::H3, Some(tracker)) => {
                let call = self.scion.call(tracker).await?;
                http3::get_over_scion(&self.tls, url, deadline, &call, Over::Http3).await
            }
            // Like `http://` over TCP, and like Go programs do, without verifying a certificate.
            (Scheme::Http, Some(tracker)) => {
                let call = self.scion.call(tracker).await?;
                http3::get_over_scion(&self.any_tls, url, deadline, &call, Over::Qs).await
            }
            (Scheme::H3, None) => http3::get(&self.tls, url, deadline).await,
            (Scheme::Https, None) => http::get(Some(&self.tls), url).await,
            (Scheme::Http | Scheme::Udp, _) => http::get(None, url).await,
        }
    }

    /// Runs a request with the timeout. The request gets the deadline, so that it can return a more
    /// precise error itself.
    async fn in_time<T>(
        &self,
        request: impl AsyncFnOnce(Instant) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let deadline = Instant::now() + self.timeout;
        timeout_at(deadline, request(deadline))
            .await
            .unwrap_or(Err(RequestError::Timeout(self.timeout)))
    }
}

/// A reply over HTTP.
#[derive(Debug)]
struct HttpReply {
    status: ::http::StatusCode,
    headers: ::http::HeaderMap,
    body: Bytes,
}

impl HttpReply {
    /// The `Location` of a redirect (RFC 9110, section 15.4).
    fn location(&self) -> Option<String> {
        let redirects = matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = self.headers.get(::http::header::LOCATION)?;
        redirects.then(|| String::from_utf8_lossy(location.as_bytes()).into_owned())
    }

    /// The body of a reply with status 200. Another status with the body of a refusal is a refusal.
    fn into_body(self) -> Result<Bytes, RequestError> {
        let Self {
            status,
            headers,
            body,
        } = self;
        if status != ::http::StatusCode::OK {
            return Err(match parse_announce_reply(&body) {
                Err(ReplyError::Failure(failure)) => RequestError::Refused(failure),
                _ => RequestError::Status { status, body },
            });
        }
        match headers.get(::http::header::CONTENT_ENCODING) {
            // A dictionary begins with `d`, so it is not encoded, whatever the header says.
            Some(encoding) if !body.starts_with(b"d") => {
                let encoding = String::from_utf8_lossy(encoding.as_bytes());
                Err(RequestError::Encoding(encoding.into_owned()))
            }
            _ => Ok(body),
        }
    }
}

/// The URL that a redirect from `url` leads to.
fn redirected(url: &TrackerUrl, location: &str) -> Result<TrackerUrl, RedirectError> {
    let next = url.join(location)?;
    match (url.scheme(), next.scheme()) {
        (Scheme::Https | Scheme::H3, Scheme::Http) => Err(RedirectError::Downgrade),
        (_, Scheme::Http | Scheme::Https) => Ok(next),
        // A relative redirect stays where it is.
        (from, to) if from == to => Ok(next),
        _ => Err(RedirectError::Scheme),
    }
}

/// Resolves all addresses of the host of a URL, at least one.
async fn resolve(url: &TrackerUrl) -> Result<Vec<SocketAddr>, RequestError> {
    let failed = |source| RequestError::Resolve {
        host: url.host().to_owned(),
        source,
    };
    let found = tokio::net::lookup_host((url.host(), url.port())).await;
    let addrs: Vec<_> = found.map_err(|error| failed(Some(error)))?.collect();
    if addrs.is_empty() {
        return Err(failed(None));
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests;
