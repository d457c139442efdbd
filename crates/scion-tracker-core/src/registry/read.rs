//! The read side of the memory registry: single torrents, lists of torrents, and a census of all peers. For
//! admin APIs and metrics.
//!
//! Everything here goes through the registry in steps and holds the lock of one shard for one step at most, so
//! announces wait no longer than for a step of the sweep. What changes between two steps may be seen as it was
//! before or after, and a peer that moves inside its swarm meanwhile may be seen twice or not at all.

mod census;
mod torrents;

use crate::address::{CompactAddr, IsdAs};
use crate::registry::large::class_index::Cursor;
use crate::registry::memory::{Memory, SHARDS};
use crate::registry::shard::Entry;
use crate::registry::table::record::{Record, Tick};
use crate::response::{Reach, SwarmCounts};
use crate::select::Standing;
use crate::types::{InfoHash, PeerId, Time};

pub use census::{Census, CensusWalk, ClientCount, ClientName, PeerCounts, PlaceCount};
pub use torrents::{
    InfoHashPrefix, InfoHashPrefixError, MOST_SORTED, TorrentOrder, TorrentPage, TorrentQuery,
};

/// Peers and torrents that one step visits under one lock.
const STEP: usize = 1024;

/// A peer of a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerView {
    /// Its ISD-AS. [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Whether the ISD-AS is proven and not only claimed. False without one.
    pub proven: bool,
    /// Address and port.
    pub addr: CompactAddr,
    /// Its peer id.
    pub id: PeerId,
    /// How others reach it.
    pub reach: Reach,
    /// Whether it has everything.
    pub seeder: bool,
    /// Seconds since its last announce, in steps of 8, rounded either way.
    pub age: u32,
}

impl PeerView {
    fn new(ia: IsdAs, addr: CompactAddr, head: &Record<()>, now: Tick) -> Self {
        let class = head.flags.class();
        Self {
            ia,
            proven: !ia.is_none() && class.standing() == Standing::Proven,
            addr,
            id: head.id,
            reach: class.reach(),
            seeder: head.flags.seed(),
            age: head.seen.age(now),
        }
    }
}

/// A torrent without its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TorrentView {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its clients, each counted once, and its downloads.
    pub counts: SwarmCounts,
}

impl TorrentView {
    fn new(entry: &Entry) -> Self {
        Self {
            info_hash: entry.info_hash,
            counts: entry.swarm.counts(entry.completed),
        }
    }

    /// Seeders and leechers.
    pub const fn peers(&self) -> u32 {
        self.counts.seeders.saturating_add(self.counts.leechers)
    }
}

/// Where a walk through all torrents, or through all peers, stands.
#[derive(Debug, Clone, Copy)]
struct Walk {
    shard: usize,
    /// Entries below this one are still to be visited.
    entry: usize,
    cursor: Cursor,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            shard: 0,
            entry: usize::MAX,
            cursor: Cursor::START,
        }
    }
}

/// What a walk comes to: a torrent, then its peers.
enum Found<'a> {
    Torrent(&'a Entry),
    Peer(IsdAs, CompactAddr, &'a Record<()>),
}

impl Memory {
    /// A torrent that has peers, and up to `most` of them in no order. Visits `most` peers under one lock.
    pub fn torrent(
        &self,
        info_hash: &InfoHash,
        most: usize,
        now: Time,
    ) -> Option<(TorrentView, Vec<PeerView>)> {
        let now = Tick::at(now);
        let hash = self.keys.hash_one(info_hash);
        let shard = self.shard(hash);
        let entry = &shard.entries[shard.find(hash, info_hash)?];
        let mut peers = Vec::with_capacity(most.min(entry.swarm.len()));
        entry.swarm.visit(
            &mut Cursor::START.clone(),
            &mut most.clone(),
            |ia, addr, head| {
                if peers.len() < most {
                    peers.push(PeerView::new(ia, addr, &head, now));
                }
            },
        );
        Some((TorrentView::new(entry), peers))
    }

    /// Visits the next [`STEP`] torrents, with their peers if `with_peers`. Returns whether it has visited all.
    fn walk(&self, walk: &mut Walk, with_peers: bool, mut visit: impl FnMut(Found<'_>)) -> bool {
        let mut budget = STEP;
        while walk.shard < SHARDS {
            let shard = self.shards[walk.shard].0.lock();
            // An entry that replaces a removed one has already been visited.
            walk.entry = walk.entry.min(shard.entries.len());
            while walk.entry > 0 {
                if budget == 0 {
                    return false;
                }
                budget -= 1;
                let entry = &shard.entries[walk.entry - 1];
                if walk.cursor == Cursor::START {
                    visit(Found::Torrent(entry));
                }
                let peer = |ia, addr, head: Record<()>| visit(Found::Peer(ia, addr, &head));
                if with_peers && !entry.swarm.visit(&mut walk.cursor, &mut budget, peer) {
                    return false;
                }
                walk.cursor = Cursor::START;
                walk.entry -= 1;
            }
            walk.entry = usize::MAX;
            walk.shard += 1;
            // One shard per lock, and never more than a step.
            if budget == 0 {
                return walk.shard == SHARDS;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
