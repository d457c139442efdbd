//! Download counts of empty swarms, so that `downloaded` outlives the last peer.

use ahash::RandomState;

use crate::registry::table::index::Index;
use crate::types::InfoHash;

/// Approximate size of one count in bytes, including the index.
pub(super) const COUNT_BYTES: usize = 32;

/// Number of counts that are compared when one is replaced.
const COMPARED: usize = 8;

/// The counts of one shard.
#[derive(Debug, Default)]
pub(super) struct PastDownloads {
    counts: Vec<(InfoHash, u32)>,
    /// Positions in `counts`, by info hash.
    index: Index,
    /// Where the next replacement starts. The oldest counts follow from here.
    hand: usize,
}

impl PastDownloads {
    /// The completed downloads of a swarm, 0 if none are known.
    pub(super) fn get(&self, hash: u64, info_hash: &InfoHash) -> u32 {
        self.find(hash, info_hash).map_or(0, |at| self.counts[at].1)
    }

    /// All counts.
    pub(super) fn counts(&self) -> &[(InfoHash, u32)] {
        &self.counts
    }

    fn find(&self, hash: u64, info_hash: &InfoHash) -> Option<usize> {
        self.index.find(hash, |at| self.counts[at].0 == *info_hash)
    }

    /// Removes and returns the count of a swarm that has peers again.
    pub(super) fn take(&mut self, hash: u64, info_hash: &InfoHash, keys: &RandomState) -> u32 {
        self.find(hash, info_hash)
            .map_or(0, |at| self.remove(at, keys))
    }

    /// Stores the count of a swarm that has none here. Keeps at most `limit` counts.
    pub(super) fn keep(
        &mut self,
        info_hash: InfoHash,
        completed: u32,
        limit: usize,
        keys: &RandomState,
    ) {
        if limit == 0 {
            return;
        }
        if self.counts.len() >= limit {
            self.replace(keys);
        }
        self.counts.push((info_hash, completed));
        let counts = &self.counts;
        self.index.push(|at| keys.hash_one(counts[at].0));
    }

    /// Removes one of the oldest counts, or one of seven others, spread over the list, if that has
    /// fewer downloads.
    fn replace(&mut self, keys: &RandomState) {
        let length = self.counts.len();
        let fewest = (0..COMPARED)
            .map(|nth| (self.hand + nth * length / COMPARED) % length)
            .min_by_key(|at| self.counts[*at].1);
        self.hand = (self.hand + 1) % length;
        if let Some(at) = fewest {
            self.remove(at, keys);
        }
    }

    fn remove(&mut self, at: usize, keys: &RandomState) -> u32 {
        let last = self.counts.len() - 1;
        let counts = &mut self.counts;
        self.index.swap(at, last, |at| keys.hash_one(counts[at].0));
        counts.swap(at, last);
        self.index.pop(|at| keys.hash_one(counts[at].0));
        counts.pop().map_or(0, |(_, completed)| completed)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<(InfoHash, u32)>() + self.index.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn info_hash(number: u32) -> InfoHash {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHash(hash)
    }

    #[test]
    fn a_flood_of_single_downloads_spares_larger_counts() {
        let keys = RandomState::with_seeds(1, 2, 3, 4);
        let get = |past: &PastDownloads, number: u32| {
            past.get(keys.hash_one(info_hash(number)), &info_hash(number))
        };
        let mut past = PastDownloads::default();
        for number in 0..LIMIT as u32 / 2 {
            past.keep(info_hash(number), 5, LIMIT, &keys);
        }
        for number in 1000..50_000 {
            past.keep(info_hash(number), 1, LIMIT, &keys);
            assert!(past.counts.len() <= LIMIT);
            assert_eq!(get(&past, number), 1, "the newest count is there");
        }
        let spared = (0..LIMIT as u32 / 2).filter(|number| get(&past, *number) == 5);
        assert!(spared.count() > LIMIT / 4);
        assert_eq!(get(&past, 1000), 0, "an old count was replaced");
    }

    #[test]
    fn without_a_flood_the_oldest_goes_first() {
        let keys = RandomState::with_seeds(1, 2, 3, 4);
        let mut past = PastDownloads::default();
        for number in 0..LIMIT as u32 + 16 {
            past.keep(info_hash(number), 1, LIMIT, &keys);
        }
        for number in 0..LIMIT as u32 + 16 {
            let hash = keys.hash_one(info_hash(number));
            let known = past.take(hash, &info_hash(number), &keys) == 1;
            assert_eq!(known, number >= 16, "{number}");
        }
        assert_eq!(past.counts.len(), 0);
    }
}
