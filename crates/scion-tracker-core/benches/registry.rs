//! Benchmarks of the memory registry and the selection of peers, by the size and the spread of a
//! swarm.
//!
//! Announces ask for 50 peers, unless the name says otherwise. Requesters come in random order, so
//! that in a large swarm each one misses the caches, as in production.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::registry::memory::{Ceilings, Memory, Sweep};
use scion_tracker_core::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
use scion_tracker_core::request::{Event, Family};
use scion_tracker_core::response::{Peer, PeerSink, Reach};
use scion_tracker_core::select::{Mode, Policy};
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

const NUMWANT: usize = 50;
const NOW: Time = Time::from_secs(100);

/// Where the peers are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// On plain IP, without an ISD-AS.
    Unplaced,
    /// In one AS.
    One,
    /// In 100 ASes of 10 ISDs.
    Hundred,
}

impl Spread {
    const ALL: [Self; 3] = [Self::Unplaced, Self::One, Self::Hundred];

    const fn name(self) -> &'static str {
        match self {
            Self::Unplaced => "0-0",
            Self::One => "1 AS",
            Self::Hundred => "100 ASes",
        }
    }

    fn place(self, number: u32) -> IsdAs {
        let of = |isd: u32, asn: u32| IsdAs::from_u64(u64::from(isd) << 48 | u64::from(asn));
        match self {
            Self::Unplaced => IsdAs::NONE,
            Self::One => of(1, 1),
            Self::Hundred => of(number % 10 + 1, number % 100 + 1),
        }
    }

    /// A peer in the torrent of its size class. One in five is a seed.
    fn peer(self, torrent: u32, number: u32) -> PeerEntry {
        let ia = self.place(number);
        let mut hash = [0x5c; 20];
        hash[..4].copy_from_slice(&torrent.to_be_bytes());
        let mut id = *b"-XX0001-000000000000";
        id[16..].copy_from_slice(&number.to_be_bytes());
        let ip = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
        PeerEntry {
            info_hash: InfoHash(hash),
            ia,
            addr: CompactAddr::new(ip, 6881),
            id: PeerId(id),
            key: None,
            reach: if ia.is_none() {
                Reach::Ip
            } else {
                Reach::Scion
            },
            scope: Scope::Global,
            verified: true,
            seeder: number.is_multiple_of(5),
            event: Event::None,
        }
    }
}

fn accepts() -> Accepts {
    let first = [Reach::Ip, Reach::Scion, Reach::Both]
        .into_iter()
        .fold(Classes::NONE, |set, reach| {
            set.with(Family::V4, reach, Scope::Global)
        });
    Accepts {
        first,
        then: Classes::NONE,
    }
}

fn by(mode: Mode) -> Policy {
    Policy {
        mode,
        ..Policy::default()
    }
}

/// Copies the address, as a codec does.
#[derive(Default)]
struct Compact(Vec<u8>);

impl PeerSink for Compact {
    fn push(&mut self, peer: Peer<'_>) {
        self.0.extend_from_slice(peer.addr.as_bytes());
    }
}

struct Subject {
    memory: Memory,
    spread: Spread,
    rng: Rng,
    out: Compact,
}

impl Subject {
    /// Makes one swarm with this many peers.
    fn new(spread: Spread, peers: u32) -> Self {
        let ceilings = Ceilings {
            peers_per_source: u32::MAX,
            ..Ceilings::default()
        };
        let mut subject = Self {
            memory: Memory::new(ceilings, [1, 2, 3, 4]),
            spread,
            rng: Rng::with_seed(7),
            out: Compact::default(),
        };
        for number in 0..peers {
            subject.announce(&spread.peer(0, number), 0, &Policy::default());
        }
        subject
    }

    fn announce(&mut self, peer: &PeerEntry, numwant: usize, policy: &Policy) {
        self.out.0.clear();
        let selection = Selection {
            numwant,
            policy,
            accepts: accepts(),
        };
        let counts = self
            .memory
            .announce(peer, &selection, NOW, &mut self.rng, &mut self.out);
        let _ = black_box(counts);
        black_box(&self.out.0);
    }
}

fn refresh(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh");
    group.throughput(Throughput::Elements(1));
    for spread in Spread::ALL {
        for peers in [1, 10, 100, 10_000, 1_000_000] {
            let mut subject = Subject::new(spread, peers);
            for (name, mode) in [("prefer", Mode::Prefer), ("random", Mode::Random)] {
                // Without an ISD-AS, or with the same one for all peers, both modes select alike.
                let policy = by(mode);
                let id = BenchmarkId::new(format!("{}, {name}", spread.name()), peers);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        let number = subject.rng.u32(0..peers);
                        subject.announce(&spread.peer(0, number), NUMWANT, &policy);
                    });
                });
            }
        }
    }
    group.finish();
}

fn join_and_leave(c: &mut Criterion) {
    let mut group = c.benchmark_group("join and leave, numwant 0");
    for spread in Spread::ALL {
        for peers in [0, 10, 100, 10_000, 1_000_000] {
            let mut subject = Subject::new(spread, peers);
            let id = BenchmarkId::new(spread.name(), peers);
            group.bench_function(id, |b| {
                b.iter(|| {
                    let number = 2_000_000 + subject.rng.u32(0..1_000_000);
                    let mut peer = subject.spread.peer(0, number);
                    subject.announce(&peer, 0, &Policy::default());
                    peer.event = Event::Stopped;
                    subject.announce(&peer, 0, &Policy::default());
                });
            });
        }
    }
    group.finish();
}

fn scrape(c: &mut Criterion) {
    const TORRENTS: u32 = 100_000;
    let mut subject = Subject::new(Spread::Hundred, 0);
    for torrent in 0..TORRENTS {
        for number in 0..10 {
            let peer = subject.spread.peer(torrent, number);
            subject.announce(&peer, 0, &Policy::default());
        }
    }
    c.bench_function("scrape, 100k torrents of 10", |b| {
        b.iter(|| {
            let mut hash = [0x5c; 20];
            let torrent = subject.rng.u32(0..TORRENTS);
            hash[..4].copy_from_slice(&torrent.to_be_bytes());
            black_box(subject.memory.scrape(&InfoHash(hash)))
        });
    });
    let mut sweep = Sweep::default();
    c.bench_function("sweep step of 1000 visits, 100k torrents of 10", |b| {
        b.iter(|| black_box(subject.memory.sweep(&mut sweep, NOW, 1000)));
    });
}

fn expire(c: &mut Criterion) {
    let later = Time::from_secs(100 + Ceilings::default().peer_lifetime + 60);
    c.bench_function("sweep of 10k silent peers in one swarm", |b| {
        b.iter_batched_ref(
            || Subject::new(Spread::Hundred, 10_000),
            |subject| {
                let mut sweep = Sweep::default();
                while !subject.memory.sweep(&mut sweep, later, 1000) {}
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, refresh, join_and_leave, scrape, expire);
criterion_main!(benches);
