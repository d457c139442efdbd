//! The tracker: the whole story of a request, from what a codec read to what a codec writes.
//!
//! Every transport ends here. `announce` decides the requester's place, enters it into the registry
//! and hands out peers; `scrape` counts.

use crate::place::Places;
use crate::registry::{PeerEntry, PeerKey, Registry, Selection};
use crate::request::{AnnounceRequest, Carries, Origin};
use crate::response::{AnnounceReply, PeerSink, Refusal, SwarmCounts};
use crate::select::Policy;
use crate::types::{InfoHash, Rng, Time};

/// The numbers a tracker goes by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Seconds between two regular announces of a peer. What is sent is up to a tenth longer, drawn
    /// anew each time, so that peers who came together do not stay together.
    pub interval: u32,
    /// Seconds that a client has to leave between two announces.
    pub min_interval: u32,
    /// How many peers are sent to those who do not say.
    pub numwant_default: u32,
    /// How many peers are sent at most.
    pub numwant_max: u32,
    /// How peers are chosen.
    pub policy: Policy,
    /// How requesters are placed.
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

/// A tracker over a registry. Shared by all transports.
#[derive(Debug)]
pub struct Tracker<R> {
    registry: R,
    terms: Terms,
}

impl<R: Registry> Tracker<R> {
    /// A tracker that goes by these terms.
    pub const fn new(registry: R, terms: Terms) -> Self {
        Self { registry, terms }
    }

    /// The registry.
    pub const fn registry(&self) -> &R {
        &self.registry
    }

    /// The terms.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Serves an announce. Peers go to `sink`, in the order to be sent; all else is returned.
    pub fn announce<S: PeerSink>(
        &self,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
        now: Time,
        rng: &mut Rng,
        sink: &mut S,
    ) -> Result<AnnounceReply, Refusal> {
        let terms = &self.terms;
        let resolved = terms.places.resolve(origin, announce, carries);
        let presence = PeerEntry {
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
        let ask = Selection {
            numwant: numwant as usize,
            policy: &terms.policy,
            accepts: resolved.accepts,
        };
        let counts = self.registry.announce(&presence, &ask, now, rng, sink)?;
        Ok(AnnounceReply {
            counts,
            interval: terms.interval + rng.u32(0..=terms.interval / 10),
            min_interval: terms.min_interval,
            observed: origin.host,
            warning: resolved.warning,
        })
    }

    /// Says whose announces follow at once; see [`Registry::prefetch`].
    pub fn prefetch(&self, peers: &[PeerKey]) {
        self.registry.prefetch(peers);
    }

    /// The counts of a swarm, zeros for an unknown one.
    pub fn scrape(&self, info_hash: &InfoHash) -> SwarmCounts {
        self.registry.scrape(info_hash)
    }
}
