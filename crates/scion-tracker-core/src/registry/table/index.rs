//! An index into a list, by hash: one word per entry, found in one cache line.
//!
//! It uses open addressing with linear probing (Knuth, TAOCP 6.4, algorithm L; removal as in
//! algorithm R). A word holds a position in the list. The bits that a position of this list does
//! not need hold bits of the hash, so a probe seldom has to read the entry itself. A table with
//! separate control bytes touches two lines for that, and cannot prefetch them.

use crate::registry::prefetch::prefetch;

/// A word without a position. Positions never get near this number.
const FREE: u32 = u32::MAX;

/// Size of the smallest table, in words.
const LEAST: usize = 8;

/// The positions of a list, by the hashes of its entries.
///
/// It stores nothing of the entries. `hash_of` returns the hash of the entry at a position, and
/// must always be the same function.
#[derive(Debug, Default)]
pub(in crate::registry) struct Index {
    /// The number of words is a power of two, or zero. At most three in four hold a position.
    words: Box<[u32]>,
    len: u32,
}

impl Index {
    /// Number of positions.
    pub(in crate::registry) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Heap memory in bytes.
    pub(in crate::registry) const fn heap_bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// The bits of a word that hold the position. This is also the last slot of the table.
    #[inline]
    const fn mask(&self) -> u32 {
        (self.words.len() as u32).wrapping_sub(1)
    }

    #[inline]
    const fn tag(&self, hash: u64) -> u32 {
        (hash >> 32) as u32 & !self.mask()
    }

    #[inline]
    const fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask() as usize
    }

    /// Finds the position with this hash for which `is` returns true.
    #[inline]
    pub(in crate::registry) fn find(
        &self,
        hash: u64,
        is: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        self.slot(hash, is)
            .map(|slot| (self.words[slot] & self.mask()) as usize)
    }

    /// Returns the slot that holds the position.
    #[inline]
    fn slot(&self, hash: u64, mut is: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let (mask, tag) = (self.mask(), self.tag(hash));
        let mut slot = self.home(hash);
        loop {
            let word = self.words[slot];
            if word == FREE {
                return None;
            }
            if word & !mask == tag && is((word & mask) as usize) {
                return Some(slot);
            }
            slot = (slot + 1) & mask as usize;
        }
    }

    /// Prefetches the memory where a search for this hash begins.
    #[inline]
    pub(in crate::registry) fn prefetch(&self, hash: u64) {
        if let Some(word) = self.words.get(self.home(hash)) {
            prefetch(word);
        }
    }

    /// The first position that a search for this hash checks, if any.
    #[inline]
    pub(in crate::registry) fn candidate(&self, hash: u64) -> Option<usize> {
        self.find(hash, |_| true)
    }

    /// Adds the position after the last one. Its entry is already in the list.
    pub(in crate::registry) fn push(&mut self, hash_of: impl Fn(usize) -> u64) {
        if (self.len() + 1) * 4 > self.words.len() * 3 {
            self.rebuild((self.words.len() * 2).max(LEAST), &hash_of);
        }
        self.put(self.len, hash_of(self.len()));
        self.len += 1;
    }

    fn put(&mut self, position: u32, hash: u64) {
        let mask = self.mask() as usize;
        let mut slot = self.home(hash);
        while self.words[slot] != FREE {
            slot = (slot + 1) & mask;
        }
        self.words[slot] = self.tag(hash) | position;
    }

    /// Swaps two positions. Call it before the entries are swapped.
    pub(in crate::registry) fn swap(
        &mut self,
        one: usize,
        other: usize,
        hash_of: impl Fn(usize) -> u64,
    ) {
        let [first, second] =
            [one, other].map(|position| self.slot(hash_of(position), |found| found == position));
        if let (Some(first), Some(second)) = (first, second) {
            let changed = (self.words[first] ^ self.words[second]) & self.mask();
            self.words[first] ^= changed;
            self.words[second] ^= changed;
        }
    }

    /// Removes the last position. Its entry is still in the list.
    pub(in crate::registry) fn pop(&mut self, hash_of: impl Fn(usize) -> u64) {
        let Some(last) = self.len().checked_sub(1) else {
            return;
        };
        let Some(mut gap) = self.slot(hash_of(last), |found| found == last) else {
            return;
        };
        self.len -= 1;
        let mask = self.mask() as usize;
        let mut slot = gap;
        loop {
            slot = (slot + 1) & mask;
            let word = self.words[slot];
            if word == FREE {
                break;
            }
            let home = self.home(hash_of(word as usize & mask));
            // Closes the gap with an entry that was displaced past it or into it.
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(gap) & mask {
                self.words[gap] = word;
                gap = slot;
            }
        }
        self.words[gap] = FREE;
        if self.len() * 8 < self.words.len() && self.words.len() > LEAST {
            self.rebuild(self.words.len() / 2, &hash_of);
        }
    }

    /// Makes a table of this many words, a power of two.
    fn rebuild(&mut self, words: usize, hash_of: &impl Fn(usize) -> u64) {
        self.words = vec![FREE; words].into_boxed_slice();
        // Inserts in the order of the list, which is then read sequentially.
        for position in 0..self.len {
            self.put(position, hash_of(position as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few different hashes, so that they collide, both as a whole and in the slots where searches
    /// begin.
    fn hash(entry: u32) -> u64 {
        let few = u64::from(entry % 13);
        few << 40 | few.wrapping_mul(0x9e37) & 0x1f
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_list(ops in proptest::collection::vec((0u8..8, proptest::num::u16::ANY), 0..400)) {
            let mut index = Index::default();
            let mut list: Vec<u32> = Vec::new();
            for (number, (op, at)) in ops.into_iter().enumerate() {
                match op {
                    0..=4 => {
                        list.push(number as u32);
                        index.push(|at| hash(list[at]));
                    }
                    _ if list.is_empty() => {}
                    5 => {
                        let (one, other) = (usize::from(at) % list.len(), usize::from(at / 7) % list.len());
                        index.swap(one, other, |at| hash(list[at]));
                        list.swap(one, other);
                    }
                    _ => {
                        index.pop(|at| hash(list[at]));
                        list.pop();
                    }
                }
                proptest::prop_assert_eq!(index.len(), list.len());
                for (at, entry) in list.iter().enumerate() {
                    proptest::prop_assert_eq!(index.find(hash(*entry), |at| list[at] == *entry), Some(at));
                }
                for gone in (0..number as u32).filter(|entry| !list.contains(entry)) {
                    proptest::prop_assert_eq!(index.find(hash(gone), |at| list[at] == gone), None);
                }
                let held = index.words.iter().filter(|word| **word != FREE).count();
                proptest::prop_assert_eq!(held, list.len());
                proptest::prop_assert!(held * 4 <= index.words.len() * 3);
            }
        }
    }

    #[test]
    fn gives_memory_back() {
        let mut index = Index::default();
        let hash = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..10_000 {
            index.push(hash);
        }
        let full = index.heap_bytes();
        assert!(full <= 10_000 * 8 * 4 / 3);
        for _ in 0..9_900 {
            index.pop(hash);
        }
        assert!(index.heap_bytes() <= full / 16);
        assert!((0..100).all(|at| index.find(hash(at), |found| found == at) == Some(at)));
    }
}
