//! Simulates a population of peers, each in one torrent, and the mix of requests that they make.
//!
//! The popularity of a torrent depends on its rank (Zipf). A peer keeps its identity: torrent, peer
//! id, port, source address, ISD-AS, and whether it is a seed. It announces itself (`started`)
//! before it leaves (`stopped`) or becomes a seed (`completed`). Each connection has its own peers,
//! so a peer always comes from the same address.

use std::sync::Arc;

use scion_tracker_core::address::{Asn, Isd, IsdAs};
use scion_tracker_core::request::Event;
use scion_tracker_core::types::{InfoHash, PeerId, Rng};

use super::mix::{Kind, Mix};

/// Lowest port of a peer.
const FIRST_PORT: u32 = 10_000;
/// Number of ports per source address.
const PORTS: u32 = 65_536 - FIRST_PORT;
/// Random draws for a peer that can make the request. After that, another peer announces instead.
const TRIES: usize = 8;

/// Options of the population and its requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) torrents: u32,
    /// Exponent of popularity by rank. 0 makes all torrents equally popular.
    pub(crate) zipf: f64,
    pub(crate) peers: u32,
    /// Percentage of peers that are seeds from the start.
    pub(crate) seeds: u8,
    pub(crate) mix: Mix,
    /// Number of ISDs that the ASes are spread over.
    pub(crate) isds: u16,
    /// Number of ASes. 0 for peers without an ISD-AS.
    pub(crate) ases: u32,
    pub(crate) seed: u64,
    /// Whether a connection begins with one announce of each of its peers.
    pub(crate) fill: bool,
}

/// Why a population is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(
        "{peers} peers need more ports than {sources} source addresses have: at most {most} peers fit"
    )]
    Ports { peers: u32, sources: u32, most: u64 },
    #[error("{peers} peers are too few for {connections} connections")]
    Connections { peers: u32, connections: u32 },
}

/// A population, shared by all connections.
#[derive(Debug)]
pub(crate) struct Load {
    options: Options,
    connections: u32,
    sources: u32,
    /// Index: the peer.
    torrents: Box<[u32]>,
    places: Vec<IsdAs>,
}

/// One request of one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) port: u16,
    pub(crate) left: u64,
    pub(crate) event: Event,
    /// Number of its AS, if peers have an ISD-AS.
    pub(crate) place: Option<usize>,
}

impl Load {
    /// Assigns every peer to a torrent.
    pub(crate) fn new(
        options: Options,
        connections: u32,
        sources: u32,
    ) -> Result<Arc<Self>, LoadError> {
        let peers = options.peers;
        if peers < connections || connections == 0 {
            return Err(LoadError::Connections { peers, connections });
        }
        let rounds = peers.div_ceil(connections);
        let lanes = connections.div_ceil(sources.max(1));
        if u64::from(rounds) * u64::from(lanes) > PORTS.into() {
            let most = u64::from(PORTS / lanes) * u64::from(connections);
            return Err(LoadError::Ports {
                peers,
                sources,
                most,
            });
        }
        let popularity = cumulative(options.torrents, options.zipf);
        let total = popularity.last().copied().unwrap_or_default();
        let torrents = (0..peers)
            .map(|peer| {
                let at = unit(hash(options.seed, peer.into())) * total;
                let torrent = popularity.partition_point(|sum| *sum <= at);
                torrent.min(popularity.len() - 1) as u32
            })
            .collect();
        let places = (0..options.ases).map(|n| place(n, options.isds)).collect();
        Ok(Arc::new(Self {
            options,
            connections,
            sources,
            torrents,
            places,
        }))
    }

    /// The ASes, in the order of their numbers.
    pub(crate) fn places(&self) -> &[IsdAs] {
        &self.places
    }

    /// Returns the number of the source address that a connection uses.
    pub(crate) const fn source_of(&self, connection: u32) -> u32 {
        connection % self.sources
    }

    /// Returns the requests of one connection.
    pub(crate) fn requests(self: &Arc<Self>, connection: u32) -> Requests {
        let members = (self.options.peers - connection).div_ceil(self.connections);
        let seed = self.options.seed;
        let unfilled = if self.options.fill { members } else { 0 };
        Requests {
            load: Arc::clone(self),
            connection,
            states: (0..members)
                .map(|member| State::fresh(self.is_seed(connection + member * self.connections)))
                .collect(),
            rng: Rng::with_seed(hash(!seed, connection.into())),
            unfilled,
        }
    }

    fn is_seed(&self, peer: u32) -> bool {
        let number = u64::from(peer) | 1 << 40;
        hash(self.options.seed, number) % 100 < self.options.seeds.into()
    }

    fn info_hash(&self, torrent: u32) -> InfoHash {
        let mut bytes = [0; 20];
        for (n, part) in bytes.chunks_mut(8).enumerate() {
            let number = u64::from(torrent) | (2 + n as u64) << 40;
            let word = hash(self.options.seed, number).to_be_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        InfoHash(bytes)
    }

    fn ask(&self, kind: Kind, event: Event, peer: u32, seed: bool) -> Ask {
        let (connection, round) = (peer % self.connections, peer / self.connections);
        let lanes = self.connections.div_ceil(self.sources);
        let port = FIRST_PORT + round * lanes + connection / self.sources;
        let at =
            hash(self.options.seed, u64::from(peer) | 1 << 41) % self.places.len().max(1) as u64;
        Ask {
            kind,
            info_hash: self.info_hash(self.torrents[peer as usize]),
            peer_id: peer_id(self.options.seed, peer),
            // The constructor has checked it.
            port: port as u16,
            left: if seed { 0 } else { 1 << 30 },
            event,
            place: (!self.places.is_empty()).then_some(at as usize),
        }
    }
}

/// The state of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    present: bool,
    seed: bool,
}

impl State {
    const fn fresh(seed: bool) -> Self {
        Self {
            present: false,
            seed,
        }
    }
}

/// The endless requests of one connection.
#[derive(Debug)]
pub(crate) struct Requests {
    load: Arc<Load>,
    connection: u32,
    /// By member. Member number `member` is peer `connection + member * connections`.
    states: Box<[State]>,
    rng: Rng,
    /// Members that have not made their first announce, which they make in order.
    unfilled: u32,
}

impl Requests {
    /// Whether each peer has made its first announce, if that was requested.
    pub(crate) const fn is_filled(&self) -> bool {
        self.unfilled == 0
    }

    /// Returns the next request.
    pub(crate) fn next(&mut self) -> Ask {
        if self.unfilled > 0 {
            self.unfilled -= 1;
            return self.announce(self.unfilled as usize);
        }
        let kind = self.load.options.mix.draw(&mut self.rng);
        let member = self.rng.usize(0..self.states.len());
        match kind {
            Kind::Announce => self.announce(member),
            Kind::Scrape => self.ask(kind, Event::None, member),
            Kind::Stopped => match self.find(member, |state| state.present) {
                None => self.announce(member),
                Some(member) => {
                    let ask = self.ask(kind, Event::Stopped, member);
                    let seed = self.load.is_seed(self.peer(member));
                    self.states[member] = State::fresh(seed);
                    ask
                }
            },
            Kind::Completed => match self.find(member, |state| state.present && !state.seed) {
                None => self.announce(member),
                Some(member) => {
                    self.states[member].seed = true;
                    self.ask(kind, Event::Completed, member)
                }
            },
        }
    }

    fn announce(&mut self, member: usize) -> Ask {
        let event = match std::mem::replace(&mut self.states[member].present, true) {
            true => Event::None,
            false => Event::Started,
        };
        self.ask(Kind::Announce, event, member)
    }

    fn find(&mut self, first: usize, fits: impl Fn(State) -> bool) -> Option<usize> {
        let mut member = first;
        for _ in 0..TRIES {
            if fits(self.states[member]) {
                return Some(member);
            }
            member = self.rng.usize(0..self.states.len());
        }
        None
    }

    fn ask(&self, kind: Kind, event: Event, member: usize) -> Ask {
        let seed = self.states[member].seed;
        self.load.ask(kind, event, self.peer(member), seed)
    }

    fn peer(&self, member: usize) -> u32 {
        self.connection + member as u32 * self.load.connections
    }
}

/// The popularity of each torrent plus that of all before it: 1 / rank^exponent.
fn cumulative(torrents: u32, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=torrents.max(1))
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect()
}

/// The ISD-AS of AS number `n`, in the range of SCION's documentation: 1-ff00:0:110, 2-ff00:0:111,
/// and so on.
fn place(n: u32, isds: u16) -> IsdAs {
    let isd = Isd(1 + (n % u32::from(isds.max(1))) as u16);
    let number = 0xff00_0000_0110 + u64::from(n);
    IsdAs::new(isd, Asn::new(number).unwrap_or_default())
}

/// Makes a peer id: `-SC0100-` and twelve hexadecimal digits.
fn peer_id(seed: u64, peer: u32) -> PeerId {
    let mut id = *b"-SC0100-............";
    // Multiplication by an odd number keeps them distinct.
    let number =
        (seed << 32 ^ u64::from(peer)).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xffff_ffff_ffff;
    for (n, digit) in id[8..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * n) & 0xf) as usize];
    }
    PeerId(id)
}

/// SplitMix64 of both numbers.
const fn hash(seed: u64, number: u64) -> u64 {
    let mut x = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Maps a hash to a number from 0 to below 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn options() -> Options {
        Options {
            torrents: 100,
            zipf: 1.0,
            peers: 20_000,
            seeds: 25,
            mix: "announce=90,scrape=8,stopped=2".parse().unwrap(),
            isds: 3,
            ases: 7,
            seed: 1,
            fill: false,
        }
    }

    #[test]
    fn requests_come_in_the_mix_and_by_popularity() {
        let load = Load::new(options(), 8, 4).unwrap();
        let mut kinds = [0_u32; 4];
        let mut torrents = HashMap::<_, u32>::new();
        let asks = 200_000;
        for connection in 0..8 {
            let mut requests = load.requests(connection);
            for _ in 0..asks / 8 {
                let ask = requests.next();
                kinds[ask.kind as usize] += 1;
                *torrents.entry(ask.info_hash).or_default() += 1;
            }
        }
        let share = |n: u32| f64::from(n) / f64::from(asks);
        for (n, expected) in kinds.into_iter().zip([0.90, 0.08, 0.02, 0.0]) {
            assert!((share(n) - expected).abs() < 0.005, "{kinds:?}");
        }
        // With exponent 1 and 100 torrents the first one has 1/5.187 of the popularity.
        let first = torrents[&load.info_hash(0)];
        let tenth = torrents[&load.info_hash(9)];
        assert!((share(first) - 0.193).abs() < 0.02, "{first}");
        assert!((share(tenth) - 0.0193).abs() < 0.006, "{tenth}");
        assert_eq!(torrents.len(), 100);
    }

    #[test]
    fn without_an_exponent_all_torrents_are_alike() {
        let load = Load::new(
            Options {
                zipf: 0.0,
                ..options()
            },
            1,
            1,
        )
        .unwrap();
        let mut counts = [0_u32; 100];
        load.torrents
            .iter()
            .for_each(|torrent| counts[*torrent as usize] += 1);
        assert!(counts.iter().all(|n| (130..280).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_peer_keeps_its_identity() {
        let load = Load::new(options(), 12, 5).unwrap();
        let mut endpoints = HashMap::new();
        let (mut seeds, mut ids) = (0, HashSet::new());
        for connection in 0..12 {
            let mut requests = load.requests(connection);
            for _ in 0..10_000 {
                let ask = requests.next();
                let endpoint = (load.source_of(connection), ask.port);
                let identity = (ask.info_hash, ask.peer_id, ask.place, ask.left);
                let known = *endpoints.entry(endpoint).or_insert(identity);
                assert_eq!(known, identity);
                if ids.insert(ask.peer_id) && ask.left == 0 {
                    seeds += 1;
                }
            }
        }
        assert!(ids.len() > 19_000, "{}", ids.len());
        assert!((4_000..6_000).contains(&seeds), "{seeds}");
    }

    #[test]
    fn peers_start_before_they_leave_or_complete() {
        let mix = "announce=2,stopped=1,completed=1".parse().unwrap();
        let small = Options {
            peers: 50,
            mix,
            ..options()
        };
        let load = Load::new(small, 1, 1).unwrap();
        let mut requests = load.requests(0);
        let mut there = HashMap::new();
        for _ in 0..10_000 {
            let ask = requests.next();
            let before = there.get(&ask.peer_id).copied();
            match ask.event {
                Event::Started => assert_eq!(before, None),
                Event::Stopped => assert!(before.is_some()),
                Event::Completed => assert_eq!((before, ask.left), (Some(false), 0)),
                _ => assert_eq!(before, Some(ask.left == 0)),
            }
            match ask.event {
                Event::Stopped => there.remove(&ask.peer_id),
                _ => there.insert(ask.peer_id, ask.left == 0),
            };
        }
    }

    #[test]
    fn filling_announces_every_peer_once() {
        let load = Load::new(
            Options {
                peers: 103,
                fill: true,
                ..options()
            },
            10,
            2,
        )
        .unwrap();
        let mut ids = HashSet::new();
        for connection in 0..10 {
            let mut requests = load.requests(connection);
            while !requests.is_filled() {
                let ask = requests.next();
                assert_eq!(ask.event, Event::Started);
                assert!(ids.insert(ask.peer_id));
            }
        }
        assert_eq!(ids.len(), 103);
    }

    #[test]
    fn populations_that_cannot_be_are_refused() {
        let peers = |peers| Options { peers, ..options() };
        assert!(Load::new(peers(111_072), 4, 2).is_ok());
        assert!(matches!(
            Load::new(peers(111_073), 4, 2),
            Err(LoadError::Ports { .. })
        ));
        assert!(matches!(
            Load::new(peers(3), 4, 2),
            Err(LoadError::Connections { .. })
        ));
    }

    #[test]
    fn places_are_spread_over_isds() {
        let load = Load::new(options(), 1, 1).unwrap();
        let places: Vec<_> = load.places().iter().map(IsdAs::to_string).collect();
        assert_eq!(
            places[..4],
            [
                "1-ff00:0:110",
                "2-ff00:0:111",
                "3-ff00:0:112",
                "1-ff00:0:113"
            ]
        );
        assert_eq!(places.len(), 7);
    }
}
