//! Tests the counts of a client that announces repeatedly, or at several addresses.

use super::Subject;
use super::bench::{Bench, SIZES, Who, numbered};
use crate::registry::Registry;
use crate::request::Event;
use crate::response::{Reach, SwarmCounts};
use crate::types::InfoHash;

fn all<R: Registry>(bench: &Bench<R>) -> SwarmCounts {
    bench.registry.scrape(&InfoHash([1; 20]))
}

/// Downloads with a client that joins as a leecher.
fn download<R: Registry>(bench: &mut Bench<R>, who: Who) {
    bench.peers(who.event(Event::Started), 0);
    bench.peers(who.seed().event(Event::Completed), 0);
}

pub(super) fn counts_a_client_once_that_goes_round<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("0-0", number), 0);
        }
        let who = numbered("0-0", 5000).client(1);
        for _ in 0..5 {
            download(&mut bench, who);
        }
        assert_eq!((all(&bench).completed, all(&bench).seeders), (1, 1));
        for _ in 0..5 {
            download(&mut bench, who);
            bench.peers(who.seed().event(Event::Stopped), 0);
        }
        assert_eq!((all(&bench).completed, all(&bench).seeders), (1, 0));
        // The client stays the same on another port or host.
        let mut moved = numbered("0-0", 5001).client(1);
        moved.0.seeder = false;
        download(&mut bench, moved);
        assert_eq!(all(&bench).completed, 1);
        // Another client at the same address is another client, even with the same id.
        let mut other = who;
        other.0.key = Some(99);
        download(&mut bench, other);
        download(&mut bench, numbered("0-0", 5002).client(2));
        assert_eq!(all(&bench).completed, 3);
        // The same client downloads another torrent.
        download(&mut bench, who.torrent(7));
        assert_eq!(
            bench.registry.scrape(&who.torrent(7).0.info_hash).completed,
            1
        );
    }
}

pub(super) fn counts_only_downloads_of_known_leechers<S: Subject>(subject: &S) {
    let mut bench = Bench::new(subject);
    for number in 0..100 {
        let who = numbered("0-0", number).client(number as u8).seed();
        bench.peers(who.event(Event::Completed), 0);
        bench.peers(who.event(Event::Stopped), 0);
    }
    assert_eq!(all(&bench).completed, 0);
}

pub(super) fn counts_a_client_of_two_networks_once<S: Subject>(subject: &S) {
    for size in SIZES {
        let mut bench = Bench::new(subject);
        for number in 0..size {
            bench.peers(numbered("0-0", number), 0);
        }
        let v4 = Who::new("0-0", "192.0.2.1", 6881).client(1);
        let v6 = Who::new("0-0", "2001:db9::1", 6881).client(1);
        let mut scion = Who::new("1-1", "10.0.0.1", 6881).client(1);
        scion.0.reach = Reach::Scion;
        let legs = [v4, v6, scion];
        let counts = |bench: &Bench<S::Registry>| {
            let SwarmCounts {
                seeders,
                leechers,
                downloaders,
                completed,
            } = all(bench);
            (seeders, leechers - size, downloaders - size, completed)
        };
        for leg in legs {
            bench.peers(leg.event(Event::Started), 0);
            assert_eq!(counts(&bench), (0, 1, 1, 0));
        }
        for leg in legs {
            bench.peers(leg.event(Event::Paused), 0);
        }
        assert_eq!(counts(&bench), (0, 1, 0, 0));
        for leg in legs {
            bench.peers(leg.seed().event(Event::Completed), 0);
        }
        assert_eq!(counts(&bench), (1, 0, 0, 1));
        // Each address is handed out.
        let peers = bench.peers(numbered("0-0", 0), 500);
        let handed_out = legs
            .iter()
            .filter(|leg| peers.contains(&(leg.0.ia, leg.0.addr)));
        assert!(size > 400 || handed_out.count() == 3);
        for leg in legs {
            bench.peers(leg.seed().event(Event::Stopped), 0);
        }
        assert_eq!(counts(&bench), (0, 0, 0, 1));
        // The first one to return counts again, whichever it is.
        bench.peers(v6.seed(), 0);
        assert_eq!(counts(&bench).0, 1);
        bench.peers(v4.seed(), 0);
        assert_eq!(counts(&bench).0, 1);
        // Another client takes the address of one that did not count.
        bench.peers(v4.client(2).seed(), 0);
        assert_eq!(counts(&bench).0, 2);
        // Clients without a key, or that only share an id, count once per address.
        let mut others = [v4, v6].map(|leg| leg.torrent(7));
        for leg in &mut others {
            leg.0.key = None;
            bench.peers(*leg, 0);
        }
        assert_eq!(bench.registry.scrape(&others[0].0.info_hash).leechers, 2);
    }
}
