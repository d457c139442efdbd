//! Running sums over a list of tallies, updated in O(log n), to find the entry of the n-th peer.
//!
//! This is a Fenwick tree (P. Fenwick, "A new data structure for cumulative frequency tables",
//! 1994).

use smallvec::SmallVec;

use crate::select::{Kind, Tally};

#[derive(Debug, Default)]
pub(in crate::registry) struct Fenwick {
    /// Node `i` (from 1) holds the sum of the entries `i - lowest_bit(i) .. i`, at index `i - 1`.
    nodes: SmallVec<[Tally; 1]>,
    total: Tally,
}

impl Fenwick {
    pub(in crate::registry) const fn total(&self) -> Tally {
        self.total
    }

    /// Appends an empty entry.
    pub(in crate::registry) fn push_empty(&mut self) {
        let node = self.nodes.len() + 1;
        let below = self.prefix(node - 1);
        let before = self.prefix(node - (node & node.wrapping_neg()));
        self.nodes.push(below - before);
    }

    /// Removes an entry, which must be empty. The last entry moves to its position.
    pub(in crate::registry) fn swap_remove_empty(&mut self, entry: usize) {
        let last = self.nodes.len() - 1;
        let moved = self.prefix(last + 1) - self.prefix(last);
        self.sub(last, moved);
        self.nodes.pop();
        if entry != last {
            self.add(entry, moved);
        }
    }

    pub(in crate::registry) fn add(&mut self, entry: usize, tally: Tally) {
        self.total += tally;
        let mut node = entry + 1;
        while node <= self.nodes.len() {
            self.nodes[node - 1] += tally;
            node += node & node.wrapping_neg();
        }
    }

    pub(in crate::registry) fn sub(&mut self, entry: usize, tally: Tally) {
        self.total = self.total - tally;
        let mut node = entry + 1;
        while node <= self.nodes.len() {
            self.nodes[node - 1] = self.nodes[node - 1] - tally;
            node += node & node.wrapping_neg();
        }
    }

    /// Returns the sum of all entries before this one.
    pub(in crate::registry) fn prefix(&self, entry: usize) -> Tally {
        let mut sum = Tally::default();
        let mut node = entry;
        while node > 0 {
            sum += self.nodes[node - 1];
            node &= node - 1;
        }
        sum
    }

    /// Returns the entry of the `nth` peer of this kind, and the number of the peer within it.
    /// `nth` must be less than the total of the kind.
    #[inline]
    pub(in crate::registry) fn find(&self, kind: Kind, mut nth: u32) -> (usize, u32) {
        if self.nodes.len() == 1 {
            return (0, nth);
        }
        let mut entry = 0;
        let mut step = self.nodes.len().next_power_of_two();
        while step > 0 {
            if let Some(node) = self.nodes.get(entry + step - 1) {
                let below = node.of(kind);
                if below <= nth {
                    nth -= below;
                    entry += step;
                }
            }
            step /= 2;
        }
        (entry, nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Compares with plain sums over a list.
        #[test]
        fn agrees_with_a_list(ops: Vec<(u8, u8, bool)>) {
            let mut tree = Fenwick::default();
            let mut list: Vec<Tally> = Vec::new();
            for (op, at, seed) in ops {
                let one = Tally { seeds: u32::from(seed), leechers: u32::from(!seed) };
                let entry = if list.is_empty() { 0 } else { usize::from(at) % list.len() };
                match op % 4 {
                    0 => {
                        tree.push_empty();
                        list.push(Tally::default());
                    }
                    1 | 2 if !list.is_empty() => {
                        tree.add(entry, one);
                        list[entry] += one;
                    }
                    3 if !list.is_empty() => {
                        tree.sub(entry, list[entry]);
                        tree.swap_remove_empty(entry);
                        list.swap_remove(entry);
                    }
                    _ => {}
                }
                let mut sum = Tally::default();
                for (entry, tally) in list.iter().enumerate() {
                    proptest::prop_assert_eq!(tree.prefix(entry), sum);
                    for kind in [Kind::Anyone, Kind::Seeds, Kind::Leechers] {
                        for nth in 0..tally.of(kind) {
                            proptest::prop_assert_eq!(tree.find(kind, sum.of(kind) + nth), (entry, nth));
                        }
                    }
                    sum += *tally;
                }
                proptest::prop_assert_eq!(tree.total(), sum);
            }
        }
    }
}
