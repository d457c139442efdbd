//! The participants of a simulated swarm: ISD-AS, bandwidth, reachability and times, drawn from a
//! seed. Their behaviour is in `swarm.rs`.

use std::net::{IpAddr, Ipv4Addr};

use scion_tracker_core::address::{Host, IsdAs};
use scion_tracker_core::types::Rng;

use crate::paths::Core;

/// Seconds per tick: the choking period of BitTorrent clients.
pub const TICK: u32 = 10;
/// Mbit per piece of 4 MiB, to convert bandwidths to pieces per tick.
const PIECE_MBIT: f32 = 33.5;
/// Share, upload and download in Mbit/s of each kind of access line.
const LINES: [(f32, f32, f32); 4] = [
    (0.30, 1.0, 10.0),
    (0.40, 3.0, 30.0),
    (0.20, 6.0, 60.0),
    (0.10, 20.0, 200.0),
];
/// The lone seed's upload in Mbit/s.
const SEED_UPLOAD: f32 = 20.0;
/// Percentage of peers that accept no connections.
const NAT_PERCENT: u32 = 30;
/// Percentage of peers that leave without `stopped`.
const SILENT_PERCENT: u32 = 20;
/// Mean number of ticks before a peer arrives. The maximum is four times this.
const ARRIVAL: f32 = 180.0;
/// Mean number of ticks that a peer seeds after completion.
const LINGER: f32 = 180.0;
/// Ticks over which the peers of the late AS arrive.
const LATE_SPAN: u32 = 60;

/// How the peers are distributed over ASes and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// 14 ASes of the same size in 3 ISDs.
    Even,
    /// 60 ASes of 1/rank sizes in 6 ISDs.
    Skewed,
    /// As [`Scenario::Skewed`], but the late AS arrives after all others have left.
    After,
    /// As [`Scenario::Skewed`], but in one AS nobody accepts connections.
    Walled,
    /// As [`Scenario::After`], but the lone seed is on the plain Internet.
    Internet,
}

impl Scenario {
    pub const ALL: [Self; 5] = [
        Self::Even,
        Self::Skewed,
        Self::After,
        Self::Walled,
        Self::Internet,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Skewed => "skewed",
            Self::After => "after",
            Self::Walled => "walled",
            Self::Internet => "internet",
        }
    }

    const fn isds(self) -> usize {
        match self {
            Self::Even => 3,
            _ => 6,
        }
    }

    /// Number of peers per AS.
    fn sizes(self, peers: usize) -> Vec<usize> {
        let weights: Vec<f64> = match self {
            Self::Even => vec![1.0; 14],
            _ => (1..=60).map(|rank| 1.0 / f64::from(rank)).collect(),
        };
        let sum: f64 = weights.iter().sum();
        let mut sizes: Vec<usize> = weights
            .iter()
            .map(|weight| (weight / sum * peers as f64).round().max(1.0) as usize)
            .collect();
        // The first AS compensates for rounding.
        sizes[0] = (sizes[0] + peers).saturating_sub(sizes.iter().sum()).max(1);
        sizes
    }
}

/// When a peer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// At this tick.
    At(u32),
    /// This many ticks after the arrival of the late AS is triggered.
    Late(u32),
}

/// The fixed properties of a peer.
#[derive(Debug, Clone)]
pub struct Peer {
    pub host: Host,
    /// The AS that it is in, whether or not the tracker can know it.
    pub home: IsdAs,
    pub arrival: Arrival,
    /// Pieces per tick.
    pub up: f32,
    pub down: f32,
    /// Accepts no incoming connections.
    pub nat: bool,
    /// Ticks that it seeds after completion; `None` for ever.
    pub linger: Option<u32>,
    /// Leaves without telling the tracker.
    pub silent: bool,
}

/// All peers; the first is the lone seed.
#[derive(Debug, Clone)]
pub struct World {
    pub scenario: Scenario,
    pub peers: Vec<Peer>,
    /// The links between the ISDs.
    pub core: Core,
}

/// The address of the peer with this index. All addresses are 10.x.y.z, which is allowed inside an
/// AS.
pub fn ip(number: usize) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 | number as u32))
}

/// The index of the peer with this address.
pub fn number(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(ip) => (u32::from(ip) & 0x00ff_ffff) as usize,
        IpAddr::V6(_) => usize::MAX,
    }
}

impl World {
    pub fn new(scenario: Scenario, peers: usize, rng: &mut Rng) -> Self {
        let far = place(9, 1);
        let internet = scenario == Scenario::Internet;
        let seed = Peer {
            host: Host::new(if internet { IsdAs::NONE } else { far }, ip(0)),
            home: far,
            arrival: Arrival::At(0),
            up: SEED_UPLOAD / PIECE_MBIT * TICK as f32,
            down: 1.0,
            nat: false,
            linger: None,
            silent: false,
        };
        let mut all = vec![seed];
        let sizes = scenario.sizes(peers);
        // The second largest AS, which in the skewed swarm has more peers than a reply.
        let late = 1;
        let walled = (scenario == Scenario::Walled).then_some(2);
        for (rank, size) in sizes.into_iter().enumerate() {
            let home = place(rank % scenario.isds() + 1, rank + 1);
            for _ in 0..size {
                let arrival = if rank == late {
                    Arrival::Late(rng.u32(0..LATE_SPAN))
                } else {
                    Arrival::At(exponential(ARRIVAL, rng).min(4 * ARRIVAL as u32))
                };
                let (up, down) = line(rng);
                let nat = rng.u32(0..100) < NAT_PERCENT || walled == Some(rank);
                let ip = ip(all.len());
                all.push(Peer {
                    host: if internet {
                        Host::ip_only(ip)
                    } else {
                        Host::new(home, ip)
                    },
                    home,
                    arrival,
                    up,
                    down,
                    nat,
                    linger: Some(exponential(LINGER, rng)),
                    silent: rng.u32(0..100) < SILENT_PERCENT,
                });
            }
        }
        let isds: Vec<usize> = (1..=scenario.isds()).chain([9]).collect();
        Self {
            scenario,
            peers: all,
            // The last draw, so that the peers do not depend on it.
            core: Core::new(&isds, rng),
        }
    }

    /// Whether the late AS arrives, given how many of the other peers have finished and left.
    pub fn late_as_arrives(&self, finished: usize, left: usize) -> bool {
        let others = self
            .peers
            .iter()
            .filter(|peer| matches!(peer.arrival, Arrival::At(_)))
            .count()
            - 1;
        match self.scenario {
            Scenario::After | Scenario::Internet => left == others,
            _ => finished * 10 >= others * 9,
        }
    }
}

fn place(isd: usize, asn: usize) -> IsdAs {
    // AS numbers from ff00:0:0 on are for documentation.
    IsdAs::from_u64((isd as u64) << 48 | 0xff00_0000_0000 | asn as u64)
}

fn exponential(mean: f32, rng: &mut Rng) -> u32 {
    (-mean * (1.0 - rng.f32()).ln()) as u32
}

fn line(rng: &mut Rng) -> (f32, f32) {
    let mut at = rng.f32();
    let (_, up, down) = LINES
        .into_iter()
        .find(|(share, ..)| {
            at -= share;
            at < 0.0
        })
        .unwrap_or(LINES[0]);
    let pieces = |mbit: f32| mbit / PIECE_MBIT * TICK as f32;
    (pieces(up), pieces(down))
}
