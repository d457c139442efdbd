use proptest::prelude::*;

use super::*;
use crate::registry::memory::{Ceilings, Sweep, Totals};
use crate::registry::{Accepts, PeerEntry, Registry as _, Scope, Selection};
use crate::request::Event;
use crate::response::{NoPeers, Reach, Refusal};
use crate::select::Policy;
use crate::types::Rng;

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn memory(ceilings: Ceilings) -> Memory {
    Memory::new(ceilings, SEEDS)
}

fn hash(torrent: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

/// A peer of one of five places or of none, of any reach, scope and family.
fn peer(torrent: u32, number: u32, event: Event) -> PeerEntry {
    let ip = match number % 4 {
        3 => std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number) << 64 | 1).into(),
        _ => std::net::Ipv4Addr::from(0x0b00_0000 + number).into(),
    };
    let ia = match number % 6 {
        0 => IsdAs::NONE,
        place => format!("{}-{place}", place % 2 + 1).parse().unwrap(),
    };
    PeerEntry {
        info_hash: hash(torrent),
        ia,
        addr: CompactAddr::new(ip, 6881),
        id: PeerId([number as u8; 20]),
        key: Some(number),
        reach: match number % 5 {
            _ if ia.is_none() => Reach::Ip,
            0 | 1 => Reach::Ip,
            2 | 3 => Reach::Scion,
            _ => Reach::Both,
        },
        scope: match number % 7 {
            0 => Scope::Local,
            _ => Scope::Global,
        },
        verified: number.is_multiple_of(2),
        seeder: number.is_multiple_of(3),
        event,
    }
}

fn announce(memory: &Memory, peer: &PeerEntry, now: u32) -> Result<(), Refusal> {
    let selection = Selection {
        numwant: 0,
        policy: &Policy::default(),
        accepts: Accepts::NOBODY,
    };
    let mut rng = Rng::with_seed(1);
    let now = Time::from_secs(now);
    memory
        .announce(peer, &selection, now, &mut rng, &mut NoPeers)
        .map(|_| ())
}

/// Everything in an export, by torrent: the downloads, and the peers.
type Contents = std::collections::BTreeMap<InfoHash, (u32, Vec<StoredPeer>)>;

fn export(memory: &Memory, now: u32) -> Contents {
    let mut contents = Contents::new();
    let mut export = Export::new(Time::from_secs(now));
    let mut finished = false;
    while !finished {
        let mut torrent = None;
        let mut parts = 0;
        finished = memory.export_step(&mut export, |part| {
            parts += 1;
            match part {
                Exported::Torrent {
                    info_hash,
                    completed,
                } => {
                    contents.entry(info_hash).or_default().0 = completed;
                    torrent = Some(info_hash);
                }
                Exported::Peer(peer) => {
                    let torrent = torrent.expect("a torrent comes first");
                    contents.get_mut(&torrent).unwrap().1.push(peer);
                }
                Exported::Past {
                    info_hash,
                    completed,
                } => {
                    torrent = None;
                    let new = contents.insert(info_hash, (completed, Vec::new()));
                    assert_eq!(new, None);
                }
            }
        });
        assert!(parts <= MOST_PARTS, "{parts}");
    }
    for (_, peers) in contents.values_mut() {
        peers.sort_by_key(|peer| (peer.ia, peer.addr));
    }
    contents
}

fn restore(memory: &Memory, contents: &Contents, now: u32) -> Restored {
    let mut restored = Restored::default();
    for (info_hash, (completed, peers)) in contents {
        for peers in peers.chunks(300) {
            restored += memory.restore(*info_hash, *completed, peers, Time::from_secs(now));
        }
        if peers.is_empty() {
            memory.restore(*info_hash, *completed, &[], Time::from_secs(now));
        }
    }
    restored
}

const SIZES: [u32; 6] = [1, 2, 31, 33, 200, 5000];

/// Swarms of every size, whose peers have announced from 100 to 1000 seconds, some with completed downloads and
/// some without peers.
fn filled() -> Memory {
    let memory = memory(Ceilings::default());
    for now in (104..1000).step_by(16) {
        for (torrent, size) in SIZES.iter().enumerate() {
            for number in (0..*size).filter(|number| number % 56 == (now - 104) / 16) {
                let mut peer = peer(torrent as u32, number, Event::None);
                if number.is_multiple_of(11) {
                    peer.seeder = false;
                    announce(&memory, &peer, now).unwrap();
                    (peer.seeder, peer.event) = (true, Event::Completed);
                }
                if number % 13 == 1 {
                    (peer.seeder, peer.event) = (false, Event::Paused);
                }
                announce(&memory, &peer, now).unwrap();
            }
        }
    }
    for torrent in 100..110 {
        for (seeder, event) in [
            (false, Event::None),
            (true, Event::Completed),
            (true, Event::Stopped),
        ] {
            let peer = PeerEntry {
                seeder,
                ..peer(torrent, torrent, event)
            };
            announce(&memory, &peer, 1000).unwrap();
        }
    }
    memory
}

fn counts(memory: &Memory) -> Vec<crate::response::SwarmCounts> {
    (0..200)
        .map(|torrent| memory.scrape(&hash(torrent)))
        .collect()
}

#[test]
fn all_that_is_kept_of_peers_and_torrents_comes_back() {
    let old = filled();
    let contents = export(&old, 1000);
    assert_eq!(contents.len(), SIZES.len() + 10);
    let peers = u64::from(SIZES.iter().sum::<u32>());
    // A clock that has just started, and one that has gone round.
    for now in [0, 7, 70_000 * 8] {
        let new = memory(Ceilings::default());
        let restored = restore(&new, &contents, now);
        assert_eq!(
            restored,
            Restored {
                entered: peers,
                ..Restored::default()
            }
        );
        assert_eq!(export(&new, now), contents);
        assert_eq!(counts(&new), counts(&old));
        let (old, new) = (old.totals(), new.totals());
        assert_eq!(
            (new.torrents, new.seeders, new.leechers),
            (old.torrents, old.seeders, old.leechers)
        );
        assert!(
            new.memory <= old.memory + old.memory / 50,
            "{new:?} {old:?}"
        );
    }
}

#[test]
fn the_books_balance_after_a_restore() {
    let contents = export(&filled(), 1000);
    let new = memory(Ceilings::default());
    restore(&new, &contents, 0);
    // Peers that come twice change nothing, and those that are younger replace the others.
    let totals = new.totals();
    restore(&new, &contents, 0);
    assert_eq!(new.totals(), totals);
    assert_eq!(export(&new, 0), contents);
    let younger: Contents = export(&filled(), 800);
    restore(&new, &younger, 0);
    let all = export(&new, 0);
    assert!(
        all.values()
            .flat_map(|it| &it.1)
            .all(|peer| peer.age <= 696)
    );
    let mut sweep = Sweep::default();
    while !new.sweep(&mut sweep, Time::from_secs(10_000), 1000) {}
    let expected = Totals {
        memory: new.past_bytes.load(Ordering::Relaxed) as u64,
        ..Totals::default()
    };
    assert_eq!(new.totals(), expected);
    for peer in contents.values().flat_map(|it| &it.1) {
        for host in [
            crate::address::Host::ip_only(peer.addr.socket_addr().ip()),
            crate::address::Host::new(peer.ia, peer.addr.socket_addr().ip()),
        ] {
            assert_eq!(new.sources.count(host), 0);
        }
    }
    assert_eq!(new.scrape(&hash(5)).completed, contents[&hash(5)].0);
}

#[test]
fn what_has_expired_is_left_out() {
    let contents = export(&filled(), 1000);
    let ceilings = Ceilings {
        peer_lifetime: 400,
        evict_after: 300,
        ..Ceilings::default()
    };
    let new = memory(ceilings);
    let restored = restore(&new, &contents, 0);
    let peers = contents.values().flat_map(|it| &it.1);
    let live = peers.filter(|peer| peer.age <= 400).count() as u64;
    assert_eq!((restored.entered, restored.left_out), (live, 0));
    assert!(restored.expired > 1000 && live > 1000);
    let old: Contents = contents
        .into_iter()
        .map(|(info_hash, (completed, mut peers))| {
            peers.iter_mut().for_each(|peer| peer.age = 3000);
            (info_hash, (completed, peers))
        })
        .collect();
    // The downloads of a torrent whose peers have all expired are remembered.
    let new = memory(ceilings);
    assert_eq!(restore(&new, &old, 0).entered, 0);
    assert_eq!(new.totals().torrents, 0);
    assert_eq!(new.scrape(&hash(5)).completed, old[&hash(5)].0);
    assert!(old[&hash(5)].0 > 100);
}

#[test]
fn lower_ceilings_hold() {
    let contents = export(&filled(), 1000);
    let peers = u64::from(SIZES.iter().sum::<u32>());
    let with = |change: fn(&mut Ceilings)| {
        let mut ceilings = Ceilings::default();
        change(&mut ceilings);
        let new = memory(ceilings);
        let restored = restore(&new, &contents, 0);
        assert_eq!(restored.entered + restored.left_out, peers);
        let totals = new.totals();
        assert_eq!(restored.entered, totals.seeders + totals.leechers);
        (totals, restored)
    };
    let (totals, _) = with(|it| it.torrents = 3);
    assert_eq!(totals.torrents, 3);
    let (_, restored) = with(|it| it.peers_per_torrent = 40);
    assert_eq!(restored.entered, 1 + 2 + 31 + 33 + 40 + 40);
    let (totals, _) = with(|it| it.memory = 100_000);
    assert!(
        totals.memory < 110_000 && totals.memory > 90_000,
        "{totals:?}"
    );
    let (totals, _) = with(|it| it.memory = 0);
    assert_eq!(totals, Totals::default());
    let (_, restored) = with(|it| it.peers_per_source = 1);
    assert!(restored.left_out > 100, "{restored:?}");
    // Ports of one host.
    let host: Vec<_> = (1..=50)
        .map(|port| {
            let addr = CompactAddr::new([10, 0, 0, 1].into(), port);
            StoredPeer::new(IsdAs::NONE, addr, PeerId([1; 20]), 0, 0).unwrap()
        })
        .collect();
    let new = memory(Ceilings::default());
    let restored = new.restore(hash(1), 0, &host, Time::from_secs(0));
    assert_eq!((restored.entered, restored.left_out), (32, 18));
}

#[test]
fn the_larger_count_of_downloads_wins() {
    let now = Time::from_secs(0);
    let new = memory(Ceilings::default());
    for (completed, expected) in [(0, 0), (5, 5), (3, 5), (7, 7)] {
        new.restore(hash(1), completed, &[], now);
        assert_eq!(new.scrape(&hash(1)).completed, expected);
    }
    let addr = CompactAddr::new([10, 0, 0, 1].into(), 1);
    let peer = StoredPeer::new(IsdAs::NONE, addr, PeerId([1; 20]), 0, 0).unwrap();
    new.restore(hash(1), 4, &[peer], now);
    assert_eq!(new.scrape(&hash(1)).completed, 7);
    new.restore(hash(1), 9, &[], now);
    assert_eq!(new.scrape(&hash(1)).completed, 9);
}

/// A client on two networks is one client, and completes once, also when one of the announces comes after a
/// restart.
#[test]
fn clients_are_recognized_after_a_restart() {
    let old = memory(Ceilings::default());
    let mut four = peer(1, 6, Event::None);
    four.seeder = false;
    announce(&old, &four, 0).unwrap();
    let mut bytes = Vec::new();
    old.export_clients(&mut bytes);
    assert_eq!(bytes.len(), CLIENTS_BYTES);
    let contents = export(&old, 0);
    // Other hash functions.
    let mut new = Memory::new(Ceilings::default(), [9; 4]);
    restore(&new, &contents, 0);
    assert!(new.restore_clients(&bytes));
    assert!(!new.restore_clients(&bytes[1..]));
    let six = PeerEntry {
        addr: CompactAddr::new("2001:db8::1".parse().unwrap(), 6881),
        ..four
    };
    announce(&new, &six, 0).unwrap();
    assert_eq!(new.scrape(&hash(1)).leechers, 1);
    assert_eq!(new.totals().leechers, 2);
    for peer in [four, six] {
        let completed = PeerEntry {
            seeder: true,
            event: Event::Completed,
            ..peer
        };
        announce(&new, &completed, 0).unwrap();
        assert_eq!(new.scrape(&hash(1)).completed, 1);
    }
}

/// Peers come and go between the steps. The export ends, and has every torrent and small swarm that stays.
#[test]
fn an_export_goes_on_while_peers_come_and_go() {
    let memory = filled();
    for torrent in 1000..6000 {
        announce(&memory, &peer(torrent, torrent, Event::None), 1000).unwrap();
    }
    let mut export = Export::new(Time::from_secs(1000));
    let mut seen = std::collections::HashSet::new();
    let mut misplaced = 0;
    let mut steps = 0;
    loop {
        let mut torrent = None;
        let finished = memory.export_step(&mut export, |part| match part {
            Exported::Torrent { info_hash, .. } => {
                torrent = Some(info_hash);
                seen.insert(info_hash);
            }
            // Every peer of the torrents 1000 and up carries the number of its torrent.
            Exported::Peer(it) if torrent >= Some(hash(1000)) => {
                let number = u32::from_be_bytes(torrent.unwrap().0[..4].try_into().unwrap());
                misplaced += u32::from(it.addr != peer(number, number, Event::None).addr);
            }
            Exported::Peer(_) | Exported::Past { .. } => {}
        });
        if finished {
            break;
        }
        steps += 1;
        assert!(steps < 10_000, "the export does not end");
        // Odd torrents go, new ones come, and the large swarm changes.
        let leaving = 1001 + steps * 2;
        if leaving < 6000 {
            announce(&memory, &peer(leaving, leaving, Event::Stopped), 1000).unwrap();
        }
        announce(
            &memory,
            &peer(10_000 + steps, 10_000 + steps, Event::None),
            1000,
        )
        .unwrap();
        let mut other = peer(5, steps % 5000, Event::None);
        other.seeder = !other.seeder;
        announce(&memory, &other, 1000).unwrap();
    }
    assert_eq!(misplaced, 0);
    for torrent in (0..6).chain((1000..6000).filter(|torrent| torrent % 2 == 0)) {
        assert!(seen.contains(&hash(torrent)), "{torrent}");
    }
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let four = CompactAddr::new([10, 0, 0, 1].into(), 1);
    let mut mapped = [0; 18];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
    mapped[17] = 1;
    let place = IsdAs::from_u64(1 << 48 | 1);
    let is_valid = |ia, addr, state| StoredPeer::new(ia, addr, PeerId([1; 20]), state, 0).is_some();
    assert!(is_valid(place, four, !(1 << 4)));
    assert!(!is_valid(place, CompactAddr::V6(mapped), 0));
    assert!(!is_valid(place, CompactAddr::V4([10, 0, 0, 1, 0, 0]), 0));
    for wildcard in [1 << 48, 1] {
        assert!(!is_valid(IsdAs::from_u64(wildcard), four, 0));
    }
    for state in [3 << 4, 5 << 4, 7 << 4] {
        assert!(!is_valid(place, four, state));
    }
    for state in [1 << 4, 2 << 4, 6 << 4, 1 << 7] {
        assert!(is_valid(place, four, state));
        assert!(!is_valid(IsdAs::NONE, four, state));
    }
}

proptest! {
    /// Any peers, in any order and number of parts, come back as they were, the youngest of each.
    #[test]
    fn any_peers_come_back(
        peers: Vec<(u8, bool, bool, u8, u8, u16)>,
        step in 1_usize..50,
        now: u32,
    ) {
        let now = now / 2;
        let memory = memory(Ceilings { peer_lifetime: 72 * 3600, ..Ceilings::default() });
        let mut expected = std::collections::BTreeMap::new();
        let peers: Vec<_> = peers
            .into_iter()
            .filter_map(|(host, six, placed, id, state, age)| {
                let ip = match six {
                    true => std::net::Ipv6Addr::from([0x2001, 0xdb8, 0, u16::from(host), 0, 0, 0, 1]).into(),
                    false => std::net::Ipv4Addr::from([10, 0, 0, host]).into(),
                };
                let ia = if placed { IsdAs::from_u64(1 << 48 | u64::from(id % 3 + 1)) } else { IsdAs::NONE };
                let age = u32::from(age) / 4 * StoredPeer::RESOLUTION;
                StoredPeer::new(ia, CompactAddr::new(ip, 1), PeerId([id; 20]), state, age)
            })
            .collect();
        for peer in &peers {
            let known = expected.entry((peer.ia, peer.addr)).or_insert(*peer);
            if peer.age < known.age {
                *known = *peer;
            }
        }
        for peers in peers.chunks(step) {
            let restored = memory.restore(hash(1), 3, peers, Time::from_secs(now));
            prop_assert_eq!(restored.entered, peers.len() as u64);
        }
        let contents = export(&memory, now);
        let got = contents.get(&hash(1)).map_or(&[][..], |it| &it.1);
        prop_assert_eq!(got, expected.into_values().collect::<Vec<_>>());
        let totals = memory.totals();
        prop_assert_eq!(totals.seeders + totals.leechers, got.len() as u64);
    }
}
