//! Local peers are handed out only to requesters that accept them.

use std::collections::HashSet;

use super::Subject;
use super::bench::{Bench, Key, SIZES, Who, numbered};
use crate::registry::{Accepts, Classes, Scope};
use crate::request::{Event, Family};
use crate::response::Reach;

fn member(number: u32) -> Who {
    let mut who = numbered(["1-1", "1-2", "2-1", "0-0"][number as usize % 4], number);
    if !who.0.ia.is_none() && number % 8 < 4 {
        who.0.reach = Reach::Scion;
    }
    who.0.verified = number % 16 < 8;
    who.0.seeder = number.is_multiple_of(5);
    if number.is_multiple_of(2) {
        who.0.scope = Scope::Local;
    }
    who
}

/// Whether one of [`member`] is handed out only to local requesters.
fn is_local(who: &Who) -> bool {
    who.0.scope == Scope::Local && who.0.reach != Reach::Scion
}

pub(super) fn hands_out_local_peers_only_to_who_accepts_them<S: Subject>(subject: &S) {
    for size in SIZES.into_iter().filter(|size| *size <= 100) {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(member(number), 0);
        }
        let all: Vec<Who> = (0..size).map(member).collect();
        let keys = |wanted: &dyn Fn(&&Who) -> bool| -> HashSet<Key> {
            let wanted = all.iter().filter(wanted);
            wanted.map(|who| (who.0.ia, who.0.addr)).collect()
        };
        let mut global = Classes::NONE;
        for family in [Family::V4, Family::V6] {
            for reach in [Reach::Ip, Reach::Scion, Reach::Both] {
                global = global.with(family, reach, Scope::Global);
            }
        }
        let local = Classes::NONE
            .with(Family::V4, Reach::Ip, Scope::Local)
            .with(Family::V6, Reach::Ip, Scope::Local)
            .with(Family::V4, Reach::Both, Scope::Local)
            .with(Family::V6, Reach::Both, Scope::Local);
        let none = Classes::NONE;
        for (first, then, expected) in [
            (global, none, keys(&|who| !is_local(who))),
            (local, none, keys(&|who| is_local(who))),
            (local, global, keys(&|_| true)),
            (global.with_local(), none, keys(&|_| true)),
        ] {
            bench.accepts = Accepts { first, then };
            for ia in ["0-0", "1-1", "3-1"] {
                let asking = numbered(ia, 9000);
                let peers = bench.peers(asking, 200);
                assert_eq!(peers.len(), expected.len(), "{size} {ia}");
                assert_eq!(peers.into_iter().collect::<HashSet<_>>(), expected);
                bench.peers(asking.event(Event::Stopped), 0);
            }
        }
    }
}

/// A peer whose scope changes moves, and is still one peer.
pub(super) fn follows_a_peer_into_another_scope<S: Subject>(subject: &S) {
    for size in SIZES.into_iter().filter(|size| *size <= 100) {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("0-0", number), 0);
        }
        let mut first = Classes::NONE;
        for family in [Family::V4, Family::V6] {
            first = first.with(family, Reach::Ip, Scope::Global);
        }
        bench.accepts.first = first;
        for number in 0..size {
            let mut who = numbered("0-0", number);
            who.0.scope = Scope::Local;
            assert_eq!(bench.counts(who), (0, size));
            let global = bench.peers(numbered("0-0", 9000), 200);
            assert_eq!(global.len() as u32, size - number - 1);
            bench.peers(numbered("0-0", 9000).event(Event::Stopped), 0);
        }
        for number in 0..size {
            let gone = numbered("0-0", number).event(Event::Stopped);
            assert_eq!(bench.counts(gone), (0, size - number - 1));
        }
    }
}
