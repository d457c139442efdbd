//! Finds another path for a BEP 15 reply that a border router returned because of a dead link.
//!
//! BEP 15 has no connections, so its clients leave no entry in the table of remotes, and a lost reply
//! costs them seconds. This file keeps, in fixed memory and without a socket or clock:
//! - tags of the latest replies. SCMP is not authenticated: an error has us send again only what we
//!   have sent, and only once.
//! - the latest two paths from some ASes, with different interfaces. A path leads to all hosts of an AS.
//! - returned replies for which no other path is known, until a packet of their AS arrives over one;
//!   and likewise returned packets of QUIC handshakes.
//!
//! An SCMP error returns at most some 1000 bytes. A longer reply is not sent again.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::scion::{Path, Quoted, Scmp};

use super::filter::Datagram;
use super::remotes::Now;

/// Remembered replies: those of the last 0.4 s at 10,000 replies per second.
const TAGS: usize = 4096;
/// Remembered ASes.
const ASES: usize = 256;
/// Returned replies that wait for a path.
const HELD: usize = 32;
/// Time that they wait. Clients repeat their requests after some seconds.
const HOLD: Duration = Duration::from_secs(2);

/// The latest replies and paths.
pub(super) struct Answered {
    /// Zero if there is none.
    tags: Box<[u64]>,
    ases: Box<[Ways]>,
    held: VecDeque<Held>,
}

/// The latest paths from an AS.
#[derive(Debug, Clone, Default)]
struct Ways {
    ia: Option<IsdAs>,
    latest: Option<Way>,
    other: Option<Way>,
}

/// A path as it stands in packets that we received, and their underlay source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    path: Box<[u8]>,
    pub(super) underlay: SocketAddr,
}

/// A reply that a router returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Its receiver.
    pub(super) to: ScionAddr,
    /// The UDP payload.
    pub(super) payload: Box<[u8]>,
    /// The path that it took.
    failed: Box<[u8]>,
    until: Duration,
}

impl Way {
    /// The path of the received packets.
    pub(super) fn path(&self) -> Option<Path<'_>> {
        Path::parse(&self.path).ok()
    }

    fn is_of(&self, datagram: &Datagram<'_>) -> bool {
        *self.path == *datagram.path.as_bytes() && self.underlay == datagram.underlay
    }

    /// Whether the path of the packet has the same interfaces.
    fn is_renewed_by(&self, datagram: &Datagram<'_>) -> bool {
        self.path()
            .is_some_and(|path| path.interfaces().eq(datagram.path.interfaces()))
    }
}

impl Held {
    /// A datagram to `to` that was returned from this path of ours.
    pub(super) fn new(to: ScionAddr, payload: &[u8], failed: Path<'_>, now: Now) -> Self {
        Self {
            to,
            payload: payload.into(),
            failed: failed.as_bytes().into(),
            until: now.since_start + HOLD,
        }
    }

    /// The path that it took.
    pub(super) fn failed(&self) -> Option<Path<'_>> {
        Path::parse(&self.failed).ok()
    }

    /// Whether it has not waited too long.
    pub(super) fn waits(&self, now: Now) -> bool {
        self.until > now.since_start
    }

    /// Whether this path for the reply is another one, and not expired.
    pub(super) fn may_take(&self, path: Path<'_>, now: Now) -> bool {
        let lasts = path.expiry().is_none_or(|expiry| expiry > now.unix);
        lasts
            && self
                .failed()
                .is_some_and(|failed| !failed.is_same_way(path))
    }
}

impl Answered {
    pub(super) fn new() -> Self {
        Self {
            tags: vec![0; TAGS].into(),
            ases: vec![Ways::default(); ASES].into(),
            held: VecDeque::new(),
        }
    }

    /// Notes that this request was answered.
    #[inline]
    pub(super) fn note_reply(&mut self, request: &Datagram<'_>) {
        if let Some(transaction) = request.payload.get(12..16) {
            let tag = tag(request.source, transaction);
            self.tags[tag as usize % TAGS] = tag;
        }
        self.note_path(request);
    }

    /// Notes the path of a packet.
    #[inline]
    pub(super) fn note_path(&mut self, datagram: &Datagram<'_>) {
        let ia = datagram.source.host.ia;
        let ways = &mut self.ases[slot(ia)];
        let known =
            ways.ia == Some(ia) && ways.latest.as_ref().is_some_and(|it| it.is_of(datagram));
        if !known && !datagram.path.is_empty() {
            ways.add(ia, datagram);
        }
    }

    /// Reads an error of a router about a reply of ours. `None` if it is about something else, or if
    /// the reply is not known or not whole.
    pub(super) fn returned(&mut self, local: ScionAddr, scmp: &Scmp<'_>, now: Now) -> Option<Held> {
        let (to, quoted) = returned_packet(local, scmp).filter(|(_, quoted)| quoted.whole)?;
        let tag = tag(to, quoted.payload.get(4..8)?);
        let sent = &mut self.tags[tag as usize % TAGS];
        if *sent != tag {
            return None;
        }
        *sent = 0;
        Some(Held::new(to, quoted.payload, quoted.path, now))
    }

    /// The known paths from an AS, the latest first.
    pub(super) fn ways(&self, ia: IsdAs) -> impl Iterator<Item = &Way> {
        let ways = Some(&self.ases[slot(ia)]).filter(|ways| ways.ia == Some(ia));
        ways.into_iter()
            .flat_map(|ways| [&ways.latest, &ways.other])
            .flatten()
    }

    /// Keeps a reply until a path is known. The oldest makes room.
    pub(super) fn hold(&mut self, held: Held) {
        if self.held.len() >= HELD {
            self.held.pop_front();
        }
        self.held.push_back(held);
    }

    /// Takes the replies out that wait for a path from this AS, and forgets those that have waited too
    /// long.
    #[inline]
    pub(super) fn take_held(&mut self, ia: IsdAs, now: Now) -> Vec<Held> {
        if self.held.is_empty() {
            return Vec::new();
        }
        self.held.retain(|held| held.waits(now));
        let (taken, kept) = self.held.drain(..).partition(|held| held.to.host.ia == ia);
        self.held = kept;
        Vec::from(taken)
    }
}

impl Ways {
    #[cold]
    fn add(&mut self, ia: IsdAs, datagram: &Datagram<'_>) {
        if self.ia != Some(ia) {
            *self = Self {
                ia: Some(ia),
                ..Self::default()
            };
        }
        // A renewed path takes the place of the old one: if a link fails, both have it.
        if !self
            .latest
            .as_ref()
            .is_some_and(|it| it.is_renewed_by(datagram))
        {
            std::mem::swap(&mut self.latest, &mut self.other);
        }
        if !self.latest.as_ref().is_some_and(|it| it.is_of(datagram)) {
            self.latest = Some(Way {
                path: datagram.path.as_bytes().into(),
                underlay: datagram.underlay,
            });
        }
    }
}

/// The packet of ours that a router returned because of a dead link, and its receiver. `None` if the
/// error is about something else.
pub(super) fn returned_packet<'a>(
    local: ScionAddr,
    scmp: &Scmp<'a>,
) -> Option<(ScionAddr, Quoted<'a>)> {
    if !matches!(
        scmp,
        Scmp::ExternalInterfaceDown { .. } | Scmp::InternalConnectivityDown { .. }
    ) {
        return None;
    }
    let quoted = Quoted::parse(scmp.quote()?).ok()?;
    let (from, port) = quoted.ports?;
    let host = quoted.destination;
    let to = ScionAddr::new(host.ia, host.ip(), port).ok()?;
    (quoted.source == local.host && from == local.port).then_some((to, quoted))
}

/// Distinguishes replies by their receiver and transaction. Never zero.
fn tag(to: ScionAddr, transaction: &[u8]) -> u64 {
    let ip = match to.host.ip() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits() as u64 ^ (ip.to_bits() >> 64) as u64,
    };
    let number = transaction
        .first_chunk()
        .map_or(0, |id| u32::from_be_bytes(*id));
    let from = mix(ip ^ to.host.ia.to_u64().rotate_left(32));
    mix(from ^ u64::from(number) ^ u64::from(to.port) << 32) | 1 << 63
}

fn slot(ia: IsdAs) -> usize {
    mix(ia.to_u64()) as usize % ASES
}

/// Spreads the bits of a number over its low ones.
const fn mix(number: u64) -> u64 {
    let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::codec::scion::Template;

    use super::*;
    use crate::scion::socket::tests::net::path;

    const SERVER: &str = "1-ff00:0:110,[10.0.0.1]:31969";
    const CLIENT: &str = "2-ff00:0:210,[10.0.0.2]:40000";

    fn at(millis: u64) -> Now {
        Now {
            since_start: Duration::from_millis(millis),
            unix: 0,
        }
    }

    /// A request with this transaction id.
    fn request(transaction: u8) -> [u8; 16] {
        let mut request = [0; 16];
        request[12..].fill(transaction);
        request
    }

    fn datagram<'a>(from: &str, path: &'a [u8], payload: &'a [u8]) -> Datagram<'a> {
        Datagram {
            source: from.parse().unwrap(),
            payload,
            path: Path::parse(path).unwrap(),
            underlay: "127.0.0.1:30001".parse().unwrap(),
        }
    }

    /// The reply to that request, as a router quotes it.
    fn reply(to: &str, path: &[u8], transaction: u8) -> Vec<u8> {
        let (server, to) = (SERVER.parse().unwrap(), to.parse().unwrap());
        let template = Template::between(server, to, Path::parse(path).unwrap()).unwrap();
        let payload = [&[0; 4][..], &[transaction; 4], &[7; 8]].concat();
        let mut out = Vec::new();
        template.write(&payload, &mut out).unwrap();
        out
    }

    fn down(quote: &[u8]) -> Scmp<'_> {
        Scmp::ExternalInterfaceDown {
            ia: "1-ff00:0:120".parse().unwrap(),
            interface: 1,
            quote,
        }
    }

    #[test]
    fn only_what_was_sent_is_returned_and_once() {
        let mut answered = Answered::new();
        let (way, server) = (path(1), SERVER.parse().unwrap());
        answered.note_reply(&datagram(CLIENT, &way, &request(1)));
        let mut returned = |quote: &[u8]| answered.returned(server, &down(quote), at(0));
        let sent = reply(CLIENT, &way, 1);
        for forged in [
            reply(CLIENT, &way, 2),
            reply("2-ff00:0:210,[10.0.0.2]:40001", &way, 1),
            reply("2-ff00:0:210,[10.0.0.3]:40000", &way, 1),
            reply("2-ff00:0:211,[10.0.0.2]:40000", &way, 1),
            sent[..sent.len() - 1].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(returned(&forged), None);
        }
        let held = returned(&sent).unwrap();
        assert_eq!(held.to, CLIENT.parse().unwrap());
        assert!(sent.ends_with(&held.payload) && held.payload.len() == 16);
        assert_eq!(returned(&sent), None, "once");
    }

    #[test]
    fn the_latest_two_paths_of_an_as_are_known() {
        let mut answered = Answered::new();
        let client: ScionAddr = CLIENT.parse().unwrap();
        let paths = [path(1), path(3), path(5)];
        let mut seen = |number: usize| {
            answered.note_path(&datagram(CLIENT, &paths[number], b""));
            let ways = answered.ways(client.host.ia);
            let position = |way: &Way| paths.iter().position(|it| **it == *way.path).unwrap();
            ways.map(position).collect::<Vec<_>>()
        };
        assert_eq!(seen(0), [0]);
        assert_eq!(seen(0), [0]);
        assert_eq!(seen(1), [1, 0]);
        assert_eq!(seen(0), [0, 1]);
        assert_eq!(seen(2), [2, 0]);
        // A renewed path replaces the latest one, and no other.
        let mut renewed = paths[2].clone();
        *renewed.last_mut().unwrap() ^= 1;
        answered.note_path(&datagram(CLIENT, &renewed, b""));
        let known: Vec<_> = answered.ways(client.host.ia).collect();
        assert_eq!(known.len(), 2);
        assert_eq!((&*known[0].path, &*known[1].path), (&*renewed, &*paths[0]));
        let near = "1-ff00:0:110,[10.0.0.3]:1";
        answered.note_path(&datagram(near, &[], b""));
        assert_eq!(
            answered
                .ways(near.parse::<ScionAddr>().unwrap().host.ia)
                .count(),
            0
        );
    }

    #[test]
    fn replies_wait_for_another_path_of_their_as_and_not_for_long() {
        let mut answered = Answered::new();
        let (way, server) = (path(1), SERVER.parse().unwrap());
        let client: ScionAddr = CLIENT.parse().unwrap();
        for number in 0..HELD as u8 + 5 {
            answered.note_reply(&datagram(CLIENT, &way, &request(number)));
            let sent = reply(CLIENT, &way, number);
            let held = answered.returned(server, &down(&sent), at(number.into()));
            answered.hold(held.unwrap());
        }
        let other = "1-ff00:0:111".parse().unwrap();
        assert_eq!(answered.take_held(other, at(100)), []);
        let held = answered.take_held(client.host.ia, at(2010));
        let first: Vec<_> = held.iter().map(|it| it.payload[4]).collect();
        assert_eq!((first[0], held.len()), (11, 26));
        let back = |path: &[u8]| {
            let path = Path::parse(path).unwrap();
            Template::between(server, client, path).unwrap()
        };
        assert!(held[0].may_take(back(&path(3)).path(), at(0)));
        assert!(!held[0].may_take(back(&way).path(), at(0)));
        let expired = Now {
            unix: u32::MAX,
            ..at(0)
        };
        assert!(!held[0].may_take(back(&path(3)).path(), expired));
        assert_eq!(answered.take_held(client.host.ia, at(0)), []);
    }
}
