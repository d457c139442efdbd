//! Decodes and answers HTTP requests, for HTTP/1.1, HTTP/2, HTTP/3 and qs.
//!
//! [`Request::decode`] turns a request line into an action. [`answer`] turns the action into a
//! status and a body. Nothing here waits. The transports handle framing, header limits and the
//! address of the client.
//!
//! Replies to BitTorrent clients are bencoded and have status 200, also for failures, because
//! clients read nothing else. Their type is `application/octet-stream`. Requests that no BitTorrent
//! client makes get a 4xx status.

mod status;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::codec::query::{self, AnnounceQuery, QueryError, ScrapeQuery};
use scion_tracker_core::codec::reply::{self, Form, Peers};
use scion_tracker_core::codec::target::{self, Target};
use scion_tracker_core::request::PeerKey;
use scion_tracker_core::request::{Carries, Event, Origin, Passkey};
use scion_tracker_core::response::Refusal;
use scion_tracker_core::tracker::{Context, Rules};
use scion_tracker_core::types::Rng;
use tracing::level_filters::LevelFilter;

use crate::counters::{Counter, Network};
use crate::log::{self, ShownTarget};
use crate::samples::{self, Sampler};
use crate::service::{self, RulesCache, Service};
use crate::transport::http::origin::Client;
use crate::transport::http::page::{self, PublicPage};
pub(crate) use status::Status;

/// Most info hashes in one scrape.
const SCRAPE_MAX: usize = 100;

/// The page for browsers.
const INDEX: &str = "scion-tracker, a BitTorrent tracker: /announce, /scrape\n";

/// Decides which counters count a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1.1 over any transport, and HTTP/2.
    Http,
    /// HTTP/3.
    Http3,
}

impl Transport {
    const fn sampled(self) -> samples::Transport {
        match self {
            Self::Http => samples::Transport::Http,
            Self::Http3 => samples::Transport::Http3,
        }
    }

    const fn announces(self) -> Counter {
        match self {
            Self::Http => Counter::HttpAnnounces,
            Self::Http3 => Counter::Http3Announces,
        }
    }

    const fn scrapes(self) -> Counter {
        match self {
            Self::Http => Counter::HttpScrapes,
            Self::Http3 => Counter::Http3Scrapes,
        }
    }

    const fn failures(self) -> Counter {
        match self {
            Self::Http => Counter::HttpFailures,
            Self::Http3 => Counter::Http3Failures,
        }
    }

    /// Counts requests that got a 4xx status or a protocol error.
    pub(crate) const fn rejected(self) -> Counter {
        match self {
            Self::Http => Counter::HttpRejected,
            Self::Http3 => Counter::Http3Rejected,
        }
    }
}

/// A request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    /// Like GET, but the reply has no body.
    Head,
    Other,
}

impl Method {
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

/// A request as read by its transport, not yet decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRequest<'a> {
    pub(crate) method: Method,
    /// Path and query, or the absolute form that clients send to a proxy (RFC 9112 section 3.2.2).
    pub(crate) target: &'a str,
    /// The client.
    pub(crate) client: Client<'a>,
    /// Whether the request may be a replay: it came as TLS early data, to this server or to a proxy
    /// (RFC 8470).
    pub(crate) early: bool,
}

impl RawRequest<'_> {
    /// What it came over.
    fn network(&self) -> Network {
        match &self.client {
            Client::Known(origin) => Network::of(origin),
            Client::Hidden(_) => Network::Unknown,
        }
    }
}

/// A decoded request of any version of HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    action: Action,
}

/// What a request asks for.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all requests are announces"
)]
enum Action {
    Announce(Origin, AnnounceQuery),
    Scrape(Origin, ScrapeQuery),
    /// An announce or a scrape that is refused before the tracker sees it.
    Refuse(Refusal),
    Index,
    /// A file of the page of statistics.
    Page(Network, page::File),
    /// An announce or a scrape with an invalid query: answered with a failure reason.
    Invalid(Network, QueryError),
    /// Answered with a 4xx status.
    Reject(Network, Status),
}

impl Request {
    /// Decodes a request. An invalid request becomes the action that answers it.
    #[inline]
    pub(crate) fn decode(raw: &RawRequest<'_>) -> Self {
        let action = Action::decode(raw);
        if log::is_on(LevelFilter::DEBUG) {
            action.log(raw);
        }
        Self {
            method: raw.method,
            action,
        }
    }

    /// A request that is invalid before its target is known: answered with a 4xx status.
    pub(crate) fn rejected(origin: &Origin, method: Method, status: Status) -> Self {
        tracing::debug!(client = %origin.host, reason = status.reason(), "HTTP request refused");
        Self {
            method,
            action: Action::Reject(Network::of(origin), status),
        }
    }

    /// For an announce, the key of the peer in the tracker, as far as it can be known before
    /// answering.
    pub(crate) fn peer(&self) -> Option<PeerKey> {
        let Action::Announce(origin, AnnounceQuery { announce, .. }) = &self.action else {
            return None;
        };
        let host = &origin.host;
        let ia = match origin.is_scion() {
            true => host.ia,
            false => announce.claim.ia.unwrap_or(IsdAs::NONE),
        };
        Some(PeerKey {
            info_hash: announce.info_hash,
            ia,
            addr: CompactAddr::new(host.ip(), announce.port),
        })
    }
}

impl Action {
    #[inline]
    fn decode(raw: &RawRequest<'_>) -> Self {
        if raw.method == Method::Other {
            return Self::reject(raw, Status::MethodNotAllowed);
        }
        let (path, query) = path_and_query(raw.target);
        let Some(Target { action, passkey }) = Target::of(path, query) else {
            return match page::File::at(path) {
                Some(file) => Self::Page(raw.network(), file),
                None => Self::reject(raw, Status::NotFound),
            };
        };
        match action {
            target::Action::Announce => Self::announce(raw, query, passkey),
            target::Action::Scrape => match query::parse_scrape(query, SCRAPE_MAX) {
                Ok(mut query) => {
                    query.passkey = query.passkey.or(passkey);
                    Self::of_client(raw, |origin| Self::Scrape(origin, query))
                }
                Err(error) => Self::invalid(raw, error),
            },
            target::Action::Index => Self::Index,
        }
    }

    /// Logs a request, and why it is refused if it already is.
    #[cold]
    fn log(&self, raw: &RawRequest<'_>) {
        let RawRequest { method, client, .. } = raw;
        let target = ShownTarget(raw.target.as_bytes());
        let reason = match self {
            Self::Announce(..) | Self::Scrape(..) | Self::Index | Self::Page(..) => {
                tracing::trace!(%client, ?method, %target, "HTTP request");
                return;
            }
            Self::Refuse(refusal) => refusal.message(),
            Self::Invalid(_, error) => error.message(),
            Self::Reject(_, status) => status.reason(),
        };
        tracing::debug!(%client, ?method, %target, reason, "HTTP request refused");
    }

    #[inline]
    fn announce(raw: &RawRequest<'_>, query: &str, passkey: Option<Passkey>) -> Self {
        match query::parse_announce(query) {
            // A replayed event would count twice. A replayed regular announce is harmless.
            Ok(query) if raw.early && query.announce.event != Event::None => {
                Self::reject(raw, Status::TooEarly)
            }
            Ok(mut query) => {
                if query.announce.passkey.is_none() {
                    query.announce.passkey = passkey;
                }
                Self::of_client(raw, |origin| Self::Announce(origin, query))
            }
            Err(error) => Self::invalid(raw, error),
        }
    }

    fn invalid(raw: &RawRequest<'_>, error: QueryError) -> Self {
        Self::Invalid(raw.network(), error)
    }

    fn reject(raw: &RawRequest<'_>, status: Status) -> Self {
        Self::Reject(raw.network(), status)
    }

    /// Builds an action that needs the client.
    #[inline]
    fn of_client(raw: &RawRequest<'_>, action: impl FnOnce(Origin) -> Self) -> Self {
        match raw.client {
            Client::Known(origin) => action(origin),
            Client::Hidden(proxies) => {
                proxies.warn_of_hidden_client();
                Self::Refuse(Refusal::HiddenClient)
            }
        }
    }
}

/// A reply. Its body is in the [`Scratch`] it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
}

impl Reply {
    /// The `Allow` header that the status requires (RFC 9110 section 15.5.6).
    pub(crate) const fn allow(&self) -> Option<&'static str> {
        match self.status {
            Status::MethodNotAllowed => Some("GET, HEAD"),
            _ => None,
        }
    }
}

/// Buffers that are reused from request to request. One per thread: nothing waits while they are in
/// use.
#[derive(Debug)]
pub(crate) struct Scratch {
    rng: Rng,
    rules: ThreadRules,
    sampler: Sampler,
    peers: Peers,
    /// The body of the last reply.
    pub(crate) body: Vec<u8>,
    date_at: u64,
    date: String,
}

/// The rules of the tracker that this thread served last.
struct ThreadRules(Option<RulesCache>);

impl ThreadRules {
    fn load(&mut self, service: &Service) -> &Rules {
        // A thread serves one tracker, unless a program runs several.
        self.0.take_if(|cache| !service.owns(cache));
        self.0.get_or_insert_with(|| service.rules_cache()).load()
    }
}

impl fmt::Debug for ThreadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThreadRules").finish_non_exhaustive()
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

impl Scratch {
    fn new() -> Self {
        Self {
            // The choice of peers is no secret: without system entropy the keys of a hasher
            // suffice.
            rng: service::rng()
                .unwrap_or_else(|_| Rng::with_seed(RandomState::new().build_hasher().finish())),
            rules: ThreadRules(None),
            sampler: Sampler::default(),
            peers: Peers::new(Form::Compact),
            body: Vec::new(),
            date_at: 0,
            date: String::new(),
        }
    }

    /// Runs `f` with this thread's scratch space. `f` must not call this again.
    pub(crate) fn with<T>(f: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(f)
    }

    /// The value of the `Date` header, formatted once per second (RFC 9110 section 6.6.1).
    pub(crate) fn date(&mut self) -> &str {
        let now = SystemTime::now();
        let secs = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if secs != self.date_at || self.date.is_empty() {
            self.date_at = secs;
            self.date.clear();
            // Writing to a string cannot fail.
            let _ = write!(self.date, "{}", httpdate::HttpDate::from(now));
        }
        &self.date
    }
}

/// Splits a target into path and query. Drops the authority of the absolute form (RFC 9112 section
/// 3.2.2): the tracker answers to any name.
fn path_and_query(target: &str) -> (&str, &str) {
    let absolute = match target.starts_with('/') {
        // Nearly all targets. This saves searching a long target for a scheme.
        true => None,
        false => target.split_once("://"),
    };
    let target = match absolute {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    target.split_once('?').unwrap_or((target, ""))
}

/// Answers a request, and writes the body to `scratch`. All HTTP requests reach the tracker here.
pub(crate) fn answer(
    service: &Service,
    transport: Transport,
    request: &Request,
    scratch: &mut Scratch,
) -> Reply {
    scratch.body.clear();
    scratch.sampler.begin();
    let reply = respond(service, transport, request, scratch);
    scratch.sampler.end(service, transport.sampled());
    reply
}

fn respond(
    service: &Service,
    transport: Transport,
    request: &Request,
    scratch: &mut Scratch,
) -> Reply {
    match &request.action {
        Action::Announce(origin, query) => {
            announce(service, transport, request.method, origin, query, scratch)
        }
        Action::Scrape(origin, query) => scrape(service, transport, origin, query, scratch),
        Action::Refuse(refusal) => {
            refuse(
                service,
                transport,
                Network::Unknown,
                *refusal,
                &mut scratch.body,
            );
            BENCODED
        }
        Action::Invalid(network, error) => {
            service.counters.count_over(transport.failures(), *network);
            reply::write_failure(error.message(), None, None, &mut scratch.body);
            BENCODED
        }
        Action::Index => match &*service.public_page.load() {
            Some(page) => file(page::File::Html, page, scratch),
            None => text(Status::Ok, INDEX, scratch),
        },
        Action::Page(network, which) => match &*service.public_page.load() {
            Some(page) => file(*which, page, scratch),
            None => reject(service, transport, *network, Status::NotFound, scratch),
        },
        Action::Reject(network, status) => reject(service, transport, *network, *status, scratch),
    }
}

/// Answers with a 4xx status.
fn reject(
    service: &Service,
    transport: Transport,
    network: Network,
    status: Status,
    scratch: &mut Scratch,
) -> Reply {
    service.counters.count_over(transport.rejected(), network);
    let reply = text(status, status.reason(), scratch);
    scratch.body.push(b'\n');
    reply
}

/// Answers with a file of the page of statistics.
fn file(file: page::File, page: &PublicPage, scratch: &mut Scratch) -> Reply {
    let (content, content_type) = file.of(page);
    scratch.body.extend_from_slice(content.as_bytes());
    Reply {
        status: Status::Ok,
        content_type,
    }
}

fn text(status: Status, body: &str, scratch: &mut Scratch) -> Reply {
    scratch.body.extend_from_slice(body.as_bytes());
    Reply {
        status,
        content_type: "text/plain; charset=utf-8",
    }
}

const BENCODED: Reply = Reply {
    status: Status::Ok,
    content_type: "application/octet-stream",
};

fn announce(
    service: &Service,
    transport: Transport,
    method: Method,
    origin: &Origin,
    query: &AnnounceQuery,
    scratch: &mut Scratch,
) -> Reply {
    let Scratch {
        rng,
        rules,
        sampler,
        peers,
        body,
        ..
    } = scratch;
    peers.reset(Form::of(origin, query));
    let mut context = Context {
        rules: rules.load(service),
        now: service.now(),
        rng,
    };
    let (tracker, announce) = (&service.tracker, &query.announce);
    let served = match method {
        // HEAD is safe (RFC 9110 section 9.2.1): it changes nothing.
        Method::Head => tracker.look(&mut context, origin, announce, Carries::All, peers),
        _ if sampler.is_measuring() => {
            samples::announce(service, &mut context, origin, announce, Carries::All, peers)
        }
        _ => tracker.announce(&mut context, origin, announce, Carries::All, peers),
    };
    let network = Network::of(origin);
    match served {
        Ok(reply) => {
            service.counters.count_over(transport.announces(), network);
            peers.write(&reply, body);
        }
        Err(refusal) => {
            log_refusal(origin, "announce", refusal);
            refuse(service, transport, network, refusal, body);
        }
    }
    BENCODED
}

fn scrape(
    service: &Service,
    transport: Transport,
    origin: &Origin,
    query: &ScrapeQuery,
    scratch: &mut Scratch,
) -> Reply {
    let Scratch { rules, body, .. } = scratch;
    let rules = rules.load(service);
    let passkey = query.passkey.as_ref();
    let now = service.now();
    let counts = query.hashes.iter().map(|hash| {
        let counts = service.tracker.scrape(rules, now, origin, passkey, hash)?;
        Ok((*hash, counts))
    });
    let network = Network::of(origin);
    match counts.collect::<Result<Vec<_>, Refusal>>() {
        Ok(mut entries) => {
            service.counters.count_over(transport.scrapes(), network);
            reply::write_scrape(&mut entries, rules.terms.min_interval, body);
        }
        Err(refusal) => {
            log_refusal(origin, "scrape", refusal);
            refuse(service, transport, network, refusal, body);
        }
    }
    BENCODED
}

/// Logs that the tracker refused a request.
#[cold]
fn log_refusal(origin: &Origin, request: &str, refusal: Refusal) {
    let reason = refusal.message();
    tracing::debug!(client = %origin.host, request, reason, "HTTP request refused");
}

/// Writes the reason for a refusal.
fn refuse(
    service: &Service,
    transport: Transport,
    network: Network,
    refusal: Refusal,
    body: &mut Vec<u8>,
) {
    service.counters.count_over(transport.failures(), network);
    let counters = &service.counters;
    counters.refuse(refusal, transport.sampled(), network);
    let retry_in = refusal.retry_in_minutes();
    // `retry in` is in minutes (BEP 31). `interval`, in seconds, is for clients without BEP 31.
    let interval = retry_in.map(|minutes| minutes * 60);
    reply::write_failure(refusal.message(), retry_in, interval, body);
}

/// Formats a number in decimal digits, at the end of `digits`.
pub(crate) fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests;
