//! A big swarm as one requester sees it: its tiers as ranges of numbers.

use ahash::RandomState;
use arrayvec::ArrayVec;

use crate::registry::Presence;
use crate::registry::forest::{Forest, Slot, one};
use crate::registry::record::{Packed, Picks};
use crate::select::{Kind, Pool, Pools, Standing, Tally, Tier};

/// What one requester can reach of a big swarm.
pub(super) struct View<'a> {
    /// One a class and family: 3 reaches, 2 standings, placed or not; 14 of them can be.
    pub(super) shelves: ArrayVec<Shelf<'a>, 16>,
}

#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    Four(&'a Forest<[u8; 6]>),
    Six(&'a Forest<[u8; 18]>),
}

/// A forest as the requester sees it. Peers are numbered through in the forest's order, which keeps
/// an ISD and an AS together, so that every tier is a range of numbers with at most one hole in it.
pub(super) struct Shelf<'a> {
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
    pub(super) fn new<P: Packed + std::hash::Hash>(
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
    fn pick(&self, pool: Pool, kind: Kind, number: u32, chosen: &mut Picks<'a>) {
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
            Side::Four(forest) => forest.pick(kind, number, chosen),
            Side::Six(forest) => forest.pick(kind, number, chosen),
        }
    }
}

impl<'a> Pools for View<'a> {
    type Chosen = Picks<'a>;

    fn tally(&self, pool: Pool) -> Tally {
        let mut sum = Tally::default();
        for shelf in &self.shelves {
            sum += shelf.tally(pool);
        }
        sum
    }

    #[inline]
    fn pick(&self, pool: Pool, kind: Kind, mut number: u32, chosen: &mut Picks<'a>) {
        if let [only] = self.shelves.as_slice() {
            return only.pick(pool, kind, number, chosen);
        }
        for shelf in &self.shelves {
            let here = shelf.tally(pool).of(kind);
            if number < here {
                return shelf.pick(pool, kind, number, chosen);
            }
            number -= here;
        }
        debug_assert!(
            false,
            "a number below the pool's tally is on one of its shelves"
        );
    }
}
