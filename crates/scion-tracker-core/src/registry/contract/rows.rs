//! Peers written as rows of a reply are those that are pushed otherwise.

use super::Subject;
use super::bench::{Bench, SIZES, Who, numbered};
use crate::address::CompactAddr;
use crate::registry::{Accepts, Classes, Registry as _, Scope, Selection};
use crate::request::{Event, Family};
use crate::response::{Peer, PeerSink, Reach, Rows};
use crate::select::Mode;
use crate::types::Rng;

/// A list of rows. Peers that are pushed go into its next row.
struct List<const N: usize> {
    rows: Vec<[u8; N]>,
    filled: usize,
}

impl<const N: usize> List<N> {
    fn of(rows: usize) -> Self {
        Self {
            rows: vec![[0; N]; rows],
            filled: 0,
        }
    }

    fn add(&mut self, peer: Peer<'_>) {
        if let Some(row) = self.rows.get_mut(self.filled) {
            *row = row_of(peer.ia.to_u64(), &peer.addr.to_compact());
            self.filled += 1;
        }
    }

    fn written(&self) -> &[[u8; N]] {
        &self.rows[..self.filled]
    }
}

/// Address and port, with the ISD-AS in front where there is room.
fn row_of<const N: usize>(ia: u64, addr: &CompactAddr) -> [u8; N] {
    let mut row = [0; N];
    let CompactAddr::V4(addr) = addr else {
        panic!("an IPv6 peer for a list of IPv4 peers");
    };
    let (place, end) = row.split_at_mut(N - 6);
    end.copy_from_slice(addr);
    place.copy_from_slice(&ia.to_be_bytes()[..place.len()]);
    row
}

impl PeerSink for List<6> {
    fn push(&mut self, peer: Peer<'_>) {
        self.add(peer);
    }

    fn rows(&mut self) -> Option<Rows<'_>> {
        Some(Rows::Ip(&mut self.rows[self.filled..]))
    }

    fn filled(&mut self, rows: usize) {
        self.filled += rows;
    }
}

impl PeerSink for List<14> {
    fn push(&mut self, peer: Peer<'_>) {
        self.add(peer);
    }

    fn rows(&mut self) -> Option<Rows<'_>> {
        Some(Rows::Scion(&mut self.rows[self.filled..]))
    }

    fn filled(&mut self, rows: usize) {
        self.filled += rows;
    }
}

/// Tells which network reaches the peers that are pushed.
#[derive(Default)]
struct Pushed(Vec<(Reach, u64, CompactAddr)>);

impl PeerSink for Pushed {
    fn push(&mut self, peer: Peer<'_>) {
        let place = peer.ia.to_u64();
        self.0.push((peer.reach, place, peer.addr.to_compact()));
    }
}

fn member(number: u32, ipv6: bool) -> Who {
    // Every third number is IPv6.
    let number = if ipv6 { number } else { number * 3 + 1 };
    let mut who = numbered(
        ["1-1", "0-0", "513-ff00:0:110"][number as usize / 3 % 3],
        number,
    );
    if !who.0.ia.is_none() && number % 4 < 2 {
        who.0.reach = Reach::Scion;
    }
    who.0.verified = number % 16 < 8;
    who.0.seeder = number % 5 < 2;
    who
}

pub(super) fn writes_rows_as_it_pushes_peers<S: Subject>(subject: &S) {
    // A requester has announced from another place before.
    let asking = |ia: &str| Who::new(ia, "10.9.9.9", 6881);
    for size in SIZES.into_iter().filter(|size| *size <= 100) {
        for ipv6 in [false, true] {
            let mut bench = Bench::new(subject);
            for number in 0..size {
                bench.peers(member(number, ipv6), 0);
            }
            bench.peers(asking("1-1"), 0);
            for mode in [Mode::Prefer, Mode::Cap] {
                bench.policy.mode = mode;
                for ia in ["0-0", "1-2"] {
                    for who in [
                        asking(ia),
                        asking(ia).event(Event::Paused),
                        asking(ia).seed(),
                        asking(ia).seed().client(7),
                    ] {
                        bench.peers(who, 0);
                        for room in [0, 1, 3, 200] {
                            compare::<S, 6>(&bench, &who, Reach::Ip, room);
                            compare::<S, 14>(&bench, &who, Reach::Scion, room);
                        }
                    }
                    bench.peers(asking(ia).event(Event::Stopped), 0);
                    bench.peers(asking(ia).client(7).event(Event::Stopped), 0);
                }
            }
        }
    }
}

/// Announces once to a sink that is pushed to, and once to a list of rows over a network.
fn compare<S: Subject, const N: usize>(
    bench: &Bench<S::Registry>,
    who: &Who,
    network: Reach,
    room: usize,
) where
    List<N>: PeerSink,
{
    let mut first = Classes::NONE;
    for reach in [network, Reach::Both] {
        first = first.with(Family::V4, reach, Scope::Global);
    }
    let selection = Selection {
        numwant: 200,
        policy: &bench.policy,
        accepts: Accepts {
            first,
            then: Classes::NONE,
        },
    };
    let (mut pushed, mut list) = (Pushed::default(), List::<N>::of(room));
    let (registry, now) = (&bench.registry, bench.now);
    let rng = || Rng::with_seed(3);
    let done = registry.announce(&who.0, &selection, now, &mut rng(), &mut pushed);
    done.expect("served");
    let done = registry.announce(&who.0, &selection, now, &mut rng(), &mut list);
    done.expect("served");
    let rows = pushed.0.iter().map(|(reach, ia, addr)| {
        assert!(*reach == network || *reach == Reach::Both, "{reach:?}");
        row_of::<N>(*ia, addr)
    });
    let expected: Vec<_> = rows.take(room).collect();
    assert_eq!(list.written(), expected, "{who:?} {room}");
}
