//! An index into a list, by hash: one word an entry, found in one cache line.
//!
//! Open addressing with linear probing (Knuth, TAOCP 6.4, algorithm L; removal as in algorithm R). A
//! word holds a position in the list and, in the bits that a position of this list does not need, bits of
//! the hash, so that a probe seldom has to look at the entry itself. A table with control bytes of its
//! own touches two lines for that, and cannot be told to fetch them beforehand.

use crate::registry::prefetch::prefetch;

/// A word without a position. No position comes near the number of words, so it stands for none.
const FREE: u32 = u32::MAX;

/// The smallest table.
const LEAST: usize = 8;

/// The positions of a list, each by the hash of what is there.
///
/// Nothing is stored of the entries: `hash_of` gives the hash of the one at a position, and has to be
/// the same function all the time.
#[derive(Debug, Default)]
pub(in crate::registry) struct Index {
    /// As many as a power of two, or none. At most three in four hold a position.
    words: Box<[u32]>,
    len: u32,
}

impl Index {
    /// How many positions are in it.
    pub(in crate::registry) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of the heap behind it.
    pub(in crate::registry) const fn heap_bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// The bits of a word that hold the position; also the last slot of the table.
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

    /// The position with this hash that `is` it.
    #[inline]
    pub(in crate::registry) fn find(
        &self,
        hash: u64,
        is: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        self.slot(hash, is)
            .map(|slot| (self.words[slot] & self.mask()) as usize)
    }

    /// Slot of the table that holds the position.
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

    /// Has the memory in which a search for this hash begins fetched.
    #[inline]
    pub(in crate::registry) fn prefetch(&self, hash: u64) {
        if let Some(word) = self.words.get(self.home(hash)) {
            prefetch(word);
        }
    }

    /// The position that a search for this hash looks at first, if any.
    #[inline]
    pub(in crate::registry) fn candidate(&self, hash: u64) -> Option<usize> {
        self.find(hash, |_| true)
    }

    /// Adds the position after the last one, whose entry is in the list already.
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

    /// Lets two positions swap; the entries have not done so yet.
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

    /// Removes the last position, whose entry is still in the list.
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
            // Whoever has been pushed on past the gap, or into it, closes it.
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

    /// Makes a table of so many words, a power of two.
    fn rebuild(&mut self, words: usize, hash_of: &impl Fn(usize) -> u64) {
        self.words = vec![FREE; words].into_boxed_slice();
        // In the order of the list, which is read from end to end so.
        for position in 0..self.len {
            self.put(position, hash_of(position as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few different hashes, so that they collide, in whole and in the slots where searches begin.
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
