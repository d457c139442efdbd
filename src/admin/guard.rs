//! Decides whether a request to the admin API may be answered, before any handler sees it.
//!
//! The Unix socket may do everything: only the user that runs the tracker can open it. Over TCP, a request
//! needs a token for what it wants; on loopback, statistics need none. There are no cookies, and nothing
//! changes without a token, so a page in a browser on the host can neither change nor read anything: what
//! needs no token is refused if `Host` is not a name of loopback (DNS rebinding), and is not shared with
//! other origins. The exception is `/stats.json`: any page may read its numbers. A token in a request that a
//! page of another site caused is not even looked at, so that no page can use up the attempts of this host.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::State;
use super::serve::{Arrived, Via};
use super::tokens::Level;

/// Time for an answer, except for one without end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's body, unless a route allows more.
const BODY_BYTES: usize = 1 << 20;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing.
    Nothing,
    /// To be on this host, or a token.
    Loopback,
    /// A token of this level.
    Token(Level),
}

/// Paths that need no token.
const OPEN: &[&str] = &[
    "/api/health_check",
    "/api/openapi.json",
    "/health/live",
    "/health/ready",
    "/stats.css",
    "/stats.js",
    "/stats.svg",
];
/// The page, for reading and for forms. It asks [`visitor`] and [`token_allows`] itself, because it answers with
/// a form where others answer 401, and because forms bring their token in the body.
const PAGE: &[&str] = &["/", "/stats"];
/// Paths with statistics about no single torrent and no single host. They need no token on loopback.
const STATISTICS: &[&str] = &[
    "/api/v1/metrics",
    "/api/v1/stats",
    "/api/v2/stats",
    "/metrics",
    "/stats.json",
];
/// Paths that change something although their method is GET, as in torrust's API.
const CHANGES: &[&str] = &["/api/v1/keys/reload", "/api/v1/whitelist/reload"];

/// Whether a request changes something.
fn changes(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || CHANGES.contains(&path)
}

/// Header fields by which a request shows that a proxy on this host passes it on.
const PROXIES: &[&str] = &[
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
/// The answer to a request with a token that a page of another site caused.
const FOREIGN: Refused = Refused {
    status: StatusCode::FORBIDDEN,
    message: Cow::Borrowed("a page of another site may not use a token"),
    retry: None,
};

fn need(method: &Method, path: &str) -> Need {
    match !changes(method, path) {
        true if PAGE.contains(&path) => Need::Nothing,
        false if *method == Method::POST && path == "/stats" => Need::Nothing,
        true if OPEN.contains(&path) => Need::Nothing,
        true if STATISTICS.contains(&path) => Need::Loopback,
        true => Need::Token(Level::Read),
        false => Need::Token(Level::Write),
    }
}

/// What a request that was let in may do. Handlers can ask for it as an `Extension`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Whether it may see secrets, and change things.
    pub(super) write: bool,
}

/// Puts the guard and the limits in front of all routes, also of those that do not exist.
pub(super) fn protect(router: Router<State>, state: &State) -> Router<State> {
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), guard))
}

/// Answers a request for a path that does not exist.
pub(super) async fn unknown(uri: Uri) -> Response {
    Refused::new(StatusCode::NOT_FOUND, "there is no such path").response(uri.path())
}

/// Answers a request with a method that its path does not have. The field `Allow` says which it has.
pub(super) async fn wrong_method(uri: Uri) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Refused::new(status, "this path does not have this method").response(uri.path())
}

/// Lets a request through that may be answered.
async fn guard(
    axum::extract::State(state): axum::extract::State<State>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(arrived) = request.extensions().get::<Arrived>() else {
        // Every connection says how it came in.
        return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "unknown listener").response("");
    };
    let path = request.uri().path().to_owned();
    let decided = decide(&state, arrived.via, &request);
    let mut response = match decided {
        Ok(allowed) => {
            let is_change = changes(request.method(), &path);
            request.extensions_mut().insert(allowed);
            let answer = state.shared().changes.spawn(next.run(request));
            // A change that has begun is finished, whether or not the client waits for it. Nobody needs an
            // answer to a question that nobody waits for.
            let answer = match is_change {
                true => Answer::Change(answer),
                false => Answer::Question(AbortOnDropHandle::new(answer)),
            };
            match timeout(ANSWER_TIMEOUT, answer.join()).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    Refused::new(status, "the answer failed").response(&path)
                }
                Err(_) => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Refused::new(status, "the answer took too long").response(&path)
                }
            }
        }
        Err(refused) => refused.response(&path),
    };
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// An answer that a task makes.
enum Answer {
    /// The task goes on if this is dropped.
    Change(JoinHandle<Response>),
    /// The task ends if this is dropped.
    Question(AbortOnDropHandle<Response>),
}

impl Answer {
    async fn join(self) -> Result<Response, JoinError> {
        match self {
            Self::Change(task) => task.await,
            Self::Question(task) => task.await,
        }
    }
}

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    message: Cow<'static, str>,
    /// Seconds after which it may come again.
    retry: Option<u64>,
}

impl Refused {
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            retry: None,
        }
    }

    /// Text as in torrust's API, or JSON as in ours.
    fn response(self, path: &str) -> Response {
        let mut response = match path.starts_with("/api/v2/") {
            true => super::error::ApiError::new(self.status, self.message).into_response(),
            false => (self.status, self.message).into_response(),
        };
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn decide(state: &State, via: Via, request: &Request<Body>) -> Result<Allowed, Refused> {
    let (method, path) = (request.method(), request.uri().path());
    let need = need(method, path);
    // A form brings its token in the body.
    if need == Need::Nothing && changes(method, path) && is_foreign(request.headers()) {
        return Err(FOREIGN);
    }
    grant(state, via, need, request.headers(), request.uri())
}

/// Whether a visitor of the page may see statistics.
pub(super) fn visitor(
    state: &State,
    via: Via,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Allowed, Refused> {
    grant(state, via, Need::Loopback, headers, uri)
}

/// What a token that came in a form allows. Counts wrong ones.
pub(super) fn token_allows(state: &State, via: Via, token: &[u8]) -> Result<Allowed, Refused> {
    match via {
        Via::Unix => Ok(Allowed { write: true }),
        Via::Tcp { client, .. } => {
            let level = check(state, client.ip(), token)?;
            Ok(Allowed {
                write: level == Level::Write,
            })
        }
    }
}

fn grant(
    state: &State,
    via: Via,
    need: Need,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Allowed, Refused> {
    let (client, is_loopback) = match via {
        Via::Unix => return Ok(Allowed { write: true }),
        Via::Tcp {
            client,
            is_loopback,
        } => (client.ip(), is_loopback),
    };
    let is_proxied = PROXIES.iter().any(|name| headers.contains_key(*name));
    match (need, token(headers, uri)) {
        (Need::Nothing, _) => Ok(Allowed { write: false }),
        (_, Some(_)) if is_foreign(headers) => Err(FOREIGN),
        (need, Some(token)) => {
            let level = check(state, client, &token)?;
            match need {
                Need::Token(needed) if level < needed => Err(Refused::new(
                    StatusCode::FORBIDDEN,
                    "this token may only read",
                )),
                _ => Ok(Allowed {
                    write: level == Level::Write,
                }),
            }
        }
        (Need::Loopback, None) if is_loopback && !is_proxied => {
            if !is_local_host(headers) {
                return Err(Refused::new(
                    StatusCode::FORBIDDEN,
                    "without a token, Host must be localhost or a loopback address",
                ));
            }
            Ok(Allowed { write: false })
        }
        (_, None) => Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "Unhandled rejection: Err { reason: \"unauthorized\" }",
        )),
    }
}

/// What a token allows. Counts wrong ones.
fn check(state: &State, client: IpAddr, token: &[u8]) -> Result<Level, Refused> {
    let shared = state.shared();
    let now = Instant::now();
    if let Some(wait) = shared.failures.wait(client, now) {
        return Err(Refused {
            retry: Some(wait.as_secs() + 1),
            ..Refused::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens from this address: wait, or use the Unix socket",
            )
        });
    }
    let level = shared.tokens.load().level(token);
    level.ok_or_else(|| {
        shared.failures.count(client, now);
        tracing::debug!(%client, "admin API: wrong token");
        Refused::new(
            StatusCode::UNAUTHORIZED,
            "Unhandled rejection: Err { reason: \"token not valid\" }",
        )
    })
}

/// The token of a request: in the header, or else in the query.
fn token<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<Cow<'a, [u8]>> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.as_bytes();
        let bearer = value.split_at_checked(7);
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        // Another scheme is a wrong token.
        return Some(
            bearer
                .map_or(&[][..], |(_, token)| token.trim_ascii())
                .into(),
        );
    }
    let mut pairs = uri.query()?.split('&');
    let token = pairs.find_map(|pair| pair.strip_prefix("token="))?;
    Some(percent_decode_str(token).into())
}

/// Whether a page of another site caused the request. Browsers say so to every listener with TLS or on loopback
/// (<https://www.w3.org/TR/fetch-metadata/>); other programs say nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| matches!(site.as_bytes(), b"cross-site" | b"same-site"))
}

/// Whether `Host` names loopback, so that the request is not one that a page of another host caused by
/// pointing its name here.
fn is_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_needs_no_token_to_change_things() {
        use Need::*;
        for (method, path, expected) in [
            (Method::GET, "/api/health_check", Nothing),
            (Method::POST, "/api/health_check", Token(Level::Write)),
            (Method::GET, "/api/v1/stats", Loopback),
            (Method::GET, "/api/v1/metrics", Loopback),
            (Method::HEAD, "/api/v2/stats", Loopback),
            (Method::DELETE, "/api/v2/stats", Token(Level::Write)),
            (Method::GET, "/api/v1/torrents", Token(Level::Read)),
            (Method::GET, "/", Nothing),
            (Method::POST, "/stats", Nothing),
            (Method::POST, "/", Token(Level::Write)),
            (Method::PUT, "/stats", Token(Level::Write)),
            (Method::GET, "/stats.css", Nothing),
            (Method::GET, "/nothing", Token(Level::Read)),
            (Method::GET, "/api/v1/keys/reload", Token(Level::Write)),
            (Method::OPTIONS, "/api/v1/torrents", Token(Level::Write)),
        ] {
            assert_eq!(need(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_token_is_in_the_header_or_the_query() {
        let header = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        for (headers, uri, expected) in [
            (HeaderMap::new(), "/a", None),
            (HeaderMap::new(), "/a?b=c", None),
            (HeaderMap::new(), "/a?token=x", Some("x")),
            (HeaderMap::new(), "/a?b=c&token=x%2By+z&d", Some("x+y+z")),
            (HeaderMap::new(), "/a?mytoken=x", None),
            (HeaderMap::new(), "/a?token=", Some("")),
            (header("Bearer x"), "/a?token=y", Some("x")),
            (header("bearer  x "), "/a", Some("x")),
            (header("Basic x"), "/a?token=y", Some("")),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let token = token(&headers, &uri);
            let expected = expected.map(str::as_bytes);
            assert_eq!(token.as_deref(), expected, "{headers:?} {uri}");
        }
    }

    #[test]
    fn hosts_of_loopback() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:1212", true),
            ("127.0.0.1:1", true),
            ("127.9.9.9", true),
            ("[::1]:1212", true),
            ("[::ffff:127.0.0.1]", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("192.0.2.1:1212", false),
            ("", false),
            ("a b", false),
        ] {
            let value = HeaderValue::from_str(host).unwrap();
            let headers = HeaderMap::from_iter([(HOST, value)]);
            assert_eq!(is_local_host(&headers), expected, "{host}");
        }
        let twice = [(HOST, "localhost"), (HOST, "evil.example")];
        let mut headers = HeaderMap::new();
        for (name, value) in twice {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert!(!is_local_host(&headers));
        assert!(!is_local_host(&HeaderMap::new()));
    }
}
