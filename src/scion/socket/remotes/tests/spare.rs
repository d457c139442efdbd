//! Tests which spare path is kept, and paths of other remotes that are taken without one.

use super::scmp::report;
use super::*;

/// A [`path`] that leaves the AS of the client through another interface than the others.
fn disjoint(interface: u8) -> Vec<u8> {
    let mut path = path(interface);
    path[17] = 7;
    path
}

#[test]
fn the_spare_path_shares_the_fewest_interfaces() {
    let mut bench = Bench::new(10, 10);
    let (client, known) = (addr(CLIENT), short(b"ours-one"));
    bench.established(client);
    for (nth, path) in [path(2), disjoint(3), path(4)].iter().enumerate() {
        let now = at(30 + nth as u64);
        assert_eq!(bench.packet(client, path, known, now), Change::None);
    }
    let quote = sent(&mut bench, client);
    assert!(interface_down(&mut bench, &quote, at(40)).unwrap().switched);
    assert_eq!(bench.way_to(client), Some(3));
}

#[test]
fn a_spare_path_that_does_not_work_makes_room_for_any_other() {
    let mut bench = Bench::new(10, 10);
    let (client, known) = (addr(CLIENT), short(b"ours-one"));
    bench.established(client);
    bench.packet(client, &disjoint(3), known, at(30));
    let one = sent(&mut bench, client);
    assert!(interface_down(&mut bench, &one, at(40)).unwrap().switched);
    // Path 1 is the spare one now, and has failed.
    bench.packet(client, &path(4), known, at(41));
    let three = sent(&mut bench, client);
    assert!(interface_down(&mut bench, &three, at(42)).unwrap().switched);
    assert_eq!(bench.way_to(client), Some(4));
}

#[test]
fn a_path_of_another_remote_is_taken_only_instead_of_one_that_failed() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    let other = path(4);
    let adopt_for = |bench: &mut Bench, client: ScionAddr| {
        let path = Path::parse(&other).unwrap();
        let via = SocketAddr::from((Ipv4Addr::LOCALHOST, ROUTER));
        let arrival = Arrival {
            path,
            via: Some(via),
            token: None,
            now: at(50),
        };
        let route = Route {
            template: Template::between(addr(SERVER), client, path).unwrap(),
            next_hop: via,
        };
        bench.remotes.adopt(bench.name(client), &arrival, route)
    };
    let adopt = |bench: &mut Bench| adopt_for(bench, client);
    assert!(!adopt(&mut bench), "unknown");
    let fresh = addr("2-ff00:0:210,[10.0.0.2]:40001");
    bench.packet(fresh, &path(1), None, at(0));
    assert!(!adopt_for(&mut bench, fresh));
    bench.established(client);
    assert!(!adopt(&mut bench), "its path works");
    let quote = sent(&mut bench, client);
    let report = report(&mut bench, &scmp::down(&quote), at(40)).unwrap();
    assert!(!report.failure.unwrap().switched && report.again.is_none());
    assert_eq!(report.unsent.unwrap().to, client);
    assert!(adopt(&mut bench));
    assert_eq!(bench.way_to(client), Some(4));
    assert!(!adopt(&mut bench), "once");
    // The next packet of the client counts more.
    let back = bench.packet(client, &path(1), short(b"ours-one"), at(51));
    assert_eq!(back, Change::PathAdopted);
    assert_eq!(bench.way_to(client), Some(1));
}
