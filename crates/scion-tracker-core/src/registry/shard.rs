//! One shard of the memory registry: torrents and an index by info hash.

use ahash::RandomState;
use parking_lot::Mutex;

use crate::registry::past::PastDownloads;
use crate::registry::swarm::Swarm;
use crate::registry::table::index::Index;
use crate::registry::table::record::Tick;
use crate::registry::table::slab::Slab;
use crate::response::SwarmCounts;
use crate::types::InfoHash;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info_hash: InfoHash,
    pub(super) completed: u32,
    /// The last announce.
    pub(super) touched: Tick,
    pub(super) swarm: Swarm,
}

/// Memory of a torrent without its peers, in bytes: the entry and its word in the index.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 10;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) entries: Slab<Entry>,
    /// Positions in `entries`, by info hash.
    pub(super) index: Index,
    /// Position of the eviction's clock hand in `entries`.
    pub(super) hand: u32,
    pub(super) past: Option<Box<PastDownloads>>,
    pub(super) seeders: u64,
    pub(super) leechers: u64,
}

impl Shard {
    pub(super) fn find(&self, hash: u64, info_hash: &InfoHash) -> Option<usize> {
        self.index
            .find(hash, |at| self.entries[at].info_hash == *info_hash)
    }

    pub(super) fn insert(&mut self, entry: Entry, keys: &RandomState) -> usize {
        self.entries.push(entry);
        let entries = &self.entries;
        self.index.push(|at| keys.hash_one(entries[at].info_hash));
        self.entries.len() - 1
    }

    /// The counts of a swarm that is not in the shard.
    pub(super) fn past_counts(&self, hash: u64, info_hash: &InfoHash) -> SwarmCounts {
        let past = self.past.as_ref();
        SwarmCounts {
            completed: past.map_or(0, |past| past.get(hash, info_hash)),
            ..SwarmCounts::default()
        }
    }

    /// Removes an entry. The last entry moves to its position.
    pub(super) fn remove(&mut self, at: usize, keys: &RandomState) -> Entry {
        let last = self.entries.len() - 1;
        let entries = &self.entries;
        let hash_of = |at: usize| keys.hash_one(entries[at].info_hash);
        self.index.swap(at, last, hash_of);
        // The entries are swapped after the index.
        self.index.pop(|it| {
            hash_of(match it {
                _ if it == at => last,
                _ if it == last => at,
                _ => it,
            })
        });
        self.entries.swap_remove(at)
    }

    pub(super) const fn enter(&mut self, seed: bool) {
        if seed {
            self.seeders += 1;
        } else {
            self.leechers += 1;
        }
    }

    pub(super) const fn leave(&mut self, seed: bool) {
        if seed {
            self.seeders -= 1;
        } else {
            self.leechers -= 1;
        }
    }
}

/// A shard on its own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Aligned(pub(super) Mutex<Shard>);
