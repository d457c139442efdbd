//! The registry: the peers of each swarm.
//!
//! [`Registry`] defines the obligations of a store. `contract` (feature `contract`) is the test
//! suite that each store must pass. [`memory`] is a store in local memory.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;

mod ceilings;
mod clients;
mod eviction;
mod large;
mod past;
mod prefetch;
pub mod read;
mod shard;
mod small;
mod sources;
mod swarm;
mod table;

pub(crate) use sources::identity as host_identity;

use crate::address::{CompactAddr, IsdAs};
use crate::observe::Change;
use crate::request::{Event, Family, PeerKey};
use crate::response::{PeerSink, Reach, Refusal, SwarmCounts};
use crate::select::Policy;
use crate::types::{InfoHash, PeerId, Rng, Time};

/// Most peers for one announce. A larger `numwant` is reduced to it.
pub const MAX_NUMWANT: usize = 500;

/// A peer as it is stored, after all decisions about its address.
///
/// Its key within the swarm is (`ia`, `addr`): the same IP address and port in two ASes are two
/// peers. A new `id` at a known address replaces the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEntry {
    /// The swarm.
    pub info_hash: InfoHash,
    /// The ISD-AS. [`IsdAs::NONE`] if it has none.
    pub ia: IsdAs,
    /// Address and port.
    pub addr: CompactAddr,
    /// The id of the peer.
    pub id: PeerId,
    /// The `key` of its client, which is the same at all its addresses (BEP 7). Never handed out.
    pub key: Option<u32>,
    /// How others reach it. [`Reach::Ip`] if there is no ISD-AS.
    pub reach: Reach,
    /// Where `addr` is valid, as far as plain IP is concerned.
    pub scope: Scope,
    /// Whether the ISD-AS is proven (SCION packet, operator's table) and not only claimed.
    pub verified: bool,
    /// Whether it has everything.
    pub seeder: bool,
    /// What happened.
    pub event: Event,
}

/// Where the IP address of a peer is valid. Has no meaning for [`Reach::Scion`]: inside its AS, a SCION
/// host is reached at any address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Global,
    /// Only within a local network. See [`Places::local`](crate::place::Places::with_local).
    Local,
}

/// Which peers the requester asks for.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Most peers to return. Never more than [`MAX_NUMWANT`].
    pub numwant: usize,
    /// How they are selected.
    pub policy: &'a Policy,
    /// The peers that the requester can reach.
    pub accepts: Accepts,
}

/// The peers that a requester can reach: `first`, then `then` if there is room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// Selected first, by place.
    pub first: Classes,
    /// Fills the remaining room.
    pub then: Classes,
}

impl Accepts {
    /// No peers.
    pub const NOBODY: Self = Self {
        first: Classes::NONE,
        then: Classes::NONE,
    };
}

/// A set of peer classes. A class is an address family, a reach and a scope.
///
/// ```text
/// bits 0-7   IPv4; bits 8-15 the same for IPv6
/// bit  0     IP, global scope      bit 4   IP, local scope
/// bit  1     SCION
/// bit  2     both, global scope    bit 6   both, local scope
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(u16);

impl Classes {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// All that plain IP reaches.
    const OVER_IP: Self = Self(0x5555);
    /// All that SCION reaches.
    const OVER_SCION: Self = Self(0x4646);

    /// The bits of IPv4 and of IPv6.
    const fn families(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    /// The classes that both sets contain.
    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// `class` is the number of the bit of a class among those of its family.
    const fn bit(family: Family, class: u8) -> u16 {
        match family {
            Family::V4 => 1 << class,
            Family::V6 => 1 << (8 + class),
        }
    }

    const fn number(reach: Reach, scope: Scope) -> u8 {
        match (reach, scope) {
            (Reach::Scion, _) => 1,
            (Reach::Ip, Scope::Global) => 0,
            (Reach::Ip, Scope::Local) => 4,
            (Reach::Both, Scope::Global) => 2,
            (Reach::Both, Scope::Local) => 6,
        }
    }

    /// Adds a class to the set.
    #[must_use]
    pub const fn with(self, family: Family, reach: Reach, scope: Scope) -> Self {
        Self(self.0 | Self::bit(family, Self::number(reach, scope)))
    }

    /// For each class of global scope, adds the one of local scope.
    #[must_use]
    pub const fn with_local(self) -> Self {
        Self(self.0 | (self.0 & 0x0505) << 4)
    }

    /// Whether the set contains peers of this family, reach and scope.
    pub const fn contains(self, family: Family, reach: Reach, scope: Scope) -> bool {
        self.0 & Self::bit(family, Self::number(reach, scope)) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The result of an announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The counts of the whole swarm, including the requester.
    pub counts: SwarmCounts,
    /// What changed for the requester.
    pub change: Change,
    /// Whether it counted as a completed download.
    pub completed: bool,
}

/// A store of swarms.
///
/// [`SEEDS_FOR_SEEDS`]: crate::select::SEEDS_FOR_SEEDS
///
/// Obligations, which the contract suite tests:
/// - `announce` adds or refreshes the peer, then pushes peers of the swarm to the sink as
///   `selection` says: never the requester, no peer outside `accepts`, no peer twice, at most
///   `numwant`. It returns the counts of the whole swarm, including the requester.
/// - A requester that is a seed or [`Event::Paused`] gets leechers. Where they leave room, a seed also
///   gets up to [`SEEDS_FOR_SEEDS`] seeds, unless the store has known it as a leecher under its
///   present peer id.
/// - With [`Event::Stopped`] it removes the peer with this key *and this id*, if there is one, and
///   pushes nothing. If there is none it changes nothing and creates no swarm.
/// - [`Event::Completed`] counts one download per client, and only for a peer that was known as
///   incomplete. A client is a peer id with its `key`. A store may forget clients that have left,
///   but not so soon that a client could count again and again.
/// - A client that is in a swarm on both address families, with the same `key`, counts as one, as
///   far as the store knows it. It is handed out as two peers.
/// - A peer that does not announce within the lifetime is removed, even without another announce.
/// - At a limit new peers are refused with the [`Refusal`] of that limit. Known peers are still
///   served. At the limits of torrents and memory idle swarms are evicted first, at the latest once
///   the store has visited all swarms. A peer that announces on time is never evicted.
/// - The count of downloads outlives the swarm, but never takes room that a new peer needs.
/// - `look` pushes peers as `announce` does, known peer or not, and changes nothing. The counts include
///   the requester only if it is known. With [`Event::Stopped`] it pushes nothing.
/// - `scrape` of an unknown swarm returns zeros.
/// - `retain` removes the peers of a swarm that `keep` does not want, with their place as it was announced
///   last, and returns how many. It may let announces in between, so that a peer which announces meanwhile
///   may stay. The count of downloads stays. Without a swarm it changes nothing.
/// - `prefetch` changes nothing.
pub trait Registry {
    /// Adds, refreshes or removes a peer, and pushes others to the sink.
    fn announce<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        now: Time,
        rng: &mut Rng,
        sink: &mut S,
    ) -> Result<Outcome, Refusal>;

    /// Pushes to the sink what an announce of this peer would push, and returns the counts of the swarm.
    fn look<S: PeerSink>(
        &self,
        peer: &PeerEntry,
        selection: &Selection<'_>,
        rng: &mut Rng,
        sink: &mut S,
    ) -> SwarmCounts;

    /// Returns the counts of a swarm.
    fn scrape(&self, info_hash: &InfoHash) -> SwarmCounts;

    /// Removes the peers of a swarm for which `keep`, given their place and whether it is proven, returns
    /// false. Returns how many.
    fn retain(&self, info_hash: &InfoHash, keep: impl FnMut(IsdAs, bool) -> bool) -> u64;

    /// Removes all peers of a swarm. Returns how many.
    fn remove(&self, info_hash: &InfoHash) -> u64 {
        self.retain(info_hash, |_, _| false)
    }

    /// Announces which requests follow at once. A store may prefetch the memory of all of them
    /// together. Nothing else depends on it.
    fn prefetch(&self, peers: &[PeerKey]) {
        let _ = peers;
    }
}
