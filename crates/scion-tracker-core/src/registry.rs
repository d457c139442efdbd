//! The registry: who is in which swarm, and where.
//!
//! [`Registry`] states the obligations of a store; `contract` (feature `contract`) is the test suite
//! that each store has to pass. [`memory`] is the one that answers from local memory.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;

mod ceilings;
mod clients;
mod eviction;
mod large;
mod past;
mod prefetch;
mod shard;
mod small;
mod sources;
mod swarm;
mod table;

use crate::address::{CompactAddr, IsdAs};
use crate::observe::Change;
use crate::request::{Event, Family, PeerKey};
use crate::response::{PeerSink, Reach, Refusal, SwarmCounts};
use crate::select::Policy;
use crate::types::{InfoHash, PeerId, Rng, Time};

/// The most peers that one announce is ever given; larger wishes are cut down to it.
pub const MAX_NUMWANT: usize = 500;

/// A peer as it is kept: resolved, with nothing left to decide about where it is.
///
/// Its key inside the swarm is (`ia`, `addr`): the same IP and port in two ASes are two peers, and a
/// new `id` at a known address replaces the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEntry {
    /// The swarm.
    pub info_hash: InfoHash,
    /// The place, [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Address and port.
    pub addr: CompactAddr,
    /// What it calls itself.
    pub id: PeerId,
    /// The `key` of its client, which is the same at all of its addresses (BEP 7). Never handed out.
    pub key: Option<u32>,
    /// How others reach it. [`Reach::Ip`] if there is no place.
    pub reach: Reach,
    /// Whether the place was proven (SCION packet, operator's table) and not merely claimed.
    pub verified: bool,
    /// Has everything.
    pub seeder: bool,
    /// What has happened.
    pub event: Event,
}

/// Which peers the requester asks for.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// How many at most; never more than [`MAX_NUMWANT`].
    pub numwant: usize,
    /// How they are chosen.
    pub policy: &'a Policy,
    /// Whom it can reach.
    pub accepts: Accepts,
}

/// The peers that a requester can reach: the first set, and then, if that leaves room, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// Chosen first, by place.
    pub first: Classes,
    /// Fills what is left.
    pub then: Classes,
}

/// A set of peer classes, one bit for each family and reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(u8);

impl Classes {
    /// Nobody.
    pub const NONE: Self = Self(0);

    const fn bit(family: Family, reach: Reach) -> u8 {
        let family = match family {
            Family::V4 => 0,
            Family::V6 => 3,
        };
        let reach = match reach {
            Reach::Ip => 0,
            Reach::Scion => 1,
            Reach::Both => 2,
        };
        1 << (family + reach)
    }

    /// This set and one class more.
    #[must_use]
    pub const fn with(self, family: Family, reach: Reach) -> Self {
        Self(self.0 | Self::bit(family, reach))
    }

    /// Whether peers of this family and reach are in the set.
    pub const fn contains(self, family: Family, reach: Reach) -> bool {
        self.0 & Self::bit(family, reach) != 0
    }

    /// Whether nobody is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What an announce did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The whole swarm, with the requester in it.
    pub counts: SwarmCounts,
    /// What became of the requester.
    pub change: Change,
    /// Whether it counted as a completed download.
    pub completed: bool,
}

/// A store of swarms.
///
/// Obligations, each of them tested by the contract suite:
/// - `announce` enters or refreshes the peer, then pushes peers of the swarm to the sink as
///   `selection` says: never the requester itself, nobody outside `accepts`, no seed if the requester
///   is a seed or [`Event::Paused`], nobody twice, at most `numwant`; and returns the counts of the
///   whole swarm with the requester in it.
/// - With [`Event::Stopped`] it removes the peer, if one with this key *and this id* is there, and
///   pushes nobody. A stranger's `stopped` changes nothing and makes no swarm.
/// - [`Event::Completed`] counts a download once per client, and only of a peer that was known as
///   incomplete. A client is a peer id with its `key`. A store may forget clients that have left, but not
///   so soon that a client could count again and again.
/// - A client that is in a swarm on both address families, with the same `key`, is one in the
///   counts, as far as the store knows it; it is handed out as two peers.
/// - A peer that has not announced for the lifetime is gone, without any announce to make it so.
/// - At a limit the newcomer is refused with the [`Refusal`] of that limit; known peers are served.
///   At the limits of torrents and memory idle swarms make room first, at the latest once the store
///   has gone round all swarms. A peer that announces on time is never evicted.
/// - The count of downloads outlives the swarm, but never takes room that a newcomer needs.
/// - `scrape` of an unknown swarm is all zeros.
/// - `prefetch` changes nothing.
pub trait Registry {
    /// Enters, refreshes or removes a peer, and hands out others.
    fn announce<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        now: Time,
        rng: &mut Rng,
        sink: &mut S,
    ) -> Result<Outcome, Refusal>;

    /// The counts of a swarm.
    fn scrape(&self, info_hash: &InfoHash) -> SwarmCounts;

    /// Says which announces follow at once, one after the other. A store may use the time to fetch what
    /// they need, for all of them together; nothing else depends on it.
    fn prefetch(&self, peers: &[PeerKey]) {
        let _ = peers;
    }
}
