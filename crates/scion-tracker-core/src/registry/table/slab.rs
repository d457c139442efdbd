//! A list that grows by a fixed step and never moves its entries.
//!
//! A thousand vectors that grow by copying leave holes of every size, and the boxes of peers fill
//! these holes. With one peer per torrent, half of the memory of the list was lost that way.

use std::ops::{Index, IndexMut};

/// Number of entries that are allocated together.
const STEP: usize = 64;

#[derive(Debug)]
pub(in crate::registry) struct Slab<T> {
    /// Steps with room for [`STEP`] entries each: full ones, then one that may be partly filled,
    /// then at most one that is empty. The empty one is kept so that a shard at the edge does not
    /// allocate repeatedly. They are vectors because their lengths are next to the pointers, which
    /// an access reads anyway.
    steps: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    pub(in crate::registry) const fn len(&self) -> usize {
        self.len
    }

    pub(in crate::registry) fn get(&self, at: usize) -> Option<&T> {
        self.steps.get(at / STEP)?.get(at % STEP)
    }

    pub(in crate::registry) fn push(&mut self, entry: T) {
        let step = self.len / STEP;
        if step == self.steps.len() {
            self.steps.push(Vec::with_capacity(STEP));
        }
        self.steps[step].push(entry);
        self.len += 1;
    }

    /// Removes an entry, which must exist. The last entry moves to its position.
    pub(in crate::registry) fn swap_remove(&mut self, at: usize) -> T {
        self.len -= 1;
        let last = self.len / STEP;
        if at / STEP == last {
            let removed = self.steps[last].swap_remove(at % STEP);
            self.trim();
            return removed;
        }
        let moved = self.steps[last].swap_remove(self.len % STEP);
        self.trim();
        std::mem::replace(&mut self[at], moved)
    }

    /// Frees the second empty step.
    fn trim(&mut self) {
        if self.steps.len() > self.len / STEP + 1 {
            self.steps.truncate(self.len / STEP + 1);
            if self.steps.capacity() > 2 * self.steps.len() + 8 {
                self.steps.shrink_to_fit();
            }
        }
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.steps[at / STEP][at % STEP]
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.steps[at / STEP][at % STEP]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn agrees_with_a_list(ops in proptest::collection::vec(proptest::option::weighted(0.6, proptest::num::u8::ANY), 0..600)) {
            let mut slab = Slab::default();
            let mut list = Vec::new();
            for (number, op) in ops.into_iter().enumerate() {
                match op {
                    Some(at) if at % 3 != 0 && !list.is_empty() => {
                        let at = usize::from(at) % list.len();
                        proptest::prop_assert_eq!(slab.swap_remove(at), list.swap_remove(at));
                    }
                    _ => {
                        slab.push(number);
                        list.push(number);
                    }
                }
                proptest::prop_assert_eq!(slab.len(), list.len());
                proptest::prop_assert!(list.iter().enumerate().all(|(at, entry)| slab[at] == *entry));
            }
        }
    }
}
