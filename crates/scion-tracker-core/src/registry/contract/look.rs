//! Tests announces that store nothing: HEAD, and port 0.

use std::collections::HashSet;

use super::Subject;
use super::bench::{Bench, Key, SIZES, Who, numbered};
use crate::registry::memory::Ceilings;
use crate::registry::{Accepts, Registry as _};
use crate::request::Event;
use crate::select::Mode;
use crate::types::{InfoHash, PeerId, Time};

const PLACES: [&str; 4] = ["1-1", "1-2", "2-1", "0-0"];

/// A third of them seeds.
fn member(number: u32) -> Who {
    let who = numbered(PLACES[number as usize % 4], number);
    if number.is_multiple_of(3) {
        who.seed()
    } else {
        who
    }
}

/// Also checks that it changes nothing.
pub(super) fn shows_what_an_announce_would_get<S: Subject>(subject: &S) {
    for mode in [Mode::Prefer, Mode::Cap, Mode::Random] {
        for size in SIZES {
            let mut bench = Bench::new(subject);
            bench.policy.mode = mode;
            for number in 0..size {
                bench.peers(member(number), 0);
            }
            // One that was a leecher gets no seeds.
            let finished = numbered("1-1", 9000);
            bench.peers(finished, 0);
            bench.peers(finished.seed(), 0);
            let before = bench.registry.scrape(&InfoHash([1; 20]));
            for asking in [
                member(0),
                member(size - 1),
                member(size - 1).event(Event::Completed),
                member(size - 1).event(Event::Paused),
                finished.seed(),
                numbered("1-1", 9001),
                numbered("1-1", 9002).seed(),
                numbered("0-0", 9003).seed(),
                numbered("1-1", 9004).event(Event::Paused),
                // No port: another peer than the one of this host.
                Who::new("0-0", "192.0.2.1", 0),
            ] {
                for numwant in [0, 5, 50] {
                    let (looked, counts) = bench.look(asking, numwant);
                    assert_eq!(counts, before);
                    assert_eq!(bench.registry.scrape(&InfoHash([1; 20])), before);
                    assert!(looked.len() <= numwant);
                    assert!(!looked.contains(&(asking.0.ia, asking.0.addr)));
                    let distinct: HashSet<&Key> = looked.iter().collect();
                    assert_eq!(distinct.len(), looked.len());
                    if numwant < 50 {
                        continue;
                    }
                    // An announce changes the store, so it goes to a copy.
                    let mut copy = Bench::new(subject);
                    copy.policy.mode = mode;
                    for number in 0..size {
                        copy.peers(member(number), 0);
                    }
                    copy.peers(finished, 0);
                    copy.peers(finished.seed(), 0);
                    let announced = copy.peers(asking, numwant);
                    assert_eq!(looked.len(), announced.len(), "{mode:?} {size} {asking:?}");
                    if (size as usize) < numwant && mode != Mode::Cap && !asking.0.seeder {
                        assert_eq!(distinct, announced.iter().collect());
                    }
                }
            }
            let (looked, counts) = bench.look(member(0).event(Event::Stopped), 50);
            assert!(looked.is_empty());
            assert_eq!(counts, before);
        }
    }
}

/// Also checks classes that the requester does not reach.
pub(super) fn a_look_keeps_nobody<S: Subject>(subject: &S) {
    let mut bench = Bench::with(
        subject,
        Ceilings {
            torrents: 1,
            peers_per_torrent: 2,
            ..Ceilings::default()
        },
    );
    // An unknown swarm stays unknown.
    assert_eq!(bench.look(numbered("1-1", 1).torrent(9), 50).0, []);
    bench.peers(numbered("1-1", 1), 0);
    bench.peers(numbered("1-1", 2), 0);
    // A full swarm can be looked at.
    assert_eq!(bench.look(numbered("1-1", 3), 50).0.len(), 2);
    let accepts = std::mem::replace(&mut bench.accepts, Accepts::NOBODY);
    assert_eq!(bench.look(numbered("1-1", 3), 50).0, []);
    bench.accepts = accepts;
    // A new id at a known address does not replace the old one.
    let mut other = numbered("1-1", 1);
    other.0.id = PeerId([9; 20]);
    bench.look(other, 50);
    let (got, _) = bench.announce(numbered("1-1", 2), 50).expect("served");
    assert_eq!(got.0[0].1, numbered("1-1", 1).0.id);
    // Looking does not keep a peer alive.
    bench.now = Time::from_secs(100 + Ceilings::default().peer_lifetime + 60);
    bench.look(numbered("1-1", 1), 50);
    subject.settle(&bench.registry, bench.now);
    let counts = bench.registry.scrape(&InfoHash([1; 20]));
    assert_eq!(counts.leechers, 0);
}
