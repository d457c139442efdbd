//! The peers of one AS (or of none) in a big swarm: packed, seeds first, with an index by address.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::address::IsdAs;
use crate::registry::record::{Packed, Record};
use crate::select::{Kind, Tally};

/// Groups above this size have an index; smaller ones are searched from end to end.
const INDEXED_ABOVE: usize = 16;

#[derive(Debug)]
pub(super) struct Group<P> {
    pub(super) ia: IsdAs,
    /// `peers[..seeds]` are the seeds.
    seeds: u32,
    peers: Vec<Record<P>>,
    /// Positions in `peers`, by address. Empty up to [`INDEXED_ABOVE`] peers.
    index: HashTable<u32>,
}

impl<P: Packed + std::hash::Hash> Group<P> {
    pub(super) const fn new(ia: IsdAs) -> Self {
        Self {
            ia,
            seeds: 0,
            peers: Vec::new(),
            index: HashTable::new(),
        }
    }

    pub(super) const fn tally(&self) -> Tally {
        Tally {
            seeds: self.seeds,
            leechers: self.peers.len() as u32 - self.seeds,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn peers(&self) -> &[Record<P>] {
        &self.peers
    }

    /// The `number`th peer of a kind.
    #[inline]
    pub(super) fn nth(&self, kind: Kind, number: u32) -> &Record<P> {
        let first = if kind == Kind::Leechers {
            self.seeds
        } else {
            0
        };
        &self.peers[(first + number) as usize]
    }

    /// The number of the peer at this position among those of a kind, if it is of that kind.
    pub(super) const fn number(&self, kind: Kind, position: u32) -> Option<u32> {
        match kind {
            Kind::Anyone => Some(position),
            Kind::Seeds if position < self.seeds => Some(position),
            Kind::Leechers if position >= self.seeds => Some(position - self.seeds),
            Kind::Seeds | Kind::Leechers => None,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // Four bytes of position and one of control a bucket, an eighth of the buckets kept free.
        self.peers.capacity() * size_of::<Record<P>>() + self.index.capacity() * 8 / 7 * 5
    }

    pub(super) fn find(&self, addr: &P, keys: &RandomState) -> Option<u32> {
        if self.peers.len() <= INDEXED_ABOVE {
            return self
                .peers
                .iter()
                .position(|peer| peer.addr == *addr)
                .map(|at| at as u32);
        }
        self.index
            .find(keys.hash_one(addr), |at| {
                self.peers[*at as usize].addr == *addr
            })
            .copied()
    }

    /// Adds a peer that is not here; returns its position.
    pub(super) fn insert(&mut self, record: Record<P>, keys: &RandomState) -> u32 {
        if self.peers.len() == self.peers.capacity() {
            // An eighth at a time: memory counts for more here than a copy now and then.
            self.peers.reserve_exact((self.peers.len() / 8).max(4));
        }
        let last = self.peers.len() as u32;
        self.peers.push(record);
        if self.peers.len() > INDEXED_ABOVE {
            let unindexed = if self.index.is_empty() { 0 } else { last };
            let peers = &self.peers;
            let hash = |at: &u32| keys.hash_one(peers[*at as usize].addr);
            for at in unindexed..=last {
                self.index.insert_unique(hash(&at), at, hash);
            }
        }
        if !record.flags.seed() {
            return last;
        }
        self.swap(last, self.seeds, keys);
        self.seeds += 1;
        self.seeds - 1
    }

    /// Replaces the record of the peer at a position, keeping its address; returns where it is now.
    pub(super) fn update(&mut self, position: u32, record: Record<P>, keys: &RandomState) -> u32 {
        self.peers[position as usize] = record;
        let was_seed = position < self.seeds;
        match (was_seed, record.flags.seed()) {
            (false, true) => {
                self.swap(position, self.seeds, keys);
                self.seeds += 1;
                self.seeds - 1
            }
            (true, false) => {
                self.seeds -= 1;
                self.swap(position, self.seeds, keys);
                self.seeds
            }
            _ => position,
        }
    }

    /// Removes a peer. Peers at higher positions take its place, none at lower ones moves.
    pub(super) fn remove(&mut self, mut position: u32, keys: &RandomState) -> Record<P> {
        if position < self.seeds {
            self.seeds -= 1;
            self.swap(position, self.seeds, keys);
            position = self.seeds;
        }
        let last = self.peers.len() as u32 - 1;
        self.swap(position, last, keys);
        let removed = self.peers.swap_remove(last as usize);
        if self.peers.len() == INDEXED_ABOVE {
            self.index = HashTable::new();
        } else if let Ok(entry) = self
            .index
            .find_entry(keys.hash_one(removed.addr), |at| *at == last)
        {
            entry.remove();
        }
        self.shrink(keys);
        removed
    }

    /// Gives memory back once less than half of it is used.
    fn shrink(&mut self, keys: &RandomState) {
        let len = self.peers.len();
        if self.peers.capacity() > 2 * len + 8 {
            self.peers.shrink_to(len + len / 8);
        }
        if self.index.capacity() > 4 * len {
            let peers = &self.peers;
            self.index
                .shrink_to(len, |at| keys.hash_one(peers[*at as usize].addr));
        }
    }

    fn swap(&mut self, one: u32, other: u32, keys: &RandomState) {
        /// Stands for a position while two entries change places.
        const BETWEEN: u32 = u32::MAX;
        if one == other {
            return;
        }
        if !self.index.is_empty() {
            let [hash, other_hash] =
                [one, other].map(|at| keys.hash_one(self.peers[at as usize].addr));
            for (hash, from, to) in [
                (hash, one, BETWEEN),
                (other_hash, other, one),
                (hash, BETWEEN, other),
            ] {
                if let Some(at) = self.index.find_mut(hash, |at| *at == from) {
                    *at = to;
                }
            }
        }
        self.peers.swap(one as usize, other as usize);
    }
}
