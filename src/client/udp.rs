//! Announces and scrapes over UDP (BEP 15), with its schedule of retransmissions.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scion_tracker_core::codec::bep15::{
    MAX_SCRAPE, Reply, TransactionId, parse_reply, write_announce_request, write_connect_request,
    write_scrape_request,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionId;
use scion_tracker_core::codec::reply::{AnnounceAnswer, AnswerPeer, Failure, ScrapeAnswer};
use scion_tracker_core::request::Announce;
use scion_tracker_core::types::InfoHash;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{RequestError, TrackerUrl, resolve};

/// BEP 15: the first wait, doubled after each retransmission.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// BEP 15: n counts up to 8, and then it is over.
const LAST_WAIT: u32 = 8;
/// BEP 15: for so long a client may use a connection id.
const ID_LIFETIME: Duration = Duration::from_secs(60);

/// Sockets with a connection id, by tracker.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Those that are not in use.
    idle: Mutex<HashMap<SocketAddr, Session>>,
    /// [`FIRST_WAIT`], but for tests.
    pub(super) first_wait: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            first_wait: FIRST_WAIT,
        }
    }
}

/// A socket to one tracker. The id is bound to the address from which it was asked for, so the two
/// stay together.
#[derive(Debug)]
struct Session {
    socket: UdpSocket,
    layout: Layout,
    addr: SocketAddr,
    id: Option<(ConnectionId, Instant)>,
}

/// Announces. The URL's path and query go along as URL data (BEP 41).
pub(super) async fn announce(
    sessions: &Sessions,
    url: &TrackerUrl,
    announce: &Announce,
    deadline: Instant,
) -> Result<AnnounceAnswer, RequestError> {
    let path = url.path_and_query();
    let write = |id, transaction, out: &mut Vec<u8>| {
        write_announce_request(id, transaction, announce, &path, out);
    };
    sessions.ask(url, deadline, write, read_announce).await
}

/// Scrapes, as many times as the hashes need.
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

fn read_announce(reply: Reply<'_>) -> Result<AnnounceAnswer, RequestError> {
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
    let (peers, unreadable): (Vec<_>, Vec<_>) = peers
        .map(|endpoint| AnswerPeer { endpoint, id: None })
        .partition(|peer| peer.endpoint.addr.port() != 0);
    Ok(AnnounceAnswer {
        interval: u64::from(interval),
        complete: Some(u64::from(seeders)),
        incomplete: Some(u64::from(leechers)),
        peers,
        unreadable: unreadable.len(),
        ..AnnounceAnswer::default()
    })
}

impl Sessions {
    /// Asks the first of the host's addresses that does not refuse at once.
    async fn ask<T>(
        &self,
        url: &TrackerUrl,
        deadline: Instant,
        write: impl Fn(ConnectionId, TransactionId, &mut Vec<u8>),
        read: impl Fn(Reply<'_>) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let mut failure = RequestError::Unexpected;
        for addr in resolve(url).await? {
            let io = |source| RequestError::Io { addr, source };
            let known = self.lock().remove(&addr);
            let opened = match known {
                Some(session) => Ok(session),
                None => Session::open(addr).await,
            };
            let mut session = match opened {
                Ok(session) => session,
                Err(error) => {
                    failure = io(error);
                    continue;
                }
            };
            match session.ask(self.first_wait, deadline, &write, &read).await {
                Err(AskError::Io(error)) => failure = io(error),
                Err(AskError::Request(error)) => return Err(error),
                Ok(answer) => {
                    self.lock().insert(addr, session);
                    return Ok(answer);
                }
            }
        }
        Err(failure)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends a conversation with one address, and what ends all.
enum AskError {
    Io(io::Error),
    Request(RequestError),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<RequestError> for AskError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Session {
    async fn open(addr: SocketAddr) -> io::Result<Self> {
        let (local, layout): (IpAddr, _) = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Layout::Ip4),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Layout::Ip6),
        };
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
        // So that others' datagrams do not arrive, and the news that nobody listens does.
        socket.connect(addr).await?;
        Ok(Self {
            socket,
            layout,
            addr,
            id: None,
        })
    }

    /// Connects if need be, and asks. n of BEP 15 counts over both.
    async fn ask<T>(
        &mut self,
        first_wait: Duration,
        deadline: Instant,
        write: &impl Fn(ConnectionId, TransactionId, &mut Vec<u8>),
        read: &impl Fn(Reply<'_>) -> Result<T, RequestError>,
    ) -> Result<T, AskError> {
        let mut n = 0;
        let mut packet = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while n <= LAST_WAIT {
            let until = deadline.min(Instant::now() + first_wait * (1 << n));
            let transaction = transaction();
            packet.clear();
            let id = self.id.filter(|(_, at)| at.elapsed() < ID_LIFETIME);
            match id {
                Some((id, _)) => write(id, transaction, &mut packet),
                None => write_connect_request(transaction, &mut packet),
            }
            let sent = Instant::now();
            self.socket.send(&packet).await?;
            let Some(length) = self.receive(transaction, &mut buffer, until).await? else {
                tracing::debug!("no answer from {} to request {n}", self.addr);
                n += 1;
                continue;
            };
            let reply = parse_reply(&buffer[..length], self.layout).map_err(RequestError::from)?;
            match reply {
                Reply::Error { message, .. } => {
                    return Err(AskError::Request(RequestError::Refused(Failure {
                        reason: String::from_utf8_lossy(message).into_owned(),
                        retry: None,
                        interval: None,
                    })));
                }
                Reply::Connect { connection, .. } if id.is_none() => {
                    self.id = Some((connection, sent));
                }
                reply => return Ok(read(reply)?),
            }
        }
        // The client as a whole knows for how long it has waited.
        std::future::pending().await
    }

    /// The length of the reply to this transaction, or none in time. Whatever else comes in is
    /// left to lie.
    async fn receive(
        &self,
        transaction: TransactionId,
        buffer: &mut [u8],
        until: Instant,
    ) -> io::Result<Option<usize>> {
        loop {
            let Ok(received) = timeout_at(until, self.socket.recv(buffer)).await else {
                return Ok(None);
            };
            let length = received?;
            let ours = transaction.0.to_be_bytes();
            if buffer[..length].get(4..8) == Some(&ours) {
                return Ok(Some(length));
            }
        }
    }
}

/// Not to be guessed by those who do not see the request.
fn transaction() -> TransactionId {
    // Without entropy any number serves, if less well.
    TransactionId(getrandom::u32().unwrap_or_default())
}
