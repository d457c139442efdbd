//! A swarm of a few peers: one exact allocation, searched from end to end.

use std::cmp::Ordering;

use arrayvec::ArrayVec;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::sources;
use crate::registry::swarm::seeds::HandedOut;
use crate::registry::swarm::{Order, want};
use crate::registry::table::record::{Chosen as _, Packed, Picks, Record, family};
use crate::registry::{Classes, MAX_NUMWANT, PeerEntry, Selection};
use crate::response::{Peer, PeerSink};
use crate::select::{Draw, Kind, Mode, Pool, Pools, SEEDS_FOR_SEEDS, Standing, Tally, Tier, Want};
use crate::types::Rng;

/// The most peers that are kept this way. Above, finding one costs more than an index does.
pub(super) const MOST: usize = 32;

/// A peer that carries its place with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedRecord<P> {
    ia: [u8; 8],
    pub(super) record: Record<P>,
}

impl<P: Packed> PlacedRecord<P> {
    pub(super) const fn new(ia: IsdAs, record: Record<P>) -> Self {
        Self {
            ia: ia.to_u64().to_be_bytes(),
            record,
        }
    }

    pub(super) const fn ia(&self) -> IsdAs {
        IsdAs::from_u64(u64::from_be_bytes(self.ia))
    }

    // Inlined, so that no peer of a reply is put into memory.
    #[inline(always)]
    fn peer(&self) -> Peer<'_> {
        Peer {
            ia: self.ia(),
            reach: self.record.flags.class().reach(),
            addr: self.record.addr.bytes(),
            id: &self.record.id,
        }
    }
}

/// At most [`MOST`] peers, in no order.
#[derive(Debug, Default)]
pub(super) struct SmallSwarm<P>(pub(super) Box<[PlacedRecord<P>]>);

impl<P: Packed> SmallSwarm<P> {
    pub(super) fn find(&self, ia: IsdAs, addr: &CompactAddr) -> Option<usize> {
        let addr = P::pack(addr)?;
        let ia = ia.to_u64().to_be_bytes();
        self.0
            .iter()
            .position(|peer| peer.record.addr == addr && peer.ia == ia)
    }

    /// Appends a peer; returns its position.
    pub(super) fn insert(&mut self, peer: PlacedRecord<P>) -> usize {
        let mut peers = std::mem::take(&mut self.0).into_vec();
        peers.reserve_exact(1);
        peers.push(peer);
        self.0 = peers.into_boxed_slice();
        self.0.len() - 1
    }

    pub(super) fn remove(&mut self, position: usize) {
        let mut peers = std::mem::take(&mut self.0).into_vec();
        peers.swap_remove(position);
        self.0 = peers.into_boxed_slice();
    }

    /// How many clients are seeds and leechers, and how many of the leechers are partial seeds.
    pub(super) fn counts(&self) -> (Tally, u32) {
        let mut tally = Tally::default();
        let mut partial = 0;
        for peer in &self.0 {
            let flags = peer.record.flags;
            if flags.twin() {
                continue;
            }
            if flags.seed() {
                tally.seeds += 1;
            } else {
                tally.leechers += 1;
                partial += u32::from(flags.partial());
            }
        }
        (tally, partial)
    }

    /// How many peers of the host are here.
    pub(super) fn peers_of(&self, host: Host) -> u32 {
        let identity = sources::identity(host);
        let of_host = self.0.iter().filter(|peer| {
            let addr = peer.record.addr.bytes().to_compact();
            let class = peer.record.flags.class();
            sources::identity(class.source(peer.ia(), &addr)) == identity
        });
        of_host.count() as u32
    }

    /// Removes those whom `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&PlacedRecord<P>) -> bool) {
        let Some(first) = self.0.iter().position(|peer| !keep(peer)) else {
            return;
        };
        let mut peers = std::mem::take(&mut self.0).into_vec();
        let mut numbers = 0..;
        // Those up to the first one that goes have been asked about.
        peers.retain(|peer| match numbers.next().cmp(&Some(first)) {
            Ordering::Less => true,
            Ordering::Equal => false,
            Ordering::Greater => keep(peer),
        });
        self.0 = peers.into_boxed_slice();
    }

    pub(super) const fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<PlacedRecord<P>>()
    }

    pub(super) fn update(&mut self, position: usize, head: Record<()>) {
        let record = &mut self.0[position].record;
        *record = head.at(record.addr);
    }

    /// Whether everybody has room in the reply and may be in it, so that there is nothing to choose.
    pub(super) fn all_fit(&self, requester: &PeerEntry, selection: &Selection<'_>) -> bool {
        // The requester itself is among them.
        let all = self.0.len() <= selection.numwant.min(MAX_NUMWANT) + 1;
        all && (selection.policy.mode != Mode::Cap || !selection.policy.by_tiers(requester.ia))
    }

    /// Hands out everybody whom the requester reaches and has a use for.
    pub(super) fn hand_out_all<S: PeerSink>(
        &self,
        requester: &PeerEntry,
        me: usize,
        selection: &Selection<'_>,
        order: Order<'_>,
        sink: &mut S,
    ) {
        let leechers_only = want(requester) == Want::Leechers;
        for classes in [selection.accepts.first, selection.accepts.then] {
            if classes.is_empty() {
                continue;
            }
            for at in order.of(self.0.len()) {
                if at == me {
                    continue;
                }
                let placed = &self.0[at];
                let (peer, flags) = (placed.peer(), placed.record.flags);
                let reached = flags.class().is_in(classes, family(&peer.addr));
                if reached && !(leechers_only && flags.seed()) {
                    order.push(peer, sink);
                }
            }
        }
    }

    /// Hands out to a seed the leechers that it reaches, all of which [fit](Self::all_fit), and then up to
    /// [`SEEDS_FOR_SEEDS`] seeds. Leaves the seeds to the caller if there are more and places matter.
    pub(super) fn hand_out_to_seed<S: PeerSink>(
        &self,
        requester: &PeerEntry,
        me: usize,
        selection: &Selection<'_>,
        order: Order<'_>,
        sink: &mut S,
    ) -> HandedOut {
        let sets = [selection.accepts.first, selection.accepts.then];
        // Positions, by set.
        let mut leechers = [const { ArrayVec::<u8, MOST>::new_const() }; 2];
        let mut seeds = [const { ArrayVec::<u8, MOST>::new_const() }; 2];
        for (at, PlacedRecord { record, .. }) in self.0.iter().enumerate() {
            let (flags, family) = (record.flags, family(&record.addr.bytes()));
            let reached = |set: &Classes| flags.class().is_in(*set, family);
            let Some(set) = sets.iter().position(reached) else {
                continue;
            };
            if at != me {
                let list = if flags.seed() {
                    &mut seeds
                } else {
                    &mut leechers
                };
                list[set].push(at as u8);
            }
        }
        let mut push = |positions: &[u8], count: usize| {
            for number in order.of(positions.len()).take(count) {
                let placed = &self.0[usize::from(positions[number])];
                order.push(placed.peer(), sink);
            }
        };
        for leechers in &leechers {
            push(leechers, leechers.len());
        }
        let leechers = leechers[0].len() + leechers[1].len();
        let room = selection.numwant.saturating_sub(leechers);
        let mut left = room.min(SEEDS_FOR_SEEDS);
        if seeds[0].len() + seeds[1].len() > left && selection.policy.by_tiers(requester.ia) {
            return HandedOut::Leechers(leechers);
        }
        for seeds in &seeds {
            let count = left.min(seeds.len());
            push(seeds, count);
            left -= count;
        }
        HandedOut::All
    }

    pub(super) fn view(&self, me: &PeerEntry, position: usize, classes: Classes) -> View<'_, P> {
        View::new(&self.0, me.ia, position, classes)
    }
}

/// What one requester can reach, sorted into pools.
pub(super) struct View<'a, P> {
    peers: &'a [PlacedRecord<P>],
    /// Positions in `peers`, by pool, seeds before leechers in each.
    order: ArrayVec<u8, MOST>,
    /// Where the seeds and then the leechers of each pool begin in `order`, and where all ends.
    starts: [u8; POOLS * 2 + 1],
    all: Tally,
}

/// Four tiers of two standings each.
const POOLS: usize = 8;

const fn pool_index(tier: Tier, standing: Standing) -> usize {
    tier as usize * 2 + standing as usize
}

impl<'a, P: Packed> View<'a, P> {
    fn new(peers: &'a [PlacedRecord<P>], ia: IsdAs, me: usize, classes: Classes) -> Self {
        const OUT: u8 = u8::MAX;
        let mut slots = [OUT; MOST];
        let mut starts = [0u8; POOLS * 2 + 1];
        let mut all = Tally::default();
        for (position, (peer, slot)) in peers.iter().zip(&mut slots).enumerate() {
            let flags = peer.record.flags;
            let class = flags.class();
            if position == me || !class.is_in(classes, family(&peer.record.addr.bytes())) {
                continue;
            }
            let tier = Tier::between(ia, peer.ia());
            *slot = (pool_index(tier, class.standing()) * 2 + usize::from(!flags.seed())) as u8;
            starts[usize::from(*slot) + 1] += 1;
            if flags.seed() {
                all.seeds += 1;
            } else {
                all.leechers += 1;
            }
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut next = starts;
        let mut sorted = [0; MOST];
        for (position, slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != OUT) {
            let at = &mut next[usize::from(*slot)];
            sorted[usize::from(*at)] = position as u8;
            *at += 1;
        }
        let order = sorted.into_iter().take(all.total() as usize).collect();
        Self {
            peers,
            order,
            starts,
            all,
        }
    }
}

impl<'a, P: Packed> Pools<Picks<'a>> for View<'a, P> {
    fn tally(&self, pool: Pool) -> Tally {
        match pool {
            Pool::Everyone => self.all,
            Pool::Of(tier, standing) => {
                let slot = pool_index(tier, standing) * 2;
                let [seeds, leechers, end] = [0, 1, 2].map(|i| u32::from(self.starts[slot + i]));
                Tally {
                    seeds: leechers - seeds,
                    leechers: end - leechers,
                }
            }
        }
    }

    fn take(&self, pool: Pool, kind: Kind, mut draw: Draw, rng: &mut Rng, chosen: &mut Picks<'a>) {
        while let Some(number) = draw.next(rng) {
            self.pick(pool, kind, number as usize, chosen);
        }
    }
}

impl<'a, P: Packed> View<'a, P> {
    fn pick(&self, pool: Pool, kind: Kind, number: usize, chosen: &mut Picks<'a>) {
        let at = match (pool, kind) {
            (Pool::Of(tier, standing), kind) => {
                let slot = pool_index(tier, standing) * 2 + usize::from(kind == Kind::Leechers);
                usize::from(self.starts[slot]) + number
            }
            (Pool::Everyone, Kind::Anyone) => number,
            // The kind is scattered over the pools.
            (Pool::Everyone, kind) => self.nth_of(kind, number),
        };
        let peer = &self.peers[usize::from(self.order[at])];
        let Record {
            addr, id, flags, ..
        } = &peer.record;
        chosen.put(peer.ia(), flags.class(), addr, id);
    }

    fn nth_of(&self, kind: Kind, mut number: usize) -> usize {
        let first = usize::from(kind == Kind::Leechers);
        for slot in (first..POOLS * 2).step_by(2) {
            let [start, end] = [slot, slot + 1].map(|i| usize::from(self.starts[i]));
            if number < end - start {
                return start + number;
            }
            number -= end - start;
        }
        0
    }
}
