//! Announces and scrapes over UDP (BEP 15) on plain IP and over SCION, with the retransmissions of
//! BEP 15. Copes with trackers that forget connection ids and that cut their replies.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scion_tracker_core::codec::bep15::{
    ANNOUNCE_HEADER, MAX_SCRAPE, Reply, TransactionId, parse_reply, peer_list,
    write_announce_request, write_connect_request, write_scrape_request,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionId;
use scion_tracker_core::codec::reply::{AnnounceAnswer, AnswerPeer, Failure, ScrapeAnswer};
use scion_tracker_core::request::AnnounceRequest;
use scion_tracker_core::types::InfoHash;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::scion::{Call, Scion, Silence};
use super::{RequestError, ScionError, TrackerAddr, TrackerUrl, resolve};

/// First wait for a reply (BEP 15). It doubles after each retransmission.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// Divisor of the first wait over SCION: one second, as in RFC 6298. There, packets are mostly lost
/// because a link has failed, and the next packet takes another path.
const SCION_SHARE: u32 = 15;
/// Number of the last retransmission (BEP 15: n counts up to 8, then the request has failed).
const LAST_WAIT: u32 = 8;
/// How long a client may use a connection id (BEP 15). A socket that is unused for as long is
/// closed.
const ID_LIFETIME: Duration = Duration::from_secs(60);

/// Idle sockets with their connection ids, by tracker.
#[derive(Debug)]
pub(super) struct Sessions {
    idle: Arc<Mutex<HashMap<TrackerAddr, Idle>>>,
    scion: Arc<Scion>,
    /// [`FIRST_WAIT`], except in tests.
    pub(super) first_wait: Duration,
}

/// A session that is not in use. Dropping it stops the timer that closes it.
#[derive(Debug)]
struct Idle {
    session: Session,
    since: Instant,
    _close: AbortOnDropHandle<()>,
}

/// A socket for one tracker and its connection id. The id is only valid for the address of the
/// socket.
#[derive(Debug)]
struct Session {
    line: Line,
    layout: Layout,
    addr: TrackerAddr,
    id: Option<(ConnectionId, Instant)>,
}

/// The transport of the datagrams.
#[derive(Debug)]
enum Line {
    Ip(UdpSocket),
    Scion(Box<Call>),
}

/// The result of waiting for a reply.
enum Received {
    /// A reply of this length.
    Reply(usize),
    /// There was no reply in time.
    Late,
    /// The request was lost with its path, and another path is in use.
    Lost,
}

/// Says in the URL data that the client reads peers of both host families over SCION.
const READS_BOTH_FAMILIES: &str = "scion46=1";

/// Announces. Sends path and query of the URL as URL data (BEP 41). Over SCION, asks for peers of
/// both host families.
pub(super) async fn announce(
    sessions: &Sessions,
    url: &TrackerUrl,
    announce: &AnnounceRequest,
    deadline: Instant,
) -> Result<AnnounceAnswer, RequestError> {
    let path = match sessions.scion.find(url)? {
        Some(_) => url.with_query(READS_BOTH_FAMILIES),
        None => url.path_and_query(),
    };
    let write = |id, transaction, out: &mut Vec<u8>| {
        write_announce_request(id, transaction, announce, &path, out);
    };
    sessions.ask(url, deadline, write, read_announce).await
}

/// Scrapes, with as many requests as the hashes need.
pub(super) async fn scrape(
    sessions: &Sessions,
    url: &TrackerUrl,
    hashes: &[InfoHash],
    deadline: Instant,
) -> Result<ScrapeAnswer, RequestError> {
    let mut answer = ScrapeAnswer::default();
    for hashes in hashes.chunks(MAX_SCRAPE) {
        let write = |id, transaction, out: &mut Vec<u8>| {
            write_scrape_request(id, transaction, hashes, out);
        };
        let read = |reply: Reply<'_>| match reply {
            Reply::Scrape { counts, .. } => Ok(counts.collect::<Vec<_>>()),
            _ => Err(RequestError::Unexpected),
        };
        let counts = sessions.ask(url, deadline, write, read).await?;
        answer.files.extend(hashes.iter().copied().zip(counts));
    }
    Ok(answer)
}

pub(super) fn read_announce(reply: Reply<'_>) -> Result<AnnounceAnswer, RequestError> {
    let Reply::Announce {
        interval,
        leechers,
        seeders,
        peers,
        ..
    } = reply
    else {
        return Err(RequestError::Unexpected);
    };
    let layout = peers.layout();
    let (peers, unreadable): (Vec<_>, Vec<_>) = peers
        .map(AnswerPeer::at)
        .partition(|peer| layout.reaches(&peer.endpoint));
    let mut answer = AnnounceAnswer::default();
    answer.interval = u64::from(interval);
    answer.complete = Some(u64::from(seeders));
    answer.incomplete = Some(u64::from(leechers));
    answer.peers = peers;
    answer.unreadable = unreadable.len();
    Ok(answer)
}

impl Sessions {
    pub(super) fn new(scion: Arc<Scion>) -> Self {
        Self {
            idle: Arc::default(),
            scion,
            first_wait: FIRST_WAIT,
        }
    }

    /// Makes a request over SCION if the host has a SCION address. Otherwise tries the IP addresses
    /// in order until one works.
    async fn ask<T>(
        &self,
        url: &TrackerUrl,
        deadline: Instant,
        write: impl Fn(ConnectionId, TransactionId, &mut Vec<u8>),
        read: impl Fn(Reply<'_>) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let addrs = match self.scion.find(url)? {
            Some(addr) => vec![TrackerAddr::Scion(addr)],
            None => resolve(url)
                .await?
                .into_iter()
                .map(TrackerAddr::Ip)
                .collect(),
        };
        let mut failure = RequestError::Unexpected;
        for addr in addrs {
            let io = |source| RequestError::Io { addr, source };
            let mut session = match self.session(addr).await {
                Ok(session) => session,
                Err(AskError::Io(error)) => {
                    failure = io(error);
                    continue;
                }
                Err(AskError::Request(error)) => return Err(error),
            };
            let first_wait = match addr {
                TrackerAddr::Ip(_) => self.first_wait,
                TrackerAddr::Scion(_) => self.first_wait / SCION_SHARE,
            };
            match session.ask(first_wait, deadline, &write, &read).await {
                Err(AskError::Io(error)) => failure = io(error),
                Err(AskError::Request(error)) => return Err(error),
                Ok(answer) => {
                    self.keep(addr, session);
                    return Ok(answer);
                }
            }
        }
        Err(failure)
    }

    /// Returns an idle session that is still usable, or opens a new one.
    async fn session(&self, addr: TrackerAddr) -> Result<Session, AskError> {
        let known = lock(&self.idle).remove(&addr).map(|idle| idle.session);
        if let Some(session) = known.filter(|session| !session.line.is_stale()) {
            return Ok(session);
        }
        let (line, layout) = match addr {
            TrackerAddr::Ip(addr) => open(addr).await?,
            TrackerAddr::Scion(addr) => {
                let call = self.scion.call(addr).await?;
                let layout = match call.local().host.ip() {
                    IpAddr::V4(_) => Layout::Scion4,
                    IpAddr::V6(_) => Layout::Scion6,
                };
                (Line::Scion(Box::new(call)), layout)
            }
        };
        Ok(Session {
            line,
            layout,
            addr,
            id: None,
        })
    }

    /// Keeps a session for the next request, and closes it after [`ID_LIFETIME`] without a request.
    fn keep(&self, addr: TrackerAddr, session: Session) {
        let sessions = Arc::downgrade(&self.idle);
        let close = tokio::spawn(async move {
            sleep(ID_LIFETIME).await;
            if let Some(sessions) = sessions.upgrade() {
                // Another session may have taken its slot while this task waited for the lock.
                let mut sessions = lock(&sessions);
                if let Entry::Occupied(idle) = sessions.entry(addr)
                    && idle.get().since.elapsed() >= ID_LIFETIME
                {
                    idle.remove();
                }
            }
        });
        let idle = Idle {
            session,
            since: Instant::now(),
            _close: AbortOnDropHandle::new(close),
        };
        lock(&self.idle).insert(addr, idle);
    }

    /// Number of open sockets that are not in use.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        lock(&self.idle).len()
    }
}

fn lock(
    sessions: &Mutex<HashMap<TrackerAddr, Idle>>,
) -> MutexGuard<'_, HashMap<TrackerAddr, Idle>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a socket to an address on plain IP.
async fn open(addr: SocketAddr) -> io::Result<(Line, Layout)> {
    let (local, layout): (IpAddr, _) = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Layout::Ip4),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Layout::Ip6),
    };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
    // A connected socket drops datagrams of others, and reports if nothing listens at the address.
    socket.connect(addr).await?;
    Ok((Line::Ip(socket), layout))
}

/// An error that rules out one address, or ends the request.
enum AskError {
    Io(io::Error),
    Request(RequestError),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ScionError> for AskError {
    fn from(error: ScionError) -> Self {
        Self::Request(error.into())
    }
}

impl From<RequestError> for AskError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Session {
    /// Connects if needed, and makes a request. Both share one count of retransmissions, n of BEP
    /// 15.
    async fn ask<T>(
        &mut self,
        first_wait: Duration,
        deadline: Instant,
        write: &impl Fn(ConnectionId, TransactionId, &mut Vec<u8>),
        read: &impl Fn(Reply<'_>) -> Result<T, RequestError>,
    ) -> Result<T, AskError> {
        let Self {
            line,
            layout,
            addr,
            id: known,
        } = self;
        let line = &*line;
        let asked = async {
            let mut n = 0;
            let mut renewed = false;
            let mut packet = Vec::new();
            let mut buffer = vec![0; 1 << 16];
            while n <= LAST_WAIT {
                let until = deadline.min(Instant::now() + first_wait * (1 << n));
                let transaction = transaction();
                packet.clear();
                let id = known.filter(|(_, at)| at.elapsed() < ID_LIFETIME);
                match id {
                    Some((id, _)) => write(id, transaction, &mut packet),
                    None => write_connect_request(transaction, &mut packet),
                }
                let sent = Instant::now();
                line.send(&packet).await?;
                let length = match line.receive(transaction, &mut buffer, until).await? {
                    Received::Reply(length) => length,
                    Received::Lost => continue,
                    Received::Late => {
                        tracing::debug!("no answer from {addr} to request {n}");
                        line.try_another_path();
                        n += 1;
                        continue;
                    }
                };
                let whole = whole_entries(&buffer[..length], *layout);
                match parse_reply(whole, *layout).map_err(RequestError::from)? {
                    Reply::Error { message, .. }
                        if id.is_some() && !renewed && is_about_connection(message) =>
                    {
                        tracing::debug!("{addr} does not know the connection id");
                        renewed = true;
                        *known = None;
                    }
                    Reply::Error { message, .. } => {
                        return Err(AskError::Request(RequestError::Refused(Failure {
                            // Some trackers send the zero byte that ends a string in C.
                            reason: String::from_utf8_lossy(message)
                                .trim_end_matches('\0')
                                .to_owned(),
                            retry: None,
                            interval: None,
                        })));
                    }
                    Reply::Connect { connection, .. } if id.is_none() => {
                        *known = Some((connection, sent));
                    }
                    reply => return Ok(read(reply)?),
                }
            }
            // Wait for the caller's timeout: the caller knows how long that is.
            std::future::pending().await
        };
        match line {
            Line::Ip(_) => asked.await,
            Line::Scion(call) => call.during(Silence::LeftToCaller, deadline, asked).await,
        }
    }
}

impl Line {
    fn is_stale(&self) -> bool {
        match self {
            Self::Ip(_) => false,
            Self::Scion(call) => call.is_stale(),
        }
    }

    fn try_another_path(&self) {
        if let Self::Scion(call) = self {
            call.try_another_path();
        }
    }

    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Ip(socket) => socket.send(packet).await.map(|_| ()),
            Self::Scion(call) => call.send(packet).await,
        }
    }

    /// Waits for the reply to this transaction. Ignores other datagrams.
    async fn receive(
        &self,
        transaction: TransactionId,
        buffer: &mut [u8],
        until: Instant,
    ) -> io::Result<Received> {
        loop {
            let received = async {
                match self {
                    Self::Ip(socket) => socket.recv(buffer).await.map(Received::Reply),
                    Self::Scion(call) => tokio::select! {
                        length = call.receive(buffer) => length.map(Received::Reply),
                        () = call.moved() => Ok(Received::Lost),
                    },
                }
            };
            let Ok(received) = timeout_at(until, received).await else {
                return Ok(Received::Late);
            };
            let Received::Reply(length) = received? else {
                return Ok(Received::Lost);
            };
            let ours = transaction.0.to_be_bytes();
            if buffer[..length].get(4..8) == Some(&ours) {
                return Ok(Received::Reply(length));
            }
        }
    }
}

/// Cuts an incomplete entry off the end of an announce or scrape reply. Some trackers fill the
/// datagram up to its last byte.
pub(super) fn whole_entries(reply: &[u8], layout: Layout) -> &[u8] {
    let incomplete = match reply.first_chunk::<4>() {
        Some([0, 0, 0, 1]) => reply.get(ANNOUNCE_HEADER..).map(|list| {
            let (layout, peers) = peer_list(list, layout);
            peers.len() % layout.size()
        }),
        Some([0, 0, 0, 2]) => reply.get(8..).map(|entries| entries.len() % 12),
        _ => None,
    };
    &reply[..reply.len() - incomplete.unwrap_or(0)]
}

/// Whether an error of a tracker says that it does not accept the connection id, for example because
/// it has restarted. BEP 15 has no code for that; trackers say "connection ID mismatch", "invalid
/// connection id", "connection expired" or "bad cookie".
fn is_about_connection(message: &[u8]) -> bool {
    let message = message.to_ascii_lowercase();
    let says = |word: &[u8]| message.windows(word.len()).any(|at| at == word);
    says(b"connection") || says(b"cookie")
}

/// Makes a random transaction id, which only those who see the request know.
fn transaction() -> TransactionId {
    // Without system entropy any number works, but it can be guessed.
    TransactionId(getrandom::u32().unwrap_or_default())
}
