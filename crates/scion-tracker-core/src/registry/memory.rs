//! The memory registry: answers synchronously, under one short lock per shard.
//!
//! Swarms are sharded by a keyed hash of the info hash. A shard is a list of entries and an index
//! into it, so that a torrent costs 70 bytes besides its peers. Nothing waits and nothing allocates
//! on the way of an announce that only refreshes a peer.

use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use arrayvec::ArrayVec;
use parking_lot::MutexGuard;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::observe::Change;
use crate::registry::ceilings::AtomicCeilings;
pub use crate::registry::ceilings::Ceilings;
use crate::registry::clients::Clients;
use crate::registry::eviction::Hand;
use crate::registry::large::class_index::Cursor;
use crate::registry::large::group::Group;
use crate::registry::past;
use crate::registry::prefetch::prefetch_value;
use crate::registry::shard::{Aligned, ENTRY_BYTES, Entry, Shard};
use crate::registry::sources::Sources;
use crate::registry::swarm::Swarm;
use crate::registry::table::record::{Class, Flags, Known, Record, Tick};
use crate::registry::{Outcome, PeerEntry, Registry, Selection};
use crate::request::{Event, PeerKey};
use crate::response::{PeerSink, Refusal, SwarmCounts};
use crate::select::Standing;
use crate::types::{InfoHash, Rng, Time};

/// Shards: enough that two of a few dozen cores seldom meet.
pub(super) const SHARDS: usize = 1024;

/// Peers of one host in one swarm from which on there is no limit: more than a sketch counts.
const NO_LIMIT: u32 = 255;

/// Announces for which memory is fetched together: no more than the caches next to the processor hold.
const BATCH: usize = 64;

/// Peers that `retain` visits under one lock.
const RETAIN_STEP: usize = 4096;

/// A peer that announces soon.
struct Wanted<'a> {
    peer: &'a PeerKey,
    hash: u64,
    /// Where its swarm probably is in the shard.
    entry: usize,
}

/// What the registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    shard: usize,
    /// Entries below this one are still to be visited.
    entry: usize,
    cursor: Cursor,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            shard: 0,
            entry: usize::MAX,
            cursor: Cursor::START,
        }
    }
}

/// Swarms in memory.
#[derive(Debug)]
pub struct Memory {
    ceilings: AtomicCeilings,
    pub(super) keys: RandomState,
    pub(super) shards: Box<[Aligned]>,
    sources: Sources,
    clients: Clients,
    torrents: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes of download counts whose swarms are empty; part of `bytes`.
    pub(super) past_bytes: AtomicUsize,
    /// Where eviction continues.
    pub(super) hand: Hand,
}

impl Memory {
    /// An empty registry. `keys` seed its hash functions and have to be unpredictable to peers.
    pub fn new(ceilings: Ceilings, keys: [u64; 4]) -> Self {
        let [a, b, c, d] = keys;
        Self {
            ceilings: AtomicCeilings::new(ceilings),
            keys: RandomState::with_seeds(a, b, c, d),
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            sources: Sources::new(RandomState::with_seeds(d, c, b, a)),
            clients: Clients::new([b, d, a, c]),
            torrents: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            past_bytes: AtomicUsize::new(0),
            hand: Hand::default(),
        }
    }

    /// The ceilings in force.
    #[inline]
    pub fn ceilings(&self) -> Ceilings {
        self.ceilings.load()
    }

    /// Puts other ceilings in force. What the registry holds above them stays until it expires or is
    /// evicted.
    pub fn set_ceilings(&self, ceilings: Ceilings) {
        self.ceilings.store(ceilings);
    }

    /// Swarms now.
    pub(super) fn torrents(&self) -> usize {
        self.torrents.load(Ordering::Relaxed)
    }

    /// Bytes allocated now.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What it holds now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            torrents: self.torrents() as u64,
            memory: self.bytes() as u64,
            ..Totals::default()
        };
        for shard in &self.shards {
            let shard = shard.0.lock();
            totals.seeders += shard.seeders;
            totals.leechers += shard.leechers;
        }
        totals
    }

    /// Removes peers that have not announced for the lifetime, or for `evict_after` if the registry
    /// is nearly full (see [`Ceilings`]). Visits about `budget` peers and
    /// torrents, holds one shard's lock at a time, and returns `true` when it has been round all of
    /// them.
    pub fn sweep(&self, sweep: &mut Sweep, now: Time, budget: usize) -> bool {
        let now = Tick::at(now);
        let mut budget = budget;
        while sweep.shard < SHARDS {
            let mut shard = self.shards[sweep.shard].0.lock();
            sweep.entry = sweep.entry.min(shard.entries.len());
            while sweep.entry > 0 {
                if budget == 0 {
                    return false;
                }
                budget -= 1;
                let at = sweep.entry - 1;
                if !self.expire(&mut shard, at, sweep, now, &mut budget) {
                    return false;
                }
                sweep.cursor = Cursor::START;
                sweep.entry = at;
            }
            sweep.entry = usize::MAX;
            sweep.shard += 1;
        }
        *sweep = Sweep::default();
        true
    }

    /// Expires peers of one entry, and the entry if that leaves nobody.
    fn expire(
        &self,
        shard: &mut MutexGuard<'_, Shard>,
        at: usize,
        sweep: &mut Sweep,
        now: Tick,
        budget: &mut usize,
    ) -> bool {
        let lifetime = if self.is_nearly_full() {
            self.ceilings().evict_after
        } else {
            self.ceilings().peer_lifetime
        };
        let is_old = |_: IsdAs, head: &Record<()>| head.seen.age(now) > lifetime;
        self.remove_where(shard, at, &mut sweep.cursor, budget, is_old)
    }

    /// Removes the peers of one entry that `goes` names, and the entry if that leaves nobody. Returns
    /// whether it has visited all.
    fn remove_where(
        &self,
        shard: &mut MutexGuard<'_, Shard>,
        at: usize,
        cursor: &mut Cursor,
        budget: &mut usize,
        goes: impl FnMut(IsdAs, &Record<()>) -> bool,
    ) -> bool {
        let entry = &mut shard.entries[at];
        let before = entry.swarm.heap_bytes();
        let (mut seeders, mut leechers) = (0, 0);
        let gone = |source, seed| {
            self.sources.remove(source);
            if seed {
                seeders += 1;
            } else {
                leechers += 1;
            }
        };
        let swarm = &mut entry.swarm;
        let finished = swarm.remove_where(cursor, budget, &self.keys, goes, gone);
        self.account(before, entry.swarm.heap_bytes());
        let empty = entry.swarm.len() == 0;
        shard.seeders -= seeders;
        shard.leechers -= leechers;
        if empty {
            self.drop_entry(shard, at);
        }
        finished
    }

    /// Records a change of an allocation.
    fn account(&self, before: usize, after: usize) {
        match after.cmp(&before) {
            std::cmp::Ordering::Greater => {
                self.bytes.fetch_add(after - before, Ordering::Relaxed);
            }
            std::cmp::Ordering::Less => {
                self.bytes.fetch_sub(before - after, Ordering::Relaxed);
            }
            std::cmp::Ordering::Equal => {}
        }
    }

    /// The same, for download counts of empty swarms.
    pub(super) fn account_past(&self, before: usize, after: usize) {
        self.account(before, after);
        self.past_bytes.fetch_add(after, Ordering::Relaxed);
        self.past_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Removes an entry and its peers, and keeps its download count.
    pub(super) fn drop_entry(&self, shard: &mut Shard, at: usize) {
        let entry = shard.remove(at, &self.keys);
        self.account(entry.swarm.heap_bytes() + ENTRY_BYTES, 0);
        self.torrents.fetch_sub(1, Ordering::Relaxed);
        entry.swarm.drain(|source, seed| {
            self.sources.remove(source);
            shard.leave(seed);
        });
        self.keep_past(shard, entry.info_hash, entry.completed);
    }

    /// Keeps the download count of an empty swarm, which has none there.
    fn keep_past(&self, shard: &mut Shard, info_hash: InfoHash, completed: u32) {
        if completed > 0 && self.bytes() < self.ceilings().memory {
            let past = shard.past.get_or_insert_default();
            let before = past.heap_bytes();
            let limit = self.past_counts_per_shard();
            past.keep(info_hash, completed, limit, &self.keys);
            self.account_past(before, past.heap_bytes());
        }
    }

    /// Raises how often a torrent was downloaded to a count that was kept elsewhere. That of a torrent without
    /// peers is kept within the limits of [`Ceilings`].
    pub fn raise_completed(&self, info_hash: &InfoHash, completed: u32) {
        let hash = self.keys.hash_one(info_hash);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        if let Some(at) = shard.find(hash, info_hash) {
            let entry = &mut shard.entries[at];
            entry.completed = entry.completed.max(completed);
        } else if completed > shard.past_counts(hash, info_hash).completed
            && self.bytes() < self.ceilings().memory
        {
            self.take_past(shard, hash, info_hash);
            self.keep_past(shard, *info_hash, completed);
        }
    }

    /// How many download counts of empty swarms one shard keeps: see [`Ceilings`].
    fn past_counts_per_shard(&self) -> usize {
        let by_torrents = self.ceilings().torrents / 2;
        let by_memory = self.ceilings().memory / 16 / past::COUNT_BYTES;
        by_torrents.min(by_memory).div_ceil(SHARDS)
    }

    /// The download count of a swarm that becomes one again.
    fn take_past(&self, shard: &mut Shard, hash: u64, info_hash: &InfoHash) -> u32 {
        let Some(past) = &mut shard.past else {
            return 0;
        };
        let before = past.heap_bytes();
        let completed = past.take(hash, info_hash, &self.keys);
        self.account_past(before, past.heap_bytes());
        completed
    }

    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The index inside the shard goes by the low and the highest bits.
        self.shards[(hash >> 40) as usize % SHARDS].0.lock()
    }

    /// Has everything fetched that announces of these peers read, step by step: each step begins with
    /// what the one before has had fetched for all of them, so that their waits are one wait. A swarm that
    /// another thread changes meanwhile is fetched in vain.
    fn fetch(&self, peers: &[PeerKey]) {
        let mut wanted: ArrayVec<Wanted<'_>, BATCH> = ArrayVec::new();
        wanted.extend(peers.iter().take(BATCH).map(|peer| Wanted {
            peer,
            hash: self.keys.hash_one(peer.info_hash),
            entry: usize::MAX,
        }));
        for it in &wanted {
            self.shard(it.hash).index.prefetch(it.hash);
        }
        wanted.retain(|it| {
            let shard = self.shard(it.hash);
            let Some(at) = shard.index.candidate(it.hash) else {
                return false;
            };
            it.entry = at;
            shard.entries.get(at).map(prefetch_value).is_some()
        });
        wanted.retain(|it| {
            let shard = self.shard(it.hash);
            let entry = shard.entries.get(it.entry);
            entry.is_some_and(|entry| entry.swarm.prefetch())
        });
        for step in [Group::prefetch_index, Group::prefetch_peer] {
            for Wanted { peer, hash, entry } in &wanted {
                let CompactAddr::V4(addr) = &peer.addr else {
                    continue;
                };
                let shard = self.shard(*hash);
                let swarm = shard.entries.get(*entry).map(|entry| &entry.swarm);
                if let Some(group) = swarm.and_then(|it| it.likely_group(peer.ia, &self.keys)) {
                    step(group, addr, &self.keys);
                }
            }
        }
    }

    /// Whether a peer of this host that is not here may enter.
    fn admit(&self, source: Host, swarm: Option<&Swarm>) -> Result<(), Refusal> {
        let ceilings = self.ceilings();
        if swarm.is_some_and(|swarm| swarm.len() >= ceilings.peers_per_torrent) {
            return Err(Refusal::SwarmLimit);
        }
        let here = ceilings.peers_per_source_in_torrent;
        if let Some(swarm) = swarm
            && here < NO_LIMIT
            && swarm.len() >= here as usize
            && swarm.peers_of(source, &self.keys) >= here
        {
            return Err(Refusal::HostInSwarmLimit);
        }
        if self.sources.count(source) >= ceilings.peers_per_source {
            return Err(Refusal::SourceLimit);
        }
        if self.bytes.load(Ordering::Relaxed) >= ceilings.memory {
            return Err(Refusal::MemoryLimit);
        }
        if swarm.is_none() && self.torrents.load(Ordering::Relaxed) >= ceilings.torrents {
            return Err(Refusal::TorrentLimit);
        }
        Ok(())
    }

    fn enter<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        now: Time,
        rng: &mut Rng,
        sink: &mut S,
    ) -> Result<Outcome, Refusal> {
        let tick = Tick::at(now);
        let hash = self.keys.hash_one(peer.info_hash);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        let found = shard.find(hash, &peer.info_hash);
        let swarm = found.map(|at| &shard.entries[at].swarm);
        let position = swarm.and_then(|swarm| swarm.find(peer, &self.keys));
        let before = swarm
            .zip(position)
            .and_then(|(swarm, position)| swarm.known(position))
            .map(|known| known.flags);
        let was_seed = before.map(Flags::seed);
        if position.is_none() {
            self.admit(Class::of(peer).source(peer.ia, &peer.addr), swarm)?;
        }
        let (is, was) = (Class::of(peer), before.map(Flags::class));
        if was != Some(is) {
            self.sources.add(is.source(peer.ia, &peer.addr));
            if let Some(was) = was {
                self.sources.remove(was.source(peer.ia, &peer.addr));
            }
        }
        let at = found.unwrap_or_else(|| {
            self.torrents.fetch_add(1, Ordering::Relaxed);
            self.account(0, ENTRY_BYTES);
            let (info_hash, swarm) = (peer.info_hash, Swarm::new());
            let completed = self.take_past(shard, hash, &info_hash);
            let entry = Entry {
                info_hash,
                completed,
                touched: tick,
                swarm,
            };
            shard.insert(entry, &self.keys)
        });
        let twin = position.is_none() && self.clients.enters(peer);
        let entry = &mut shard.entries[at];
        let before = entry.swarm.heap_bytes();
        let (position, completes) = entry.swarm.enter(peer, position, twin, tick, &self.keys);
        self.account(before, entry.swarm.heap_bytes());
        entry.touched = tick;
        let completes = completes && self.clients.completes(peer);
        if completes {
            entry.completed = entry.completed.saturating_add(1);
        }
        let (swarm, keys) = (&entry.swarm, &self.keys);
        if peer.seeder {
            swarm.hand_out_to_seed(peer, position, selection, keys, rng, sink);
        } else {
            swarm.hand_out(peer, position, selection, keys, rng, sink);
        }
        let counts = entry.swarm.counts(entry.completed);
        if let Some(seed) = was_seed {
            shard.leave(seed);
        }
        shard.enter(peer.seeder);
        let change = match was {
            Some(_) => Change::Refreshed,
            None => Change::Joined,
        };
        Ok(Outcome {
            counts,
            change,
            completed: completes,
        })
    }

    fn leave(&self, peer: &PeerEntry) -> Outcome {
        let hash = self.keys.hash_one(peer.info_hash);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        let Some(at) = shard.find(hash, &peer.info_hash) else {
            return Outcome {
                counts: shard.past_counts(hash, &peer.info_hash),
                change: Change::Unknown,
                completed: false,
            };
        };
        let mut change = Change::Unknown;
        let entry = &mut shard.entries[at];
        if let Some(position) = entry.swarm.find(peer, &self.keys)
            && let Some(Known { flags, id, .. }) = entry.swarm.known(position)
            && *id == peer.id
        {
            let before = entry.swarm.heap_bytes();
            entry.swarm.remove(peer, position, &self.keys);
            self.account(before, entry.swarm.heap_bytes());
            let class = flags.class();
            self.sources.remove(class.source(peer.ia, &peer.addr));
            self.clients.leaves(peer);
            shard.leave(flags.seed());
            change = Change::Left;
        }
        let entry = &shard.entries[at];
        let counts = entry.swarm.counts(entry.completed);
        if entry.swarm.len() == 0 {
            self.drop_entry(shard, at);
        }
        Outcome {
            counts,
            change,
            completed: false,
        }
    }
}

impl Registry for Memory {
    fn announce<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        now: Time,
        rng: &mut Rng,
        sink: &mut S,
    ) -> Result<Outcome, Refusal> {
        if peer.event == Event::Stopped {
            return Ok(self.leave(peer));
        }
        let mut done = self.enter(peer, selection, now, rng, sink);
        // Both limits may have to be met, one after the other.
        for _ in 0..2 {
            match done {
                Err(refusal @ (Refusal::TorrentLimit | Refusal::MemoryLimit))
                    if self.make_room(refusal, now) =>
                {
                    done = self.enter(peer, selection, now, rng, sink);
                }
                _ => break,
            }
        }
        done
    }

    fn look<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        rng: &mut Rng,
        sink: &mut S,
    ) -> SwarmCounts {
        let hash = self.keys.hash_one(peer.info_hash);
        let shard = self.shard(hash);
        let Some(at) = shard.find(hash, &peer.info_hash) else {
            return shard.past_counts(hash, &peer.info_hash);
        };
        let entry = &shard.entries[at];
        if peer.event != Event::Stopped {
            entry.swarm.look(peer, selection, &self.keys, rng, sink);
        }
        entry.swarm.counts(entry.completed)
    }

    fn scrape(&self, info_hash: &InfoHash) -> SwarmCounts {
        let hash = self.keys.hash_one(info_hash);
        let shard = self.shard(hash);
        let Some(at) = shard.find(hash, info_hash) else {
            return shard.past_counts(hash, info_hash);
        };
        let entry = &shard.entries[at];
        entry.swarm.counts(entry.completed)
    }

    fn retain(&self, info_hash: &InfoHash, mut keep: impl FnMut(IsdAs, bool) -> bool) -> u64 {
        let hash = self.keys.hash_one(info_hash);
        let mut cursor = Cursor::START;
        let mut removed = 0;
        loop {
            let mut shard = self.shard(hash);
            let Some(at) = shard.find(hash, info_hash) else {
                return removed;
            };
            let goes = |ia, head: &Record<()>| {
                let proven = ia != IsdAs::NONE && head.flags.class().standing() == Standing::Proven;
                let goes = !keep(ia, proven);
                removed += u64::from(goes);
                goes
            };
            let mut budget = RETAIN_STEP;
            if self.remove_where(&mut shard, at, &mut cursor, &mut budget, goes) {
                return removed;
            }
        }
    }

    fn prefetch(&self, peers: &[PeerKey]) {
        // With one there is nothing to do meanwhile.
        if peers.len() > 1 {
            for peers in peers.chunks(BATCH) {
                self.fetch(peers);
            }
        }
    }
}

pub mod transfer;

#[cfg(test)]
mod tests;
