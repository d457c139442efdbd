//! A swarm of a few peers: one exact allocation, searched from end to end.

use std::cmp::Ordering;

use arrayvec::ArrayVec;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::sources;
use crate::registry::swarm::seeds::HandedOut;
use crate::registry::swarm::{Order, want};
use crate::registry::table::record::{Chosen as _, Flags, Packed, Picks, Record, Tick, family};
use crate::registry::{Accepts, Classes, MAX_NUMWANT, PeerEntry, Selection};
use crate::request::Family;
use crate::response::{AddrBytes, Peer, PeerSink, Rows};
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

    /// Of an IPv4 peer, its row in [`Rows::Ip`].
    fn ip_row(&self) -> [u8; 6] {
        match self.record.addr.bytes() {
            AddrBytes::V4(addr) => *addr,
            AddrBytes::V6(_) => [0; 6],
        }
    }

    /// Of an IPv4 peer, its row in [`Rows::Scion`].
    fn scion_row(&self) -> [u8; 14] {
        let mut row = [0; 14];
        row[..8].copy_from_slice(&self.ia);
        row[8..].copy_from_slice(&self.ip_row());
        row
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
        /// What a peer adds, by the low four bits of its flags: seeds, leechers and partial seeds, in a byte each.
        const ADDED: [u32; 16] = {
            let mut added = [0; 16];
            let mut bits = 0;
            while bits < 16 {
                let flags = Flags::low(bits);
                if !flags.twin() {
                    let leecher = !flags.seed() as u32;
                    added[bits as usize] =
                        flags.seed() as u32 | leecher << 8 | (flags.partial() as u32) << 16;
                }
                bits += 1;
            }
            added
        };
        let all = self.0.iter();
        let added = all.map(|peer| ADDED[usize::from(peer.record.flags.to_bits() & 15)]);
        // At most `MOST` of each, so no byte overflows.
        let [seeds, leechers, partial, _] = added.sum::<u32>().to_le_bytes().map(u32::from);
        (Tally { seeds, leechers }, partial)
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

    /// Refreshes a peer from its announce. Returns whether that completes a download.
    #[inline]
    pub(super) fn renew(&mut self, at: usize, peer: &PeerEntry, now: Tick) -> bool {
        let record = &mut self.0[at].record;
        let (head, completes) = Record::of(peer, Some(record.known()), false, now);
        *record = head.at(record.addr);
        completes
    }

    /// Whether everybody has room in the reply and may be in it, so that there is nothing to choose.
    pub(super) fn all_fit(&self, requester: &PeerEntry, selection: &Selection<'_>) -> bool {
        // The requester itself is among them.
        let all = self.0.len() <= selection.numwant.min(MAX_NUMWANT) + 1;
        all && (selection.policy.mode != Mode::Cap || !selection.policy.by_tiers(requester.ia))
    }

    /// Hands out everybody whom the requester reaches and has a use for.
    // A function of its own: among the other ways to hand out, this loop, which most replies run through, would
    // have to keep its variables in memory.
    #[inline(never)]
    pub(super) fn hand_out_all<S: PeerSink>(
        &self,
        requester: &PeerEntry,
        me: usize,
        selection: &Selection<'_>,
        order: Order<'_>,
        sink: &mut S,
    ) {
        let wanted = match want(requester) {
            Want::Leechers => Kinds::leechers,
            Want::Anyone | Want::Seeds => Kinds::all,
        };
        for classes in listed::<P, S>(selection, sink) {
            if !classes.is_empty() {
                let all = order.of(self.0.len());
                self.hand_over(all, wanted(classes), me, order, sink);
            }
        }
    }

    /// Hands out to a seed the leechers that it reaches, all of which [fit](Self::all_fit), and then up to
    /// [`SEEDS_FOR_SEEDS`] seeds. Leaves the seeds to the caller if there are more and places matter.
    #[inline(never)]
    pub(super) fn hand_out_to_seed<S: PeerSink>(
        &self,
        requester: &PeerEntry,
        me: usize,
        selection: &Selection<'_>,
        order: Order<'_>,
        sink: &mut S,
    ) -> HandedOut {
        let sets = listed::<P, S>(selection, sink);
        let mut leechers = 0;
        for classes in sets {
            if !classes.is_empty() {
                let all = order.of(self.0.len());
                leechers += self.hand_over(all, Kinds::leechers(classes), me, order, sink);
            }
        }
        let room = selection.numwant.saturating_sub(leechers);
        let mut left = room.min(SEEDS_FOR_SEEDS);
        let seeds = sets.map(|classes| self.positions(Kinds::seeds(classes), me));
        if seeds[0].len() + seeds[1].len() > left && selection.policy.by_tiers(requester.ia) {
            return HandedOut::Leechers(leechers);
        }
        for (seeds, classes) in seeds.iter().zip(sets) {
            let count = left.min(seeds.len());
            let some = order.of(seeds.len()).take(count);
            let some = some.map(|number| usize::from(seeds[number]));
            self.hand_over(some, Kinds::seeds(classes), me, order, sink);
            left -= count;
        }
        HandedOut::All
    }

    /// Where the others of these kinds are.
    fn positions(&self, kinds: Kinds, me: usize) -> ArrayVec<u8, MOST> {
        if kinds.is_empty() {
            return ArrayVec::new();
        }
        let mut positions = [0; MOST];
        let mut count = 0;
        for (at, PlacedRecord { record, .. }) in self.0.iter().enumerate() {
            // Without a branch: kinds come in no order. There are fewer than `MOST` before this one.
            positions[count % MOST] = at as u8;
            count += usize::from(kinds.have(record) && at != me);
        }
        let mut positions = ArrayVec::from(positions);
        positions.truncate(count);
        positions
    }

    /// Hands out those of these kinds who are at these positions, but not the requester. Returns how many.
    // Inlined, so that each loop has the tests of its iterator inside.
    #[inline(always)]
    fn hand_over<S: PeerSink>(
        &self,
        positions: impl Iterator<Item = usize>,
        kinds: Kinds,
        me: usize,
        order: Order<'_>,
        sink: &mut S,
    ) -> usize {
        let goes = |at: usize, placed: &PlacedRecord<P>| {
            let (record, peer) = (&placed.record, placed.peer());
            kinds.have(record)
                && !(order.has_port_of(&peer) && (at == me || order.is_of_requester(&peer)))
        };
        let filled = match rows::<P, S>(sink) {
            Some(Rows::Ip(rows)) => self.fill(positions, goes, rows, PlacedRecord::ip_row),
            Some(Rows::Scion(rows)) => self.fill(positions, goes, rows, PlacedRecord::scion_row),
            None => {
                let mut pushed = 0;
                for at in positions {
                    if goes(at, &self.0[at]) {
                        sink.push(self.0[at].peer());
                        pushed += 1;
                    }
                }
                return pushed;
            }
        };
        sink.filled(filled);
        filled
    }

    /// Writes the rows of those who go. Returns how many.
    #[inline(always)]
    fn fill<const N: usize>(
        &self,
        positions: impl Iterator<Item = usize>,
        goes: impl Fn(usize, &PlacedRecord<P>) -> bool,
        rows: &mut [[u8; N]],
        row: impl Fn(&PlacedRecord<P>) -> [u8; N],
    ) -> usize {
        let all = rows.len();
        let mut free = rows.iter_mut();
        for at in positions {
            let placed = &self.0[at];
            if goes(at, placed) {
                let Some(room) = free.next() else { break };
                *room = row(placed);
            }
        }
        all - free.len()
    }

    pub(super) fn view(&self, me: &PeerEntry, position: usize, classes: Classes) -> View<'_, P> {
        View::new(&self.0, me.ia, position, classes)
    }
}

/// Which peers are handed out: one bit for each of the [`Flags::kind`]s of either family.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    v4: u32,
    v6: u32,
}

impl Kinds {
    fn all(classes: Classes) -> Self {
        Self::leechers(classes).or(Self::seeds(classes))
    }

    fn leechers(classes: Classes) -> Self {
        Self::of(classes, 0)
    }

    fn seeds(classes: Classes) -> Self {
        Self::of(classes, 16)
    }

    /// Proven and claimed ones.
    fn of(classes: Classes, first: u32) -> Self {
        let [v4, v6] = classes
            .families()
            .map(|bits| (u32::from(bits) * 0x101) << first);
        Self { v4, v6 }
    }

    fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4 | other.v4,
            v6: self.v6 | other.v6,
        }
    }

    const fn is_empty(self) -> bool {
        self.v4 == 0 && self.v6 == 0
    }

    #[inline(always)]
    fn have<P: Packed>(self, record: &Record<P>) -> bool {
        let bits = match record.family() {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        bits.wrapping_shr(record.flags.kind()) & 1 != 0
    }
}

/// The rows of a reply, if all peers of a swarm can stand in them.
fn rows<P: Packed, S: PeerSink>(sink: &mut S) -> Option<Rows<'_>> {
    match P::FAMILY {
        Some(Family::V4) => sink.rows(),
        _ => None,
    }
}

/// The classes that a requester accepts, first and then, as far as its reply lists them.
fn listed<P: Packed, S: PeerSink>(selection: &Selection<'_>, sink: &mut S) -> [Classes; 2] {
    let Accepts { first, then } = selection.accepts;
    match rows::<P, S>(sink) {
        Some(Rows::Ip(_)) => [first, then].map(|set| set.and(Classes::OVER_IP)),
        Some(Rows::Scion(_)) => [first, then].map(|set| set.and(Classes::OVER_SCION)),
        None => [first, then],
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
