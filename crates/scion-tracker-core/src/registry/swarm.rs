//! One swarm, in the form that fits its size, and how it goes from one form to the next.

mod look;
pub(super) mod seeds;
mod visit;

use ahash::RandomState;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::large::LargeSwarm;
use crate::registry::large::class_index::{Cursor, Slot};
use crate::registry::large::group::Group;
use crate::registry::large::view::View;
use crate::registry::prefetch::{prefetch_slice, prefetch_value};
use crate::registry::small::{self, PlacedRecord, SmallSwarm};
use crate::registry::table::record::{Chosen, Class, Known, Packed, Picks, Record, Tick};
use crate::registry::{MAX_NUMWANT, PeerEntry, Selection};
use crate::request::Event;
use crate::response::{Peer, PeerSink, SwarmCounts};
use crate::select::{self, Pools, Want};
use crate::types::{PeerId, Rng};

/// A large swarm becomes a small one again at this size.
const SHRINK_AT: u32 = small::MOST as u32 / 2;

/// The peers of one torrent.
#[derive(Debug)]
pub(super) enum Swarm {
    /// A few peers, all of them IPv4.
    Four(SmallSwarm<[u8; 6]>),
    /// A few peers of either family.
    Mixed(SmallSwarm<[u8; 18]>),
    /// More than a few.
    Large(Box<LargeSwarm>),
}

/// Where a peer is in a swarm, until the next change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Position {
    Small(usize),
    Large(Slot),
}

impl Swarm {
    pub(super) fn new() -> Self {
        Self::Four(SmallSwarm::default())
    }

    pub(super) fn counts(&self, completed: u32) -> SwarmCounts {
        let (tally, partial) = match self {
            Self::Four(small) => small.counts(),
            Self::Mixed(small) => small.counts(),
            Self::Large(large) => large.counts(),
        };
        SwarmCounts {
            seeders: tally.seeds,
            leechers: tally.leechers,
            downloaders: tally.leechers - partial,
            completed,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Four(small) => small.0.len(),
            Self::Mixed(small) => small.0.len(),
            Self::Large(large) => large.tally().total() as usize,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Four(small) => small.heap_bytes(),
            Self::Mixed(small) => small.heap_bytes(),
            Self::Large(large) => large.heap_bytes(),
        }
    }

    pub(super) fn find(&self, peer: &PeerEntry, keys: &RandomState) -> Option<Position> {
        self.find_at(peer.ia, &peer.addr, keys)
    }

    /// The peer with this ISD-AS and address.
    #[inline]
    pub(super) fn find_at(
        &self,
        ia: IsdAs,
        addr: &CompactAddr,
        keys: &RandomState,
    ) -> Option<Position> {
        match self {
            Self::Four(small) => small.find(ia, addr).map(Position::Small),
            Self::Mixed(small) => small.find(ia, addr).map(Position::Small),
            Self::Large(large) => large.find(ia, addr, keys).map(Position::Large),
        }
    }

    /// Has what an announce needs first fetched. `true` if there is more behind it.
    pub(super) fn prefetch(&self) -> bool {
        /// Lines of a swarm of a few peers; the processor itself goes on with what is read in order.
        const LINES: usize = 8;
        match self {
            Self::Four(small) => prefetch_slice(&small.0, LINES),
            Self::Mixed(small) => prefetch_slice(&small.0, LINES),
            Self::Large(large) => {
                let large: &LargeSwarm = large;
                prefetch_value(large);
                return true;
            }
        }
        false
    }

    /// The group of a large swarm in which an IPv4 peer is likely to be.
    pub(super) fn likely_group(&self, ia: IsdAs, keys: &RandomState) -> Option<&Group<[u8; 6]>> {
        match self {
            Self::Large(large) => large.likely_group(ia, keys),
            Self::Four(_) | Self::Mixed(_) => None,
        }
    }

    /// What is known of a peer.
    #[inline]
    pub(super) fn known(&self, position: Position) -> Option<Known<'_>> {
        match (self, position) {
            (Self::Four(small), Position::Small(at)) => Some(small.0[at].record.known()),
            (Self::Mixed(small), Position::Small(at)) => Some(small.0[at].record.known()),
            (Self::Large(large), Position::Large(slot)) => Some(large.head(slot).known()),
            _ => None,
        }
    }

    /// At least as many peers as the host has here; 255 stands for any larger number.
    pub(super) fn peers_of(&self, host: Host, keys: &RandomState) -> u32 {
        match self {
            Self::Four(small) => small.peers_of(host),
            Self::Mixed(small) => small.peers_of(host),
            Self::Large(large) => large.peers_of(host, keys),
        }
    }

    /// Enters a peer, or refreshes it at `position`. Returns where it is now, and whether this announce
    /// completes a download. `twin` says of a newcomer that its client is counted already.
    pub(super) fn enter(
        &mut self,
        peer: &PeerEntry,
        position: Option<Position>,
        twin: bool,
        now: Tick,
        keys: &RandomState,
    ) -> (Position, bool) {
        match (&mut *self, position) {
            (Self::Four(small), Some(position @ Position::Small(at))) => {
                (position, small.renew(at, peer, now))
            }
            (Self::Mixed(small), Some(position @ Position::Small(at))) => {
                (position, small.renew(at, peer, now))
            }
            (Self::Large(large), Some(Position::Large(slot))) => {
                let (slot, completes) = large.renew(slot, peer, now, keys);
                (Position::Large(slot), completes)
            }
            (_, None) => {
                let (head, completes) = Record::of(peer, None, twin, now);
                (self.insert(peer.ia, &peer.addr, head, keys), completes)
            }
            // A position belongs to the form of swarm that returned it.
            (_, Some(position)) => (position, false),
        }
    }

    /// Replaces all of the peer at `position` but its ISD-AS and address, which are these. Returns where it is
    /// now.
    #[inline]
    pub(super) fn update(
        &mut self,
        position: Position,
        ia: IsdAs,
        addr: &CompactAddr,
        head: Record<()>,
        keys: &RandomState,
    ) -> Position {
        match (&mut *self, position) {
            (Self::Four(small), Position::Small(at)) => small.update(at, head),
            (Self::Mixed(small), Position::Small(at)) => small.update(at, head),
            (Self::Large(large), Position::Large(slot)) => {
                return Position::Large(large.update(slot, ia, addr, head, keys));
            }
            // A position belongs to the form of swarm that returned it.
            _ => {}
        }
        position
    }

    /// Adds a peer that is not here. Returns where it is.
    pub(super) fn insert(
        &mut self,
        ia: IsdAs,
        addr: &CompactAddr,
        head: Record<()>,
        keys: &RandomState,
    ) -> Position {
        if self.len() == small::MOST && !matches!(self, Self::Large(_)) {
            self.grow(keys);
        }
        if let (Self::Four(small), CompactAddr::V6(_)) = (&*self, addr) {
            let mixed = small.0.iter().map(|peer| {
                let addr = peer.record.addr;
                let mapped = pack_mixed(&CompactAddr::V4(addr));
                PlacedRecord::new(peer.ia(), peer.record.at(mapped))
            });
            *self = Self::Mixed(SmallSwarm(mixed.collect()));
        }
        match self {
            Self::Four(small) => {
                let addr = match *addr {
                    CompactAddr::V4(addr) => addr,
                    // An IPv6 peer has made this swarm a mixed one.
                    CompactAddr::V6(_) => [0; 6],
                };
                Position::Small(small.insert(PlacedRecord::new(ia, head.at(addr))))
            }
            Self::Mixed(small) => {
                Position::Small(small.insert(PlacedRecord::new(ia, head.at(pack_mixed(addr)))))
            }
            Self::Large(large) => Position::Large(large.insert(ia, addr, head, keys)),
        }
    }

    fn grow(&mut self, keys: &RandomState) {
        let mut large = Box::<LargeSwarm>::default();
        self.for_each(|ia, addr, head| {
            large.insert(ia, &addr, head, keys);
        });
        *self = Self::Large(large);
    }

    /// Makes a large swarm that has become small a small one again.
    fn settle(&mut self) {
        let Self::Large(large) = self else { return };
        if large.tally().total() > SHRINK_AT {
            return;
        }
        let mut four = Vec::new();
        let mut mixed = Vec::new();
        large.for_each(|ia, addr, head| {
            if let CompactAddr::V4(addr) = addr {
                four.push(PlacedRecord::new(ia, head.at(addr)));
            }
            mixed.push(PlacedRecord::new(ia, head.at(pack_mixed(&addr))));
        });
        *self = if four.len() == mixed.len() {
            Self::Four(SmallSwarm(four.into_boxed_slice()))
        } else {
            Self::Mixed(SmallSwarm(mixed.into_boxed_slice()))
        };
    }

    /// Removes the peer at `position`.
    pub(super) fn remove(&mut self, peer: &PeerEntry, position: Position, keys: &RandomState) {
        match (&mut *self, position) {
            (Self::Four(small), Position::Small(at)) => small.remove(at),
            (Self::Mixed(small), Position::Small(at)) => small.remove(at),
            (Self::Large(large), Position::Large(slot)) => {
                large.remove(slot, peer.ia, &peer.addr, keys);
                self.settle();
            }
            // A position belongs to the form of swarm that returned it.
            _ => {}
        }
    }

    /// Removes the peers that `goes` names, once each, and tells `gone` of them. Visits about `budget` peers at
    /// most; `false` if there are more.
    pub(super) fn remove_where(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        keys: &RandomState,
        mut goes: impl FnMut(IsdAs, &Record<()>) -> bool,
        mut gone: impl FnMut(Host, bool),
    ) -> bool {
        fn retain<P: Packed>(
            small: &mut SmallSwarm<P>,
            goes: &mut impl FnMut(IsdAs, &Record<()>) -> bool,
            gone: &mut impl FnMut(Host, bool),
        ) {
            small.retain(|peer| {
                let head = peer.record.head();
                let goes = goes(peer.ia(), &head);
                if goes {
                    let addr = peer.record.addr.bytes().to_compact();
                    let class = head.flags.class();
                    gone(class.source(peer.ia(), &addr), head.flags.seed());
                }
                !goes
            });
        }
        match self {
            Self::Large(large) => {
                let finished = large.expire(cursor, budget, keys, |ia, addr, head| {
                    let goes = goes(ia, &head);
                    if goes {
                        gone(head.flags.class().source(ia, addr), head.flags.seed());
                    }
                    goes
                });
                if finished {
                    self.settle();
                }
                finished
            }
            Self::Four(small) => {
                *budget = budget.saturating_sub(small.0.len());
                retain(small, &mut goes, &mut gone);
                true
            }
            Self::Mixed(small) => {
                *budget = budget.saturating_sub(small.0.len());
                retain(small, &mut goes, &mut gone);
                true
            }
        }
    }

    /// Tells `gone` of every peer, for a swarm that is to be dropped.
    pub(super) fn drain(&self, mut gone: impl FnMut(Host, bool)) {
        self.for_each(|ia, addr, head| {
            gone(head.flags.class().source(ia, &addr), head.flags.seed());
        });
    }

    /// Chooses peers for the one at `position` and hands them to the sink, shuffled.
    pub(super) fn hand_out<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        position: Position,
        selection: &Selection<'_>,
        keys: &RandomState,
        rng: &mut Rng,
        sink: &mut S,
    ) {
        let numwant = selection.numwant.min(MAX_NUMWANT);
        if numwant == 0 {
            return;
        }
        let order = Order::new(peer, rng);
        match self {
            // Nothing to choose: most swarms, and most replies.
            Self::Four(small) if small.all_fit(peer, selection) => {
                let Position::Small(at) = position else {
                    return;
                };
                return small.hand_out_all(peer, at, selection, order, sink);
            }
            Self::Mixed(small) if small.all_fit(peer, selection) => {
                let Position::Small(at) = position else {
                    return;
                };
                return small.hand_out_all(peer, at, selection, order, sink);
            }
            Self::Large(large) if selection.accepts.then.is_empty() => {
                let Position::Large(slot) = position else {
                    return;
                };
                let mut view = View::default();
                large.show(&mut view, peer, slot, selection.accepts.first, keys);
                return hand_out_some(peer, selection, want(peer), &view, order, rng, sink);
            }
            _ => {}
        }
        let mut chosen = Picks::new();
        let requester = Requester { peer, position };
        self.choose(requester, want(peer), selection, keys, rng, &mut chosen);
        order.push_all(&chosen, sink);
    }

    /// Adds peers to `chosen` until there are `numwant`.
    fn choose<'a>(
        &'a self,
        requester: Requester<'_>,
        want: Want,
        selection: &Selection<'_>,
        keys: &RandomState,
        rng: &mut Rng,
        chosen: &mut Picks<'a>,
    ) {
        let Requester { peer, position } = requester;
        let numwant = selection.numwant.min(MAX_NUMWANT);
        for classes in [selection.accepts.first, selection.accepts.then] {
            if classes.is_empty() || chosen.len() >= numwant {
                continue;
            }
            let left = numwant - chosen.len();
            match (self, position) {
                (Self::Four(small), Position::Small(at)) => {
                    let view = small.view(peer, at, classes);
                    choose(peer, selection, left, want, &view, rng, chosen);
                }
                (Self::Mixed(small), Position::Small(at)) => {
                    let view = small.view(peer, at, classes);
                    choose(peer, selection, left, want, &view, rng, chosen);
                }
                (Self::Large(large), Position::Large(slot)) => {
                    let mut view = View::default();
                    large.show(&mut view, peer, slot, classes, keys);
                    choose(peer, selection, left, want, &view, rng, chosen);
                }
                // A position belongs to the form of swarm that returned it.
                _ => {}
            }
        }
    }
}

/// A peer that asks for others, and where it is.
#[derive(Debug, Clone, Copy)]
struct Requester<'a> {
    peer: &'a PeerEntry,
    position: Position,
}

fn pack_mixed(addr: &CompactAddr) -> [u8; 18] {
    // Both families fit.
    Packed::pack(addr).unwrap_or([0; 18])
}

fn choose<C, V: Pools<C>>(
    peer: &PeerEntry,
    selection: &Selection<'_>,
    numwant: usize,
    want: Want,
    view: &V,
    rng: &mut Rng,
    chosen: &mut C,
) {
    select::choose(selection.policy, peer.ia, numwant, want, view, rng, chosen);
}

/// Hands out what is chosen of a view.
fn hand_out_some<S: PeerSink>(
    peer: &PeerEntry,
    selection: &Selection<'_>,
    want: Want,
    view: &View<'_>,
    order: Order<'_>,
    rng: &mut Rng,
    sink: &mut S,
) {
    let numwant = selection.numwant.min(MAX_NUMWANT);
    let reachable = view.everyone().of(want.into()) as usize;
    // One draw over everybody has a random order. Peers need no list of their own to be shuffled in.
    if selection.policy.draws_from_all(peer.ia, numwant, reachable) {
        let mut chosen = Straight { order, sink };
        choose(peer, selection, numwant, want, view, rng, &mut chosen);
    } else {
        let mut chosen = Picks::new();
        choose(peer, selection, numwant, want, view, rng, &mut chosen);
        order.push_all(&chosen, sink);
    }
}

/// Which peers a requester gets first.
pub(super) fn want(requester: &PeerEntry) -> Want {
    if requester.seeder || requester.event == Event::Paused {
        Want::Leechers
    } else {
        Want::Anyone
    }
}

/// Hands chosen peers over as they are chosen.
struct Straight<'a, S> {
    order: Order<'a>,
    sink: &'a mut S,
}

impl<'a, S: PeerSink> Chosen<'a> for Straight<'_, S> {
    #[inline]
    fn put<P: Packed>(&mut self, ia: IsdAs, class: Class, addr: &'a P, id: &'a PeerId) {
        let (addr, reach) = (addr.bytes(), class.reach());
        let peer = Peer {
            ia,
            reach,
            addr,
            id,
        };
        self.order.push(peer, self.sink);
    }
}

/// How peers are handed over to one requester: in an order in which each may stand anywhere.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    requester: &'a PeerEntry,
    port: [u8; 2],
    draw: u64,
}

impl<'a> Order<'a> {
    pub(super) fn new(requester: &'a PeerEntry, rng: &mut Rng) -> Self {
        Self {
            requester,
            port: requester.addr.port_bytes(),
            draw: rng.u64(..),
        }
    }

    /// The numbers below `count` (at most [`MAX_NUMWANT`]): from a random one on, by a random stride that
    /// has no factor in common with `count`.
    #[inline]
    pub(super) fn of(self, count: usize) -> impl Iterator<Item = usize> {
        /// Primes above [`MAX_NUMWANT`].
        const STRIDES: [usize; 16] = [
            503, 509, 521, 523, 541, 547, 557, 563, 569, 571, 577, 587, 593, 599, 601, 607,
        ];
        let stride = STRIDES[(self.draw & 15) as usize] % count.max(1);
        let mut next = ((self.draw >> 32) as usize * count) >> 32;
        (0..count).map(move |_| {
            let at = next;
            next += stride;
            let (round, short) = next.overflowing_sub(count);
            next = if short { next } else { round };
            at
        })
    }

    /// Hands the chosen ones over.
    fn push_all<S: PeerSink>(self, chosen: &Picks<'_>, sink: &mut S) {
        for at in self.of(chosen.len()) {
            if let Some(peer) = chosen[at].peer() {
                self.push(peer, sink);
            }
        }
    }

    /// Hands a peer over, unless it is the requester itself.
    // Inlined: as a function it would get the peer through memory and test again what callers know.
    #[inline(always)]
    pub(super) fn push<S: PeerSink>(self, peer: Peer<'_>, sink: &mut S) {
        if !(self.has_port_of(&peer) && self.is_of_requester(&peer)) {
            sink.push(peer);
        }
    }

    /// Whether a peer has the port of the requester: a quick test, which nearly every other peer fails.
    #[inline(always)]
    pub(super) fn has_port_of(self, peer: &Peer<'_>) -> bool {
        peer.addr.port_bytes() == self.port
    }

    /// Whether a peer is the requester itself under another ISD-AS, from an earlier announce. Only on the Internet
    /// are two with one address one host; an address inside an AS is another one in the next AS.
    pub(super) fn is_of_requester(self, peer: &Peer<'_>) -> bool {
        let requester = self.requester;
        requester.reach.over_ip()
            && peer.reach.over_ip()
            && peer.addr.is(&requester.addr)
            && *peer.id == requester.id
    }
}
