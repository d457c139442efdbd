//! Completed downloads that are not in the store yet, one number per torrent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use scion_tracker_core::types::InfoHash;

/// Most torrents with counts that wait: some 30 MB. They wait while the store cannot be written.
const MOST: usize = 1 << 19;

/// Counts that wait. Peers add to it; the writer of the records takes all of it from time to time.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    waiting: Mutex<HashMap<InfoHash, u32>>,
    /// Downloads that were not noted, because too many torrents had some.
    dropped: AtomicU64,
}

impl Completed {
    /// Notes a completed download.
    pub(crate) fn add(&self, info_hash: InfoHash) {
        self.add_many([(info_hash, 1)]);
    }

    /// Notes counts, also those that could not be written.
    pub(crate) fn add_many(&self, counts: impl IntoIterator<Item = (InfoHash, u32)>) {
        let mut waiting = self.waiting.lock();
        for (info_hash, count) in counts {
            if waiting.len() >= MOST && !waiting.contains_key(&info_hash) {
                self.dropped.fetch_add(count.into(), Ordering::Relaxed);
                continue;
            }
            let sum = waiting.entry(info_hash).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Takes all counts.
    pub(crate) fn take(&self) -> HashMap<InfoHash, u32> {
        std::mem::take(&mut self.waiting.lock())
    }

    /// Torrents with counts that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
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
        assert_eq!(
            (taken.len(), taken[&hash(0)], taken[&hash(1)]),
            (MOST, 2, 1)
        );
        completed.add(hash(MOST + 9));
        completed.add_many(taken);
        assert_eq!((completed.waiting(), completed.dropped()), (MOST, 4));
    }
}
