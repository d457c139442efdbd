//! Chooses peers for seeds: leechers, and then a few seeds if it may be a leecher.

use ahash::RandomState;

use super::{Order, Position, Requester, Swarm, hand_out_some};
use crate::registry::large::view::View;
use crate::registry::table::record::Picks;
use crate::registry::{MAX_NUMWANT, PeerEntry, Selection};
use crate::request::Event;
use crate::response::{Peer, PeerSink, Rows};
use crate::select::{SEEDS_FOR_SEEDS, Want};
use crate::types::Rng;

impl Swarm {
    /// As [`Swarm::hand_out`], for a seed.
    pub(in crate::registry) fn hand_out_to_seed<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        position: Position,
        selection: &Selection<'_>,
        keys: &RandomState,
        rng: &mut Rng,
        sink: &mut S,
    ) {
        let numwant = selection.numwant.min(MAX_NUMWANT);
        let order = Order::new(peer, rng);
        let handed_out = match (self, position) {
            // A view would cost more than all the rest of such an announce.
            (Self::Four(small), Position::Small(at))
                if small.all_fit(peer, selection) && self.may_be_leecher(peer, position) =>
            {
                small.hand_out_to_seed(peer, at, selection, order, sink)
            }
            (Self::Mixed(small), Position::Small(at))
                if small.all_fit(peer, selection) && self.may_be_leecher(peer, position) =>
            {
                small.hand_out_to_seed(peer, at, selection, order, sink)
            }
            // One view serves both.
            (Self::Large(large), Position::Large(slot))
                if numwant > 0 && selection.accepts.then.is_empty() =>
            {
                let mut view = View::default();
                large.show(&mut view, peer, slot, selection.accepts.first, keys);
                let mut given = Counted { sink, pushed: 0 };
                hand_out_some(
                    peer,
                    selection,
                    Want::Leechers,
                    &view,
                    order,
                    rng,
                    &mut given,
                );
                let room = numwant.saturating_sub(given.pushed);
                if room > 0 && self.may_be_leecher(peer, position) {
                    let seeds = seeds(selection, room);
                    hand_out_some(peer, &seeds, Want::Seeds, &view, order, rng, sink);
                }
                return;
            }
            _ => {
                let mut leechers = Counted { sink, pushed: 0 };
                self.hand_out(peer, position, selection, keys, rng, &mut leechers);
                if leechers.pushed >= numwant || !self.may_be_leecher(peer, position) {
                    return;
                }
                HandedOut::Leechers(leechers.pushed)
            }
        };
        let HandedOut::Leechers(leechers) = handed_out else {
            return;
        };
        let room = numwant.saturating_sub(leechers);
        if room == 0 {
            return;
        }
        let mut chosen = Picks::new();
        let requester = Requester { peer, position };
        let seeds = seeds(selection, room);
        self.choose(requester, Want::Seeds, &seeds, keys, rng, &mut chosen);
        order.push_all(&chosen, sink);
    }

    /// Whether a peer that says that it is a seed may be a leecher that does not know the length of its
    /// torrent: one that was not seen as a leecher before.
    pub(super) fn may_be_leecher(&self, peer: &PeerEntry, position: Position) -> bool {
        let finished = self
            .known(position)
            .is_some_and(|known| *known.id == peer.id && known.flags.was_leecher());
        peer.seeder && peer.event != Event::Paused && !finished
    }
}

/// The selection of the seeds that fill this room.
fn seeds<'a>(selection: &Selection<'a>, room: usize) -> Selection<'a> {
    Selection {
        numwant: room.min(SEEDS_FOR_SEEDS),
        ..*selection
    }
}

/// What a seed has been given of a small swarm.
#[derive(Debug, Clone, Copy)]
pub(in crate::registry) enum HandedOut {
    /// Leechers and seeds.
    All,
    /// This many leechers. Seeds are still to be chosen.
    Leechers(usize),
}

/// Counts the peers that it passes on.
struct Counted<'a, S> {
    sink: &'a mut S,
    pushed: usize,
}

impl<S: PeerSink> PeerSink for Counted<'_, S> {
    fn push(&mut self, peer: Peer<'_>) {
        self.pushed += 1;
        self.sink.push(peer);
    }

    fn rows(&mut self) -> Option<Rows<'_>> {
        self.sink.rows()
    }

    fn filled(&mut self, rows: usize) {
        self.pushed += rows;
        self.sink.filled(rows);
    }
}
