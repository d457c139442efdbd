use super::*;
use crate::registry::memory::Ceilings;
use crate::registry::{Accepts, PeerEntry, Registry as _, Scope, Selection};
use crate::request::Event;
use crate::response::NoPeers;
use crate::select::Policy;
use crate::types::Rng;

fn memory() -> Memory {
    Memory::new(Ceilings::default(), [1, 2, 3, 4])
}

fn hash(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash(bytes)
}

/// A peer of torrent `torrent`, in one of 3 places, of one of 2 clients; every fourth over IPv6, every second a
/// seed.
fn peer(torrent: u32, number: u32) -> PeerEntry {
    let ip = match number % 4 {
        3 => std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number) << 64 | 1).into(),
        _ => std::net::Ipv4Addr::from(0x0b00_0000 + number).into(),
    };
    let place = number % 3;
    let id = match number % 5 {
        0 => *b"-qB4650-aaaaaaaaaaaa",
        _ => *b"-TR3000-bbbbbbbbbbbb",
    };
    PeerEntry {
        info_hash: hash(torrent),
        ia: match place {
            0 => IsdAs::NONE,
            place => format!("1-{place}").parse().unwrap(),
        },
        addr: CompactAddr::new(ip, 6881),
        id: PeerId(id),
        key: None,
        reach: match place {
            0 => Reach::Ip,
            1 => Reach::Both,
            _ => Reach::Scion,
        },
        scope: Scope::Global,
        verified: place == 2,
        seeder: number.is_multiple_of(2),
        event: Event::None,
    }
}

fn enter(memory: &Memory, peer: &PeerEntry, now: Time) {
    let selection = Selection {
        numwant: 0,
        policy: &Policy::default(),
        accepts: Accepts::NOBODY,
    };
    let mut rng = Rng::with_seed(1);
    memory
        .announce(peer, &selection, now, &mut rng, &mut NoPeers)
        .unwrap();
}

fn census(memory: &Memory) -> Census {
    let mut walk = memory.census();
    while !memory.count(&mut walk) {}
    walk.finish()
}

/// Sizes of the torrents of the tests: small and large swarms, and one that takes several steps.
const SIZES: [u32; 6] = [1, 2, 30, 33, 200, 5000];

fn filled() -> Memory {
    let memory = memory();
    for (torrent, size) in SIZES.iter().enumerate() {
        for number in 0..*size {
            enter(&memory, &peer(torrent as u32, number), Time::from_secs(0));
        }
    }
    memory
}

#[test]
fn a_census_counts_every_peer_once() {
    let memory = filled();
    let census = census(&memory);
    let total = u64::from(SIZES.iter().sum::<u32>());
    let numbers = || SIZES.iter().flat_map(|size| 0..*size);
    let count = |of: &dyn Fn(u32) -> bool| numbers().filter(|number| of(*number)).count() as u64;
    assert_eq!(census.torrents, SIZES.len() as u64);
    assert_eq!(census.counts.peers(), total);
    assert_eq!(census.counts.seeders, count(&|number| number % 2 == 0));
    assert_eq!(census.ipv6.peers(), count(&|number| number % 4 == 3));
    assert_eq!(census.ipv4.peers() + census.ipv6.peers(), total);
    assert_eq!(census.scion.peers(), count(&|number| number % 3 == 2));
    assert_eq!(census.both.peers(), count(&|number| number % 3 == 1));
    assert_eq!(census.ip.peers(), count(&|number| number % 3 == 0));
    let places: Vec<_> = census
        .places
        .iter()
        .map(|it| (it.ia, it.counts.peers(), it.proven))
        .collect();
    let ia = |text: &str| text.parse::<IsdAs>().unwrap();
    let (none, one, two) = (
        count(&|number| number % 3 == 0),
        count(&|number| number % 3 == 1),
        count(&|number| number % 3 == 2),
    );
    assert_eq!(
        places,
        [
            (IsdAs::NONE, none, 0),
            (ia("1-1"), one, 0),
            (ia("1-2"), two, two)
        ]
    );
    let clients: Vec<_> = census
        .clients
        .iter()
        .map(|it| (it.client.to_string(), it.peers))
        .collect();
    let qb = count(&|number| number % 5 == 0);
    assert_eq!(
        clients,
        [("TR3000".to_owned(), total - qb), ("qB4650".to_owned(), qb)]
    );
    assert_eq!(census.other_clients, 0);
    let top: Vec<_> = census.top.iter().map(|it| it.peers()).collect();
    assert_eq!(top, [5000, 200, 33, 30, 2, 1]);
}

#[test]
fn what_is_counted_one_by_one_is_bounded() {
    let memory = memory();
    let mut entry = peer(0, 1);
    for number in 0..20_000_u32 {
        entry.info_hash = hash(number / 5000);
        entry.ia = IsdAs::from_u64(1 << 48 | u64::from(number + 1));
        entry.addr = CompactAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + number).into(), 1);
        let name = format!("-X{:05}-bbbbbbbbbbbb", number % 3000);
        entry.id = PeerId(name.as_bytes().try_into().unwrap());
        enter(&memory, &entry, Time::from_secs(0));
    }
    let census = census(&memory);
    assert_eq!(census.places.len(), 16_384);
    assert_eq!(census.other_places.peers(), 20_000 - 16_384);
    assert_eq!(census.clients.len(), 1024);
    let named: u64 = census.clients.iter().map(|it| it.peers).sum();
    assert_eq!(named + census.other_clients, 20_000);
}

#[test]
fn names_of_clients_are_letters_and_digits() {
    let name = |id: &[u8; 20]| ClientName::of(&PeerId(*id)).map(|name| name.to_string());
    assert_eq!(name(b"-qB4650-aaaaaaaaaaaa").as_deref(), Some("qB4650"));
    for id in [
        b"M7-10-0--aaaaaaaaaaa",
        b"-qB4650aaaaaaaaaaaaa",
        b"-qB4.50-aaaaaaaaaaaa",
        b"-qB\x1b[0m-aaaaaaaaaaa\0",
        &[0; 20],
    ] {
        assert_eq!(name(id), None, "{}", id.escape_ascii());
    }
}

#[test]
fn a_torrent_shows_its_peers() {
    let memory = filled();
    for (torrent, size) in SIZES.iter().enumerate() {
        let now = Time::from_secs(80);
        let (view, peers) = memory.torrent(&hash(torrent as u32), 10_000, now).unwrap();
        assert_eq!(view.peers(), *size);
        let mut seen: Vec<_> = peers.iter().map(|it| (it.ia, it.addr)).collect();
        let mut expected: Vec<_> = (0..*size)
            .map(|number| peer(torrent as u32, number))
            .map(|it| (it.ia, it.addr))
            .collect();
        let order = |it: &(IsdAs, CompactAddr)| (it.0.to_u64(), it.1.as_bytes().to_vec());
        seen.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(seen, expected);
        for peer in &peers {
            assert_eq!(peer.age, 80);
            assert_eq!(peer.proven, peer.reach == Reach::Scion);
        }
        let (_, few) = memory.torrent(&hash(torrent as u32), 3, now).unwrap();
        assert_eq!(few.len(), (*size).min(3) as usize);
    }
    assert!(memory.torrent(&hash(99), 10, Time::from_secs(0)).is_none());
}

fn page(memory: &Memory, change: impl FnOnce(&mut TorrentQuery)) -> (Vec<u8>, u64) {
    let mut query = TorrentQuery::default();
    change(&mut query);
    let page = memory.list_torrents(&query);
    let torrents = page.torrents.iter().map(|it| it.info_hash.0[3]);
    (torrents.collect(), page.matched)
}

#[test]
fn torrents_are_filtered_sorted_and_paged() {
    let memory = filled();
    assert_eq!(page(&memory, |_| {}), (vec![0, 1, 2, 3, 4, 5], 6));
    let by = |order, descending| {
        move |it: &mut TorrentQuery| (it.order, it.descending) = (order, descending)
    };
    assert_eq!(
        page(&memory, by(TorrentOrder::Peers, true)).0,
        [5, 4, 3, 2, 1, 0]
    );
    assert_eq!(
        page(&memory, by(TorrentOrder::Seeders, false)).0,
        [0, 1, 2, 3, 4, 5]
    );
    // Equal ones by info hash, whatever the direction.
    assert_eq!(
        page(&memory, by(TorrentOrder::Completed, true)).0,
        [0, 1, 2, 3, 4, 5]
    );
    let second = |it: &mut TorrentQuery| {
        (it.order, it.descending) = (TorrentOrder::Leechers, true);
        (it.offset, it.limit) = (2, 2);
    };
    assert_eq!(page(&memory, second), (vec![3, 2], 6));
    assert_eq!(page(&memory, |it| it.least_peers = 33), (vec![3, 4, 5], 3));
    let after = |it: &mut TorrentQuery| (it.after, it.limit) = (Some(hash(3)), 1);
    assert_eq!(page(&memory, after), (vec![4], 2));
    let prefix = |text: &str| text.parse::<InfoHashPrefix>().unwrap();
    assert_eq!(page(&memory, |it| it.prefix = prefix("0000000")).1, 6);
    assert_eq!(
        page(&memory, |it| it.prefix = prefix("00000004")),
        (vec![4], 1)
    );
    assert_eq!(page(&memory, |it| it.prefix = prefix("00000014")).1, 0);
    assert_eq!(page(&memory, |it| it.offset = usize::MAX), (vec![], 6));
    assert_eq!(page(&memory, |it| it.limit = 0), (vec![], 6));
    assert_eq!(page(&memory, |it| it.limit = usize::MAX).0.len(), 6);
}

#[test]
fn prefixes_are_hexadecimal() {
    for text in ["g", &"0".repeat(41), "é"] {
        assert_eq!(text.parse::<InfoHashPrefix>(), Err(InfoHashPrefixError));
    }
    let whole: InfoHashPrefix = hash(7).to_string().parse().unwrap();
    assert!(whole.is_of(&hash(7)) && !whole.is_of(&hash(8)));
}

/// Peers come and go between the steps of a census. It ends, and misses nobody who stays where he is.
#[test]
fn a_census_goes_on_while_peers_come_and_go() {
    let memory = filled();
    let mut walk = memory.census();
    let mut number = 100_000;
    let mut steps = 0;
    while !memory.count(&mut walk) {
        steps += 1;
        for _ in 0..50 {
            enter(&memory, &peer(9, number), Time::from_secs(0));
            number += 1;
        }
        assert!(steps < 1000, "the census does not end");
    }
    let census = walk.finish();
    assert!(steps >= 5, "{steps}");
    assert!(census.counts.peers() >= u64::from(SIZES.iter().sum::<u32>()));
}
