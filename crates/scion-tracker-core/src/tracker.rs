//! The tracker: everything an announce or a scrape goes through, for every transport.
//!
//! ```text
//! request -> access -> place -> registry -> selection -> reply
//!              |                   |
//!              `-> refusal         `-> observer (what the announce changed)
//! ```

use crate::access::{Access, Query};
use crate::place::Places;
use crate::registry::{PeerEntry, PeerKey, Registry, Selection};
use crate::request::{AnnounceRequest, Carries, Origin, Passkey};
use crate::response::{AnnounceReply, PeerSink, Refusal, SwarmCounts};
use crate::select::Policy;
use crate::types::{InfoHash, Rng, Time};

/// The numbers and policies that announces are answered by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Seconds between two regular announces of a peer. The reply says up to a tenth more, drawn at
    /// random, so that peers that joined together do not keep announcing together.
    pub interval: u32,
    /// Seconds that a client has to leave between two announces.
    pub min_interval: u32,
    /// Peers in a reply to a client that does not say how many it wants.
    pub numwant_default: u32,
    /// The most peers in any reply.
    pub numwant_max: u32,
    /// How peers are chosen.
    pub policy: Policy,
    /// How the place of a requester is decided.
    pub places: Places,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            interval: 1800,
            min_interval: 300,
            numwant_default: 50,
            numwant_max: 200,
            policy: Policy::default(),
            places: Places::default(),
        }
    }
}

/// What an operator can change while the tracker runs, as one value: the program keeps it behind a
/// swap and passes what is in force into each request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Rules {
    /// How announces are answered.
    pub terms: Terms,
    /// Who is served.
    pub access: Access,
}

impl Rules {
    /// These terms for everybody.
    pub fn public(terms: Terms) -> Self {
        Self {
            terms,
            access: Access::default(),
        }
    }
}

/// What a transport brings to a request besides the request itself.
#[derive(Debug)]
pub struct Context<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// The time, from the clock that all requests of this tracker are stamped by.
    pub now: Time,
    /// Decides which peers are handed out; it need not be unpredictable.
    pub rng: &'a mut Rng,
}

/// A tracker over a registry. All transports share it.
#[derive(Debug)]
pub struct Tracker<R> {
    registry: R,
}

impl<R: Registry> Tracker<R> {
    /// A tracker over this registry.
    pub const fn new(registry: R) -> Self {
        Self { registry }
    }

    /// The registry.
    pub const fn registry(&self) -> &R {
        &self.registry
    }

    /// Serves an announce. Peers go to `sink`, in the order to be sent; the rest is returned.
    pub fn announce<S: PeerSink>(
        &self,
        context: &mut Context<'_>,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
        sink: &mut S,
    ) -> Result<AnnounceReply, Refusal> {
        let Context { rules, now, rng } = context;
        let Rules { terms, access } = rules;
        access.check(&Query {
            origin,
            info_hash: &announce.info_hash,
            passkey: announce.passkey.as_ref(),
        })?;
        let resolved = terms.places.resolve(origin, announce, carries);
        let peer = PeerEntry {
            info_hash: announce.info_hash,
            ia: resolved.ia,
            addr: resolved.addr,
            id: announce.peer_id,
            reach: resolved.reach,
            verified: resolved.verified,
            seeder: announce.left == 0,
            event: announce.event,
        };
        let numwant = announce
            .numwant
            .unwrap_or(terms.numwant_default)
            .min(terms.numwant_max);
        let selection = Selection {
            numwant: numwant as usize,
            policy: &terms.policy,
            accepts: resolved.accepts,
        };
        let counts = self.registry.announce(&peer, &selection, *now, rng, sink)?;
        Ok(AnnounceReply {
            counts,
            interval: terms.interval + rng.u32(0..=terms.interval / 10),
            min_interval: terms.min_interval,
            observed: origin.host,
            warning: resolved.warning,
        })
    }

    /// The counts of a swarm, zeros for an unknown one.
    pub fn scrape(
        &self,
        rules: &Rules,
        origin: &Origin,
        passkey: Option<&Passkey>,
        info_hash: &InfoHash,
    ) -> Result<SwarmCounts, Refusal> {
        rules.access.check(&Query {
            origin,
            info_hash,
            passkey,
        })?;
        Ok(self.registry.scrape(info_hash))
    }

    /// Says which announces follow immediately; see [`Registry::prefetch`].
    pub fn prefetch(&self, peers: &[PeerKey]) {
        self.registry.prefetch(peers);
    }
}
