//! The peers of one AS, or those without an ISD-AS, in a large swarm: packed, seeds first, with an
//! index by address.
//!
//! Addresses are stored apart from the rest, because most replies need only them. The addresses of
//! a million IPv4 peers take 6 MB, which fits into caches. Whole records would take 29 MB.

use ahash::RandomState;

use crate::address::IsdAs;
use crate::registry::prefetch::prefetch_value;
use crate::registry::table::index::Index;
use crate::registry::table::record::{Packed, Record};
use crate::select::{Kind, Tally};

/// Groups above this size have an index. Smaller ones are searched sequentially.
const INDEXED_ABOVE: usize = 16;

#[derive(Debug)]
pub(in crate::registry) struct Group<P> {
    pub(in crate::registry) ia: IsdAs,
    /// The seeds are at the positions below this one.
    seeds: u32,
    addrs: Vec<P>,
    /// The state of the peer with the address at the same position.
    heads: Vec<Record<()>>,
    /// Positions, by address. Empty up to [`INDEXED_ABOVE`] peers.
    index: Index,
}

impl<P: Packed + std::hash::Hash> Group<P> {
    pub(in crate::registry) fn new(ia: IsdAs) -> Self {
        Self {
            ia,
            seeds: 0,
            addrs: Vec::new(),
            heads: Vec::new(),
            index: Index::default(),
        }
    }

    pub(in crate::registry) const fn tally(&self) -> Tally {
        Tally {
            seeds: self.seeds,
            leechers: self.addrs.len() as u32 - self.seeds,
        }
    }

    pub(in crate::registry) const fn len(&self) -> usize {
        self.addrs.len()
    }

    /// All peers.
    pub(in crate::registry) fn iter(&self) -> impl Iterator<Item = (&P, &Record<()>)> {
        self.addrs.iter().zip(&self.heads)
    }

    /// The peer at a position.
    #[inline]
    pub(in crate::registry) fn at(&self, position: u32) -> (&P, &Record<()>) {
        let position = position as usize;
        (&self.addrs[position], &self.heads[position])
    }

    /// Replaces the state of the peer at a position by one with the same flags.
    #[inline]
    pub(in crate::registry) fn renew(&mut self, position: u32, head: Record<()>) {
        let state = &mut self.heads[position as usize];
        debug_assert_eq!(
            state.flags, head.flags,
            "a change of flags may move the peer"
        );
        *state = head;
    }

    /// The peers of a kind: addresses and states.
    #[inline]
    pub(in crate::registry) fn of(&self, kind: Kind) -> (&[P], &[Record<()>]) {
        let seeds = self.seeds as usize;
        let (addrs, heads) = (self.addrs.as_slice(), self.heads.as_slice());
        match kind {
            Kind::Anyone => (addrs, heads),
            Kind::Seeds => (&addrs[..seeds], &heads[..seeds]),
            Kind::Leechers => (&addrs[seeds..], &heads[seeds..]),
        }
    }

    /// The number of the peer at this position among the peers of a kind, if it is one of them.
    pub(in crate::registry) const fn number(&self, kind: Kind, position: u32) -> Option<u32> {
        match kind {
            Kind::Anyone => Some(position),
            Kind::Seeds if position < self.seeds => Some(position),
            Kind::Leechers if position >= self.seeds => Some(position - self.seeds),
            Kind::Seeds | Kind::Leechers => None,
        }
    }

    pub(in crate::registry) fn heap_bytes(&self) -> usize {
        self.addrs.capacity() * size_of::<P>()
            + self.heads.capacity() * size_of::<Record<()>>()
            + self.index.heap_bytes()
    }

    pub(in crate::registry) fn find(&self, addr: &P, keys: &RandomState) -> Option<u32> {
        if self.addrs.len() <= INDEXED_ABOVE {
            let at = self.addrs.iter().position(|other| other == addr);
            return at.map(|at| at as u32);
        }
        let found = self
            .index
            .find(keys.hash_one(addr), |at| self.addrs[at] == *addr);
        found.map(|at| at as u32)
    }

    /// Prefetches the index where a search for this address begins.
    pub(in crate::registry) fn prefetch_index(&self, addr: &P, keys: &RandomState) {
        self.index.prefetch(keys.hash_one(addr));
    }

    /// Prefetches the peer that a search for this address finds first.
    pub(in crate::registry) fn prefetch_peer(&self, addr: &P, keys: &RandomState) {
        if let Some(at) = self.index.candidate(keys.hash_one(addr)) {
            prefetch_value(&self.addrs[at]);
            prefetch_value(&self.heads[at]);
        }
    }

    /// Adds a peer that is not in the group. Returns its position.
    pub(in crate::registry) fn insert(
        &mut self,
        addr: P,
        head: Record<()>,
        keys: &RandomState,
    ) -> u32 {
        if self.addrs.len() == self.addrs.capacity() {
            // Grows by an eighth: here memory matters more than an occasional copy.
            let more = (self.addrs.len() / 8).max(4);
            self.addrs.reserve_exact(more);
            self.heads.reserve_exact(more);
        }
        let last = self.addrs.len() as u32;
        self.addrs.push(addr);
        self.heads.push(head);
        if self.addrs.len() > INDEXED_ABOVE {
            let addrs = &self.addrs;
            while self.index.len() < addrs.len() {
                self.index.push(|at| keys.hash_one(addrs[at]));
            }
        }
        if !head.flags.seed() {
            return last;
        }
        self.swap(last, self.seeds, keys);
        self.seeds += 1;
        self.seeds - 1
    }

    /// Replaces the state of the peer at a position. Returns its new position.
    pub(in crate::registry) fn update(
        &mut self,
        position: u32,
        head: Record<()>,
        keys: &RandomState,
    ) -> u32 {
        self.heads[position as usize] = head;
        let was_seed = position < self.seeds;
        match (was_seed, head.flags.seed()) {
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

    /// Removes a peer. Only peers at higher positions move.
    pub(in crate::registry) fn remove(
        &mut self,
        mut position: u32,
        keys: &RandomState,
    ) -> Record<()> {
        if position < self.seeds {
            self.seeds -= 1;
            self.swap(position, self.seeds, keys);
            position = self.seeds;
        }
        let last = self.addrs.len() as u32 - 1;
        self.swap(position, last, keys);
        if last as usize == INDEXED_ABOVE {
            self.index = Index::default();
        } else if self.index.len() > 0 {
            let addrs = &self.addrs;
            self.index.pop(|at| keys.hash_one(addrs[at]));
        }
        self.addrs.truncate(last as usize);
        let removed = self.heads.swap_remove(last as usize);
        self.shrink();
        removed
    }

    /// Frees memory when less than half of it is used.
    fn shrink(&mut self) {
        let len = self.addrs.len();
        if self.addrs.capacity() > 2 * len + 8 {
            self.addrs.shrink_to(len + len / 8);
            self.heads.shrink_to(len + len / 8);
        }
    }

    fn swap(&mut self, one: u32, other: u32, keys: &RandomState) {
        if one == other {
            return;
        }
        if self.index.len() > 0 {
            let addrs = &self.addrs;
            self.index
                .swap(one as usize, other as usize, |at| keys.hash_one(addrs[at]));
        }
        self.addrs.swap(one as usize, other as usize);
        self.heads.swap(one as usize, other as usize);
    }
}
