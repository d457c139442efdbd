//! Paths, methods and replies: what HTTP/1.1, HTTP/2 and HTTP/3 have in common.
//!
//! A request goes in as text and comes out as a status and a body; nothing in here waits. Framing,
//! header bounds and the client's address are the transports' own.
//!
//! The body of whatever is said to a BitTorrent client is bencoded, failures included, with status
//! 200: clients read nothing else. It is sent as `application/octet-stream`; no client looks, and it
//! is what the bytes are. 4xx statuses are for requests that no BitTorrent client makes.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::codec::query::{self, AnnounceQuery};
use scion_tracker_core::codec::reply::{self, Form, Peers};
use scion_tracker_core::registry::PeerKey;
use scion_tracker_core::request::{Carries, Event, Origin};
use scion_tracker_core::types::Rng;

use crate::counters::Counter;
use crate::service::{self, Service};

/// Info hashes in one scrape.
const SCRAPE_MAX: usize = 100;

/// What a browser gets to see.
const INDEX: &str = "scion-tracker, a BitTorrent tracker: /announce, /scrape\n";

/// Which counters a request counts into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1.1, on whatever it runs, and HTTP/2.
    Http,
    /// HTTP/3.
    Http3,
}

impl Transport {
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

    /// Requests that got a 4xx status or an error of the protocol.
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
    /// As GET, and the body stays here.
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

/// A request, after its transport has dealt with framing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Path and query; the absolute form of a request to a proxy will do as well.
    pub(crate) target: &'a str,
    /// Who asks.
    pub(crate) origin: Origin,
    /// Whether it may be a replay: it came as TLS early data, on the way here or at a proxy (RFC 8470).
    pub(crate) early: bool,
}

/// The status of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    ContentTooLarge,
    TooEarly,
    HeadTooLarge,
}

impl Status {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::ContentTooLarge => 413,
            Self::TooEarly => 425,
            Self::HeadTooLarge => 431,
        }
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::ContentTooLarge => "Content Too Large",
            Self::TooEarly => "Too Early",
            Self::HeadTooLarge => "Request Header Fields Too Large",
        }
    }
}

/// A reply. Its body is in the [`Scratch`] that it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
}

impl Reply {
    /// The `Allow` header that has to be there (RFC 9110 section 15.5.6).
    pub(crate) const fn allow(&self) -> Option<&'static str> {
        match self.status {
            Status::MethodNotAllowed => Some("GET, HEAD"),
            _ => None,
        }
    }
}

/// What is used again from request to request. One for each thread: nothing waits while it is in use.
#[derive(Debug)]
pub(crate) struct Scratch {
    rng: Rng,
    peers: Peers,
    /// The body of the reply just made.
    pub(crate) body: Vec<u8>,
    date_at: u64,
    date: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

impl Scratch {
    fn new() -> Self {
        Self {
            // Who is handed to whom is no secret: without entropy a hasher's keys will do.
            rng: service::rng()
                .unwrap_or_else(|_| Rng::with_seed(RandomState::new().build_hasher().finish())),
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

    /// The value of the `Date` header, made once a second (RFC 9110 section 6.6.1).
    pub(crate) fn date(&mut self) -> &str {
        let now = SystemTime::now();
        let secs = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if secs != self.date_at || self.date.is_empty() {
            self.date_at = secs;
            self.date.clear();
            // Writing to a string does not fail.
            let _ = write!(self.date, "{}", httpdate::HttpDate::from(now));
        }
        &self.date
    }
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    Announce { key: Option<&'a str> },
    Scrape { key: Option<&'a str> },
    Index,
    Unknown,
}

impl<'a> Route<'a> {
    fn of(path: &'a str, query: &str) -> Self {
        let Some(path) = path.strip_prefix('/') else {
            return Self::Unknown;
        };
        let (first, second) = match path.split_once('/') {
            Some((first, second)) => (first, Some(second)),
            None => (path, None),
        };
        match (first, second) {
            ("announce", None) => Self::Announce { key: None },
            ("scrape", None) => Self::Scrape { key: None },
            // The first SCION tracker answers on every path, and its torrents carry `/`.
            ("", None) if names_info_hash(query) => Self::Announce { key: None },
            ("", None) => Self::Index,
            ("announce", Some(key)) | (key, Some("announce")) if is_key(key) => {
                Self::Announce { key: Some(key) }
            }
            // Clients make the scrape address by replacing `announce` wherever it stands.
            ("scrape", Some(key)) | (key, Some("scrape")) if is_key(key) => {
                Self::Scrape { key: Some(key) }
            }
            _ => Self::Unknown,
        }
    }
}

fn names_info_hash(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with("info_hash="))
}

fn is_key(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('/')
}

/// Splits a target into path and query. Of the absolute form (RFC 9112 section 3.2.2) the authority is
/// left out: a tracker answers to any name.
fn path_and_query(target: &str) -> (&str, &str) {
    let absolute = match target.starts_with('/') {
        // As from all clients that take us for no proxy; the longest of targets need not be searched.
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

/// Answers a request; the body is in `scratch`.
pub(crate) fn answer(
    service: &Service,
    transport: Transport,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Reply {
    if request.method == Method::Other {
        return reject(service, transport, Status::MethodNotAllowed, scratch);
    }
    let (path, query) = path_and_query(request.target);
    match Route::of(path, query) {
        // Keys are taken and not looked at: every tracker is a public one so far.
        Route::Announce { key: _ } => announce(service, transport, request, query, scratch),
        Route::Scrape { key: _ } => scrape(service, transport, query, scratch),
        Route::Index => text(Status::Ok, INDEX, scratch),
        Route::Unknown => reject(service, transport, Status::NotFound, scratch),
    }
}

/// Answers with a 4xx status and counts it; for transports, of requests that never get as far as
/// [`answer`].
pub(crate) fn reject(
    service: &Service,
    transport: Transport,
    status: Status,
    scratch: &mut Scratch,
) -> Reply {
    service.counters.count(transport.rejected());
    let reply = text(status, status.reason(), scratch);
    scratch.body.push(b'\n');
    reply
}

fn text(status: Status, body: &str, scratch: &mut Scratch) -> Reply {
    scratch.body.clear();
    scratch.body.extend_from_slice(body.as_bytes());
    Reply {
        status,
        content_type: "text/plain; charset=utf-8",
    }
}

/// A number in decimal digits, written to the end of `digits`.
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

const BENCODED: Reply = Reply {
    status: Status::Ok,
    content_type: "application/octet-stream",
};

fn announce(
    service: &Service,
    transport: Transport,
    request: &Request<'_>,
    query: &str,
    scratch: &mut Scratch,
) -> Reply {
    let asked = match query::parse_announce(query) {
        Ok(asked) => asked,
        Err(error) => {
            service.counters.count(transport.failures());
            scratch.body.clear();
            reply::write_failure(error.message(), None, None, &mut scratch.body);
            return BENCODED;
        }
    };
    if request.early && asked.announce.event != Event::None {
        return reject(service, transport, Status::TooEarly, scratch);
    }
    serve(service, transport, &asked, &request.origin, scratch)
}

/// An announce that there is nothing wrong with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announce {
    asked: AnnounceQuery,
    origin: Origin,
}

impl Announce {
    /// Reads a request if it is one.
    pub(crate) fn read(request: &Request<'_>) -> Option<Self> {
        let (path, query) = path_and_query(request.target);
        let Route::Announce { key: _ } = Route::of(path, query) else {
            return None;
        };
        let asked = query::parse_announce(query).ok()?;
        let early = request.early && asked.announce.event != Event::None;
        let origin = request.origin;
        (request.method != Method::Other && !early).then_some(Self { asked, origin })
    }

    /// Serves it; the body is in `scratch`.
    pub(crate) fn serve(
        &self,
        service: &Service,
        transport: Transport,
        scratch: &mut Scratch,
    ) -> Reply {
        serve(service, transport, &self.asked, &self.origin, scratch)
    }

    /// Whom the tracker is likely to know the requester as.
    pub(crate) fn peer(&self) -> PeerKey {
        let Self { asked, origin } = self;
        let announce = &asked.announce;
        let place = if origin.is_scion() {
            Some(origin.host.ia)
        } else {
            announce.claim.ia
        };
        PeerKey {
            info_hash: announce.info_hash,
            ia: place.unwrap_or(IsdAs::NONE),
            addr: CompactAddr::new(origin.host.ip(), announce.port.get()),
        }
    }
}

fn serve(
    service: &Service,
    transport: Transport,
    asked: &AnnounceQuery,
    origin: &Origin,
    scratch: &mut Scratch,
) -> Reply {
    scratch.body.clear();
    let peers = &mut scratch.peers;
    peers.reset(Form::of(origin, asked));
    let served = service.tracker.announce(
        origin,
        &asked.announce,
        Carries::All,
        service.now(),
        &mut scratch.rng,
        peers,
    );
    match served {
        Ok(reply) => {
            service.counters.count(transport.announces());
            peers.write(&reply, &mut scratch.body);
        }
        Err(refusal) => {
            service.counters.count(transport.failures());
            service.counters.count(refusal.into());
            let retry_in = refusal.retry_in_minutes();
            // `retry in` is in minutes (BEP 31); `interval`, in seconds, is for clients without it.
            let interval = retry_in.map(|minutes| minutes * 60);
            reply::write_failure(&refusal.to_string(), retry_in, interval, &mut scratch.body);
        }
    }
    BENCODED
}

fn scrape(service: &Service, transport: Transport, query: &str, scratch: &mut Scratch) -> Reply {
    scratch.body.clear();
    let hashes = match query::parse_scrape(query, SCRAPE_MAX) {
        Ok(hashes) => hashes,
        Err(error) => {
            service.counters.count(transport.failures());
            reply::write_failure(error.message(), None, None, &mut scratch.body);
            return BENCODED;
        }
    };
    service.counters.count(transport.scrapes());
    let mut entries: Vec<_> = hashes
        .into_iter()
        .map(|hash| (hash, service.tracker.scrape(&hash)))
        .collect();
    let min_interval = service.tracker.terms().min_interval;
    reply::write_scrape(&mut entries, min_interval, &mut scratch.body);
    BENCODED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_clients_expect() {
        let announce = |key| Route::Announce { key };
        let scrape = |key| Route::Scrape { key };
        for (target, route) in [
            ("/announce", announce(None)),
            ("/announce?info_hash=x", announce(None)),
            ("/announce/secret?x", announce(Some("secret"))),
            ("/secret/announce", announce(Some("secret"))),
            ("/?info_hash=x", announce(None)),
            ("/?compact=1&info_hash=x", announce(None)),
            ("http://tracker:80/announce?a", announce(None)),
            ("http://tracker?info_hash=x", Route::Unknown),
            ("/scrape", scrape(None)),
            ("/scrape/secret", scrape(Some("secret"))),
            ("/secret/scrape", scrape(Some("secret"))),
            ("/", Route::Index),
            ("/?", Route::Index),
            ("http://tracker", Route::Index),
            ("", Route::Unknown),
            ("*", Route::Unknown),
            ("/announce/", Route::Unknown),
            ("/announce/a/b", Route::Unknown),
            ("//announce", Route::Unknown),
            ("/other", Route::Unknown),
            ("/other?u=://x/announce", Route::Unknown),
        ] {
            let (path, query) = path_and_query(target);
            assert_eq!(Route::of(path, query), route, "{target}");
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 12_345, usize::MAX] {
            assert_eq!(
                decimal(number, &mut [0; 20]),
                number.to_string().into_bytes()
            );
        }
    }

    #[test]
    fn the_date_is_one_that_http_knows() {
        let date = Scratch::with(|scratch| scratch.date().to_owned());
        assert!(httpdate::parse_http_date(&date).is_ok(), "{date}");
    }
}
