//! Tests the obligations of a [`Registry`], one function each.
//!
//! A store calls [`run`] from one of its tests. The functions assert, with seeded randomness.

mod bench;
mod ceilings;
mod clients;
mod look;
mod retain;
mod rows;
mod scope;
mod seeds;

use std::collections::{BTreeMap, HashSet};

use crate::address::CompactAddr;
use crate::registry::memory::Ceilings;
use crate::registry::{Accepts, Classes, MAX_NUMWANT, PeerEntry, Registry, Scope};
use crate::request::{Event, Family, PeerKey};
use crate::response::{Reach, SwarmCounts};
use crate::select::{Mode, SEEDS_FOR_SEEDS};
use crate::types::{InfoHash, PeerId, Rng, Time};

use bench::{Bench, Key, SIZES, Who, numbered};

/// A store under test.
pub trait Subject {
    /// The registry.
    type Registry: Registry;

    /// Makes an empty store with these ceilings.
    fn make(&self, ceilings: Ceilings) -> Self::Registry;

    /// Runs the periodic work of the store, up to `now`.
    fn settle(&self, registry: &Self::Registry, now: Time);
}

/// Runs the whole suite.
pub fn run<S: Subject>(subject: &S) {
    hands_out_everybody_but_the_requester(subject);
    keys_peers_by_isd_as_and_address(subject);
    replaces_the_id_at_a_known_address(subject);
    ignores_stopped_from_strangers(subject);
    removes_who_stops(subject);
    counts_a_completed_download_once(subject);
    seeds::gives_known_leechers_no_seeds_when_they_are_seeds(subject);
    seeds::gives_a_few_seeds_to_other_seeds(subject);
    look::shows_what_an_announce_would_get(subject);
    look::a_look_keeps_nobody(subject);
    counts_partial_seeds_apart(subject);
    never_exceeds_numwant_nor_repeats(subject);
    hands_out_only_whom_the_requester_reaches(subject);
    rows::writes_rows_as_it_pushes_peers(subject);
    scope::hands_out_local_peers_only_to_who_accepts_them(subject);
    scope::follows_a_peer_into_another_scope(subject);
    fills_with_the_second_set(subject);
    prefers_the_near(subject);
    puts_proven_places_first(subject);
    reaches_every_peer(subject);
    expires_the_silent(subject);
    ceilings::keeps_the_ceilings(subject);
    ceilings::evicts_idle_swarms_at_the_ceiling(subject);
    ceilings::keeps_peers_that_announce_on_time(subject);
    ceilings::finds_the_only_idle_swarm(subject);
    ceilings::empty_swarms_take_no_room(subject);
    ceilings::limits_the_peers_of_a_host_in_a_swarm(subject);
    clients::counts_a_client_once_that_goes_round(subject);
    clients::counts_only_downloads_of_known_leechers(subject);
    clients::counts_a_client_of_two_networks_once(subject);
    retain::removes_those_outside(subject);
    retain::removes_a_whole_swarm(subject);
    retain::removed_peers_take_no_room(subject);
    agrees_with_a_plain_model(subject);
}

fn hands_out_everybody_but_the_requester<S: Subject>(subject: &S) {
    for size in SIZES.into_iter().filter(|size| *size < MAX_NUMWANT as u32) {
        for ia in ["0-0", "1-ff00:0:110"] {
            let mut bench = Bench::new(subject);
            for number in 0..size {
                bench.peers(numbered(ia, number), 0);
            }
            for number in 0..size {
                let me = numbered(ia, number);
                let peers = bench.peers(me, MAX_NUMWANT);
                assert_eq!(peers.len(), size as usize - 1, "{size} {ia}");
                assert!(!peers.contains(&(me.0.ia, me.0.addr)));
                assert_eq!(peers.iter().collect::<HashSet<_>>().len(), peers.len());
            }
        }
    }
}

fn keys_peers_by_isd_as_and_address<S: Subject>(subject: &S) {
    let mut bench = Bench::new(subject);
    let here = Who::new("1-ff00:0:110", "10.0.0.1", 6881);
    let there = Who::new("1-ff00:0:111", "10.0.0.1", 6881);
    let nowhere = Who::new("0-0", "10.0.0.1", 6881);
    let mut other_port = Who::new("1-ff00:0:110", "10.0.0.1", 6882);
    other_port.0.id = here.0.id;
    for (expected, who) in [
        (1, here),
        (2, there),
        (3, nowhere),
        (4, other_port),
        (4, here),
    ] {
        assert_eq!(bench.counts(who), (0, expected));
    }
}

fn replaces_the_id_at_a_known_address<S: Subject>(subject: &S) {
    let mut bench = Bench::new(subject);
    let old = numbered("1-1", 1);
    let mut new = old;
    new.0.id = PeerId([9; 20]);
    bench.peers(old, 0);
    assert_eq!(bench.counts(new), (0, 1));
    let (got, _) = bench.announce(numbered("1-1", 2), 9).expect("served");
    assert_eq!(got.0, [((new.0.ia, new.0.addr), new.0.id)]);
}

fn ignores_stopped_from_strangers<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("1-1", number), 0);
        }
        let mut forged = numbered("1-1", 0).event(Event::Stopped);
        forged.0.id = PeerId([9; 20]);
        for stranger in [
            forged,
            numbered("1-1", size + 7).event(Event::Stopped),
            numbered("1-2", 0).event(Event::Stopped),
            numbered("0-0", 0).event(Event::Stopped),
        ] {
            let (got, counts) = bench.announce(stranger, 50).expect("served");
            assert!(got.0.is_empty());
            assert_eq!((counts.seeders, counts.leechers), (0, size));
        }
    }
    let mut bench = Bench::with(
        subject,
        Ceilings {
            torrents: 1,
            ..Ceilings::default()
        },
    );
    bench.peers(numbered("1-1", 0).torrent(8).event(Event::Stopped), 9);
    bench.peers(numbered("1-1", 0).torrent(9), 9);
}

fn removes_who_stops<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        let who = |number: u32| {
            let ia = ["1-1", "1-2", "2-1", "0-0"][number as usize % 4];
            let who = numbered(ia, number);
            if number.is_multiple_of(2) {
                who.seed()
            } else {
                who
            }
        };
        for number in 0..size {
            bench.peers(who(number), 0);
        }
        for number in 0..size {
            let (_, counts) = bench
                .announce(who(number).event(Event::Stopped), 9)
                .expect("served");
            assert_eq!(counts.seeders + counts.leechers, size - number - 1);
        }
        assert_eq!(
            bench.registry.scrape(&InfoHash([1; 20])),
            SwarmCounts::default()
        );
    }
}

fn counts_a_completed_download_once<S: Subject>(subject: &S) {
    let mut bench = Bench::new(subject);
    let who = numbered("1-1", 1);
    let completed = |bench: &mut Bench<S::Registry>, who: Who| {
        bench.announce(who, 0).expect("served").1.completed
    };
    assert_eq!(completed(&mut bench, who.event(Event::Started)), 0);
    // A completed event with bytes left is not a completed download.
    assert_eq!(completed(&mut bench, who.event(Event::Completed)), 0);
    assert_eq!(completed(&mut bench, who.seed().event(Event::Completed)), 1);
    assert_eq!(completed(&mut bench, who.seed().event(Event::Completed)), 1);
    assert_eq!(completed(&mut bench, who), 1);
    assert_eq!(completed(&mut bench, who.seed().event(Event::Completed)), 1);
    let seed = numbered("1-1", 2).seed();
    assert_eq!(completed(&mut bench, seed.event(Event::Started)), 1);
    assert_eq!(completed(&mut bench, seed.event(Event::Completed)), 1);
    // The peer was not known as incomplete. This tracker may have counted it before a restart.
    assert_eq!(
        completed(
            &mut bench,
            numbered("1-1", 3).seed().event(Event::Completed)
        ),
        1
    );
    for number in 1..=3 {
        bench.peers(numbered("1-1", number).event(Event::Stopped), 0);
    }
    let left = bench.registry.scrape(&InfoHash([1; 20]));
    assert_eq!((left.seeders, left.leechers, left.completed), (0, 0, 1));
    bench.now = Time::from_secs(500_000);
    subject.settle(&bench.registry, bench.now);
    assert_eq!(bench.registry.scrape(&InfoHash([1; 20])).completed, 1);
}

fn counts_partial_seeds_apart<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("1-1", number), 0);
        }
        let (_, counts) = bench
            .announce(numbered("1-1", 0).event(Event::Paused), 0)
            .expect("served");
        assert_eq!((counts.leechers, counts.downloaders), (size, size - 1));
        let (_, counts) = bench.announce(numbered("1-1", 0), 0).expect("served");
        assert_eq!((counts.leechers, counts.downloaders), (size, size));
    }
}

fn never_exceeds_numwant_nor_repeats<S: Subject>(subject: &S) {
    for mode in [Mode::Prefer, Mode::Cap, Mode::Random] {
        for size in SIZES {
            let mut bench = Bench::new(subject);
            bench.policy.mode = mode;
            for number in 0..size {
                let ia = ["1-1", "1-2", "2-1", "0-0", "1-1"][number as usize % 5];
                let mut who = numbered(ia, number);
                who.0.verified &= number.is_multiple_of(2);
                bench.peers(
                    if number.is_multiple_of(3) {
                        who.seed()
                    } else {
                        who
                    },
                    0,
                );
            }
            for numwant in [0, 1, 2, 3, 5, 10, 50, 200] {
                for ia in ["0-0", "1-1", "1-3", "3-1"] {
                    let peers = bench.peers(numbered(ia, 7777), numwant);
                    assert!(peers.len() <= numwant);
                    if mode != Mode::Cap {
                        // The requesters of earlier announces are peers, too.
                        assert!(
                            peers.len() >= numwant.min(size as usize),
                            "{mode:?} {size} {numwant}"
                        );
                    }
                    assert_eq!(peers.iter().collect::<HashSet<_>>().len(), peers.len());
                    bench.peers(numbered(ia, 7777).event(Event::Stopped), 0);
                }
            }
        }
    }
}

fn hands_out_only_whom_the_requester_reaches<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        let who = |number: u32| {
            let ia = ["1-1", "1-2", "2-1", "0-0"][number as usize % 4];
            let mut who = numbered(ia, number);
            if ia != "0-0" && number % 8 < 4 {
                who.0.reach = Reach::Scion;
            }
            who
        };
        for number in 0..size {
            bench.peers(who(number), 0);
        }
        for family in [Family::V4, Family::V6] {
            for reach in [Reach::Ip, Reach::Scion, Reach::Both] {
                let classes = Classes::NONE.with(family, reach, Scope::Global);
                bench.accepts = Accepts {
                    first: classes,
                    then: Classes::NONE,
                };
                let mut expected: Vec<Key> = (0..size)
                    .map(who)
                    .filter(|who| {
                        let ip = who.0.addr.socket_addr().ip();
                        who.0.reach == reach && Family::of(ip) == family
                    })
                    .map(|who| (who.0.ia, who.0.addr))
                    .collect();
                for asking in [numbered("1-1", 8888), numbered("0-0", 8888)] {
                    let mut peers = bench.peers(asking, MAX_NUMWANT);
                    bench.peers(asking.event(Event::Stopped), 0);
                    peers.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(peers, expected);
                }
            }
        }
    }
}

fn fills_with_the_second_set<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("0-0", number), 0);
        }
        let v4 = Classes::NONE.with(Family::V4, Reach::Ip, Scope::Global);
        let v6 = Classes::NONE.with(Family::V6, Reach::Ip, Scope::Global);
        bench.accepts = Accepts {
            first: v4,
            then: v6,
        };
        let fours = size as usize - size.div_ceil(3) as usize;
        let peers = bench.peers(Who::new("0-0", "192.0.2.1", 1), 50);
        let got = peers
            .iter()
            .filter(|(_, addr)| matches!(addr, CompactAddr::V4(_)))
            .count();
        assert_eq!(got, fours.min(50));
        assert_eq!(peers.len(), (size as usize).min(50));
    }
}

fn prefers_the_near<S: Subject>(subject: &S) {
    // Peers per AS, peers wanted, expected peers by tier: same AS, same ISD, other ISD, no ISD-AS.
    for (each, numwant, expected) in [
        (3, 50, [2, 3, 3, 3]),
        (8, 16, [7, 5, 2, 2]),
        (8, 50, [7, 8, 8, 8]),
        (100, 50, [42, 4, 2, 2]),
        (300, 200, [192, 4, 2, 2]),
    ] {
        let mut bench = Bench::new(subject);
        for (base, ia) in [(0, "1-1"), (1000, "1-2"), (2000, "2-1"), (3000, "0-0")] {
            for number in 0..each {
                bench.peers(numbered(ia, base + number), 0);
            }
        }
        let mut got = [0; 4];
        for (ia, _) in bench.peers(numbered("1-1", 0), numwant) {
            match ia.to_string().as_str() {
                "1-1" => got[0] += 1,
                "1-2" => got[1] += 1,
                "2-1" => got[2] += 1,
                _ => got[3] += 1,
            }
        }
        assert_eq!(got, expected, "{each} {numwant}");
    }
}

fn puts_proven_places_first<S: Subject>(subject: &S) {
    for each in [5, 50] {
        let mut bench = Bench::new(subject);
        for number in 0..each {
            bench.peers(numbered("1-1", number), 0);
            let mut claimed = numbered("1-1", 1000 + number);
            claimed.0.verified = false;
            bench.peers(claimed, 0);
        }
        let proven: HashSet<Key> = (0..each)
            .map(|number| numbered("1-1", number).0)
            .map(|peer| (peer.ia, peer.addr))
            .collect();
        let numwant = each as usize;
        let peers = bench.peers(numbered("1-1", 9999), numwant);
        assert!(peers.len() == numwant && peers.iter().all(|key| proven.contains(key)));
    }
}

/// Every peer is handed out at some time, and none much more often than the others.
fn reaches_every_peer<S: Subject>(subject: &S) {
    for (size, numwant) in [(20u32, 5usize), (200, 20)] {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            let ia = ["0-0", "1-1", "1-2", "2-1"][number as usize % 4];
            bench.peers(numbered(ia, number), 0);
        }
        let rounds = 4000;
        let mut hits: BTreeMap<Key, u32> = BTreeMap::new();
        for _ in 0..rounds {
            for key in bench.peers(numbered("0-0", 0), numwant) {
                *hits.entry(key).or_default() += 1;
            }
        }
        assert_eq!(hits.len() as u32, size - 1);
        let mean = f64::from(rounds) * numwant as f64 / f64::from(size - 1);
        for (key, hits) in hits {
            let off = (f64::from(hits) - mean).abs();
            assert!(off < 6.0 * mean.sqrt(), "{key:?}: {hits} of {mean}");
        }
    }
}

fn expires_the_silent<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            let ia = ["1-1", "1-2", "2-1", "0-0"][number as usize % 4];
            let who = numbered(ia, number);
            bench.peers(
                if number.is_multiple_of(2) {
                    who.seed()
                } else {
                    who
                },
                0,
            );
        }
        let lifetime = Ceilings::default().peer_lifetime;
        bench.now = Time::from_secs(100 + lifetime - 60);
        let loyal = size / 2;
        for number in 0..loyal {
            let ia = ["1-1", "1-2", "2-1", "0-0"][number as usize % 4];
            let who = numbered(ia, number);
            bench.peers(
                if number.is_multiple_of(2) {
                    who.seed()
                } else {
                    who
                },
                0,
            );
        }
        subject.settle(&bench.registry, bench.now);
        let counts = bench.registry.scrape(&InfoHash([1; 20]));
        assert_eq!(counts.seeders + counts.leechers, size);
        bench.now = Time::from_secs(100 + lifetime + 60);
        subject.settle(&bench.registry, bench.now);
        let counts = bench.registry.scrape(&InfoHash([1; 20]));
        assert_eq!(
            (counts.seeders, counts.leechers),
            (loyal.div_ceil(2), loyal / 2)
        );
        let peers = bench.peers(numbered("1-1", 9999), MAX_NUMWANT);
        assert_eq!(peers.len(), (loyal as usize).min(MAX_NUMWANT));
        bench.peers(numbered("1-1", 9999).event(Event::Stopped), 0);
        bench.now = Time::from_secs(100 + 3 * lifetime);
        subject.settle(&bench.registry, bench.now);
        assert_eq!(
            bench.registry.scrape(&InfoHash([1; 20])),
            SwarmCounts::default()
        );
    }
}

/// Compares random announces with a map, in a swarm that grows and shrinks through every form.
fn agrees_with_a_plain_model<S: Subject>(subject: &S) {
    let mut bench = Bench::new(subject);
    bench.policy.mode = Mode::Random;
    // And who was known as a leecher under its present id.
    let mut model: BTreeMap<Key, (PeerEntry, bool)> = BTreeMap::new();
    let mut rng = Rng::with_seed(42);
    for step in 0..12_000u32 {
        let crowd = if step / 2000 % 2 == 0 { 110 } else { 24 };
        let mut who = numbered(
            ["1-1", "1-2", "2-1", "0-0"][rng.usize(0..4)],
            rng.u32(0..crowd),
        );
        who.0.seeder = rng.u8(0..3) == 0;
        if !who.0.ia.is_none() {
            who.0.verified = rng.u8(0..8) > 0;
            who.0.reach = if rng.u8(0..8) > 0 {
                Reach::Both
            } else {
                Reach::Scion
            };
        }
        let shrinking = step / 2000 % 2 == 1;
        let leaves = rng.u8(0..10) < if shrinking { 7 } else { 2 };
        // Peers that joined as a crowd also leave as one.
        if leaves
            && shrinking
            && let Some((_, (peer, _))) = model.iter().next()
        {
            who.0 = *peer;
        }
        who.0.event = if leaves { Event::Stopped } else { Event::None };
        let key = (who.0.ia, who.0.addr);
        // Prefetching makes no difference, whether the announce follows or not.
        let stranger = numbered("1-1", rng.u32(0..crowd)).torrent(step % 3);
        let soon = [who, stranger].map(|Who(it)| PeerKey {
            info_hash: it.info_hash,
            ia: it.ia,
            addr: it.addr,
        });
        bench.registry.prefetch(&soon);
        let (got, counts) = bench.announce(who, MAX_NUMWANT).expect("served");
        if leaves {
            model.remove(&key);
            assert!(got.0.is_empty());
        } else {
            let known = model.get(&key).is_some_and(|(_, leecher)| *leecher);
            let leecher = known || !who.0.seeder;
            model.insert(key, (who.0, leecher));
            let (mut seeds, mut expected): (Vec<Key>, Vec<Key>) = (Vec::new(), Vec::new());
            let others = model.iter().filter(|(other, (peer, _))| {
                **other != key
                        // On the Internet one address is one host, under whatever ISD-AS.
                        && !(other.1 == key.1
                            && peer.id == who.0.id
                            && peer.reach.over_ip()
                            && who.0.reach.over_ip())
            });
            for (key, (peer, _)) in others {
                if who.0.seeder && peer.seeder {
                    seeds.push(*key);
                } else {
                    expected.push(*key);
                }
            }
            let mut peers: Vec<Key> = got.0.into_iter().map(|(key, _)| key).collect();
            let all = peers.len();
            peers.retain(|key| !seeds.contains(key));
            let most = if leecher { 0 } else { SEEDS_FOR_SEEDS };
            let given = all - peers.len();
            assert!(given <= most.min(seeds.len()), "step {step}: {given} seeds");
            // Itself under another ISD-AS may have been drawn and left out.
            assert!(
                given + 3 >= most.min(seeds.len()),
                "step {step}: {given} seeds"
            );
            peers.sort_unstable();
            expected.sort_unstable();
            assert!(
                peers == expected,
                "step {step}: {} peers of {}",
                peers.len(),
                expected.len()
            );
        }
        let seeders = model.values().filter(|(peer, _)| peer.seeder).count();
        assert_eq!(counts.seeders as usize, seeders, "step {step}");
        assert_eq!(
            counts.leechers as usize,
            model.len() - seeders,
            "step {step}"
        );
    }
}
