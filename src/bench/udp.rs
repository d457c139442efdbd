//! Generates load over UDP (BEP 15), on IP and in SCION packets.
//!
//! Sends and receives in batches on non-blocking sockets. Each socket is one connection with a
//! number of requests in flight.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::codec::bep15::{
    Reply, TransactionId, parse_reply, write_announce_request, write_connect_request,
    write_scrape_request,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionId;
use scion_tracker_core::codec::scion::{Message, Path, Template, parse};
use scion_tracker_core::request::Origin;

use super::load::{Ask, Requests};
use super::mix::Kind;
use super::pace::Pace;
use super::report::{Failure, Tally};
use super::{BenchError, Plan, Shared, connections};
use crate::socket::allow_fragments;
use crate::socket::mmsg::{ConnectedReceiver, ConnectedSender};

/// Longest datagram in both directions, in bytes.
const LEN: usize = 2048;
/// How long a client may use a connection id (BEP 15).
const ID_LIFETIME: Duration = Duration::from_secs(60);
/// How often a connection checks for requests without an answer.
const LOOK: Duration = Duration::from_millis(50);
/// Longest sleep, so that a thread notices the end.
const SLEEP: Duration = Duration::from_millis(20);
/// Size of the kernel buffers in each direction, in bytes.
const SOCKET_BUFFER: usize = 1 << 21;

/// Runs the connections of a thread.
pub(super) fn run(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    thread: u32,
) -> Result<Tally, BenchError> {
    let mut tally = Tally::new()?;
    let (mut sockets, mut asking) = (Vec::new(), Vec::new());
    for connection in connections(plan, thread) {
        let (socket, wire) = open(plan, connection)?;
        sockets.push(socket);
        asking.push(Connection::new(plan, connection, wire));
    }
    let mut fds: Vec<_> = sockets
        .iter()
        .map(|socket| PollFd::new(socket, PollFlags::IN))
        .collect();
    let (mut receiver, mut sender) = (
        ConnectedReceiver::<LEN>::new(),
        ConnectedSender::<LEN>::new(),
    );
    let mut text = Vec::with_capacity(LEN);
    while !shared.stop.is_cancelled() {
        let mut idle = true;
        for (socket, connection) in sockets.iter().zip(&mut asking) {
            let received = match receiver.receive(socket) {
                Ok(received) => received,
                // An earlier datagram met a port without a listener.
                Err(error) => {
                    count(&mut tally, shared, Failure::error("cannot receive", &error));
                    0
                }
            };
            let now = Instant::now();
            let measuring = shared.is_measuring();
            let mut answered = 0;
            for at in 0..received {
                match connection.receive(receiver.datagram(at)) {
                    Ok(None) => {}
                    Ok(Some((kind, since, peers))) => {
                        answered += 1;
                        if measuring {
                            tally.reply(kind, now.saturating_duration_since(since), peers);
                        }
                    }
                    Err(failure) => count(&mut tally, shared, failure),
                }
            }
            if measuring && answered > 0 {
                shared.replies.fetch_add(answered, Ordering::Relaxed);
            }
            for _ in 0..connection.give_up(now) {
                count(&mut tally, shared, Failure::TIMEOUT);
            }
            while !sender.is_full() && connection.send(now, shared, &mut text) {
                sender.push(|buffer| connection.wire.write(&text, buffer));
            }
            idle &= received == 0 && sender.len() == 0;
            if let Err(error) = sender.send(socket) {
                count(&mut tally, shared, Failure::error("cannot send", &error));
            }
        }
        if idle {
            let now = Instant::now();
            let due = asking
                .iter()
                .filter_map(|connection| connection.next_due())
                .min();
            let sleep = due.map_or(SLEEP, |due| due.saturating_duration_since(now).min(SLEEP));
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: sleep.subsec_nanos().into(),
            };
            // The next round checks the sockets again, even after an interruption.
            let _ = poll(&mut fds, Some(&timeout));
        }
    }
    let now = Instant::now();
    tally.unsent(
        asking
            .iter()
            .map(|connection| connection.pace.backlog(now))
            .sum(),
    );
    Ok(tally)
}

fn count(tally: &mut Tally, shared: &Shared, failure: Failure) {
    if shared.is_measuring() {
        tally.failure(failure);
    }
}

/// Opens a socket at the source of a connection. Returns it with the format of its packets.
fn open(plan: &Plan, connection: u32) -> Result<(UdpSocket, Wire), BenchError> {
    let source = plan
        .source(plan.load.source_of(connection))
        .map_err(BenchError::Socket)?;
    let opened = || {
        let socket = UdpSocket::bind(SocketAddr::new(source.ip, 0))?;
        socket.connect(plan.to)?;
        socket.set_nonblocking(true)?;
        if source.scion.is_some() {
            allow_fragments(&socket)?;
        }
        let buffers = socket2::SockRef::from(&socket);
        // The kernel may allow less.
        buffers.set_recv_buffer_size(SOCKET_BUFFER)?;
        buffers.set_send_buffer_size(SOCKET_BUFFER)?;
        let port = socket.local_addr()?.port();
        Ok((socket, port))
    };
    let (socket, port) = opened().map_err(BenchError::Socket)?;
    let (Some(host), Some(tracker)) = (source.scion, plan.options.url.scion()) else {
        let layout = Layout::of(&Origin::ip(plan.to.ip()));
        return Ok((
            socket,
            Wire {
                layout,
                scion: None,
            },
        ));
    };
    let path = super::target::path(host.ia, tracker.host.ia);
    let template = Template::new(ScionAddr { host, port }, tracker, Path::parse(&path)?)?;
    let wire = Wire {
        layout: Layout::of(&Origin::scion(host)),
        scion: Some(template),
    };
    Ok((socket, wire))
}

/// The format of datagrams, and of the peers in them.
struct Wire {
    layout: Layout,
    scion: Option<Template>,
}

impl Wire {
    /// Writes a request into a datagram. Returns its length.
    fn write(&self, request: &[u8], buffer: &mut [u8; LEN]) -> usize {
        let overhead = self.scion.as_ref().map_or(0, Template::overhead);
        let length = overhead + request.len();
        let Some(packet) = buffer.get_mut(..length) else {
            return 0;
        };
        packet[overhead..].copy_from_slice(request);
        match self.scion.as_ref().map(|template| template.seal(packet)) {
            None | Some(Ok(())) => length,
            Some(Err(_)) => 0,
        }
    }

    /// Reads the reply in a datagram.
    fn read<'a>(&self, datagram: &'a [u8]) -> Option<Reply<'a>> {
        let payload = match &self.scion {
            None => datagram,
            Some(_) => match parse(datagram).ok()?.message {
                Message::Udp(udp) => udp.payload,
                Message::Scmp(_) => return None,
            },
        };
        parse_reply(payload, self.layout).ok()
    }
}

/// A slot for a request in flight.
#[derive(Clone, Copy)]
struct Slot {
    /// Number of uses: the upper half of the transaction id. The lower half is the number of the
    /// slot.
    round: u16,
    /// `None` for a connect request.
    kind: Option<Kind>,
    waiting: bool,
    since: Instant,
    sent: Instant,
}

struct Connection {
    plan: Arc<Plan>,
    wire: Wire,
    requests: Requests,
    pace: Pace,
    /// URL data (BEP 41) for peers without an ISD-AS, and for those of each AS.
    url: String,
    urls: Vec<String>,
    id: Option<(ConnectionId, Instant)>,
    connecting: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
    looked: Instant,
}

impl Connection {
    fn new(plan: &Arc<Plan>, connection: u32, wire: Wire) -> Self {
        let url = &plan.options.url;
        let places = match wire.scion {
            None => plan.load.places(),
            Some(_) => &[],
        };
        let in_flight = plan.options.in_flight;
        let slot = Slot {
            round: 0,
            kind: None,
            waiting: false,
            since: plan.start,
            sent: plan.start,
        };
        Self {
            plan: Arc::clone(plan),
            requests: plan.load.requests(connection),
            pace: plan.pace(connection),
            url: url.path_and_query(),
            urls: places
                .iter()
                .map(|ia| url.with_query(&format!("ia={ia}")))
                .collect(),
            id: None,
            connecting: false,
            slots: vec![slot; in_flight.into()],
            free: (0..in_flight).rev().collect(),
            looked: plan.start,
            wire,
        }
    }

    /// Reads a reply. Returns the kind of the request, the instant it was due, and the number of
    /// peers. `None` for the reply to a connect request.
    fn receive(
        &mut self,
        datagram: Option<&[u8]>,
    ) -> Result<Option<(Kind, Instant, u32)>, Failure> {
        let Some(reply) = datagram.and_then(|datagram| self.wire.read(datagram)) else {
            return Err(Failure::MALFORMED);
        };
        let TransactionId(transaction) = reply.transaction();
        let (round, number) = ((transaction >> 16) as u16, transaction as u16);
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return Err(Failure::STRAY);
        };
        if !slot.waiting || slot.round != round {
            return Err(Failure::STRAY);
        }
        slot.waiting = false;
        let (kind, since, sent) = (slot.kind, slot.since, slot.sent);
        self.free.push(number);
        self.connecting &= kind.is_some();
        match (kind, reply) {
            (None, Reply::Connect { connection, .. }) => {
                self.id = Some((connection, sent));
                Ok(None)
            }
            (Some(Kind::Scrape), Reply::Scrape { counts, .. }) if counts.len() == 1 => {
                Ok(Some((Kind::Scrape, since, 0)))
            }
            (
                Some(kind @ (Kind::Announce | Kind::Stopped | Kind::Completed)),
                Reply::Announce { peers, .. },
            ) => {
                let peers = peers.len() as u32;
                match self.plan.options.numwant {
                    Some(numwant) if peers > numwant => Err(Failure::TOO_MANY),
                    _ => Ok(Some((kind, since, peers))),
                }
            }
            (_, Reply::Error { message, .. }) => Err(Failure::refused(message)),
            _ => Err(Failure::UNEXPECTED),
        }
    }

    /// Abandons requests that have timed out. Returns their number.
    fn give_up(&mut self, now: Instant) -> usize {
        if now.saturating_duration_since(self.looked) < LOOK {
            return 0;
        }
        self.looked = now;
        let before = self.free.len();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let waited = now.saturating_duration_since(slot.sent);
            if slot.waiting && waited > self.plan.options.timeout {
                slot.waiting = false;
                self.connecting &= slot.kind.is_some();
                self.free.push(number as u16);
            }
        }
        self.free.len() - before
    }

    /// Writes the next due request to `out`. Returns false if none is due or too many are in
    /// flight.
    fn send(&mut self, now: Instant, shared: &Shared, out: &mut Vec<u8>) -> bool {
        let Some(number) = self.free.last().copied() else {
            return false;
        };
        let at = usize::from(number);
        let round = self.slots[at].round.wrapping_add(1);
        let transaction = TransactionId(u32::from(round) << 16 | u32::from(number));
        let fresh = self
            .id
            .filter(|(_, got)| now.saturating_duration_since(*got) < ID_LIFETIME);
        out.clear();
        let (kind, since) = match (fresh.or(self.id), fresh.is_some() || self.connecting) {
            (_, false) => {
                self.connecting = true;
                write_connect_request(transaction, out);
                (None, now)
            }
            (None, true) => return false,
            (Some((id, _)), true) => {
                let Some(since) = self.pace.take(now) else {
                    return false;
                };
                let ask = shared.next(&mut self.requests);
                self.write(&ask, id, transaction, out);
                (Some(ask.kind), since)
            }
        };
        self.free.pop();
        self.slots[at] = Slot {
            round,
            kind,
            waiting: true,
            since,
            sent: now,
        };
        true
    }

    fn write(&self, ask: &Ask, id: ConnectionId, transaction: TransactionId, out: &mut Vec<u8>) {
        if ask.kind == Kind::Scrape {
            return write_scrape_request(id, transaction, &[ask.info_hash], out);
        }
        let mut announce = self.plan.announce(ask);
        // The URL already has it.
        announce.claim = Default::default();
        let place = ask.place.and_then(|place| self.urls.get(place));
        let url = place.unwrap_or(&self.url);
        write_announce_request(id, transaction, &announce, url, out);
    }

    /// When the next request is due that can then be sent.
    fn next_due(&self) -> Option<Instant> {
        self.pace
            .next_due()
            .filter(|_| self.id.is_some() && !self.free.is_empty())
    }
}
