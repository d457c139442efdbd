//! Peers, a clock and a sink for the tests of the contract.

use std::net::IpAddr;

use super::Subject;
use crate::address::{CompactAddr, IsdAs};
use crate::registry::memory::Ceilings;
use crate::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
use crate::request::{Event, Family};
use crate::response::{Peer, PeerSink, Reach, Refusal, SwarmCounts};
use crate::select::Policy;
use crate::types::{InfoHash, PeerId, Rng, Time};

/// A peer with builder methods.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who(pub(super) PeerEntry);

impl Who {
    pub(super) fn new(ia: &str, ip: &str, port: u16) -> Self {
        let ip: IpAddr = ip.parse().expect("an address");
        let ia: IsdAs = ia.parse().expect("an ISD-AS");
        let mut id = *b"-XX0001-000000000000";
        id[18..].copy_from_slice(&port.to_be_bytes());
        Self(PeerEntry {
            info_hash: InfoHash([1; 20]),
            ia,
            addr: CompactAddr::new(ip, port),
            id: PeerId(id),
            key: None,
            reach: if ia.is_none() { Reach::Ip } else { Reach::Both },
            scope: Scope::Global,
            verified: !ia.is_none(),
            seeder: false,
            event: Event::None,
        })
    }

    pub(super) fn seed(self) -> Self {
        Self(PeerEntry {
            seeder: true,
            ..self.0
        })
    }

    pub(super) fn event(self, event: Event) -> Self {
        Self(PeerEntry { event, ..self.0 })
    }

    /// Makes it another client: another peer id, and a `key`.
    pub(super) fn client(self, number: u8) -> Self {
        Self(PeerEntry {
            id: PeerId([number; 20]),
            key: Some(number.into()),
            ..self.0
        })
    }

    pub(super) fn torrent(self, number: u32) -> Self {
        let mut hash = [0; 20];
        hash[16..].copy_from_slice(&number.to_be_bytes());
        Self(PeerEntry {
            info_hash: InfoHash(hash),
            ..self.0
        })
    }
}

/// The key of a peer in a reply.
pub(super) type Key = (IsdAs, CompactAddr);

#[derive(Default)]
pub(super) struct Got(pub(super) Vec<(Key, PeerId)>);

impl PeerSink for Got {
    fn push(&mut self, peer: Peer<'_>) {
        self.0.push(((peer.ia, peer.addr.to_compact()), *peer.id));
    }
}

/// All peers that an IP requester with SCION reaches.
pub(super) fn everybody() -> Accepts {
    let mut first = Classes::NONE;
    for family in [Family::V4, Family::V6] {
        for reach in [Reach::Ip, Reach::Scion, Reach::Both] {
            first = first.with(family, reach, Scope::Global);
        }
    }
    Accepts {
        first,
        then: Classes::NONE,
    }
}

/// A registry with the clock and the randomness of a test.
pub(super) struct Bench<R> {
    pub(super) registry: R,
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) policy: Policy,
    pub(super) accepts: Accepts,
}

impl<R: Registry> Bench<R> {
    pub(super) fn new<S: Subject<Registry = R>>(subject: &S) -> Self {
        Self::with(subject, Ceilings::default())
    }

    pub(super) fn with<S: Subject<Registry = R>>(subject: &S, ceilings: Ceilings) -> Self {
        Self {
            registry: subject.make(ceilings),
            rng: Rng::with_seed(0x5c10),
            now: Time::from_secs(100),
            policy: Policy::default(),
            accepts: everybody(),
        }
    }

    pub(super) fn announce(
        &mut self,
        who: Who,
        numwant: usize,
    ) -> Result<(Got, SwarmCounts), Refusal> {
        let selection = Selection {
            numwant,
            policy: &self.policy,
            accepts: self.accepts,
        };
        let mut got = Got::default();
        let outcome =
            self.registry
                .announce(&who.0, &selection, self.now, &mut self.rng, &mut got)?;
        Ok((got, outcome.counts))
    }

    /// What a look returns: peers, and the counts of the swarm.
    pub(super) fn look(&mut self, who: Who, numwant: usize) -> (Vec<Key>, SwarmCounts) {
        let selection = Selection {
            numwant,
            policy: &self.policy,
            accepts: self.accepts,
        };
        let mut got = Got::default();
        let counts = self
            .registry
            .look(&who.0, &selection, &mut self.rng, &mut got);
        (got.0.into_iter().map(|(key, _)| key).collect(), counts)
    }

    pub(super) fn peers(&mut self, who: Who, numwant: usize) -> Vec<Key> {
        let (got, _) = self.announce(who, numwant).expect("served");
        got.0.into_iter().map(|(key, _)| key).collect()
    }

    pub(super) fn counts(&mut self, who: Who) -> (u32, u32) {
        let (_, counts) = self.announce(who, 0).expect("served");
        (counts.seeders, counts.leechers)
    }
}

/// A host that is unique per number, of either family.
pub(super) fn numbered(ia: &str, number: u32) -> Who {
    let [_, a, b, c] = number.to_be_bytes();
    let ip = if number.is_multiple_of(3) {
        format!("2001:db8:{a:x}:{b:x}{c:02x}::1")
    } else {
        format!("10.{a}.{b}.{c}")
    };
    Who::new(ia, &ip, 6881)
}

/// Sizes of swarms: small, at the edge between the forms, and large.
pub(super) const SIZES: [u32; 7] = [1, 2, 20, 32, 33, 100, 1000];
