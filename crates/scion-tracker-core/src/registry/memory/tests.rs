//! The contract on the memory registry, and its accounting.

use super::*;
use crate::address::{Host, IsdAs};
use crate::registry::contract::{self, Subject};
use crate::registry::{Accepts, Classes, Scope};
use crate::response::{NoPeers, Reach};
use crate::select::Policy;
use crate::types::PeerId;

struct InMemory;

impl Subject for InMemory {
    type Registry = Memory;

    fn make(&self, ceilings: Ceilings) -> Memory {
        Memory::new(ceilings, [1, 2, 3, 4])
    }

    fn settle(&self, registry: &Memory, now: Time) {
        let mut sweep = Sweep::default();
        // An odd budget, so that every resumption is met.
        while !registry.sweep(&mut sweep, now, 7) {}
    }
}

#[test]
fn passes_the_contract() {
    contract::run(&InMemory);
}

fn enter(memory: &Memory, torrent: u32, number: u32, ia: IsdAs, now: Time, event: Event) {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&torrent.to_le_bytes());
    let ip = std::net::IpAddr::from(number.to_be_bytes());
    let peer = PeerEntry {
        info_hash: InfoHash(hash),
        ia,
        addr: CompactAddr::new(ip, 6881),
        id: PeerId([7; 20]),
        key: None,
        reach: Reach::Ip,
        scope: Scope::Global,
        verified: true,
        seeder: number.is_multiple_of(2),
        event,
    };
    let accepts = Accepts {
        first: Classes::NONE,
        then: Classes::NONE,
    };
    let selection = Selection {
        numwant: 0,
        policy: &Policy::default(),
        accepts,
    };
    let mut rng = Rng::with_seed(1);
    memory
        .announce(&peer, &selection, now, &mut rng, &mut NoPeers)
        .unwrap();
}

/// One of 350 places.
fn spread(number: u32) -> IsdAs {
    IsdAs::from_u64(u64::from(number % 50 + 1) << 48 | u64::from(number % 7 + 1))
}

#[test]
fn a_count_that_was_kept_elsewhere_is_set_with_and_without_peers() {
    let memory = Memory::new(Ceilings::default(), [1, 2, 3, 4]);
    let hash = |torrent: u32| {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&torrent.to_le_bytes());
        InfoHash(hash)
    };
    let completed = |torrent| memory.scrape(&hash(torrent)).completed;
    let now = Time::from_secs(0);
    enter(&memory, 1, 1, spread(1), now, Event::None);
    for (torrent, count, is) in [
        (1, 7, 7),
        (1, 6, 7),
        (2, 8, 8),
        (2, 9, 9),
        (2, 0, 9),
        (3, 0, 0),
    ] {
        memory.raise_completed(&hash(torrent), count);
        assert_eq!(completed(torrent), is);
    }
    // The count stays when the first peer comes and when the last one goes.
    for event in [Event::None, Event::Stopped] {
        for torrent in [1, 2] {
            enter(&memory, torrent, 1, spread(1), now, event);
            assert_eq!(completed(torrent), [7, 9][torrent as usize - 1]);
        }
    }
    assert_eq!(memory.totals().torrents, 0);
}

/// What goes in comes out again of the books: totals, memory and sources.
#[test]
fn the_books_balance() {
    let memory = Memory::new(Ceilings::default(), [1, 2, 3, 4]);
    let start = Time::from_secs(0);
    for number in 0..3000 {
        let ia = spread(number);
        enter(&memory, number % 40, number, ia, start, Event::None);
    }
    let full = memory.totals();
    assert_eq!(
        (full.torrents, full.seeders, full.leechers),
        (40, 1500, 1500)
    );
    assert!(full.memory > 3000 * 29);
    for number in (0..3000).step_by(3) {
        let ia = spread(number);
        enter(&memory, number % 40, number, ia, start, Event::Stopped);
    }
    let totals = memory.totals();
    assert_eq!(totals.seeders + totals.leechers, 2000);
    InMemory.settle(&memory, Time::from_secs(10_000));
    assert_eq!(memory.totals(), Totals::default());
    for number in 0..3000 {
        let ia = spread(number);
        let ip = std::net::IpAddr::from(u32::to_be_bytes(number));
        assert_eq!(memory.sources.count(Host::new(ia, ip)), 0);
        assert_eq!(memory.sources.count(Host::ip_only(ip)), 0);
    }
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), 56);
}
