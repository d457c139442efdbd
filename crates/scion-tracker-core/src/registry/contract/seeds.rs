//! Which peers a seed gets.

use std::collections::HashSet;

use super::Subject;
use super::bench::{Bench, Key, SIZES, Who, numbered};
use crate::registry::MAX_NUMWANT;
use crate::request::Event;
use crate::select::{Mode, SEEDS_FOR_SEEDS};
use crate::types::PeerId;

/// Also checks partial seeds.
pub(super) fn gives_known_leechers_no_seeds_when_they_are_seeds<S: Subject>(subject: &S) {
    for size in SIZES.into_iter().filter(|size| *size < MAX_NUMWANT as u32) {
        for ia in ["0-0", "1-1"] {
            let mut bench = Bench::new(subject);
            for number in 0..size {
                bench.peers(numbered("1-1", number).seed(), 0);
                bench.peers(numbered("1-1", 5000 + number), 0);
            }
            let finished = numbered(ia, 9000);
            bench.peers(finished, 0);
            for asking in [
                finished.seed().event(Event::Completed),
                finished.seed(),
                numbered(ia, 9001).event(Event::Paused),
                numbered(ia, 9002).seed().event(Event::Paused),
            ] {
                let leechers = bench.counts(asking).1 - u32::from(!asking.0.seeder);
                let peers = bench.peers(asking, MAX_NUMWANT);
                assert_eq!(peers.len() as u32, leechers);
                for number in 0..size {
                    let seed = numbered("1-1", number);
                    assert!(!peers.contains(&(seed.0.ia, seed.0.addr)));
                }
            }
        }
    }
}

pub(super) fn gives_a_few_seeds_to_other_seeds<S: Subject>(subject: &S) {
    for mode in [Mode::Prefer, Mode::Cap, Mode::Random] {
        for (seeds, leechers) in [(0, 5), (3, 0), (12, 3), (20, 11), (30, 40), (700, 30)] {
            for ia in ["0-0", "1-1"] {
                let mut bench = Bench::new(subject);
                bench.policy.mode = mode;
                let places = ["1-1", "1-2", "2-1", "0-0"];
                for number in 0..seeds {
                    let place = places[number as usize % 4];
                    bench.peers(numbered(place, number).seed(), 0);
                }
                for number in 0..leechers {
                    let place = places[number as usize % 4];
                    bench.peers(numbered(place, 5000 + number), 0);
                }
                let all: HashSet<Key> = (0..seeds)
                    .map(|number| numbered(places[number as usize % 4], number).0)
                    .map(|peer| (peer.ia, peer.addr))
                    .collect();
                let mut given = |who: Who, numwant: usize| {
                    let peers = bench.peers(who, numwant);
                    assert!(peers.len() <= numwant);
                    assert_eq!(peers.iter().collect::<HashSet<_>>().len(), peers.len());
                    assert!(!peers.contains(&(who.0.ia, who.0.addr)));
                    let seeds = peers.iter().filter(|peer| all.contains(peer)).count();
                    (seeds, peers.len() - seeds)
                };
                let who = numbered(ia, 9000).seed();
                let most = SEEDS_FOR_SEEDS.min(seeds as usize);
                // As a newcomer, and as one that has always been a seed.
                for _ in 0..2 {
                    let (got, others) = given(who, 50);
                    assert_eq!(got, most.min(50 - others), "{mode:?} {seeds} {leechers}");
                    if mode != Mode::Cap {
                        assert_eq!(others, leechers as usize);
                        // Leechers come first.
                        let (got, others) = given(who, 4);
                        assert_eq!(others, 4.min(leechers as usize));
                        assert_eq!(got, (seeds as usize).min(4 - others));
                    }
                }
                // It knows the length now, and finishes.
                given(numbered(ia, 9000), 0);
                assert_eq!(given(who.event(Event::Completed), 50).0, 0);
                assert_eq!(given(who, 50).0, 0);
                // The next session has another peer id.
                let mut again = who;
                again.0.id = PeerId([9; 20]);
                let (got, others) = given(again, 50);
                assert_eq!(got, most.min(50 - others));
            }
        }
    }
}
