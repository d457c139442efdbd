//! Indexes the peers of one class in a large swarm by ISD and AS, and numbers them with running
//! sums.

use ahash::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::address::IsdAs;
use crate::registry::large::fenwick::Fenwick;
use crate::registry::large::group::Group;
use crate::registry::table::record::{Class, Packed, Record};
use crate::request::Family;
use crate::select::{Kind, Tally};

/// The peers of one class and family.
#[derive(Debug)]
pub(in crate::registry) struct ClassIndex<P> {
    pub(in crate::registry) class: Class,
    /// Whether these are peers without a place: one ISD, 0, with one AS, 0.
    pub(in crate::registry) unplaced: bool,
    /// The first ISD is inline: most swarms have no other.
    pub(in crate::registry) isds: SmallVec<[Isd<P>; 1]>,
    pub(in crate::registry) sums: Fenwick,
    /// Positions in `isds`, by ISD.
    isd_index: HashTable<u32>,
    /// Positions in `isds` and its `groups`, by ISD-AS.
    group_index: HashTable<(u32, u32)>,
    /// Heap memory in bytes.
    pub(in crate::registry) bytes: usize,
}

/// Memory per group for the lists, sums and indexes, including room to grow. The first group of an
/// ISD is part of the ISD.
const fn group_bytes<P>(first: bool) -> usize {
    let listed = (size_of::<Group<P>>() + size_of::<Tally>()) * 3 / 2;
    2 * size_of::<[u32; 2]>() + if first { 0 } else { listed }
}

/// The same per ISD.
const fn isd_bytes<P>(first: bool) -> usize {
    let listed = (size_of::<Isd<P>>() + size_of::<Tally>()) * 3 / 2;
    2 * size_of::<u32>() + if first { 0 } else { listed }
}

#[derive(Debug)]
pub(in crate::registry) struct Isd<P> {
    isd: u16,
    pub(in crate::registry) groups: SmallVec<[Group<P>; 1]>,
    pub(in crate::registry) sums: Fenwick,
}

/// The position of a peer in a large swarm, until the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Slot {
    pub(in crate::registry) family: Family,
    pub(in crate::registry) index: u32,
    pub(in crate::registry) isd: u32,
    pub(in crate::registry) group: u32,
    pub(in crate::registry) position: u32,
}

/// The progress of an expiry. All bounds are exclusive and go downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Cursor {
    pub(in crate::registry) six: u32,
    pub(in crate::registry) index: u32,
    isd: u32,
    group: u32,
    position: u32,
}

impl Cursor {
    pub(in crate::registry) const START: Self = Self {
        six: 2,
        index: u32::MAX,
        isd: u32::MAX,
        group: u32::MAX,
        position: u32::MAX,
    };
}

pub(in crate::registry) const fn one(seed: bool) -> Tally {
    Tally {
        seeds: seed as u32,
        leechers: !seed as u32,
    }
}

impl<P> Isd<P> {
    /// Returns the group of the `nth` peer of a kind in this ISD, and the number of the peer there.
    #[inline]
    pub(in crate::registry) fn nth(&self, kind: Kind, nth: u32) -> (&Group<P>, u32) {
        let (group, nth) = self.sums.find(kind, nth);
        (&self.groups[group], nth)
    }
}

impl<P: Packed + std::hash::Hash> ClassIndex<P> {
    pub(in crate::registry) fn new(class: Class, unplaced: bool) -> Self {
        Self {
            class,
            unplaced,
            isds: SmallVec::new(),
            sums: Fenwick::default(),
            isd_index: HashTable::new(),
            group_index: HashTable::new(),
            bytes: 0,
        }
    }

    pub(in crate::registry) fn find_isd(&self, isd: u16, keys: &RandomState) -> Option<u32> {
        if let [only] = self.isds.as_slice() {
            return (only.isd == isd).then_some(0);
        }
        self.isd_index
            .find(keys.hash_one(isd), |at| self.isds[*at as usize].isd == isd)
            .copied()
    }

    pub(in crate::registry) fn find_group(
        &self,
        ia: IsdAs,
        keys: &RandomState,
    ) -> Option<(u32, u32)> {
        if let Some(only) = self.only_group() {
            return (only.ia == ia).then_some((0, 0));
        }
        self.group_index
            .find(keys.hash_one(ia), |(isd, group)| {
                self.isds[*isd as usize].groups[*group as usize].ia == ia
            })
            .copied()
    }

    pub(in crate::registry) fn find_or_make_group(
        &mut self,
        ia: IsdAs,
        keys: &RandomState,
    ) -> (u32, u32) {
        if let Some(found) = self.find_group(ia, keys) {
            return found;
        }
        let number = ia.isd().0;
        let isd = self.find_isd(number, keys).unwrap_or_else(|| {
            self.isds.push(Isd {
                isd: number,
                groups: SmallVec::new(),
                sums: Fenwick::default(),
            });
            self.sums.push_empty();
            self.bytes += isd_bytes::<P>(self.isds.len() == 1);
            let at = self.isds.len() as u32 - 1;
            let isds = &self.isds;
            self.isd_index
                .insert_unique(keys.hash_one(number), at, |at| {
                    keys.hash_one(isds[*at as usize].isd)
                });
            at
        });
        let node = &mut self.isds[isd as usize];
        node.groups.push(Group::new(ia));
        node.sums.push_empty();
        self.bytes += group_bytes::<P>(node.groups.len() == 1);
        let at = (isd, node.groups.len() as u32 - 1);
        let isds = &self.isds;
        self.group_index
            .insert_unique(keys.hash_one(ia), at, |(isd, group)| {
                keys.hash_one(isds[*isd as usize].groups[*group as usize].ia)
            });
        at
    }

    pub(in crate::registry) fn add(&mut self, isd: u32, group: u32, tally: Tally) {
        self.sums.add(isd as usize, tally);
        self.isds[isd as usize].sums.add(group as usize, tally);
    }

    pub(in crate::registry) fn sub(&mut self, isd: u32, group: u32, tally: Tally) {
        self.sums.sub(isd as usize, tally);
        self.isds[isd as usize].sums.sub(group as usize, tally);
    }

    pub(in crate::registry) fn insert(
        &mut self,
        ia: IsdAs,
        addr: P,
        head: Record<()>,
        keys: &RandomState,
    ) -> (u32, u32, u32) {
        let (isd, group) = self.find_or_make_group(ia, keys);
        let node = &mut self.isds[isd as usize].groups[group as usize];
        let before = node.heap_bytes();
        let position = node.insert(addr, head, keys);
        self.bytes = self.bytes + node.heap_bytes() - before;
        self.add(isd, group, one(head.flags.seed()));
        (isd, group, position)
    }

    /// Removes a peer, but keeps its group even if it becomes empty.
    pub(in crate::registry) fn remove(
        &mut self,
        isd: u32,
        group: u32,
        position: u32,
        keys: &RandomState,
    ) {
        let node = &mut self.isds[isd as usize].groups[group as usize];
        let before = node.heap_bytes();
        let removed = node.remove(position, keys);
        self.bytes = self.bytes + node.heap_bytes() - before;
        self.sub(isd, group, one(removed.flags.seed()));
    }

    pub(in crate::registry) fn is_empty_group(&self, isd: u32, group: u32) -> bool {
        self.isds[isd as usize].groups[group as usize].len() == 0
    }

    /// Removes an empty group, and its ISD if it was the last group. The last entries move to their
    /// positions.
    pub(in crate::registry) fn remove_group(&mut self, isd: u32, group: u32, keys: &RandomState) {
        let node = &mut self.isds[isd as usize];
        let bytes = group_bytes::<P>(node.groups.len() == 1);
        self.bytes -= bytes + node.groups[group as usize].heap_bytes();
        let ia = node.groups[group as usize].ia;
        if let Ok(entry) = self
            .group_index
            .find_entry(keys.hash_one(ia), |at| *at == (isd, group))
        {
            entry.remove();
        }
        let last = node.groups.len() as u32 - 1;
        if group != last {
            let moved = keys.hash_one(node.groups[last as usize].ia);
            if let Some(at) = self.group_index.find_mut(moved, |at| *at == (isd, last)) {
                *at = (isd, group);
            }
        }
        node.groups.swap_remove(group as usize);
        node.sums.swap_remove_empty(group as usize);
        if node.groups.is_empty() {
            self.remove_isd(isd, keys);
        }
    }

    pub(in crate::registry) fn remove_isd(&mut self, isd: u32, keys: &RandomState) {
        self.bytes -= isd_bytes::<P>(self.isds.len() == 1);
        let hash = keys.hash_one(self.isds[isd as usize].isd);
        if let Ok(entry) = self.isd_index.find_entry(hash, |at| *at == isd) {
            entry.remove();
        }
        let last = self.isds.len() as u32 - 1;
        if isd != last {
            let moved = &self.isds[last as usize];
            if let Some(at) = self
                .isd_index
                .find_mut(keys.hash_one(moved.isd), |at| *at == last)
            {
                *at = isd;
            }
            for group in 0..moved.groups.len() as u32 {
                let hash = keys.hash_one(moved.groups[group as usize].ia);
                if let Some(at) = self.group_index.find_mut(hash, |at| *at == (last, group)) {
                    *at = (isd, group);
                }
            }
        }
        self.isds.swap_remove(isd as usize);
        self.sums.swap_remove_empty(isd as usize);
    }

    /// Returns the group of the `nth` peer of a kind in this index, and the number of the peer
    /// there.
    #[inline]
    pub(in crate::registry) fn nth(&self, kind: Kind, nth: u32) -> (&Group<P>, u32) {
        let (isd, nth) = self.sums.find(kind, nth);
        self.isds[isd].nth(kind, nth)
    }

    /// Returns the group if there is only one.
    pub(in crate::registry) fn only_group(&self) -> Option<&Group<P>> {
        let [Isd { groups, .. }] = self.isds.as_slice() else {
            return None;
        };
        let [only] = groups.as_slice() else {
            return None;
        };
        Some(only)
    }

    /// Shows peers from the cursor downwards. Returns false if the budget ended first.
    pub(in crate::registry) fn visit(
        &self,
        cursor: &mut Cursor,
        budget: &mut usize,
        each: &mut impl FnMut(IsdAs, &P, &Record<()>),
    ) -> bool {
        cursor.isd = cursor.isd.min(self.isds.len() as u32);
        while cursor.isd > 0 {
            let groups = &self.isds[cursor.isd as usize - 1].groups;
            cursor.group = cursor.group.min(groups.len() as u32);
            while cursor.group > 0 {
                let group = &groups[cursor.group as usize - 1];
                cursor.position = cursor.position.min(group.len() as u32);
                while cursor.position > 0 {
                    if *budget == 0 {
                        return false;
                    }
                    *budget -= 1;
                    cursor.position -= 1;
                    let (addr, head) = group.at(cursor.position);
                    each(group.ia, addr, head);
                }
                cursor.position = u32::MAX;
                cursor.group -= 1;
            }
            cursor.group = u32::MAX;
            cursor.isd -= 1;
        }
        cursor.isd = u32::MAX;
        true
    }

    /// Visits peers from the cursor downwards. Returns false if the budget ended first.
    pub(in crate::registry) fn expire(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        keys: &RandomState,
        gone: &mut impl FnMut(IsdAs, &P, &Record<()>) -> bool,
    ) -> bool {
        cursor.isd = cursor.isd.min(self.isds.len() as u32);
        while cursor.isd > 0 {
            let isd = cursor.isd - 1;
            cursor.group = cursor
                .group
                .min(self.isds[isd as usize].groups.len() as u32);
            // An entry that replaces a removed one has already been visited.
            while cursor.group > 0 {
                let at = cursor.group - 1;
                let group = &self.isds[isd as usize].groups[at as usize];
                let ia = group.ia;
                cursor.position = cursor.position.min(group.len() as u32);
                while cursor.position > 0 {
                    if *budget == 0 {
                        return false;
                    }
                    *budget -= 1;
                    cursor.position -= 1;
                    let group = &self.isds[isd as usize].groups[at as usize];
                    let (addr, head) = group.at(cursor.position);
                    if gone(ia, addr, head) {
                        self.remove(isd, at, cursor.position, keys);
                    }
                }
                cursor.position = u32::MAX;
                cursor.group = at;
                if self.is_empty_group(isd, at) {
                    // Removing the last group also removes its ISD, and `at` is zero.
                    self.remove_group(isd, at, keys);
                }
            }
            cursor.group = u32::MAX;
            cursor.isd = isd;
        }
        cursor.isd = u32::MAX;
        true
    }
}
