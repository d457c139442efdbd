//! One shard of the memory registry: torrents and an index by info hash.

use ahash::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::registry::record::Tick;
use crate::registry::slab::Slab;
use crate::registry::swarm::Swarm;
use crate::types::InfoHash;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info_hash: InfoHash,
    pub(super) completed: u32,
    /// The last announce.
    pub(super) touched: Tick,
    pub(super) swarm: Swarm,
}

/// What a torrent costs besides its peers: the entry and its place in the index.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 10;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) entries: Slab<Entry>,
    /// Positions in `entries`, by info hash.
    pub(super) index: HashTable<u32>,
    pub(super) seeders: u64,
    pub(super) leechers: u64,
}

impl Shard {
    pub(super) fn find(&self, hash: u64, info_hash: &InfoHash) -> Option<usize> {
        self.index
            .find(hash, |at| {
                self.entries[*at as usize].info_hash == *info_hash
            })
            .map(|at| *at as usize)
    }

    pub(super) fn insert(&mut self, hash: u64, entry: Entry, keys: &RandomState) -> usize {
        let at = self.entries.len();
        self.entries.push(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash, at as u32, |at| {
            keys.hash_one(entries[*at as usize].info_hash)
        });
        at
    }

    /// Removes an entry; the last one takes its place.
    pub(super) fn remove(&mut self, at: usize, keys: &RandomState) -> Entry {
        let last = self.entries.len() - 1;
        let hash = |at: usize| keys.hash_one(self.entries[at].info_hash);
        let (hash, last_hash) = (hash(at), hash(last));
        if let Ok(found) = self.index.find_entry(hash, |found| *found as usize == at) {
            found.remove();
        }
        if at != last
            && let Some(moved) = self
                .index
                .find_mut(last_hash, |found| *found as usize == last)
        {
            *moved = at as u32;
        }
        let removed = self.entries.swap_remove(at);
        let len = self.entries.len();
        if self.index.capacity() > 4 * len + 32 {
            let entries = &self.entries;
            self.index
                .shrink_to(len, |at| keys.hash_one(entries[*at as usize].info_hash));
        }
        removed
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

/// A shard on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Aligned(pub(super) Mutex<Shard>);
