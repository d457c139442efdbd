//! Evicts idle swarms to make room for new peers at the limits of torrents and memory.
//!
//! A clock hand visits the torrents in turn, as in the page replacement algorithm CLOCK (F.
//! Corbató, "A Paging Experiment with the Multics System", 1969). Every new peer that would be
//! refused moves it by a bounded number of torrents. [`Ceilings`](super::ceilings::Ceilings) says
//! what may be evicted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::registry::memory::{Memory, SHARDS};
use crate::registry::shard::{Entry, Shard};
use crate::registry::table::record::Tick;
use crate::response::Refusal;
use crate::types::Time;

/// Most torrents that one search visits.
const VISITS: usize = 256;
/// Most torrents that a search visits in one shard, under one lock.
const STRIDE: usize = 64;
/// A search ends when it has found this many idle swarms. It takes the one that has been silent for
/// longest.
const ENOUGH: usize = 16;
/// Most swarms that one announce evicts. The limit of memory may need more than one.
const EVICTIONS: usize = 4;
/// Largest swarm that is evicted at once. The sweep removes larger ones step by step.
const LARGEST: usize = 256;
/// The sweep keeps one in this many torrents and bytes free.
const RESERVE: usize = 64;

/// The clock hand.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// Number of visited shards. The next shard is this number modulo [`SHARDS`].
    next: AtomicUsize,
    /// The tick of the last search, and in the lower half the number of shards visited in this tick
    /// since the last idle swarm was found. No swarm becomes idle within a tick, so one round per
    /// tick is enough.
    fruitless: AtomicU64,
    /// Number of shards visited to drop download counts.
    next_counts: AtomicUsize,
}

impl Hand {
    /// Whether the hand may have missed an idle swarm in this tick.
    fn is_worthwhile(&self, now: Time, torrents: usize) -> bool {
        // Shards differ in size, so a round ends when the hand has visited all of the largest one.
        let round = torrents / STRIDE * 9 / 8 + 2 * SHARDS;
        let state = self.fruitless.load(Ordering::Relaxed);
        state >> 32 != Self::tick(now) || (state & u64::from(u32::MAX)) < round as u64
    }

    /// Two concurrent searches may count too few steps. The next tick starts from zero again.
    fn note(&self, now: Time, steps: usize, found: bool) {
        let state = self.fruitless.load(Ordering::Relaxed);
        let before = match state >> 32 == Self::tick(now) {
            true => state & u64::from(u32::MAX),
            false => 0,
        };
        let steps = if found { 0 } else { before + steps as u64 };
        let steps = steps.min(u64::from(u32::MAX));
        self.fruitless
            .store(Self::tick(now) << 32 | steps, Ordering::Relaxed);
    }

    fn tick(now: Time) -> u64 {
        u64::from(now.as_secs() / Tick::SECONDS)
    }
}

/// The position of an idle swarm. The swarm may have changed since.
struct Idle {
    shard: usize,
    position: usize,
    /// Seconds without an announce.
    age: u32,
}

impl Memory {
    /// Makes room for a new peer that was refused. Returns false if nothing can be evicted.
    pub(super) fn make_room(&self, refusal: Refusal, now: Time) -> bool {
        let full = || match refusal {
            Refusal::TorrentLimit => self.torrents() >= self.ceilings().torrents,
            _ => self.bytes() >= self.ceilings().memory,
        };
        if refusal == Refusal::MemoryLimit {
            self.drop_past_counts();
        }
        for _ in 0..EVICTIONS {
            if !full() {
                return true;
            }
            let Some(idle) = self.find_idle(now) else {
                return false;
            };
            let mut shard = self.shards[idle.shard].0.lock();
            if let Some(entry) = shard.entries.get(idle.position)
                && self.idle_for(entry, Tick::at(now)).is_some()
            {
                self.drop_entry(&mut shard, idle.position);
            }
        }
        !full()
    }

    /// Whether the sweep evicts idle swarms.
    pub(super) fn is_nearly_full(&self) -> bool {
        let ceilings = self.ceilings();
        self.torrents() >= ceilings.torrents - ceilings.torrents / RESERVE
            || self.bytes() >= ceilings.memory - ceilings.memory / RESERVE
    }

    /// How long a swarm must be idle to be evicted at once, in seconds.
    fn idle_for(&self, entry: &Entry, now: Tick) -> Option<u32> {
        let age = entry.touched.age(now);
        (age > self.ceilings().evict_after && entry.swarm.len() <= LARGEST).then_some(age)
    }

    /// Moves the hand until it has found [`ENOUGH`] idle swarms or visited [`VISITS`] torrents.
    fn find_idle(&self, now: Time) -> Option<Idle> {
        if !self.hand.is_worthwhile(now, self.torrents()) {
            return None;
        }
        let tick = Tick::at(now);
        let mut oldest: Option<Idle> = None;
        let (mut visits, mut found, mut steps) = (0, 0, 0);
        while steps < SHARDS && visits < VISITS && found < ENOUGH {
            let number = self.hand.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[number].0.lock();
            steps += 1;
            for _ in 0..shard.entries.len().min(STRIDE) {
                visits += 1;
                let position = shard.next_visit();
                let Some(age) = self.idle_for(&shard.entries[position], tick) else {
                    continue;
                };
                found += 1;
                if oldest.as_ref().is_none_or(|idle| idle.age < age) {
                    oldest = Some(Idle {
                        shard: number,
                        position,
                        age,
                    });
                }
                if found == ENOUGH {
                    break;
                }
            }
        }
        self.hand.note(now, steps, oldest.is_some());
        oldest
    }

    /// Drops the download counts of one shard that has some.
    fn drop_past_counts(&self) {
        if self.past_bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        for _ in 0..SHARDS {
            let number = self.hand.next_counts.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[number].0.lock();
            if let Some(past) = shard.past.take() {
                self.account_past(past.heap_bytes(), 0);
                return;
            }
        }
    }
}

impl Shard {
    /// The next position of the clock hand, downwards: an entry that moves to the position of a
    /// removed one has been visited in this round.
    fn next_visit(&mut self) -> usize {
        let length = self.entries.len();
        let hand = (self.hand as usize).min(length);
        let position = if hand == 0 { length - 1 } else { hand - 1 };
        self.hand = position as u32;
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{CompactAddr, IsdAs};
    use crate::registry::memory::{Ceilings, Sweep};
    use crate::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
    use crate::request::Event;
    use crate::response::{NoPeers, Reach};
    use crate::select::Policy;
    use crate::types::{InfoHash, PeerId, Rng};

    const START: Time = Time::from_secs(100);

    fn idle_from(ceilings: &Ceilings) -> Time {
        Time::from_secs(START.as_secs() + ceilings.evict_after + 8)
    }

    fn peer(torrent: u32, number: u32) -> PeerEntry {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&torrent.to_be_bytes());
        PeerEntry {
            info_hash: InfoHash(hash),
            ia: IsdAs::NONE,
            addr: CompactAddr::new(std::net::IpAddr::from(number.to_be_bytes()), 6881),
            id: PeerId([7; 20]),
            key: None,
            reach: Reach::Ip,
            scope: Scope::Global,
            verified: false,
            seeder: false,
            event: Event::None,
        }
    }

    fn announce(memory: &Memory, peer: &PeerEntry, now: Time) -> Result<(), Refusal> {
        let selection = Selection {
            numwant: 0,
            policy: &Policy::default(),
            accepts: Accepts {
                first: Classes::NONE,
                then: Classes::NONE,
            },
        };
        let mut rng = Rng::with_seed(1);
        memory
            .announce(peer, &selection, now, &mut rng, &mut NoPeers)
            .map(|_| ())
    }

    fn full(torrents: u32) -> Memory {
        let ceilings = Ceilings {
            torrents: torrents as usize,
            ..Ceilings::default()
        };
        let memory = Memory::new(ceilings, [1, 2, 3, 4]);
        for torrent in 0..torrents {
            announce(&memory, &peer(torrent, torrent), START).unwrap();
        }
        memory
    }

    fn steps(memory: &Memory) -> usize {
        memory.hand.next.load(Ordering::Relaxed)
    }

    #[test]
    fn refused_newcomers_find_the_only_idle_swarm() {
        for torrents in [100, 4000, 200_000] {
            let memory = full(torrents);
            let now = idle_from(&memory.ceilings());
            for torrent in 1..torrents {
                announce(&memory, &peer(torrent, torrent), now).unwrap();
            }
            let newcomer = peer(u32::MAX, u32::MAX);
            let tries = (0..torrents)
                .take_while(|_| announce(&memory, &newcomer, now).is_err())
                .count();
            // One round for shards of different sizes, and the two extra rounds of the hand.
            let most = torrents as usize / STRIDE * 9 / 8 + 2 * SHARDS;
            assert!(
                steps(&memory) <= most,
                "{torrents}: {} steps",
                steps(&memory)
            );
            let per_try =
                (VISITS / STRIDE).max(SHARDS * VISITS / (torrents as usize).max(VISITS) / 2);
            assert!(tries <= most.div_ceil(per_try), "{torrents}: {tries} tries");
        }
    }

    #[test]
    fn a_round_in_vain_is_not_repeated_within_a_tick() {
        let memory = full(4000);
        let newcomer = peer(u32::MAX, u32::MAX);
        let refused = |now| {
            let before = steps(&memory);
            for _ in 0..1000 {
                assert_eq!(
                    announce(&memory, &newcomer, now),
                    Err(Refusal::TorrentLimit)
                );
            }
            steps(&memory) - before
        };
        let first = refused(START);
        assert!((SHARDS..4 * SHARDS).contains(&first), "{first}");
        assert_eq!(refused(START), 0);
        let next_tick = Time::from_secs(START.as_secs() + 8);
        assert!(refused(next_tick) > 0);
    }

    #[test]
    fn the_sweep_takes_apart_what_is_too_large_to_evict_at_once() {
        let ceilings = Ceilings {
            torrents: 1,
            ..Ceilings::default()
        };
        let memory = Memory::new(ceilings, [1, 2, 3, 4]);
        for number in 0..LARGEST as u32 + 1 {
            announce(&memory, &peer(0, number), START).unwrap();
        }
        let newcomer = peer(1, 0);
        let now = idle_from(&ceilings);
        assert_eq!(
            announce(&memory, &newcomer, now),
            Err(Refusal::TorrentLimit)
        );
        let mut sweep = Sweep::default();
        while !memory.sweep(&mut sweep, now, 50) {}
        announce(&memory, &newcomer, now).unwrap();
    }

    #[test]
    fn download_counts_go_before_swarms() {
        let ceilings = Ceilings {
            memory: 1 << 20,
            ..Ceilings::default()
        };
        let memory = Memory::new(ceilings, [1, 2, 3, 4]);
        for torrent in 0..1000 {
            for (seeder, event) in [
                (false, Event::None),
                (true, Event::Completed),
                (true, Event::Stopped),
            ] {
                let peer = PeerEntry {
                    seeder,
                    event,
                    ..peer(torrent, torrent)
                };
                announce(&memory, &peer, START).unwrap();
            }
        }
        assert!(memory.past_bytes.load(Ordering::Relaxed) > 0);
        let mut entered = 0;
        while announce(&memory, &peer(10_000 + entered, entered), START).is_ok() {
            entered += 1;
        }
        assert_eq!(memory.past_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(memory.torrents(), entered as usize);
    }
}
