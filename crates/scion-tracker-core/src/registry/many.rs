//! A swarm of many peers: by class, then ISD, then AS, with running sums, so that a peer of any tier
//! is found by its number in O(log ASes), however many peers there are.

use ahash::RandomState;
use arrayvec::ArrayVec;
use hashbrown::HashTable;

use crate::address::{CompactAddr, IsdAs};
use crate::registry::fenwick::Fenwick;
use crate::registry::group::Group;
use crate::registry::record::{Class, Packed, Record, family};
use crate::registry::{Classes, Presence};
use crate::request::Family;
use crate::response::Peer;
use crate::select::{Kind, Pool, Pools, Standing, Tally, Tier};

/// The peers of one class and family.
#[derive(Debug)]
struct Forest<P> {
    class: Class,
    /// Whether these are peers without a place: one ISD, 0, with one AS, 0, in it.
    unplaced: bool,
    isds: Vec<Isd<P>>,
    sums: Fenwick,
    /// Positions in `isds`, by ISD.
    isd_index: HashTable<u32>,
    /// Positions in `isds` and its `groups`, by ISD-AS.
    group_index: HashTable<(u32, u32)>,
    /// Bytes of the heap behind it.
    bytes: usize,
}

/// A group's share of the lists, sums and indexes around it, room to grow included.
const fn group_bytes<P>() -> usize {
    (size_of::<Group<P>>() + size_of::<Tally>()) * 3 / 2 + 2 * size_of::<[u32; 2]>()
}

/// The same for an ISD.
const fn isd_bytes<P>() -> usize {
    (size_of::<Isd<P>>() + size_of::<Tally>()) * 3 / 2 + 2 * size_of::<u32>()
}

#[derive(Debug)]
struct Isd<P> {
    isd: u16,
    groups: Vec<Group<P>>,
    sums: Fenwick,
}

/// Where a peer is in a [`Many`], until the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    family: Family,
    forest: u32,
    isd: u32,
    group: u32,
    position: u32,
}

/// How far an expiry has come. All bounds are exclusive, and run downwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    six: u32,
    forest: u32,
    isd: u32,
    group: u32,
    position: u32,
}

impl Cursor {
    pub(super) const START: Self = Self {
        six: 2,
        forest: u32::MAX,
        isd: u32::MAX,
        group: u32::MAX,
        position: u32::MAX,
    };
}

const fn one(seed: bool) -> Tally {
    Tally {
        seeds: seed as u32,
        leechers: !seed as u32,
    }
}

impl<P: Packed + std::hash::Hash> Forest<P> {
    fn new(class: Class, unplaced: bool) -> Self {
        Self {
            class,
            unplaced,
            isds: Vec::new(),
            sums: Fenwick::default(),
            isd_index: HashTable::new(),
            group_index: HashTable::new(),
            bytes: size_of::<Self>(),
        }
    }

    fn find_isd(&self, isd: u16, keys: &RandomState) -> Option<u32> {
        if let [only] = self.isds.as_slice() {
            return (only.isd == isd).then_some(0);
        }
        self.isd_index
            .find(keys.hash_one(isd), |at| self.isds[*at as usize].isd == isd)
            .copied()
    }

    fn find_group(&self, ia: IsdAs, keys: &RandomState) -> Option<(u32, u32)> {
        if let [Isd { groups, .. }] = self.isds.as_slice()
            && let [only] = groups.as_slice()
        {
            return (only.ia == ia).then_some((0, 0));
        }
        self.group_index
            .find(keys.hash_one(ia), |(isd, group)| {
                self.isds[*isd as usize].groups[*group as usize].ia == ia
            })
            .copied()
    }

    fn find_or_make_group(&mut self, ia: IsdAs, keys: &RandomState) -> (u32, u32) {
        if let Some(found) = self.find_group(ia, keys) {
            return found;
        }
        let number = ia.isd().0;
        let isd = self.find_isd(number, keys).unwrap_or_else(|| {
            self.isds.push(Isd {
                isd: number,
                groups: Vec::new(),
                sums: Fenwick::default(),
            });
            self.sums.push_empty();
            self.bytes += isd_bytes::<P>();
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
        self.bytes += group_bytes::<P>();
        let at = (isd, node.groups.len() as u32 - 1);
        let isds = &self.isds;
        self.group_index
            .insert_unique(keys.hash_one(ia), at, |(isd, group)| {
                keys.hash_one(isds[*isd as usize].groups[*group as usize].ia)
            });
        at
    }

    fn add(&mut self, isd: u32, group: u32, tally: Tally) {
        self.sums.add(isd as usize, tally);
        self.isds[isd as usize].sums.add(group as usize, tally);
    }

    fn sub(&mut self, isd: u32, group: u32, tally: Tally) {
        self.sums.sub(isd as usize, tally);
        self.isds[isd as usize].sums.sub(group as usize, tally);
    }

    fn insert(&mut self, ia: IsdAs, record: Record<P>, keys: &RandomState) -> (u32, u32, u32) {
        let (isd, group) = self.find_or_make_group(ia, keys);
        let node = &mut self.isds[isd as usize].groups[group as usize];
        let before = node.heap_bytes();
        let position = node.insert(record, keys);
        self.bytes = self.bytes + node.heap_bytes() - before;
        self.add(isd, group, one(record.flags.seed()));
        (isd, group, position)
    }

    /// Removes a peer, but not its group if that becomes empty.
    fn remove(&mut self, isd: u32, group: u32, position: u32, keys: &RandomState) {
        let node = &mut self.isds[isd as usize].groups[group as usize];
        let before = node.heap_bytes();
        let removed = node.remove(position, keys);
        self.bytes = self.bytes + node.heap_bytes() - before;
        self.sub(isd, group, one(removed.flags.seed()));
    }

    fn is_empty_group(&self, isd: u32, group: u32) -> bool {
        self.isds[isd as usize].groups[group as usize].len() == 0
    }

    /// Removes an empty group, and its ISD if that was the last; the last ones take their places.
    fn remove_group(&mut self, isd: u32, group: u32, keys: &RandomState) {
        let node = &mut self.isds[isd as usize];
        self.bytes -= group_bytes::<P>() + node.groups[group as usize].heap_bytes();
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

    fn remove_isd(&mut self, isd: u32, keys: &RandomState) {
        self.bytes -= isd_bytes::<P>();
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

    /// The `number`th peer of a kind in this forest.
    #[inline]
    fn nth(&self, kind: Kind, number: u32) -> Peer<'_> {
        let (isd, number) = self.sums.find(kind, number);
        let isd = &self.isds[isd];
        let (group, number) = isd.sums.find(kind, number);
        let group = &isd.groups[group];
        let record = group.nth(kind, number);
        Peer {
            ia: group.ia,
            reach: self.class.reach(),
            addr: record.addr.bytes(),
            id: &record.id,
        }
    }

    /// Visits peers from the cursor downwards; `false` if the budget ended first.
    fn expire(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        keys: &RandomState,
        gone: &mut impl FnMut(IsdAs, &Record<P>) -> bool,
    ) -> bool {
        cursor.isd = cursor.isd.min(self.isds.len() as u32);
        while cursor.isd > 0 {
            let isd = cursor.isd - 1;
            cursor.group = cursor
                .group
                .min(self.isds[isd as usize].groups.len() as u32);
            // Whatever is removed is replaced by what was visited before.
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
                    if gone(ia, &group.peers()[cursor.position as usize]) {
                        self.remove(isd, at, cursor.position, keys);
                    }
                }
                cursor.position = u32::MAX;
                cursor.group = at;
                if self.is_empty_group(isd, at) {
                    // With the last group its ISD goes, and `at` is zero.
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

/// A big swarm.
#[derive(Debug, Default)]
pub(super) struct Many {
    four: Vec<Forest<[u8; 6]>>,
    six: Vec<Forest<[u8; 18]>>,
    tally: Tally,
    partial: u32,
}

/// Runs the same code on the forests of either family.
macro_rules! forests {
    ($many:expr, $family:expr, $forests:ident => $body:expr) => {
        match $family {
            Family::V4 => {
                let $forests = &mut $many.four;
                $body
            }
            Family::V6 => {
                let $forests = &mut $many.six;
                $body
            }
        }
    };
}

fn locate<P: Packed + std::hash::Hash>(
    forests: &[Forest<P>],
    family: Family,
    ia: IsdAs,
    addr: &CompactAddr,
    keys: &RandomState,
) -> Option<Slot> {
    let addr = P::pack(addr)?;
    forests.iter().enumerate().find_map(|(forest, node)| {
        let (isd, group) = node.find_group(ia, keys)?;
        let position = node.isds[isd as usize].groups[group as usize].find(&addr, keys)?;
        Some(Slot {
            family,
            forest: forest as u32,
            isd,
            group,
            position,
        })
    })
}

fn insert<P: Packed + std::hash::Hash>(
    forests: &mut Vec<Forest<P>>,
    ia: IsdAs,
    record: Record<P>,
    keys: &RandomState,
) -> Slot {
    let class = record.flags.class();
    let unplaced = ia.is_none();
    let forest = forests
        .iter()
        .position(|forest| forest.class == class && forest.unplaced == unplaced)
        .unwrap_or_else(|| {
            forests.reserve_exact(1);
            forests.push(Forest::new(class, unplaced));
            forests.len() - 1
        });
    let (isd, group, position) = forests[forest].insert(ia, record, keys);
    let family = family(&record.addr.bytes());
    Slot {
        family,
        forest: forest as u32,
        isd,
        group,
        position,
    }
}

impl Many {
    pub(super) const fn tally(&self) -> (Tally, u32) {
        (self.tally, self.partial)
    }

    pub(super) fn find(&self, ia: IsdAs, addr: &CompactAddr, keys: &RandomState) -> Option<Slot> {
        match addr {
            CompactAddr::V4(_) => locate(&self.four, Family::V4, ia, addr, keys),
            CompactAddr::V6(_) => locate(&self.six, Family::V6, ia, addr, keys),
        }
    }

    /// The record of a peer, and its address in whatever form it is kept.
    pub(super) fn head(&self, slot: Slot) -> Record<()> {
        fn head<P>(forests: &[Forest<P>], slot: Slot) -> Record<()>
        where
            P: Packed + std::hash::Hash,
        {
            let isd = &forests[slot.forest as usize].isds[slot.isd as usize];
            let record = &isd.groups[slot.group as usize].peers()[slot.position as usize];
            record.head()
        }
        match slot.family {
            Family::V4 => head(&self.four, slot),
            Family::V6 => head(&self.six, slot),
        }
    }

    /// Adds a peer that is not here.
    pub(super) fn insert(
        &mut self,
        ia: IsdAs,
        addr: &CompactAddr,
        head: Record<()>,
        keys: &RandomState,
    ) -> Slot {
        self.tally += one(head.flags.seed());
        self.partial += u32::from(head.flags.partial());
        match *addr {
            CompactAddr::V4(addr) => insert(&mut self.four, ia, head.at(addr), keys),
            CompactAddr::V6(addr) => insert(&mut self.six, ia, head.at(addr), keys),
        }
    }

    /// Replaces all of a peer but its address; a change of class moves it.
    pub(super) fn update(
        &mut self,
        slot: Slot,
        ia: IsdAs,
        addr: &CompactAddr,
        head: Record<()>,
        keys: &RandomState,
    ) -> Slot {
        let before = self.head(slot);
        if before.flags.class() != head.flags.class() {
            self.remove(slot, keys);
            return self.insert(ia, addr, head, keys);
        }
        self.tally = self.tally - one(before.flags.seed());
        self.tally += one(head.flags.seed());
        self.partial -= u32::from(before.flags.partial());
        self.partial += u32::from(head.flags.partial());
        let position = forests!(self, slot.family, forests => {
            let forest = &mut forests[slot.forest as usize];
            if before.flags.seed() != head.flags.seed() {
                forest.sub(slot.isd, slot.group, one(before.flags.seed()));
                forest.add(slot.isd, slot.group, one(head.flags.seed()));
            }
            let group = &mut forest.isds[slot.isd as usize].groups[slot.group as usize];
            let addr = group.peers()[slot.position as usize].addr;
            group.update(slot.position, head.at(addr), keys)
        });
        Slot { position, ..slot }
    }

    pub(super) fn remove(&mut self, slot: Slot, keys: &RandomState) {
        let head = self.head(slot);
        self.tally = self.tally - one(head.flags.seed());
        self.partial -= u32::from(head.flags.partial());
        forests!(self, slot.family, forests => {
            let forest = &mut forests[slot.forest as usize];
            forest.remove(slot.isd, slot.group, slot.position, keys);
            if forest.is_empty_group(slot.isd, slot.group) {
                forest.remove_group(slot.isd, slot.group, keys);
            }
        });
    }

    /// Removes peers that `gone` names, `budget` visits at a time; `false` if there is more to do.
    pub(super) fn expire(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        keys: &RandomState,
        mut gone: impl FnMut(IsdAs, &CompactAddr, Record<()>) -> bool,
    ) -> bool {
        let Self {
            four,
            six,
            tally,
            partial,
        } = self;
        while cursor.six > 0 {
            let family = if cursor.six == 2 {
                Family::V6
            } else {
                Family::V4
            };
            let mut visit = |ia, addr: CompactAddr, head: Record<()>| {
                let goes = gone(ia, &addr, head);
                if goes {
                    *tally = *tally - one(head.flags.seed());
                    *partial -= u32::from(head.flags.partial());
                }
                goes
            };
            let finished = match family {
                Family::V4 => expire_all(four, cursor, budget, keys, |ia, record| {
                    visit(ia, CompactAddr::V4(record.addr), record.head())
                }),
                Family::V6 => expire_all(six, cursor, budget, keys, |ia, record| {
                    visit(ia, CompactAddr::V6(record.addr), record.head())
                }),
            };
            if !finished {
                return false;
            }
            cursor.forest = u32::MAX;
            cursor.six -= 1;
        }
        true
    }

    /// Every peer.
    pub(super) fn for_each(&self, mut each: impl FnMut(IsdAs, CompactAddr, Record<()>)) {
        for group in self
            .four
            .iter()
            .flat_map(|f| &f.isds)
            .flat_map(|isd| &isd.groups)
        {
            for record in group.peers() {
                each(group.ia, CompactAddr::V4(record.addr), record.head());
            }
        }
        for group in self
            .six
            .iter()
            .flat_map(|f| &f.isds)
            .flat_map(|isd| &isd.groups)
        {
            for record in group.peers() {
                each(group.ia, CompactAddr::V6(record.addr), record.head());
            }
        }
    }

    /// Bytes of all that it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        let four: usize = self.four.iter().map(|forest| forest.bytes).sum();
        let six: usize = self.six.iter().map(|forest| forest.bytes).sum();
        size_of::<Self>() + four + six
    }

    pub(super) fn view(
        &self,
        me: &Presence,
        slot: Slot,
        classes: Classes,
        keys: &RandomState,
    ) -> View<'_> {
        let mut shelves = ArrayVec::new();
        for (at, forest) in self.four.iter().enumerate() {
            if classes.contains(Family::V4, forest.class.reach()) {
                let me_here = slot.family == Family::V4 && slot.forest as usize == at;
                shelves.push(Shelf::new(
                    Side::Four(forest),
                    forest,
                    me,
                    me_here.then_some(slot),
                    keys,
                ));
            }
        }
        for (at, forest) in self.six.iter().enumerate() {
            if classes.contains(Family::V6, forest.class.reach()) {
                let me_here = slot.family == Family::V6 && slot.forest as usize == at;
                shelves.push(Shelf::new(
                    Side::Six(forest),
                    forest,
                    me,
                    me_here.then_some(slot),
                    keys,
                ));
            }
        }
        View { shelves }
    }
}

fn expire_all<P: Packed + std::hash::Hash>(
    forests: &mut Vec<Forest<P>>,
    cursor: &mut Cursor,
    budget: &mut usize,
    keys: &RandomState,
    mut gone: impl FnMut(IsdAs, &Record<P>) -> bool,
) -> bool {
    cursor.forest = cursor.forest.min(forests.len() as u32);
    while cursor.forest > 0 {
        let forest = &mut forests[cursor.forest as usize - 1];
        if !forest.expire(cursor, budget, keys, &mut gone) {
            return false;
        }
        cursor.forest -= 1;
        if forest.isds.is_empty() {
            forests.swap_remove(cursor.forest as usize);
        }
    }
    true
}

/// What one requester can reach of a big swarm.
pub(super) struct View<'a> {
    /// One a class and family: 3 reaches, 2 standings, placed or not; 14 of them can be.
    shelves: ArrayVec<Shelf<'a>, 16>,
}

#[derive(Clone, Copy)]
enum Side<'a> {
    Four(&'a Forest<[u8; 6]>),
    Six(&'a Forest<[u8; 18]>),
}

/// A forest as the requester sees it. Peers are numbered through in the forest's order, which keeps
/// an ISD and an AS together, so that every tier is a range of numbers with at most one hole in it.
struct Shelf<'a> {
    side: Side<'a>,
    standing: Standing,
    /// Peers of each tier, the requester left out.
    tiers: [Tally; 4],
    all: Tally,
    /// Peers before the requester's ISD, and in it.
    isd: (Tally, Tally),
    /// Peers before the requester's AS, and in it.
    group: (Tally, Tally),
    /// The requester's own number among anyone, seeds and leechers.
    me: [Option<u32>; 3],
}

impl<'a> Shelf<'a> {
    fn new<P: Packed + std::hash::Hash>(
        side: Side<'a>,
        forest: &Forest<P>,
        me: &Presence,
        slot: Option<Slot>,
        keys: &RandomState,
    ) -> Self {
        let total = forest.sums.total();
        let mut isd = (Tally::default(), Tally::default());
        if let Some(at) = forest.find_isd(me.ia.isd().0, keys) {
            isd = (
                forest.sums.prefix(at as usize),
                forest.isds[at as usize].sums.total(),
            );
        }
        let mut group = (isd.0, Tally::default());
        let mut numbers = [None; 3];
        if let Some((in_isd, at)) = forest.find_group(me.ia, keys) {
            let node = &forest.isds[in_isd as usize];
            group.0 += node.sums.prefix(at as usize);
            let own = &node.groups[at as usize];
            group.1 = own.tally();
            if let Some(slot) = slot {
                numbers = [Kind::Anyone, Kind::Seeds, Kind::Leechers].map(|kind| {
                    own.number(kind, slot.position)
                        .map(|number| number + group.0.of(kind))
                });
            }
        }
        let itself = match (slot, numbers[Kind::Seeds as usize]) {
            (None, _) => Tally::default(),
            (Some(_), seed) => one(seed.is_some()),
        };
        let tiers = if forest.unplaced {
            [
                Tally::default(),
                Tally::default(),
                Tally::default(),
                total - itself,
            ]
        } else {
            [
                group.1 - itself,
                isd.1 - group.1,
                total - isd.1,
                Tally::default(),
            ]
        };
        let standing = forest.class.standing();
        Self {
            side,
            standing,
            tiers,
            all: total - itself,
            isd,
            group,
            me: numbers,
        }
    }

    fn tally(&self, pool: Pool) -> Tally {
        match pool {
            Pool::Everyone => self.all,
            Pool::Of(tier, standing) if standing == self.standing => self.tiers[tier as usize],
            Pool::Of(..) => Tally::default(),
        }
    }

    #[inline]
    fn peer(&self, pool: Pool, kind: Kind, number: u32) -> Peer<'a> {
        let mut number = number;
        let mut skip = |(before, inside): (Tally, Tally)| {
            if number >= before.of(kind) {
                number += inside.of(kind);
            }
        };
        match pool {
            Pool::Of(Tier::OtherIsd, _) => skip(self.isd),
            Pool::Of(Tier::SameIsd, _) => {
                number += self.isd.0.of(kind);
                if number >= self.group.0.of(kind) {
                    number += self.group.1.of(kind);
                }
            }
            Pool::Of(Tier::SameAs, _) => {
                number += self.group.0.of(kind);
                number += u32::from(self.me[kind as usize].is_some_and(|me| number >= me));
            }
            Pool::Everyone | Pool::Of(Tier::Unplaced, _) => {
                number += u32::from(self.me[kind as usize].is_some_and(|me| number >= me));
            }
        }
        match self.side {
            Side::Four(forest) => forest.nth(kind, number),
            Side::Six(forest) => forest.nth(kind, number),
        }
    }
}

impl<'a> Pools for View<'a> {
    type Peer = Peer<'a>;

    fn tally(&self, pool: Pool) -> Tally {
        let mut sum = Tally::default();
        for shelf in &self.shelves {
            sum += shelf.tally(pool);
        }
        sum
    }

    #[inline]
    fn peer(&self, pool: Pool, kind: Kind, mut number: u32) -> Peer<'a> {
        for shelf in &self.shelves {
            let here = shelf.tally(pool).of(kind);
            if number < here {
                return shelf.peer(pool, kind, number);
            }
            number -= here;
        }
        unreachable!("a number below the pool's tally is on one of its shelves")
    }
}
