//! Tests SCMP errors: links that go down, paths that are too narrow, and errors about packets that
//! we did not send.

use super::*;

/// The error of a router for this packet.
pub(super) fn down(quote: &[u8]) -> Scmp<'_> {
    Scmp::ExternalInterfaceDown {
        ia: "1-ff00:0:120".parse().unwrap(),
        interface: 1,
        quote,
    }
}

pub(super) fn interface_down(bench: &mut Bench, quote: &[u8], now: Now) -> Option<Failure> {
    told(bench, &down(quote), now)
}

pub(super) fn told(bench: &mut Bench, scmp: &Scmp<'_>, now: Now) -> Option<Failure> {
    report(bench, scmp, now)?.failure
}

pub(super) fn report<'a>(bench: &mut Bench, scmp: &Scmp<'a>, now: Now) -> Option<Report<'a>> {
    let mut bytes = Vec::new();
    Template::new(addr("1-ff00:0:110,[10.0.0.9]:1"), addr(SERVER), Path::EMPTY)
        .unwrap()
        .write(b"x", &mut bytes)
        .unwrap();
    let packet = parse(&bytes).unwrap();
    let addrs = bench.addrs.clone();
    bench
        .remotes
        .scmp_error(&addrs, addr(SERVER), &packet, scmp, now)
}

/// A packet to this remote.
pub(super) fn sent(bench: &mut Bench, to: ScionAddr) -> Vec<u8> {
    sent_with(&[0x40; 100], bench, to)
}

pub(super) fn sent_with(payload: &[u8], bench: &mut Bench, to: ScionAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let route = bench.remotes.route(bench.name(to), None).unwrap();
    route.template.write(payload, &mut bytes).unwrap();
    bytes
}

#[test]
fn an_interface_that_is_down_moves_the_connection_to_the_other_path() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let known = short(b"ours-one");
    bench.packet(client, &path(2), known, at(30));
    let quote = sent(&mut bench, client);
    let failure = interface_down(&mut bench, &quote, at(40)).unwrap();
    assert_eq!((failure.remote, failure.switched), (client, true));
    assert_eq!(bench.way_to(client), Some(2));
    // The same report again is about a path that is no longer in use.
    assert_eq!(interface_down(&mut bench, &quote, at(41)), None);
    assert_eq!(bench.way_to(client), Some(2));
}

/// Sends `payload` to a client with two paths, which fail one after the other. The errors quote
/// `length` bytes of it. Returns for each error the path to send it again over.
fn sent_again(payload: &[u8], length: usize) -> [Option<u16>; 3] {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    bench.packet(client, &path(2), short(b"ours-one"), at(30));
    let one = sent_with(payload, &mut bench, client);
    let mut again = |quote: &[u8], now| {
        let scmp = down(&quote[..quote.len() - payload.len() + length]);
        let (route, given_back) = report(&mut bench, &scmp, now)?.again?;
        let quoted = &payload[..length];
        let expected = match length == payload.len() {
            true => Returned::Whole(quoted),
            false => Returned::Beginning(quoted),
        };
        assert_eq!(given_back, expected);
        let mut bytes = Vec::new();
        route.template.write(payload, &mut bytes).unwrap();
        Some((route.template.path().first_egress(), bytes))
    };
    let first = again(&one, at(40));
    let second = again(&one, at(41));
    let third = first.as_ref().map(|(_, bytes)| again(bytes, at(42)));
    [first, second, third.flatten()].map(|it| it.and_then(|(way, _)| way))
}

#[test]
fn what_is_given_back_takes_the_other_path_as_long_as_that_works() {
    let quic = [0x40; 100];
    assert_eq!(sent_again(&quic, 100), [Some(2), Some(2), None]);
    assert_eq!(sent_again(&quic, 99), [Some(2), Some(2), None]);
    // A BEP 15 announce reply that the forger of the error made up.
    assert_eq!(sent_again(&[0; 20], 20), [None, None, None]);
}

#[test]
fn a_path_too_narrow_for_quic_is_left_and_attempts_at_more_are_not_believed_in() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    bench.packet(client, &path(2), short(b"ours-one"), at(30));
    let quote = sent(&mut bench, client);
    let overhead = (quote.len() - 100) as u16;
    let too_big = |mtu| Scmp::PacketTooBig { mtu, quote: &quote };
    assert_eq!(told(&mut bench, &too_big(overhead + 1200), at(40)), None);
    assert_ne!(bench.way_to(client), Some(2));
    let failure = told(&mut bench, &too_big(overhead + 1199), at(41)).unwrap();
    assert_eq!((failure.cause, failure.switched), (Cause::Narrow, true));
    assert_eq!(bench.way_to(client), Some(2));
}

#[test]
fn without_another_path_the_next_packet_brings_it() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    let quote = sent(&mut bench, client);
    let failure = interface_down(&mut bench, &quote, at(40)).unwrap();
    assert!(!failure.switched);
    assert_eq!(
        bench.packet(client, &path(2), short(b"ours-one"), at(41)),
        Change::PathAdopted
    );
}

#[test]
fn scmp_that_quotes_what_we_did_not_send_is_not_believed() {
    let mut bench = Bench::new(10, 10);
    let client = addr(CLIENT);
    bench.established(client);
    bench.packet(client, &path(2), short(b"ours-one"), at(30));
    let quote = sent(&mut bench, client);
    let changed = |at: usize| {
        let mut quote = quote.clone();
        quote[at] ^= 1;
        quote
    };
    let mac = quote.len() - 100 - 8 - 1;
    for (what, quote) in [
        ("destination AS", changed(19)),
        ("source AS", changed(27)),
        ("destination host", changed(31)),
        ("source host", changed(35)),
        ("MAC of a hop field", changed(mac)),
        ("source port", changed(mac + 2)),
        ("destination port", changed(mac + 4)),
        ("cut", quote[..mac].to_vec()),
    ] {
        assert_eq!(interface_down(&mut bench, &quote, at(40)), None, "{what}");
        assert_eq!(bench.way_to(client), Some(1), "{what}");
    }
    let fresh = addr("2-ff00:0:210,[10.0.0.3]:40000");
    bench.packet(fresh, &path(1), None, at(50));
    let to_fresh = sent(&mut bench, fresh);
    assert_eq!(interface_down(&mut bench, &to_fresh, at(51)), None, "fresh");

    // Routers change the current hop and the SegID on the way.
    let mut under_way = quote;
    under_way[36] ^= 1;
    under_way[36 + 4 + 3] ^= 1;
    assert!(interface_down(&mut bench, &under_way, at(52)).is_some());
}
