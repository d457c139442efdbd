//! What a registry does that is full.

use super::Subject;
use super::bench::{Bench, Who, numbered};
use crate::registry::Registry as _;
use crate::registry::memory::Ceilings;
use crate::request::Event;
use crate::response::{Reach, Refusal};
use crate::types::Time;

pub(super) fn keeps_the_ceilings<S: Subject>(subject: &S) {
    let small = Ceilings {
        peers_per_torrent: 40,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    for number in 0..40 {
        bench.peers(numbered("1-1", number), 0);
    }
    let newcomer = bench.announce(numbered("1-1", 40), 50);
    assert_eq!(newcomer.err(), Some(Refusal::SwarmLimit));
    assert_eq!(bench.peers(numbered("1-1", 3), 50).len(), 39);
    bench.peers(numbered("1-1", 3).event(Event::Stopped), 0);
    bench.peers(numbered("1-1", 40), 0);

    let small = Ceilings {
        peers_per_source: 20,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    let one_host =
        |number: u32| Who::new("1-1", "10.0.0.1", 1000 + (number % 7) as u16).torrent(number / 7);
    for number in 0..20 {
        bench.peers(one_host(number), 0);
    }
    assert_eq!(
        bench.announce(one_host(20), 50).err(),
        Some(Refusal::SourceLimit)
    );
    bench.peers(one_host(0), 0);
    // Another claim is no other host; the same IP behind SCION packets of two ASes is.
    let mut claimed = Who::new("1-2", "10.0.0.1", 1000);
    claimed.0.verified = false;
    assert_eq!(bench.announce(claimed, 0).err(), Some(Refusal::SourceLimit));
    let mut proven = Who::new("1-2", "10.0.0.1", 1000);
    proven.0.reach = Reach::Scion;
    bench.peers(proven, 0);
    bench.peers(one_host(7).event(Event::Stopped), 0);
    bench.peers(one_host(20), 0);

    let small = Ceilings {
        torrents: 20,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    for number in 0..20 {
        bench.peers(numbered("1-1", number).torrent(number), 0);
    }
    let newcomer = numbered("1-1", 20);
    assert_eq!(
        bench.announce(newcomer.torrent(20), 50).err(),
        Some(Refusal::TorrentLimit)
    );
    bench.peers(newcomer.torrent(3), 50);
    bench.peers(numbered("1-1", 7).torrent(7).event(Event::Stopped), 0);
    bench.peers(newcomer.torrent(20), 50);

    let small = Ceilings {
        memory: 40_000,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    let mut entered = 0;
    let refusal = loop {
        match bench.announce(numbered("1-1", entered).torrent(entered / 4), 0) {
            Ok(_) => entered += 1,
            Err(refusal) => break refusal,
        }
        assert!(entered < 4000, "40 kB hold no 4000 peers");
    };
    assert_eq!(refusal, Refusal::MemoryLimit);
    assert!(entered > 100, "40 kB hold more than {entered} peers");
    bench.peers(numbered("1-1", 0).torrent(0), 0);
}

pub(super) fn evicts_idle_swarms_at_the_ceiling<S: Subject>(subject: &S) {
    let small = Ceilings {
        torrents: 20,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    for number in 0..20 {
        bench.now = Time::from_secs(100 + 60 * number);
        bench.peers(numbered("1-1", number).torrent(number), 0);
    }
    // Torrent 0 is the eldest, but it is alive; torrent 1 has been silent for longest.
    bench.now = Time::from_secs(2000);
    bench.peers(numbered("1-1", 0).torrent(0), 0);
    bench.now = Time::from_secs(100 + 60 + small.peer_lifetime - 100);
    bench.peers(numbered("1-1", 99).torrent(99), 0);
    let alive = |bench: &Bench<S::Registry>, number| {
        let who = numbered("1-1", 0).torrent(number);
        bench.registry.scrape(&who.0.info_hash).leechers == 1
    };
    assert!(alive(&bench, 99) && alive(&bench, 0) && alive(&bench, 2));
    assert!(!alive(&bench, 1));
}
