//! Tests the table alone with forgers, floods, failing links and clients that change paths.

mod scmp;
mod spare;

use std::net::Ipv4Addr;

use scion_tracker_core::codec::scion::{Message, Udp, parse};

use super::*;
use crate::scion::socket::quic;
use scmp::{interface_down, sent};

const SERVER: &str = "1-ff00:0:110,[10.0.0.1]:31969";
const CLIENT: &str = "2-ff00:0:210,[10.0.0.2]:40000";
const START: u32 = 1_800_000_000;
/// Port of the border router.
const ROUTER: u16 = 30001;
/// Lifetime of a [`path`]: 64 units of 337.5 s.
const LIFETIME: u32 = 21_600;

fn addr(text: &str) -> ScionAddr {
    text.parse().unwrap()
}

fn at(millis: u64) -> Now {
    let since_start = Duration::from_millis(millis);
    Now {
        since_start,
        unix: START + since_start.as_secs() as u32,
    }
}

/// A path of one link that arrives through this interface, issued at this time.
fn issued_path(interface: u8, timestamp: u32) -> Vec<u8> {
    let mut path = vec![1, 0, 0x20, 0, 1, 0, 0, 1];
    path.extend_from_slice(&timestamp.to_be_bytes());
    path.extend_from_slice(&[0, 63, 0, 0, 0, 6, interface, 2, 3, 4, 5, 6]);
    path.extend_from_slice(&[0, 63, 0, interface, 0, 0, 6, 5, 4, 3, 2, 1]);
    path
}

fn path(interface: u8) -> Vec<u8> {
    issued_path(interface, START)
}

/// A QUIC packet with a short header to this connection id.
fn short(id: &[u8; 8]) -> Option<Token> {
    quic::addressed_to(&[b"\x40".as_slice(), id].concat())
}

/// A QUIC packet that gives this connection id to the remote.
fn handshake(id: &[u8; 8]) -> Option<Token> {
    quic::issued(&[b"\xe0\0\0\0\x01\0\x08".as_slice(), id].concat())
}

struct Bench {
    addrs: SyntheticAddrs,
    ids: ConnectionIds,
    remotes: Remotes,
}

impl Bench {
    fn new(fresh: usize, established: usize) -> Self {
        let ids = ConnectionIds::default();
        let remotes = Remotes::new(Limits { fresh, established }, ids.clone());
        Self {
            addrs: SyntheticAddrs::default(),
            ids,
            remotes,
        }
    }

    fn name(&self, from: ScionAddr) -> SocketAddr {
        self.addrs.of(from)
    }

    /// Handles a packet from this source over this path, delivered by our border router.
    fn packet(&mut self, from: ScionAddr, path: &[u8], token: Option<Token>, now: Now) -> Change {
        self.packet_via(ROUTER, from, path, token, now)
    }

    /// The same with another underlay source.
    fn packet_via(
        &mut self,
        port: u16,
        from: ScionAddr,
        path: &[u8],
        token: Option<Token>,
        now: Now,
    ) -> Change {
        let path = Path::parse(path).unwrap();
        let request = Template::new(from, addr(SERVER), path).unwrap();
        let mut bytes = Vec::new();
        request.write(b"x", &mut bytes).unwrap();
        let packet = parse(&bytes).unwrap();
        let Message::Udp(udp) = packet.message else {
            unreachable!()
        };
        let via = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let answer = || route_back(&packet, &udp, via);
        let arrival = Arrival {
            path,
            via: Some(via),
            token,
            now,
        };
        let name = self.name(from);
        self.remotes
            .packet_received((name, from), &arrival, answer)
            .unwrap()
    }

    /// A client over `path(1)`, after it has answered our handshake, at 20 ms.
    fn established(&mut self, from: ScionAddr) {
        assert_eq!(
            self.packet(from, &path(1), short(b"unknown!"), at(0)),
            Change::Added
        );
        self.remotes
            .route(self.name(from), handshake(b"ours-one"))
            .unwrap();
        assert_eq!(
            self.packet(from, &path(1), short(b"ours-one"), at(20)),
            Change::None
        );
    }

    /// The interface that answers leave through.
    fn way_to(&mut self, to: ScionAddr) -> Option<u16> {
        let route = self.remotes.route(self.name(to), None)?;
        route.template.path().first_egress()
    }

    fn standing(&self, of: ScionAddr) -> Option<Standing> {
        Some(self.remotes.by_addr.get(&self.name(of))?.standing)
    }
}

fn route_back(
    packet: &Packet<'_>,
    udp: &Udp<'_>,
    next_hop: SocketAddr,
) -> Result<Route, BuildError> {
    Ok(Route {
        template: Template::answering(packet, udp)?,
        next_hop,
    })
}

#[test]
fn who_returns_our_connection_id_is_established() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.packet(client, &path(1), short(b"unknown!"), at(0));
    bench.packet(client, &path(1), short(b"unknown!"), at(1));
    assert_eq!(bench.standing(client), Some(Standing::Fresh));
    bench
        .remotes
        .route(bench.name(client), handshake(b"ours-one"));
    bench.packet(client, &path(1), short(b"a guess!"), at(2));
    assert_eq!(bench.standing(client), Some(Standing::Fresh));
    bench.packet(client, &path(1), short(b"ours-one"), at(3));
    assert_eq!(bench.standing(client), Some(Standing::Established));
    assert_eq!(bench.remotes.fresh, 0);
    assert_eq!(bench.remotes.endpoint(bench.name(client)), Some(client));
}

#[test]
fn a_fresh_remote_is_answered_where_its_latest_packet_came_from() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    for interface in [1, 2, 1, 3] {
        bench.packet(client, &path(interface), None, at(0));
        assert_eq!(bench.way_to(client), Some(interface.into()));
    }
}

#[test]
fn forged_packets_do_not_divert_a_connection() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    // One forged packet per millisecond, one of the client every 250 ms.
    for millis in 21..5000 {
        let token = short(&u64::to_be_bytes(millis));
        bench.packet(client, &path(2 + (millis % 7) as u8), token, at(millis));
        if millis % 250 == 0 {
            bench.packet(client, &path(1), short(b"ours-one"), at(millis));
        }
        assert_eq!(bench.way_to(client), Some(1), "{millis}");
    }
}

#[test]
fn the_same_path_from_another_underlay_address_diverts_nothing_either() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    for millis in 21..900 {
        bench.packet_via(4444, client, &path(1), short(b"forger's"), at(millis));
    }
    let route = bench.remotes.route(bench.name(client), None).unwrap();
    assert_eq!(route.next_hop.port(), ROUTER);
    // A border router that moves takes the connection along.
    let known = short(b"ours-one");
    assert_eq!(
        bench.packet_via(30002, client, &path(1), known, at(901)),
        Change::PathAdopted
    );
}

#[test]
fn a_failing_link_does_not_hand_the_connection_to_a_forger() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    bench.packet(client, &path(2), short(b"forger's"), at(30));
    let quote = sent(&mut bench, client);
    let failure = interface_down(&mut bench, &quote, at(40)).unwrap();
    assert!(!failure.switched);
    assert_eq!(bench.way_to(client), Some(1));
}

#[test]
fn a_client_takes_back_what_a_forger_got_while_it_was_silent() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    assert_eq!(bench.packet(client, &path(2), None, at(1000)), Change::None);
    assert_eq!(
        bench.packet(client, &path(2), None, at(1020)),
        Change::PathAdopted
    );
    // The forger continues. Connection ids are not learned on the forger's path.
    for millis in 1021..1100 {
        bench.packet(client, &path(2), short(b"forger's"), at(millis));
    }
    assert_eq!(
        bench.packet(client, &path(1), short(b"ours-one"), at(1100)),
        Change::PathAdopted
    );
    assert_eq!(
        bench.packet(client, &path(2), short(b"forger's"), at(1101)),
        Change::None
    );
    assert_eq!(bench.way_to(client), Some(1));
}

#[test]
fn another_path_is_adopted_when_the_current_one_is_silent() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let known = short(b"ours-one");
    assert_eq!(bench.packet(client, &path(2), known, at(100)), Change::None);
    assert_eq!(bench.packet(client, &path(2), known, at(319)), Change::None);
    assert_eq!(
        bench.packet(client, &path(2), known, at(320)),
        Change::PathAdopted
    );
    // The first path is kept and used again under the same rule.
    assert_eq!(bench.packet(client, &path(1), known, at(600)), Change::None);
    assert_eq!(
        bench.packet(client, &path(1), known, at(620)),
        Change::PathAdopted
    );
    assert_eq!(bench.way_to(client), Some(1));
}

#[test]
fn a_client_that_alternates_slowly_is_followed_from_path_to_path() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let known = short(b"ours-one");
    for nth in 1..=12 {
        let (interface, millis) = (1 + nth % 3, 20 + 320 * u64::from(nth));
        let change = bench.packet(client, &path(interface), known, at(millis));
        assert_eq!(change, Change::PathAdopted, "{nth}");
        assert_eq!(bench.way_to(client), Some(interface.into()), "{nth}");
    }
}

#[test]
fn an_expiring_path_gives_way_to_one_that_lasts() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let known = short(b"ours-one");
    let late = u64::from(LIFETIME - EXPIRING) * 1000;
    let renewed = issued_path(2, START + 3600);
    bench.packet(client, &path(1), known, at(late - 1000));
    assert_eq!(
        bench.packet(client, &renewed, known, at(late - 900)),
        Change::None
    );
    bench.packet(client, &path(1), known, at(late - 800));
    bench.packet(client, &path(1), known, at(late - 600));
    assert_eq!(
        bench.packet(client, &renewed, None, at(late)),
        Change::None,
        "not known"
    );
    bench.packet(client, &path(1), known, at(late));
    assert_eq!(
        bench.packet(client, &path(3), known, at(late)),
        Change::None,
        "no better"
    );
    assert_eq!(
        bench.packet(client, &renewed, known, at(late)),
        Change::PathAdopted
    );
}

#[test]
fn ids_told_under_encryption_prove_a_path() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let told = Some(bench.ids.some(bench.name(client)));
    bench.packet(client, &path(1), told, at(30));
    bench.packet(client, &path(2), told, at(340));
    assert_eq!(bench.way_to(client), Some(2));
    // The connection id of another remote does not.
    let foreign = Some(bench.ids.some(bench.name(addr(SERVER))));
    bench.packet(client, &path(2), told, at(350));
    bench.packet(client, &path(3), foreign, at(800));
    assert_eq!(bench.way_to(client), Some(2));
}

#[test]
fn an_id_told_under_encryption_establishes() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    let told = Some(bench.ids.some(bench.name(client)));
    let foreign = Some(bench.ids.some(bench.name(addr(SERVER))));
    bench.packet(client, &path(1), short(b"unknown!"), at(0));
    bench.packet(client, &path(1), foreign, at(1));
    assert_eq!(bench.standing(client), Some(Standing::Fresh));
    bench.packet(client, &path(1), told, at(2));
    assert_eq!(bench.standing(client), Some(Standing::Established));
}

/// A neighbour of the client that knows its path, but sees none of its packets.
#[test]
fn ids_that_are_merely_seen_prove_nothing_and_push_none_out() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    for nth in 0..10_u64 {
        let forged = short(&nth.to_be_bytes());
        bench.packet(client, &path(1), forged, at(30 + nth));
    }
    let forged = short(&9_u64.to_be_bytes());
    for millis in 40..1000 {
        bench.packet(client, &path(2), forged, at(millis));
        assert_eq!(bench.way_to(client), Some(1), "{millis}");
    }
    // The client is known again at once.
    bench.packet(client, &path(3), short(b"ours-one"), at(1001));
    assert_eq!(bench.way_to(client), Some(3));
}

#[test]
fn a_flood_leaves_the_table_bounded_and_the_established_in_place() {
    let mut bench = Bench::new(100, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let started = addr("2-ff00:0:211,[10.0.0.2]:40000");
    for n in 0..10_000_u32 {
        let ip = Ipv4Addr::from_bits(0x0b00_0000 + n).into();
        let forged = ScionAddr::new(client.host.ia, ip, 1000).unwrap();
        bench.packet(forged, &path(9), None, at(u64::from(n)));
        assert!(bench.remotes.len() <= 102);
        assert!(bench.remotes.fresh_queue.len() <= 201);
        // A handshake at the same time: answered at once, and again after each of its packets.
        if n == 5000 {
            bench.packet(started, &path(4), None, at(5000));
            bench
                .remotes
                .route(bench.name(started), handshake(b"ours-new"))
                .unwrap();
        }
        if n == 5050 {
            bench.packet(started, &path(4), short(b"ours-new"), at(5050));
        }
    }
    assert_eq!(bench.way_to(client), Some(1));
    assert_eq!(bench.standing(client), Some(Standing::Established));
    assert_eq!(bench.standing(started), Some(Standing::Established));
    assert_eq!(bench.remotes.fresh, 100);
}

#[test]
fn established_ones_are_forgotten_when_silent_and_sooner_when_there_is_no_room() {
    let mut bench = Bench::new(10, 3);
    let clients: Vec<ScionAddr> = (1..=5)
        .map(|n| format!("2-ff00:0:210,[10.0.0.{n}]:40000").parse().unwrap())
        .collect();
    for client in &clients[..4] {
        bench.established(*client);
    }
    assert_eq!(bench.standing(clients[3]), Some(Standing::Fresh), "no room");
    bench.packet(clients[0], &path(1), short(b"ours-one"), at(31_000));
    bench.packet(clients[3], &path(1), short(b"ours-one"), at(32_000));
    assert_eq!(bench.standing(clients[3]), Some(Standing::Established));
    assert_eq!(bench.standing(clients[0]), Some(Standing::Established));
    assert_eq!(bench.standing(clients[1]), None);
    bench.packet(clients[4], &path(1), None, at(200_000));
    assert_eq!(bench.remotes.len(), 1);
    assert_eq!(bench.remotes.fresh, 1);
}

#[test]
fn a_client_keeps_to_the_paths_of_its_choice() {
    let mut bench = Bench::new(10, 10);
    let server = addr("2-ff00:0:210,[10.0.0.8]:31969");
    let route = |interface| {
        let mut reversed = Vec::new();
        Path::parse(&path(interface))
            .unwrap()
            .reverse_into(&mut reversed);
        let path = Path::parse(&reversed).unwrap();
        let next_hop = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Route {
            template: Template::new(addr(SERVER), server, path).unwrap(),
            next_hop,
        }
    };
    let name = bench.name(server);
    bench
        .remotes
        .set_paths((name, server), route(1), Some(route(2)), at(0));
    bench.packet(server, &path(3), None, at(5000));
    assert_eq!(bench.way_to(server), Some(1));
    let quote = sent(&mut bench, server);
    let failure = interface_down(&mut bench, &quote, at(5001)).unwrap();
    assert!(failure.switched);
    assert_eq!(bench.way_to(server), Some(2));
    assert_eq!(failure.cause, Cause::Link(1));
    let silence = bench.remotes.silent_for(name, at(5001));
    assert_eq!(
        silence,
        Some(Duration::from_millis(5001)),
        "on the new path"
    );
    bench.packet(server, &path(3), None, at(6000));
    let silence = bench.remotes.silent_for(name, at(6001));
    assert_eq!(silence, Some(Duration::from_millis(1)));
    let stranger = bench.name(addr(CLIENT));
    assert_eq!(bench.remotes.silent_for(stranger, at(6001)), None);
}
