//! Tests what an operator removes at once: the peers of a denied torrent, and those outside of an isolated one.

use std::collections::HashSet;

use super::Subject;
use super::bench::{Bench, Key, SIZES, Who, numbered};
use crate::registry::Registry as _;
use crate::registry::memory::Ceilings;
use crate::request::Event;
use crate::response::SwarmCounts;
use crate::types::InfoHash;

const HASH: InfoHash = InfoHash([1; 20]);
const PLACES: [&str; 5] = ["1-1", "1-2", "2-1", "64-1", "0-0"];

/// Every third is a seed, and every fourth only claims its place.
fn member(number: u32) -> Who {
    let mut who = numbered(PLACES[number as usize % PLACES.len()], number);
    who.0.verified &= !number.is_multiple_of(4);
    if number.is_multiple_of(3) {
        who.seed()
    } else {
        who
    }
}

fn count(members: impl Iterator<Item = Who>) -> (u32, u32) {
    members.fold((0, 0), |(seeds, leechers), who| match who.0.seeder {
        true => (seeds + 1, leechers),
        false => (seeds, leechers + 1),
    })
}

/// Isolation keeps one ISD, and perhaps only those whose place is proven.
pub(super) fn removes_those_outside<S: Subject>(subject: &S) {
    for size in SIZES {
        for proven_only in [false, true] {
            let mut bench = Bench::new(subject);
            for number in 0..size {
                bench.peers(member(number), 0);
            }
            let is_inside = |who: &Who| who.0.ia.isd().0 == 1 && (who.0.verified || !proven_only);
            let inside: Vec<Who> = (0..size).map(member).filter(is_inside).collect();
            let removed = bench.registry.retain(&HASH, |ia, is_proven| {
                ia.isd().0 == 1 && (is_proven || !proven_only)
            });
            assert_eq!(removed, u64::from(size) - inside.len() as u64);
            let counts = bench.registry.scrape(&HASH);
            let expected = count(inside.iter().copied());
            assert_eq!((counts.seeders, counts.leechers), expected, "{size}");
            let asking = numbered("1-9", 9000);
            let got: HashSet<Key> = bench.peers(asking, 500).into_iter().collect();
            let inside_keys = inside.iter().map(|who| (who.0.ia, who.0.addr)).collect();
            assert!(got.is_subset(&inside_keys));
            if inside.len() <= 500 {
                assert_eq!(got, inside_keys);
            }
            // Those who are left are known, and those who are gone are new.
            let before = inside.len() as u32 + 1;
            let mut now = before;
            for number in 0..size {
                let who = member(number);
                now += u32::from(!is_inside(&who));
                let (seeders, leechers) = bench.counts(who);
                assert_eq!(seeders + leechers, now, "{size} {number}");
            }
        }
    }
}

/// A denied torrent loses everybody, and other torrents nobody.
pub(super) fn removes_a_whole_swarm<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(member(number), 0);
            bench.peers(member(number).torrent(7), 0);
        }
        let finishes = numbered("1-1", 9000);
        bench.peers(finishes, 0);
        bench.peers(finishes.seed().event(Event::Completed), 0);
        let other = bench.registry.scrape(&member(0).torrent(7).0.info_hash);
        assert_eq!(bench.registry.remove(&HASH), u64::from(size) + 1);
        let gone = SwarmCounts {
            completed: 1,
            ..SwarmCounts::default()
        };
        assert_eq!(bench.registry.scrape(&HASH), gone, "{size}");
        assert_eq!(bench.registry.remove(&HASH), 0);
        assert_eq!(
            bench.registry.scrape(&member(0).torrent(7).0.info_hash),
            other
        );
        assert_eq!(bench.peers(numbered("1-1", 9001), 50), []);
        assert_eq!(bench.registry.remove(&InfoHash([9; 20])), 0);
    }
}

/// What was removed no longer counts against any limit.
pub(super) fn removed_peers_take_no_room<S: Subject>(subject: &S) {
    let mut bench = Bench::with(
        subject,
        Ceilings {
            torrents: 1,
            peers_per_torrent: 3,
            peers_per_source: 3,
            ..Ceilings::default()
        },
    );
    for round in 0..5u8 {
        for port in 1..=3 {
            bench.peers(Who::new("1-1", "10.0.0.1", port).torrent(round.into()), 0);
        }
        let beyond = Who::new("1-1", "10.0.0.1", 4).torrent(round.into());
        assert!(bench.announce(beyond, 0).is_err());
        let info_hash = Who::new("1-1", "10.0.0.1", 1).torrent(round.into());
        assert_eq!(bench.registry.remove(&info_hash.0.info_hash), 3);
    }
}
