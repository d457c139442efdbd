//! A census: how many peers there are in each place, of each client, family and reach.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use ahash::RandomState;

use crate::address::{CompactAddr, IsdAs};
use crate::registry::memory::Memory;
use crate::registry::read::{Found, TorrentView, Walk};
use crate::response::Reach;
use crate::select::Standing;
use crate::types::PeerId;

/// Places that are counted one by one.
const PLACES: usize = 16_384;
/// Clients that are counted one by one.
const CLIENTS: usize = 1024;
/// Torrents that are named.
const TOP: usize = 20;

/// How many peers, by what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerCounts {
    /// Those that have everything.
    pub seeders: u64,
    /// All the others.
    pub leechers: u64,
}

impl PeerCounts {
    /// All of them.
    pub const fn peers(&self) -> u64 {
        self.seeders + self.leechers
    }

    const fn count(&mut self, seeder: bool) {
        match seeder {
            true => self.seeders += 1,
            false => self.leechers += 1,
        }
    }
}

/// The client of a peer, as its peer id says (BEP 20): `qB4650` of `-qB4650-...`. A client can lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName([u8; 6]);

impl ClientName {
    /// `None` unless the peer id is in Azureus style, with letters and digits only.
    pub fn of(id: &PeerId) -> Option<Self> {
        let name = *id.0.get(1..)?.first_chunk()?;
        let is_azureus = id.0[0] == b'-'
            && id.0[7] == b'-'
            && name.iter().all(|byte: &u8| byte.is_ascii_alphanumeric());
        is_azureus.then_some(Self(name))
    }

    /// The two letters of the client.
    pub fn client(&self) -> &str {
        self.part(0..2)
    }

    /// The four characters of its version.
    pub fn version(&self) -> &str {
        self.part(2..6)
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        // ASCII, by construction.
        std::str::from_utf8(&self.0[range]).unwrap_or_default()
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.client(), self.version())
    }
}

/// The peers of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceCount {
    /// The place. [`IsdAs::NONE`]: peers without one.
    pub ia: IsdAs,
    /// Its peers.
    pub counts: PeerCounts,
    /// How many of them have proven that they are there.
    pub proven: u64,
}

/// The peers of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCount {
    /// The client.
    pub client: ClientName,
    /// Its peers.
    pub peers: u64,
}

/// All peers of a registry, counted. A client that is in several torrents is as many peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Census {
    /// Torrents that have peers.
    pub torrents: u64,
    /// All peers.
    pub counts: PeerCounts,
    /// Those at an IPv4 address.
    pub ipv4: PeerCounts,
    /// Those at an IPv6 address.
    pub ipv6: PeerCounts,
    /// Those that only plain IP reaches.
    pub ip: PeerCounts,
    /// Those that only SCION reaches.
    pub scion: PeerCounts,
    /// Those that both reach.
    pub both: PeerCounts,
    /// By place, the largest first. No more than 16,384 places, and in addition [`IsdAs::NONE`].
    pub places: Vec<PlaceCount>,
    /// Peers of all other places.
    pub other_places: PeerCounts,
    /// By client, the most used first. No more than 1,024 clients.
    pub clients: Vec<ClientCount>,
    /// Peers of all other clients, and those whose peer id names none.
    pub other_clients: u64,
    /// The 20 torrents with the most peers, the largest first.
    pub top: Vec<TorrentView>,
}

/// A census that is being taken. See [`Memory::census`].
#[derive(Debug)]
pub struct CensusWalk {
    walk: Walk,
    census: Census,
    places: HashMap<IsdAs, (PeerCounts, u64), RandomState>,
    clients: HashMap<ClientName, u64, RandomState>,
}

/// The value of a key, unless the map is full of others.
fn slot<K: Eq + Hash, V: Default>(
    map: &mut HashMap<K, V, RandomState>,
    most: usize,
    key: K,
) -> Option<&mut V> {
    match map.len() < most {
        true => Some(map.entry(key).or_default()),
        false => map.get_mut(&key),
    }
}

impl CensusWalk {
    fn torrent(&mut self, torrent: TorrentView) {
        self.census.torrents += 1;
        let rank = |it: &TorrentView| (Reverse(it.peers()), it.info_hash);
        let top = &mut self.census.top;
        let at = top.partition_point(|it| rank(it) < rank(&torrent));
        if at < TOP {
            top.truncate(TOP - 1);
            top.insert(at, torrent);
        }
    }

    fn peer(&mut self, ia: IsdAs, proven: bool, addr: &CompactAddr, peer: (Reach, bool, PeerId)) {
        let (reach, seeder, id) = peer;
        let census = &mut self.census;
        census.counts.count(seeder);
        let family = match addr {
            CompactAddr::V4(_) => &mut census.ipv4,
            CompactAddr::V6(_) => &mut census.ipv6,
        };
        family.count(seeder);
        let reached = match reach {
            Reach::Ip => &mut census.ip,
            Reach::Scion => &mut census.scion,
            Reach::Both => &mut census.both,
        };
        reached.count(seeder);
        // However many ISD-ASes peers claim, those without one are told apart from them.
        let most = PLACES + usize::from(ia.is_none());
        match slot(&mut self.places, most, ia) {
            Some((counts, of_them)) => {
                counts.count(seeder);
                *of_them += u64::from(proven);
            }
            None => census.other_places.count(seeder),
        }
        let client = ClientName::of(&id);
        match client.and_then(|client| slot(&mut self.clients, CLIENTS, client)) {
            Some(peers) => *peers += 1,
            None => census.other_clients += 1,
        }
    }

    /// What was counted.
    pub fn finish(self) -> Census {
        let mut census = self.census;
        let places = self.places.into_iter();
        census.places = places
            .map(|(ia, (counts, proven))| PlaceCount { ia, counts, proven })
            .collect();
        census
            .places
            .sort_by_key(|place| (Reverse(place.counts.peers()), place.ia.to_u64()));
        let clients = self.clients.into_iter();
        census.clients = clients
            .map(|(client, peers)| ClientCount { client, peers })
            .collect();
        census
            .clients
            .sort_by_key(|it| (Reverse(it.peers), it.client));
        census
    }
}

impl Memory {
    /// Begins a census, which [`Memory::count`] continues.
    pub fn census(&self) -> CensusWalk {
        CensusWalk {
            walk: Walk::default(),
            census: Census::default(),
            // Peers choose their ISD-AS and their client.
            places: HashMap::with_hasher(self.keys.clone()),
            clients: HashMap::with_hasher(self.keys.clone()),
        }
    }

    /// Counts about 1,024 torrents and peers more, under one lock. Returns whether all are counted. Between two
    /// steps the caller can wait as long as it likes.
    pub fn count(&self, census: &mut CensusWalk) -> bool {
        let mut walk = census.walk;
        let finished = self.walk(&mut walk, true, |found| match found {
            Found::Torrent(entry) => census.torrent(TorrentView::new(entry)),
            Found::Peer(ia, addr, head) => {
                let class = head.flags.class();
                let proven = !ia.is_none() && class.standing() == Standing::Proven;
                let peer = (class.reach(), head.flags.seed(), head.id);
                census.peer(ia, proven, &addr, peer);
            }
        });
        census.walk = walk;
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::memory::Ceilings;

    #[test]
    fn peers_without_a_place_are_told_apart_from_any_number_of_claimed_ones() {
        let mut walk = Memory::new(Ceilings::default(), [1, 2, 3, 4]).census();
        let addr = CompactAddr::new([192, 0, 2, 1].into(), 6881);
        let mut count = |ia| walk.peer(ia, false, &addr, (Reach::Ip, false, PeerId([0; 20])));
        for number in 1..=PLACES as u32 + 3 {
            count(format!("1-{number}").parse().unwrap());
        }
        count(IsdAs::NONE);
        count(IsdAs::NONE);
        let census = walk.finish();
        assert_eq!(census.places.len(), PLACES + 1);
        assert_eq!(census.places[0].ia, IsdAs::NONE);
        assert_eq!(census.places[0].counts.peers(), 2);
        assert_eq!(census.other_places.peers(), 3);
    }
}
