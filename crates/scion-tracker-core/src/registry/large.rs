//! A swarm of many peers: by class, then ISD, then AS, so that a peer of any tier is found by its
//! number in O(log ASes), however many peers there are.

pub(super) mod class_index;
mod fenwick;
pub(super) mod group;
mod hosts;
pub(super) mod view;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::large::class_index::{ClassIndex, Cursor, Slot, one};
use crate::registry::large::group::Group;
use crate::registry::large::hosts::Hosts;
use crate::registry::large::view::{ByFamily, ClassView, View};
use crate::registry::table::record::{Flags, Packed, Record, Tick, family};
use crate::registry::{Classes, PeerEntry};
use crate::request::Family;
use crate::select::Tally;
use ahash::RandomState;
use smallvec::{Array, SmallVec};

/// A large swarm.
#[derive(Debug, Default)]
pub(super) struct LargeSwarm {
    /// The first one is inline: most swarms have no other.
    four: SmallVec<[ClassIndex<[u8; 6]>; 1]>,
    six: SmallVec<[ClassIndex<[u8; 18]>; 0]>,
    tally: Tally,
    /// Those of them whose clients are counted at another address.
    twins: Tally,
    /// Partial seeds, without twins.
    partial: u32,
    hosts: Hosts,
}

/// Runs the same code on the indexes of either family.
macro_rules! indexes {
    ($many:expr, $family:expr, $indexes:ident => $body:expr) => {
        match $family {
            Family::V4 => {
                let $indexes = &mut $many.four;
                $body
            }
            Family::V6 => {
                let $indexes = &mut $many.six;
                $body
            }
        }
    };
}

fn locate<P: Packed + std::hash::Hash>(
    indexes: &[ClassIndex<P>],
    family: Family,
    ia: IsdAs,
    addr: &CompactAddr,
    keys: &RandomState,
) -> Option<Slot> {
    let addr = P::pack(addr)?;
    indexes.iter().enumerate().find_map(|(index, node)| {
        let (isd, group) = node.find_group(ia, keys)?;
        let position = node.isds[isd as usize].groups[group as usize].find(&addr, keys)?;
        Some(Slot {
            family,
            index: index as u32,
            isd,
            group,
            position,
        })
    })
}

fn insert<P: Packed + std::hash::Hash>(
    indexes: &mut SmallVec<impl Array<Item = ClassIndex<P>>>,
    ia: IsdAs,
    addr: P,
    head: Record<()>,
    keys: &RandomState,
) -> Slot {
    let class = head.flags.class();
    let unplaced = ia.is_none();
    let index = indexes
        .iter()
        .position(|index| index.class == class && index.unplaced == unplaced)
        .unwrap_or_else(|| {
            indexes.push(ClassIndex::new(class, unplaced));
            indexes.len() - 1
        });
    let (isd, group, position) = indexes[index].insert(ia, addr, head, keys);
    let family = family(&addr.bytes());
    Slot {
        family,
        index: index as u32,
        isd,
        group,
        position,
    }
}

impl LargeSwarm {
    /// All peers.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    /// How many clients are seeds and leechers, and how many of the leechers are partial seeds.
    pub(super) fn counts(&self) -> (Tally, u32) {
        (self.tally - self.twins, self.partial)
    }

    /// At least as many peers as the host has here; 255 stands for any larger number.
    pub(super) fn peers_of(&self, host: Host, keys: &RandomState) -> u32 {
        u32::from(self.hosts.count(host, keys))
    }

    /// Makes a sketch of another size, if the number of peers asks for it.
    fn fit_hosts(&mut self, keys: &RandomState) {
        let peers = self.tally.total() as usize;
        if self.hosts.fits(peers) {
            return;
        }
        let mut hosts = Hosts::for_peers(peers);
        self.for_each(|ia, addr, head| hosts.add(head.flags.class().source(ia, &addr), keys));
        self.hosts = hosts;
    }

    fn count_in(&mut self, flags: Flags) {
        self.tally += one(flags.seed());
        if flags.twin() {
            self.twins += one(flags.seed());
        } else {
            self.partial += u32::from(flags.partial());
        }
    }

    fn count_out(&mut self, flags: Flags) {
        self.tally = self.tally - one(flags.seed());
        if flags.twin() {
            self.twins = self.twins - one(flags.seed());
        } else {
            self.partial -= u32::from(flags.partial());
        }
    }

    pub(super) fn find(&self, ia: IsdAs, addr: &CompactAddr, keys: &RandomState) -> Option<Slot> {
        match addr {
            CompactAddr::V4(_) => locate(&self.four, Family::V4, ia, addr, keys),
            CompactAddr::V6(_) => locate(&self.six, Family::V6, ia, addr, keys),
        }
    }

    /// The group that an IPv4 peer is most likely in: that of its ISD-AS in the first index.
    pub(super) fn likely_group(&self, ia: IsdAs, keys: &RandomState) -> Option<&Group<[u8; 6]>> {
        let mut indexes = self.four.iter();
        indexes.find_map(|index| {
            if index.unplaced != ia.is_none() {
                return None;
            }
            let (isd, group) = index.find_group(ia, keys)?;
            index.isds.get(isd as usize)?.groups.get(group as usize)
        })
    }

    /// The record of a peer, and its address in whatever form it is kept.
    pub(super) fn head(&self, slot: Slot) -> &Record<()> {
        fn head<P>(indexes: &[ClassIndex<P>], slot: Slot) -> &Record<()>
        where
            P: Packed + std::hash::Hash,
        {
            let isd = &indexes[slot.index as usize].isds[slot.isd as usize];
            isd.groups[slot.group as usize].at(slot.position).1
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
        self.fit_hosts(keys);
        self.count_in(head.flags);
        self.hosts.add(head.flags.class().source(ia, addr), keys);
        match *addr {
            CompactAddr::V4(addr) => insert(&mut self.four, ia, addr, head, keys),
            CompactAddr::V6(addr) => insert(&mut self.six, ia, addr, head, keys),
        }
    }

    /// Refreshes the peer at a slot from its announce. Returns where it is now, and whether that completes a
    /// download.
    pub(super) fn renew(
        &mut self,
        slot: Slot,
        peer: &PeerEntry,
        now: Tick,
        keys: &RandomState,
    ) -> (Slot, bool) {
        let known = self.head(slot).known();
        let before = known.flags;
        let (head, completes) = Record::of(peer, Some(known), false, now);
        // Most announces change neither counts nor the place among the others.
        if head.flags == before {
            indexes!(self, slot.family, indexes => {
                let isd = &mut indexes[slot.index as usize].isds[slot.isd as usize];
                isd.groups[slot.group as usize].renew(slot.position, head);
            });
            return (slot, completes);
        }
        let slot = self.update(slot, peer.ia, &peer.addr, head, keys);
        (slot, completes)
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
        let before = *self.head(slot);
        if before.flags.class() != head.flags.class() {
            self.remove(slot, ia, addr, keys);
            return self.insert(ia, addr, head, keys);
        }
        self.count_out(before.flags);
        self.count_in(head.flags);
        let position = indexes!(self, slot.family, indexes => {
            let index = &mut indexes[slot.index as usize];
            if before.flags.seed() != head.flags.seed() {
                index.sub(slot.isd, slot.group, one(before.flags.seed()));
                index.add(slot.isd, slot.group, one(head.flags.seed()));
            }
            let group = &mut index.isds[slot.isd as usize].groups[slot.group as usize];
            group.update(slot.position, head, keys)
        });
        Slot { position, ..slot }
    }

    /// Removes the peer at a slot, which is the one with this ISD-AS and address.
    pub(super) fn remove(&mut self, slot: Slot, ia: IsdAs, addr: &CompactAddr, keys: &RandomState) {
        let head = *self.head(slot);
        self.count_out(head.flags);
        self.hosts.remove(head.flags.class().source(ia, addr), keys);
        indexes!(self, slot.family, indexes => {
            let index = &mut indexes[slot.index as usize];
            index.remove(slot.isd, slot.group, slot.position, keys);
            if index.is_empty_group(slot.isd, slot.group) {
                index.remove_group(slot.isd, slot.group, keys);
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
            twins,
            partial,
            hosts,
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
                    let flags = head.flags;
                    *tally = *tally - one(flags.seed());
                    if flags.twin() {
                        *twins = *twins - one(flags.seed());
                    } else {
                        *partial -= u32::from(flags.partial());
                    }
                    hosts.remove(flags.class().source(ia, &addr), keys);
                }
                goes
            };
            let finished = match family {
                Family::V4 => expire_all(four, cursor, budget, keys, |ia, addr, head| {
                    visit(ia, CompactAddr::V4(*addr), *head)
                }),
                Family::V6 => expire_all(six, cursor, budget, keys, |ia, addr, head| {
                    visit(ia, CompactAddr::V6(*addr), *head)
                }),
            };
            if !finished {
                return false;
            }
            cursor.index = u32::MAX;
            cursor.six -= 1;
        }
        true
    }

    /// Shows peers from the cursor downwards. Returns false if the budget ended first.
    pub(super) fn visit(
        &self,
        cursor: &mut Cursor,
        budget: &mut usize,
        mut each: impl FnMut(IsdAs, CompactAddr, Record<()>),
    ) -> bool {
        fn all<P: Packed + std::hash::Hash>(
            indexes: &[ClassIndex<P>],
            cursor: &mut Cursor,
            budget: &mut usize,
            mut each: impl FnMut(IsdAs, &P, &Record<()>),
        ) -> bool {
            cursor.index = cursor.index.min(indexes.len() as u32);
            while cursor.index > 0 {
                if !indexes[cursor.index as usize - 1].visit(cursor, budget, &mut each) {
                    return false;
                }
                cursor.index -= 1;
            }
            true
        }
        while cursor.six > 0 {
            let finished = match cursor.six {
                2 => all(&self.six, cursor, budget, |ia, addr, head| {
                    each(ia, CompactAddr::V6(*addr), *head);
                }),
                _ => all(&self.four, cursor, budget, |ia, addr, head| {
                    each(ia, CompactAddr::V4(*addr), *head);
                }),
            };
            if !finished {
                return false;
            }
            cursor.index = u32::MAX;
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
            for (addr, head) in group.iter() {
                each(group.ia, CompactAddr::V4(*addr), *head);
            }
        }
        for group in self
            .six
            .iter()
            .flat_map(|f| &f.isds)
            .flat_map(|isd| &isd.groups)
        {
            for (addr, head) in group.iter() {
                each(group.ia, CompactAddr::V6(*addr), *head);
            }
        }
    }

    /// Bytes of all that it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        let four: usize = self.four.iter().map(|index| index.bytes).sum();
        let six: usize = self.six.iter().map(|index| index.bytes).sum();
        let indexes = size_of_val(self.six.as_slice())
            + if self.four.spilled() {
                size_of_val(self.four.as_slice())
            } else {
                0
            };
        size_of::<Self>() + self.hosts.heap_bytes() + indexes + four + six
    }

    /// Shows what the requester can reach. It fills a view, as one is too large to be handed back.
    pub(super) fn show<'a>(
        &'a self,
        view: &mut View<'a>,
        me: &PeerEntry,
        slot: Slot,
        classes: Classes,
        keys: &RandomState,
    ) {
        let views = &mut view.classes;
        for (at, index) in self.four.iter().enumerate() {
            if index.class.is_in(classes, Family::V4) {
                let me_here = slot.family == Family::V4 && slot.index as usize == at;
                views.push(ClassView::new(
                    ByFamily::Four,
                    index,
                    me,
                    me_here.then_some(slot),
                    keys,
                ));
            }
        }
        for (at, index) in self.six.iter().enumerate() {
            if index.class.is_in(classes, Family::V6) {
                let me_here = slot.family == Family::V6 && slot.index as usize == at;
                views.push(ClassView::new(
                    ByFamily::Six,
                    index,
                    me,
                    me_here.then_some(slot),
                    keys,
                ));
            }
        }
    }
}

fn expire_all<P: Packed + std::hash::Hash>(
    indexes: &mut SmallVec<impl Array<Item = ClassIndex<P>>>,
    cursor: &mut Cursor,
    budget: &mut usize,
    keys: &RandomState,
    mut gone: impl FnMut(IsdAs, &P, &Record<()>) -> bool,
) -> bool {
    cursor.index = cursor.index.min(indexes.len() as u32);
    while cursor.index > 0 {
        let index = &mut indexes[cursor.index as usize - 1];
        if !index.expire(cursor, budget, keys, &mut gone) {
            return false;
        }
        cursor.index -= 1;
        if index.isds.is_empty() {
            indexes.swap_remove(cursor.index as usize);
        }
    }
    true
}
