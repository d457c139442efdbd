//! The tracker: everything an announce or a scrape goes through, for every transport.
//!
//! ```text
//! request -> place -> access -> registry -> selection -> reply
//!                       |          |
//!                       |          `-> observer (what the announce changed)
//!                       `-> refusal
//! ```

use std::sync::Arc;

use crate::access::{Access, Query, Rates};
use crate::observe::{Announced, Looked, Observer, Refused};
use crate::place::Places;
use crate::registry::{PeerEntry, Registry, Selection};
use crate::request::{AnnounceRequest, Carries, Origin, Passkey, PeerKey};
use crate::response::{AnnounceReply, PeerSink, Refusal, SwarmCounts, Warning};
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
    /// How many announces a host may send. `None`: as many as it likes.
    pub rates: Option<Arc<Rates>>,
}

impl Rules {
    /// These terms for everybody.
    pub fn public(terms: Terms) -> Self {
        Self {
            terms,
            access: Access::default(),
            rates: None,
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
pub struct Tracker<R, O = ()> {
    registry: R,
    observer: O,
}

impl<R: Registry> Tracker<R> {
    /// A tracker over this registry that nobody observes.
    pub const fn new(registry: R) -> Self {
        Self::observed(registry, ())
    }
}

impl<R, O> Tracker<R, O> {
    /// A tracker over this registry that tells `observer` what requests change.
    pub const fn observed(registry: R, observer: O) -> Self {
        Self { registry, observer }
    }
}

impl<R: Registry, O: Observer> Tracker<R, O> {
    /// The registry.
    pub const fn registry(&self) -> &R {
        &self.registry
    }

    /// The observer.
    pub const fn observer(&self) -> &O {
        &self.observer
    }

    /// Serves an announce. Peers go to `sink`, in the order to be sent; the rest is returned.
    ///
    /// A peer that others cannot reach, because its port is 0, is served as by [`Tracker::look`]. If
    /// its client is known at the same address with another port, that is another peer and stays.
    pub fn announce<S: PeerSink>(
        &self,
        context: &mut Context<'_>,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
        sink: &mut S,
    ) -> Result<AnnounceReply, Refusal> {
        let Context { rules, now, rng } = context;
        let terms = &rules.terms;
        let Admitted {
            peer,
            selection,
            warning,
        } = self.admit(rules, *now, rng, origin, announce, carries)?;
        if !peer.addr.has_port() {
            let counts = self.registry.look(&peer, &selection, rng, sink);
            self.observer.looked(&Looked {
                origin,
                announce,
                counts,
            });
            return Ok(reply(terms, rng, origin, counts, warning));
        }
        let outcome = self
            .registry
            .announce(&peer, &selection, *now, rng, sink)
            .map_err(|refusal| self.refuse(origin, &announce.info_hash, Some(announce), refusal))?;
        let counts = outcome.counts;
        self.observer.announced(&Announced {
            origin,
            announce,
            peer: &peer,
            change: outcome.change,
            completed: outcome.completed,
            counts,
            now: *now,
        });
        Ok(reply(terms, rng, origin, counts, warning))
    }

    /// Answers an announce without carrying it out, for requests that must not change anything (HEAD).
    /// The peer is neither stored nor refreshed nor removed, and the observer is told nothing but a
    /// refusal. Otherwise as [`Tracker::announce`].
    pub fn look<S: PeerSink>(
        &self,
        context: &mut Context<'_>,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
        sink: &mut S,
    ) -> Result<AnnounceReply, Refusal> {
        let Context { rules, now, rng } = context;
        let admitted = self.admit(rules, *now, rng, origin, announce, carries)?;
        let Admitted {
            peer, selection, ..
        } = &admitted;
        let counts = self.registry.look(peer, selection, rng, sink);
        Ok(reply(&rules.terms, rng, origin, counts, admitted.warning))
    }

    /// Decides whether the requester is served, who it is, and which peers it may get.
    // Inlined: as a function it would return all of it through memory.
    #[inline(always)]
    fn admit<'r>(
        &self,
        rules: &'r Rules,
        now: Time,
        rng: &mut Rng,
        origin: &Origin,
        announce: &AnnounceRequest,
        carries: Carries,
    ) -> Result<Admitted<'r>, Refusal> {
        let Rules {
            terms,
            access,
            rates,
        } = rules;
        let refuse = |refusal| self.refuse(origin, &announce.info_hash, Some(announce), refusal);
        if let Some(rates) = rates
            && !rates.take(origin.host, now, rng)
        {
            return Err(refuse(Refusal::RateLimit));
        }
        let resolved = terms.places.resolve(origin, announce, carries);
        let query = Query {
            origin,
            info_hash: &announce.info_hash,
            passkey: announce.passkey.as_ref(),
            peer_id: Some(&announce.peer_id),
            ia: resolved.ia,
            is_proven: resolved.verified,
            now,
        };
        access.check(&query).map_err(refuse)?;
        let peer = PeerEntry {
            info_hash: announce.info_hash,
            ia: resolved.ia,
            addr: resolved.addr,
            id: announce.peer_id,
            key: announce.key,
            reach: resolved.reach,
            scope: resolved.scope,
            verified: resolved.verified,
            seeder: announce.is_seeder(),
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
        Ok(Admitted {
            peer,
            selection,
            warning: resolved.warning,
        })
    }

    /// The counts of a swarm, zeros for an unknown one.
    pub fn scrape(
        &self,
        rules: &Rules,
        now: Time,
        origin: &Origin,
        passkey: Option<&Passkey>,
        info_hash: &InfoHash,
    ) -> Result<SwarmCounts, Refusal> {
        let Rules { terms, access, .. } = rules;
        if access.restricts() {
            let (ia, is_proven) = terms.places.of_origin(origin);
            let query = Query {
                origin,
                info_hash,
                passkey,
                peer_id: None,
                ia,
                is_proven,
                now,
            };
            let refuse = |refusal| self.refuse(origin, info_hash, None, refusal);
            access.check(&query).map_err(refuse)?;
        }
        Ok(self.registry.scrape(info_hash))
    }

    #[cold]
    fn refuse(
        &self,
        origin: &Origin,
        info_hash: &InfoHash,
        announce: Option<&AnnounceRequest>,
        refusal: Refusal,
    ) -> Refusal {
        self.observer.refused(&Refused {
            origin,
            info_hash,
            announce,
            refusal,
        });
        refusal
    }

    /// Says which announces follow immediately; see [`Registry::prefetch`].
    pub fn prefetch(&self, peers: &[PeerKey]) {
        self.registry.prefetch(peers);
    }
}

/// A requester that is served.
struct Admitted<'a> {
    peer: PeerEntry,
    selection: Selection<'a>,
    warning: Option<Warning>,
}

fn reply(
    terms: &Terms,
    rng: &mut Rng,
    origin: &Origin,
    counts: SwarmCounts,
    warning: Option<Warning>,
) -> AnnounceReply {
    AnnounceReply {
        counts,
        interval: terms.interval + rng.u32(0..=terms.interval / 10),
        min_interval: terms.min_interval,
        observed: origin.host,
        warning,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::address::CompactAddr;
    use crate::observe::Change;
    use crate::registry::memory::{Ceilings, Memory};
    use crate::request::{Event, ScionClaim};
    use crate::response::{NoPeers, Peer};
    use crate::types::PeerId;

    /// Writes down what it is told.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<Note>>);

    #[derive(Debug, PartialEq, Eq)]
    enum Note {
        Announced(u16, Change, bool, SwarmCounts),
        Refused(Refusal),
    }

    impl Observer for Notes {
        fn announced(&self, it: &Announced<'_>) {
            let note = Note::Announced(
                it.peer.addr.socket_addr().port(),
                it.change,
                it.completed,
                it.counts,
            );
            self.0.lock().unwrap().push(note);
        }

        fn refused(&self, it: &Refused<'_>) {
            self.0.lock().unwrap().push(Note::Refused(it.refusal));
        }
    }

    /// Collects the addresses of peers.
    #[derive(Default)]
    struct Peers(Vec<CompactAddr>);

    impl PeerSink for Peers {
        fn push(&mut self, peer: Peer<'_>) {
            self.0.push(peer.addr.to_compact());
        }
    }

    const HASH: InfoHash = InfoHash([1; 20]);

    struct Fixture {
        tracker: Tracker<Memory, Notes>,
        rules: Rules,
        rng: Rng,
    }

    impl Fixture {
        fn new(ceilings: Ceilings) -> Self {
            let registry = Memory::new(ceilings, [1, 2, 3, 4]);
            Self {
                tracker: Tracker::observed(registry, Notes::default()),
                rules: Rules::default(),
                rng: Rng::with_seed(1),
            }
        }

        /// The note that an announce leaves.
        fn announce(&mut self, port: u16, left: u64, event: Event) -> Note {
            let mut announce = AnnounceRequest::new(HASH, PeerId([2; 20]), port, left);
            announce.event = event;
            let mut context = Context {
                rules: &self.rules,
                now: Time::from_secs(100),
                rng: &mut self.rng,
            };
            let origin = Origin::ip([192, 0, 2, 1].into());
            let served =
                self.tracker
                    .announce(&mut context, &origin, &announce, Carries::All, &mut NoPeers);
            let note = self.note();
            match (&served, &note) {
                (Ok(reply), Note::Announced(.., counts)) => assert_eq!(reply.counts, *counts),
                (Err(refusal), Note::Refused(told)) => assert_eq!(refusal, told),
                other => panic!("{other:?}"),
            }
            note
        }

        fn note(&self) -> Note {
            let mut notes = self.tracker.observer.0.lock().unwrap();
            assert_eq!(notes.len(), 1, "{notes:?}");
            notes.remove(0)
        }
    }

    fn counts(seeders: u32, leechers: u32, completed: u32) -> SwarmCounts {
        SwarmCounts {
            seeders,
            leechers,
            downloaders: leechers,
            completed,
        }
    }

    #[test]
    fn an_observer_is_told_what_each_announce_changed() {
        use Change::{Joined, Left, Refreshed, Unknown};
        let mut fixture = Fixture::new(Ceilings::default());
        for (port, left, event, change, completed, counts) in [
            (1, 9, Event::Started, Joined, false, counts(0, 1, 0)),
            (2, 9, Event::Started, Joined, false, counts(0, 2, 0)),
            (1, 5, Event::None, Refreshed, false, counts(0, 2, 0)),
            (1, 0, Event::Completed, Refreshed, true, counts(1, 1, 1)),
            (1, 0, Event::Completed, Refreshed, false, counts(1, 1, 1)),
            (2, 9, Event::Stopped, Left, false, counts(1, 0, 1)),
            (3, 9, Event::Stopped, Unknown, false, counts(1, 0, 1)),
        ] {
            let note = fixture.announce(port, left, event);
            assert_eq!(note, Note::Announced(port, change, completed, counts));
        }
    }

    #[test]
    fn a_look_and_a_peer_without_a_port_change_nothing() {
        let mut fixture = Fixture::new(Ceilings::default());
        fixture.announce(1, 9, Event::Started);
        let Fixture {
            tracker,
            rules,
            rng,
        } = &mut fixture;
        let origin = Origin::ip([192, 0, 2, 2].into());
        let mut context = Context {
            rules,
            now: Time::from_secs(200),
            rng,
        };
        let known = CompactAddr::new([192, 0, 2, 1].into(), 1);
        for event in [Event::Started, Event::Completed, Event::Stopped] {
            for (port, look) in [(0, false), (0, true), (2, true)] {
                let mut announce = AnnounceRequest::new(HASH, PeerId([3; 20]), port, 9);
                announce.event = event;
                let mut peers = Peers::default();
                let answer = match look {
                    true => Tracker::look,
                    false => Tracker::announce,
                };
                let reply = answer(
                    tracker,
                    &mut context,
                    &origin,
                    &announce,
                    Carries::All,
                    &mut peers,
                )
                .unwrap();
                assert_eq!(reply.counts, counts(0, 1, 0));
                assert_eq!(reply.observed, origin.host);
                let expected = if event == Event::Stopped {
                    &[][..]
                } else {
                    &[known]
                };
                assert_eq!(peers.0, expected);
                assert!(tracker.observer.0.lock().unwrap().is_empty());
            }
        }
        assert_eq!(tracker.registry().scrape(&HASH), counts(0, 1, 0));
    }

    #[test]
    fn a_port_is_needed_only_where_others_reach_the_peer() {
        let mut fixture = Fixture::new(Ceilings::default());
        let Fixture {
            tracker,
            rules,
            rng,
        } = &mut fixture;
        let mut context = Context {
            rules,
            now: Time::from_secs(200),
            rng,
        };
        // Its SCION address has a port of its own.
        let mut announce = AnnounceRequest::new(HASH, PeerId([3; 20]), 0, 9);
        announce.claim.scion = ScionClaim::At("1-ff00:0:110,[192.0.2.2]:6881".parse().unwrap());
        let origin = Origin::ip([192, 0, 2, 2].into());
        let reply = tracker.announce(&mut context, &origin, &announce, Carries::All, &mut NoPeers);
        assert_eq!(reply.unwrap().counts, counts(0, 1, 0));
        assert_eq!(
            fixture.note(),
            Note::Announced(6881, Change::Joined, false, counts(0, 1, 0))
        );
    }

    #[test]
    fn an_observer_is_told_of_refusals() {
        let mut fixture = Fixture::new(Ceilings {
            peers_per_torrent: 1,
            ..Ceilings::default()
        });
        fixture.announce(1, 9, Event::None);
        let note = fixture.announce(2, 9, Event::None);
        assert_eq!(note, Note::Refused(Refusal::SwarmLimit));
        fixture.rules.access = Access::private([]);
        let note = fixture.announce(1, 9, Event::None);
        assert_eq!(note, Note::Refused(Refusal::PasskeyMissing));
        let origin = Origin::ip([192, 0, 2, 1].into());
        let mut context = Context {
            rules: &fixture.rules,
            now: Time::from_secs(100),
            rng: &mut fixture.rng,
        };
        let announce = AnnounceRequest::new(HASH, PeerId([2; 20]), 1, 9);
        let looked =
            fixture
                .tracker
                .look(&mut context, &origin, &announce, Carries::All, &mut NoPeers);
        assert_eq!(looked, Err(Refusal::PasskeyMissing));
        assert_eq!(fixture.note(), Note::Refused(Refusal::PasskeyMissing));
        let now = Time::from_secs(100);
        let scraped = fixture
            .tracker
            .scrape(&fixture.rules, now, &origin, None, &HASH);
        assert_eq!(scraped, Err(Refusal::PasskeyMissing));
        assert_eq!(fixture.note(), Note::Refused(Refusal::PasskeyMissing));
        assert_eq!(fixture.tracker.registry().scrape(&HASH), counts(0, 1, 0));
    }
}
