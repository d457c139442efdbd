//! Tests what a full registry refuses and evicts.

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
    // A different claim does not make another host. The same IP address behind SCION packets of two
    // ASes is two hosts.
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
    // Torrent 0 is the oldest, but it is active. Torrent 1 has been silent for longest.
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

/// Checks every interval with the shortest lifetime that fits it, for announces at any moment
/// within a tick of the store's clock.
pub(super) fn keeps_peers_that_announce_on_time<S: Subject>(subject: &S) {
    for interval in [30, 60, 299, 1800, 2 * 3600] {
        let longest = Ceilings::longest_silence(interval);
        let small = Ceilings {
            torrents: 20,
            peer_lifetime: longest,
            evict_after: longest,
            ..Ceilings::default()
        };
        for start in 100..108 {
            let mut bench = Bench::with(subject, small);
            bench.now = Time::from_secs(start);
            for number in 0..20 {
                bench.peers(numbered("1-1", number).torrent(number), 0);
            }
            bench.now = Time::from_secs(start + interval + interval / 10);
            let newcomer = numbered("1-1", 99).torrent(99);
            for _ in 0..3 {
                subject.settle(&bench.registry, bench.now);
                let refused = bench.announce(newcomer, 0).err();
                assert_eq!(refused, Some(Refusal::TorrentLimit), "{interval} {start}");
            }
            for number in 0..20 {
                let who = numbered("1-1", number).torrent(number);
                assert_eq!(bench.registry.scrape(&who.0.info_hash).leechers, 1);
            }
            // Two ticks later all peers are late.
            bench.now = Time::from_secs(start + longest + 8);
            bench.peers(newcomer, 0);
        }
    }
}

/// Idle swarms make room once the store has visited all swarms, even if only a few of them are
/// idle.
pub(super) fn finds_the_only_idle_swarm<S: Subject>(subject: &S) {
    const TORRENTS: u32 = 3000;
    let small = Ceilings {
        torrents: TORRENTS as usize,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    for number in 0..TORRENTS {
        bench.peers(numbered("1-1", number).torrent(number), 0);
    }
    let idle = TORRENTS / 3;
    bench.now = Time::from_secs(100 + small.evict_after + 8);
    for number in (0..TORRENTS).filter(|number| *number != idle) {
        bench.peers(numbered("1-1", number).torrent(number), 0);
    }
    subject.settle(&bench.registry, bench.now);
    bench.peers(numbered("1-1", 9999).torrent(9999), 0);
    let counts = |number| {
        let who = numbered("1-1", 0).torrent(number);
        bench.registry.scrape(&who.0.info_hash)
    };
    assert_eq!(counts(idle).leechers, 0);
    assert!((0..TORRENTS).all(|number| number == idle || counts(number).leechers == 1));
    let newcomer = numbered("1-1", 9998).torrent(9998);
    assert_eq!(
        bench.announce(newcomer, 0).err(),
        Some(Refusal::TorrentLimit)
    );
}

/// Download counts outlive their swarms, but take no room that a new peer needs.
pub(super) fn empty_swarms_take_no_room<S: Subject>(subject: &S) {
    let small = Ceilings {
        torrents: 20,
        memory: 400_000,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, small);
    let download_by = |bench: &mut Bench<S::Registry>, number: u32, client: u8| {
        let who = numbered("1-1", number).torrent(number).client(client);
        bench.peers(who.event(Event::Started), 0);
        bench.peers(who.seed().event(Event::Completed), 0);
        bench.peers(who.seed().event(Event::Stopped), 0);
    };
    let downloads = |bench: &Bench<S::Registry>, number: u32| {
        let who = numbered("1-1", 0).torrent(number);
        bench.registry.scrape(&who.0.info_hash).completed
    };
    download_by(&mut bench, 0, 1);
    assert_eq!(downloads(&bench, 0), 1);
    // The next client continues the count.
    download_by(&mut bench, 0, 2);
    assert_eq!(downloads(&bench, 0), 2);
    // Any number of counts leaves room for as many swarms as before, at once.
    for number in 1..20_000 {
        download_by(&mut bench, number, 1);
    }
    assert_eq!(downloads(&bench, 19_999), 1, "the last one is known");
    for number in 0..20 {
        bench.peers(numbered("1-1", number).torrent(30_000 + number), 0);
    }
}

/// A host may bring a limited number of peers into one swarm, whatever it claims.
pub(super) fn limits_the_peers_of_a_host_in_a_swarm<S: Subject>(subject: &S) {
    let limit = Ceilings::default().peers_per_source_in_torrent;
    for others in [0, 20, 100, 1000] {
        let v4 = |number: u32| Who::new("0-0", "192.0.2.1", 1000 + number as u16);
        let v6 = |number: u32| Who::new("0-0", &format!("2001:db9::{number:x}"), 6881);
        let claims = |number: u32| {
            let mut who = Who::new(
                &format!("1-{}", number % 50 + 1),
                "192.0.2.2",
                1000 + number as u16,
            );
            who.0.verified = false;
            who
        };
        let of_host: [&dyn Fn(u32) -> Who; 3] = [&v4, &v6, &claims];
        for host in of_host {
            let mut bench = Bench::new(subject);
            for number in 0..others {
                bench.peers(numbered("0-0", number), 0);
            }
            let mut entered = 0;
            let refusal = loop {
                match bench.announce(host(entered), 0) {
                    Ok(_) => entered += 1,
                    Err(refusal) => break refusal,
                }
                assert!(entered <= limit, "{entered} peers of one host");
            };
            assert_eq!(refusal, Refusal::HostInSwarmLimit);
            // A store may count a few too many in a large swarm.
            let least = if others > 0 { limit - 12 } else { limit };
            assert!(entered >= least, "{entered} peers beside {others} others");
            // Known peers are still served, and a peer that leaves makes room for another.
            for number in 0..entered {
                bench.peers(host(number), 0);
            }
            assert!(bench.announce(host(entered), 0).is_err());
            bench.peers(host(0).event(Event::Stopped), 0);
            bench.peers(host(entered), 0);
            // Other hosts are served, and so is the host in other swarms.
            bench.peers(numbered("0-0", 5000), 0);
            bench.peers(host(entered).torrent(7), 0);
        }
    }
    // The same address behind SCION packets of two ASes is two hosts.
    let mut bench = Bench::new(subject);
    for ia in ["1-1", "1-2"] {
        for number in 0..limit {
            let mut who = Who::new(ia, "10.0.0.1", 1000 + number as u16);
            who.0.reach = Reach::Scion;
            if number < limit - 12 || bench.announce(who, 0).is_ok() {
                bench.peers(who, 0);
            }
        }
    }
    let unlimited = Ceilings {
        peers_per_source_in_torrent: u32::MAX,
        ..Ceilings::default()
    };
    let mut bench = Bench::with(subject, unlimited);
    for number in 0..3000 {
        bench.peers(Who::new("0-0", "192.0.2.1", 1000 + number), 0);
    }
    for number in 0..3000 {
        bench.peers(
            Who::new("0-0", "192.0.2.1", 1000 + number).event(Event::Stopped),
            0,
        );
    }
}
