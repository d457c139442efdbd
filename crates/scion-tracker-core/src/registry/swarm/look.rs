//! Chooses peers for a request that stores nothing: nothing is refreshed or counted either.

use ahash::RandomState;

use super::{Order, Position, Requester, Swarm, want};
use crate::registry::large::class_index::Slot;
use crate::registry::table::record::Picks;
use crate::registry::{MAX_NUMWANT, PeerEntry, Selection};
use crate::request::{Event, Family};
use crate::response::PeerSink;
use crate::select::{SEEDS_FOR_SEEDS, Want};
use crate::types::Rng;

impl Swarm {
    /// Hands out what an announce of this peer would hand out.
    pub(in crate::registry) fn look<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        keys: &RandomState,
        rng: &mut Rng,
        sink: &mut S,
    ) {
        let known = self.find(peer, keys);
        let requester = Requester {
            peer,
            position: known.unwrap_or_else(|| self.nowhere()),
        };
        let mut chosen = Picks::new();
        self.choose(requester, want(peer), selection, keys, rng, &mut chosen);
        let numwant = selection.numwant.min(MAX_NUMWANT);
        let newcomer = known.is_none() && peer.seeder && peer.event != Event::Paused;
        if newcomer || known.is_some_and(|position| self.may_be_leecher(peer, position)) {
            let seeds = Selection {
                numwant: numwant.min(chosen.len() + SEEDS_FOR_SEEDS),
                ..*selection
            };
            self.choose(requester, Want::Seeds, &seeds, keys, rng, &mut chosen);
        }
        Order::new(peer, rng).push_all(&chosen, sink);
    }

    /// A position that no peer has.
    const fn nowhere(&self) -> Position {
        match self {
            Self::Four(_) | Self::Mixed(_) => Position::Small(usize::MAX),
            Self::Large(_) => Position::Large(Slot {
                family: Family::V4,
                index: u32::MAX,
                isd: 0,
                group: 0,
                position: 0,
            }),
        }
    }
}
