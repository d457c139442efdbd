//! Limits of the memory registry, and the rules by which it makes room.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use crate::registry::table::record::Tick;

/// Limits of the registry, and lifetimes.
///
/// At a limit new peers are refused. Known peers are still served. At two of the limits, `torrents`
/// and `memory`, the registry first evicts, in this order:
///
/// 1. **Download counts of empty swarms**, at the limit of memory. A swarm ends when its last peer
///    leaves. If it had completed downloads, its count is kept, apart from the torrents: at most one
///    count per two of `torrents`, in at most a 16th of `memory`. So empty swarms never take the
///    room of a torrent. Beyond that number a new count replaces another: the one with the fewest
///    downloads among eight, one of which is the oldest. So a flood of swarms with one download each
///    replaces its own counts first.
/// 2. **Idle swarms**, without an announce for more than `evict_after` seconds. A new peer that
///    would be refused visits up to 256 torrents and evicts the one that has been silent for longest.
///    It is served if that is enough. The next new peer continues from there. So an idle swarm is
///    found after at most one round, which takes about one new peer per 225 torrents, and each of them
///    waits only microseconds. Swarms of more than 256 peers are left to the sweep.
///
/// In addition, when less than a 64th of `torrents` or `memory` is free, the sweep keeps peers for
/// `evict_after` instead of `peer_lifetime`. So an idle swarm is removed at the latest one round of
/// the sweep after it became idle, even if no new peer visits it.
///
/// A peer that announces on time is never evicted for another, if `evict_after` is at least
/// [`Ceilings::longest_silence`] of the announce interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Most swarms with at least one peer.
    pub torrents: usize,
    /// Most peers in one swarm.
    pub peers_per_torrent: usize,
    /// Most peers of one host (IPv6: of one /64) in all swarms together. They are counted in a
    /// sketch, which may count too many when there are millions of peers: set this to some hundreds
    /// or more.
    ///
    /// Seedboxes with 12,000 torrents are usual, some have 100,000. A peer that is alone in its
    /// swarm takes about 120 bytes, so the default allows one host 12 MB.
    pub peers_per_source: u32,
    /// Most peers of one host (IPv6: of one /64) in one swarm, so that a single host cannot fill
    /// replies with its own ports. A reply carries 50 peers by default, and few households or
    /// offices run more than a dozen clients in one swarm behind one address. 32 leaves room for
    /// them. 255 or more means no limit. In a swarm of more than 32 peers this is also counted in a
    /// sketch, which may count about eight too many.
    pub peers_per_source_in_torrent: u32,
    /// Most bytes of memory for swarms and peers.
    pub memory: usize,
    /// How long a peer is kept after its last announce, in seconds. At most 72 hours.
    pub peer_lifetime: u32,
    /// Time without an announce after which a swarm is idle and may be evicted for a new peer, in
    /// seconds. At most `peer_lifetime`, and at least [`Ceilings::longest_silence`] of the announce
    /// interval.
    pub evict_after: u32,
}

impl Ceilings {
    /// These ceilings, with times that the clock of the records can measure.
    fn measurable(self) -> Self {
        let peer_lifetime = self.peer_lifetime.min(Tick::MAX_SPAN);
        Self {
            peer_lifetime,
            evict_after: self.evict_after.min(peer_lifetime),
            ..self
        }
    }

    /// The longest time in seconds that the registry can measure between two announces of a peer
    /// that announces on time: the interval, the tenth that is added at random, and the 8 seconds
    /// between two ticks of the clock of the records.
    pub const fn longest_silence(interval: u32) -> u32 {
        interval
            .saturating_add(interval / 10)
            .saturating_add(Tick::SECONDS)
    }
}

/// Ceilings that may change while announces read them, each by itself: an announce that sees some old
/// and some new ones is decided by limits that were in force a moment ago.
#[derive(Debug)]
pub(super) struct AtomicCeilings {
    torrents: AtomicUsize,
    peers_per_torrent: AtomicUsize,
    peers_per_source: AtomicU32,
    peers_per_source_in_torrent: AtomicU32,
    memory: AtomicUsize,
    peer_lifetime: AtomicU32,
    evict_after: AtomicU32,
}

impl AtomicCeilings {
    pub(super) fn new(ceilings: Ceilings) -> Self {
        let ceilings = ceilings.measurable();
        Self {
            torrents: ceilings.torrents.into(),
            peers_per_torrent: ceilings.peers_per_torrent.into(),
            peers_per_source: ceilings.peers_per_source.into(),
            peers_per_source_in_torrent: ceilings.peers_per_source_in_torrent.into(),
            memory: ceilings.memory.into(),
            peer_lifetime: ceilings.peer_lifetime.into(),
            evict_after: ceilings.evict_after.into(),
        }
    }

    pub(super) fn store(&self, ceilings: Ceilings) {
        let ceilings = ceilings.measurable();
        self.torrents.store(ceilings.torrents, Relaxed);
        self.peers_per_torrent
            .store(ceilings.peers_per_torrent, Relaxed);
        self.peers_per_source
            .store(ceilings.peers_per_source, Relaxed);
        self.peers_per_source_in_torrent
            .store(ceilings.peers_per_source_in_torrent, Relaxed);
        self.memory.store(ceilings.memory, Relaxed);
        self.peer_lifetime.store(ceilings.peer_lifetime, Relaxed);
        self.evict_after.store(ceilings.evict_after, Relaxed);
    }

    #[inline]
    pub(super) fn load(&self) -> Ceilings {
        Ceilings {
            torrents: self.torrents.load(Relaxed),
            peers_per_torrent: self.peers_per_torrent.load(Relaxed),
            peers_per_source: self.peers_per_source.load(Relaxed),
            peers_per_source_in_torrent: self.peers_per_source_in_torrent.load(Relaxed),
            memory: self.memory.load(Relaxed),
            peer_lifetime: self.peer_lifetime.load(Relaxed),
            evict_after: self.evict_after.load(Relaxed),
        }
    }
}

impl Default for Ceilings {
    /// Limits for an announce interval of 30 minutes.
    fn default() -> Self {
        Self {
            torrents: 4_000_000,
            peers_per_torrent: 2_000_000,
            peers_per_source: 100_000,
            peers_per_source_in_torrent: 32,
            memory: 2 << 30,
            peer_lifetime: 45 * 60,
            evict_after: 45 * 60 / 4 * 3,
        }
    }
}
