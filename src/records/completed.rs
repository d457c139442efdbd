//! Completed downloads that are not in the store yet, one number per torrent.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use scion_tracker_core::types::InfoHash;

use super::Counts;

/// Most torrents with counts that wait: some 30 MB. They wait while the store cannot be written.
const MOST: usize = 1 << 19;
/// Parts with a lock each, so that an announce never waits for the growth of the whole.
const PARTS: usize = 64;

/// Counts that wait. Peers add to it; the writer of the records takes all of it from time to time.
#[derive(Debug)]
pub(crate) struct Completed {
    parts: [Mutex<HashMap<InfoHash, u32>>; PARTS],
    keys: RandomState,
    /// Torrents in all parts.
    waiting: AtomicUsize,
    /// Downloads that were not noted, because too many torrents had some.
    dropped: AtomicU64,
    /// Nobody takes them.
    is_off: AtomicBool,
}

impl Default for Completed {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            keys: RandomState::new(),
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
        }
    }
}

impl Completed {
    /// Notes nothing from now on.
    pub(crate) fn turn_off(&self) {
        self.is_off.store(true, Ordering::Relaxed);
    }

    /// Notes a completed download.
    pub(crate) fn add(&self, info_hash: InfoHash) {
        if !self.is_off.load(Ordering::Relaxed) {
            self.add_some(info_hash, 1);
        }
    }

    /// Notes counts again that could not be written.
    pub(crate) fn add_many(&self, counts: Counts) {
        for (info_hash, count) in counts {
            self.add_some(info_hash, count);
        }
    }

    fn add_some(&self, info_hash: InfoHash, count: u32) {
        let part = self.keys.hash_one(info_hash) as usize % PARTS;
        let mut part = self.parts[part].lock();
        if let Some(sum) = part.get_mut(&info_hash) {
            *sum = sum.saturating_add(count);
        } else if self.waiting.load(Ordering::Relaxed) < MOST {
            part.insert(info_hash, count);
            self.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.dropped.fetch_add(count.into(), Ordering::Relaxed);
        }
    }

    /// Takes all counts.
    pub(crate) fn take(&self) -> Counts {
        let mut counts = Vec::with_capacity(self.waiting());
        for part in &self.parts {
            let taken = std::mem::take(&mut *part.lock());
            self.waiting.fetch_sub(taken.len(), Ordering::Relaxed);
            counts.extend(taken);
        }
        counts
    }

    /// Torrents with counts that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Downloads that were lost, because too many torrents had some.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> InfoHash {
        let mut hash = [7; 20];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        InfoHash(hash)
    }

    #[test]
    fn counts_are_summed_and_bounded() {
        let completed = Completed::default();
        for number in 0..MOST + 3 {
            completed.add(hash(number));
        }
        completed.add(hash(0));
        assert_eq!((completed.waiting(), completed.dropped()), (MOST, 3));
        let taken = completed.take();
        assert_eq!((taken.len(), completed.waiting()), (MOST, 0));
        let sum: u32 = taken.iter().map(|(_, count)| count).sum();
        assert_eq!(sum as usize, MOST + 1);
        assert!(taken.contains(&(hash(0), 2)));
        completed.add(hash(MOST + 9));
        completed.add_many(taken);
        assert_eq!(completed.waiting(), MOST);
        assert!((4..=5).contains(&completed.dropped()));
        completed.turn_off();
        completed.add(hash(0));
        assert!(completed.take().iter().all(|(_, count)| *count <= 2));
    }
}
