//! A large swarm as one requester sees it: its tiers as ranges of numbers.

use ahash::RandomState;
use arrayvec::ArrayVec;

use crate::registry::PeerEntry;
use crate::registry::large::class_index::{ClassIndex, Isd, Slot, one};
use crate::registry::large::group::Group;
use crate::registry::prefetch::prefetch_slice;
use crate::registry::table::record::{Chosen, Packed};
use crate::select::{Draw, Kind, Pool, Pools, Standing, Tally, Tier};
use crate::types::Rng;

/// What one requester can reach of a large swarm.
#[derive(Default)]
pub(in crate::registry) struct View<'a> {
    /// One per class and family: with a place 5 reaches and scopes of 2 standings, without one 2 scopes.
    pub(in crate::registry) classes: ArrayVec<ClassView<'a>, 24>,
}

/// A class index as the requester sees it. Peers are numbered through in the order of the index, which keeps
/// an ISD and an AS together, so that every tier is a range of numbers with at most one hole in it.
pub(in crate::registry) struct ClassView<'a> {
    by_family: ByFamily<'a>,
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

pub(in crate::registry) enum ByFamily<'a> {
    Four(Surroundings<'a, [u8; 6]>),
    Six(Surroundings<'a, [u8; 18]>),
}

/// A class index, and the requester's ISD and AS in it with the peers before them.
pub(in crate::registry) struct Surroundings<'a, P> {
    index: &'a ClassIndex<P>,
    isd: Option<(&'a Isd<P>, Tally)>,
    group: Option<(&'a Group<P>, Tally)>,
}

/// Numbers of the peers of one kind in a class index: from `first` on, without the `width` ones at `hole`.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    hole: u32,
    width: u32,
}

impl Range {
    #[inline]
    const fn at(self, number: u32) -> u32 {
        let number = self.first + number;
        if number < self.hole {
            number
        } else {
            number + self.width
        }
    }
}

impl View<'_> {
    /// All whom the requester can reach.
    pub(in crate::registry) fn everyone(&self) -> Tally {
        let mut sum = Tally::default();
        for class in &self.classes {
            sum += class.all;
        }
        sum
    }
}

impl<'a> ClassView<'a> {
    pub(in crate::registry) fn new<P: Packed + std::hash::Hash>(
        by_family: impl FnOnce(Surroundings<'a, P>) -> ByFamily<'a>,
        index: &'a ClassIndex<P>,
        me: &PeerEntry,
        slot: Option<Slot>,
        keys: &RandomState,
    ) -> Self {
        let total = index.sums.total();
        let mut around = Surroundings {
            index,
            isd: None,
            group: None,
        };
        let mut isd = (Tally::default(), Tally::default());
        if let Some(at) = index.find_isd(me.ia.isd().0, keys) {
            let node = &index.isds[at as usize];
            isd = (index.sums.prefix(at as usize), node.sums.total());
            around.isd = Some((node, isd.0));
        }
        let mut group = (isd.0, Tally::default());
        let mut numbers = [None; 3];
        if let Some((in_isd, at)) = index.find_group(me.ia, keys) {
            let node = &index.isds[in_isd as usize];
            group.0 += node.sums.prefix(at as usize);
            let own = &node.groups[at as usize];
            group.1 = own.tally();
            around.group = Some((own, group.0));
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
        let tiers = if index.unplaced {
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
        let standing = index.class.standing();
        Self {
            by_family: by_family(around),
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

    /// Where the peers of a pool are.
    fn range(&self, pool: Pool, kind: Kind) -> Range {
        let around = |first: u32, (before, inside): (Tally, Tally)| Range {
            first,
            hole: before.of(kind),
            width: inside.of(kind),
        };
        let around_me = |first: u32| Range {
            first,
            hole: self.me[kind as usize].unwrap_or(u32::MAX),
            width: 1,
        };
        match pool {
            Pool::Of(Tier::OtherIsd, _) => around(0, self.isd),
            Pool::Of(Tier::SameIsd, _) => around(self.isd.0.of(kind), self.group),
            Pool::Of(Tier::SameAs, _) => around_me(self.group.0.of(kind)),
            Pool::Everyone | Pool::Of(Tier::Unplaced, _) => around_me(0),
        }
    }

    fn take(
        &self,
        pool: Pool,
        kind: Kind,
        draw: Draw,
        rng: &mut Rng,
        chosen: &mut impl Chosen<'a>,
    ) {
        let range = self.range(pool, kind);
        match &self.by_family {
            ByFamily::Four(around) => around.take(pool, kind, range, draw, rng, chosen),
            ByFamily::Six(around) => around.take(pool, kind, range, draw, rng, chosen),
        }
    }

    fn pick(&self, pool: Pool, kind: Kind, number: u32, chosen: &mut impl Chosen<'a>) {
        let number = self.range(pool, kind).at(number);
        match &self.by_family {
            ByFamily::Four(around) => around.pick(kind, number, chosen),
            ByFamily::Six(around) => around.pick(kind, number, chosen),
        }
    }
}

impl<'a, P: Packed + std::hash::Hash> Surroundings<'a, P> {
    /// Takes what is drawn. In the requester's own AS and ISD no peer has to be looked for in the whole
    /// index.
    fn take(
        &self,
        pool: Pool,
        kind: Kind,
        range: Range,
        mut draw: Draw,
        rng: &mut Rng,
        chosen: &mut impl Chosen<'a>,
    ) {
        let only = || Some((self.index.only_group()?, Tally::default()));
        let (group, isd) = match pool {
            Pool::Of(Tier::SameAs, _) => (self.group, None),
            Pool::Of(Tier::SameIsd, _) => (None, self.isd),
            _ => (only(), None),
        };
        if let Some((group, before)) = group {
            let before = before.of(kind);
            let (addrs, heads) = group.of(kind);
            let heads = &heads[..addrs.len()];
            let (ia, class) = (group.ia, self.index.class);
            for (number, length) in draw.runs(rng) {
                let first = (range.at(number) - before) as usize;
                let end = addrs.len().min(first + length as usize);
                prefetch_slice(&addrs[first..end], usize::MAX);
            }
            while let Some(number) = draw.next(rng) {
                let at = (range.at(number) - before) as usize;
                chosen.put(ia, class, &addrs[at], &heads[at].id);
            }
        } else if let Some((isd, before)) = isd {
            while let Some(number) = draw.next(rng) {
                let (group, nth) = isd.nth(kind, range.at(number) - before.of(kind));
                self.push(group, kind, nth, chosen);
            }
        } else {
            while let Some(number) = draw.next(rng) {
                self.pick(kind, range.at(number), chosen);
            }
        }
    }

    #[inline]
    fn pick(&self, kind: Kind, number: u32, chosen: &mut impl Chosen<'a>) {
        let (group, nth) = self.index.nth(kind, number);
        self.push(group, kind, nth, chosen);
    }

    #[inline]
    fn push(&self, group: &'a Group<P>, kind: Kind, nth: u32, chosen: &mut impl Chosen<'a>) {
        let (addrs, heads) = group.of(kind);
        let nth = nth as usize;
        chosen.put(group.ia, self.index.class, &addrs[nth], &heads[nth].id);
    }
}

impl<'a, C: Chosen<'a>> Pools<C> for View<'a> {
    fn tally(&self, pool: Pool) -> Tally {
        let mut sum = Tally::default();
        for class in &self.classes {
            sum += class.tally(pool);
        }
        sum
    }

    // Inlined into the loop over the pools, it costs 300 instructions more per announce.
    #[inline(never)]
    fn take(&self, pool: Pool, kind: Kind, mut draw: Draw, rng: &mut Rng, chosen: &mut C) {
        if let [only] = self.classes.as_slice() {
            return only.take(pool, kind, draw, rng, chosen);
        }
        while let Some(mut number) = draw.next(rng) {
            for class in &self.classes {
                let here = class.tally(pool).of(kind);
                if number < here {
                    class.pick(pool, kind, number, chosen);
                    break;
                }
                number -= here;
            }
        }
    }
}
