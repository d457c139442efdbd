//! The memory registry: answers in place, under one short lock a shard.

use crate::registry::{Ask, Presence, Registry};
use crate::response::{PeerSink, Refusal, SwarmCounts};
use crate::types::{InfoHash, Rng, Time};

/// What the registry may hold at most, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Swarms.
    pub torrents: usize,
    /// Peers in one swarm.
    pub peers_per_torrent: usize,
    /// Peers of one host (IPv6: of one /64) in all swarms together.
    pub peers_per_source: u32,
    /// Bytes of memory for swarms and peers.
    pub memory: usize,
    /// Seconds after its last announce for which a peer is kept.
    pub peer_lifetime: u32,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            torrents: 4_000_000,
            peers_per_torrent: 2_000_000,
            peers_per_source: 10_000,
            memory: 2 << 30,
            peer_lifetime: 45 * 60,
        }
    }
}

/// What the registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Swarms.
    pub torrents: u64,
    /// Peers that have everything.
    pub seeders: u64,
    /// All the others.
    pub leechers: u64,
    /// Bytes allocated for them.
    pub memory: u64,
}

/// Where a sweep stands. One sweep runs at a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sweep {}

/// Swarms in memory.
#[derive(Debug)]
pub struct Memory {
    ceilings: Ceilings,
}

impl Memory {
    /// An empty registry. `keys` seed its hash functions and have to be unpredictable to peers.
    pub fn new(ceilings: Ceilings, keys: [u64; 4]) -> Self {
        let _ = keys;
        Self { ceilings }
    }

    /// The ceilings.
    pub const fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// What it holds now.
    pub fn totals(&self) -> Totals {
        Totals::default()
    }

    /// Removes peers that have not announced for the lifetime: visits about `budget` peers under one
    /// lock and returns true when it has been round all swarms.
    pub fn sweep(&self, sweep: &mut Sweep, now: Time, budget: usize) -> bool {
        let _ = (sweep, now, budget);
        true
    }
}

impl Registry for Memory {
    fn announce<S: PeerSink>(
        &self,
        _: &Presence,
        _: &Ask<'_>,
        _: Time,
        _: &mut Rng,
        _: &mut S,
    ) -> Result<SwarmCounts, Refusal> {
        Err(Refusal::MemoryLimit)
    }

    fn scrape(&self, _: &InfoHash) -> SwarmCounts {
        SwarmCounts::default()
    }
}
