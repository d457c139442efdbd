//! Tests the packet codec three ways: bytes of another implementation, round trips of arbitrary
//! packets, and every truncation and random bytes.

use std::net::IpAddr;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::address::{IsdAs, ScionAddr};

/// Reads `tests/vectors/scion/NAME.hex`: one packet per line, `#` starts a comment.
#[allow(clippy::disallowed_methods, reason = "a test reads its vectors")]
fn vectors(name: &str) -> Vec<Vec<u8>> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/scion")
        .join(name)
        .with_extension("hex");
    let text = std::fs::read_to_string(&file).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(unhex)
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn udp<'a>(packet: &Packet<'a>) -> Udp<'a> {
    match packet.message {
        Message::Udp(udp) => udp,
        Message::Scmp(_) => panic!("not UDP"),
    }
}

/// A vector without its FlowID, which every implementation chooses differently.
fn without_flow(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[1] &= 0xf0;
    bytes[2..4].fill(0);
    bytes
}

/// Request and reply as built and reversed by sciparse. This codec must produce the same bytes.
fn check_exchange(name: &str, links: usize, first_egress_of_reply: Option<u16>) {
    let packets = vectors(name);
    let [request, reply] = packets.as_slice() else {
        panic!("{name}: a request and a reply");
    };
    let packet = parse(request).unwrap();
    let datagram = udp(&packet);
    assert!(packet.checksum_is_right(), "{name}");
    assert_eq!(packet.path.links(), links, "{name}");

    let template = Template::answering(&packet, &datagram).unwrap();
    let mut ours = Vec::new();
    template
        .write(udp(&parse(reply).unwrap()).payload, &mut ours)
        .unwrap();
    assert_eq!(without_flow(&ours), without_flow(reply), "{name}");
    assert_eq!(
        template.path().first_egress(),
        first_egress_of_reply,
        "{name}"
    );

    let rebuilt = Template::new(
        ScionAddr {
            host: packet.source,
            port: datagram.source_port,
        },
        ScionAddr {
            host: packet.destination,
            port: datagram.destination_port,
        },
        packet.path,
    )
    .unwrap();
    let mut ours = Vec::new();
    rebuilt.write(datagram.payload, &mut ours).unwrap();
    if parse_has_no_extension(request) {
        assert_eq!(without_flow(&ours), without_flow(request), "{name}");
    }

    for len in 0..request.len() {
        assert!(parse(&request[..len]).is_err(), "{name} cut to {len}");
    }
    let mut longer = request.clone();
    longer.push(0);
    assert_eq!(parse(&longer).unwrap_err(), PacketError::PayloadLength);
}

const fn parse_has_no_extension(packet: &[u8]) -> bool {
    packet[4] == UDP
}

macro_rules! exchanges {
    ($($test:ident: $name:literal, $links:literal, $egress:expr;)*) => {
        $(#[test] fn $test() { check_exchange($name, $links, $egress); })*
    };
}

exchanges! {
    empty_path: "empty", 0, None;
    one_segment_up: "up", 2, Some(42);
    one_segment_down: "down", 1, Some(7);
    two_segments_up_core: "up-core", 3, Some(52);
    three_segments: "up-core-down", 4, Some(63);
    peering: "peering", 3, Some(74);
    peering_of_two_neighbours: "peering-short", 1, Some(88);
    shortcut: "shortcut", 2, Some(96);
    ipv4_to_ipv6: "v4-v6", 0, None;
    ipv6_to_ipv4: "v6-v4", 2, Some(42);
    ipv6_to_ipv6: "v6-v6", 4, Some(63);
    hop_by_hop_options: "hbh", 2, Some(42);
    end_to_end_options: "e2e", 2, Some(42);
    both_options: "hbh-e2e", 2, Some(42);
}

#[test]
fn a_wrong_checksum_is_reported_and_not_refused() {
    let packets = vectors("wrong-checksum");
    let packet = parse(&packets[0]).unwrap();
    assert_eq!(udp(&packet).payload, b"checksum without payload");
    assert!(!packet.checksum_is_right());
}

#[test]
fn scmp_errors_name_the_packet_and_the_failure() {
    let messages = vectors("scmp");
    // The quoted packet: the reply to a request that came over the three segments.
    let request = &vectors("up-core-down")[0];
    let request = parse(request).unwrap();
    let sent = Template::answering(&request, &udp(&request)).unwrap();

    let scmp: Vec<Scmp<'_>> = messages
        .iter()
        .map(|bytes| {
            let packet = parse(bytes).unwrap();
            assert!(packet.checksum_is_right());
            for len in 0..bytes.len() {
                assert!(parse(&bytes[..len]).is_err(), "cut to {len}");
            }
            match packet.message {
                Message::Scmp(scmp) => scmp,
                Message::Udp(_) => panic!("not SCMP"),
            }
        })
        .collect();
    let quote = scmp[0].quote().unwrap();
    let ia: IsdAs = "1-ff00:0:120".parse().unwrap();
    assert_eq!(
        scmp[..5],
        [
            Scmp::DestinationUnreachable { code: 4, quote },
            Scmp::PacketTooBig { mtu: 1280, quote },
            Scmp::ParameterProblem {
                code: 52,
                pointer: 52,
                quote
            },
            Scmp::ExternalInterfaceDown {
                ia,
                interface: 22,
                quote
            },
            Scmp::InternalConnectivityDown {
                ia,
                ingress: 23,
                egress: 22,
                quote
            },
        ]
    );
    let quoted = Quoted::parse(quote).unwrap();
    assert_eq!(quoted.source, request.destination);
    assert_eq!(quoted.destination, request.source);
    assert_eq!(quoted.ports, Some((31969, 45000)));
    assert_eq!((quoted.payload, quoted.whole), (&[90; 64][..], true));
    let short = Quoted::parse(&quote[..quote.len() - 1]).unwrap();
    assert_eq!((short.payload, short.whole), (&[90; 63][..], false));
    assert_eq!(short.ports, quoted.ports);
    assert_ne!(
        quoted.path,
        sent.path(),
        "routers have advanced the position"
    );
    assert!(quoted.path.is_same_way(sent.path()));
    assert!(!quoted.path.is_same_way(request.path));
    assert!(!quoted.path.is_same_way(Path::EMPTY));

    let Scmp::EchoRequest(echo) = scmp[5] else {
        panic!("not an echo request")
    };
    assert_eq!(
        echo,
        Echo {
            identifier: 7,
            sequence: 9,
            data: b"are you there"
        }
    );
    assert_eq!(scmp[6], Scmp::EchoReply(echo));
    let mut reply = Vec::new();
    write_echo_reply(&parse(&messages[5]).unwrap(), &echo, &mut reply).unwrap();
    assert_eq!(without_flow(&reply), messages[6]);
    let asked = parse(&messages[5]).unwrap();
    let mut again = Vec::new();
    write_echo_request(
        asked.source,
        asked.destination,
        asked.path,
        &echo,
        &mut again,
    )
    .unwrap();
    assert_eq!(without_flow(&again), messages[5]);
}

#[test]
fn a_quote_may_end_anywhere_behind_its_header() {
    let packet = &vectors("up-core-down")[0];
    let header = usize::from(packet[5]) * 4;
    for len in 0..packet.len() {
        let quoted = Quoted::parse(&packet[..len]);
        assert_eq!(quoted.is_ok(), len >= header, "{len}");
        let Ok(quoted) = quoted else { continue };
        assert_eq!(
            quoted.ports,
            (len >= header + 4).then_some((45000, 31969)),
            "{len}"
        );
        let payload = len.saturating_sub(header + 8);
        assert_eq!((quoted.payload.len(), quoted.whole), (payload, false));
    }
}

#[test]
fn paths_give_interfaces_and_expiry() {
    // Timestamps are 1,700,000,000 and the next two seconds. ExpTime falls by one per hop, from 62.
    for (name, interfaces, hop_fields, expiry) in [
        ("empty", &[][..], 0, None),
        (
            "up",
            &[41, 43, 44, 42],
            3,
            Some(1_700_000_000 + 61 * 675 / 2),
        ),
        (
            "up-core-down",
            &[11, 12, 21, 22, 23, 24, 62, 63],
            7,
            Some(1_700_000_002 + 57 * 675 / 2),
        ),
        (
            "peering",
            &[71, 73, 72, 75, 76, 74],
            4,
            Some(1_700_000_001 + 60 * 675 / 2),
        ),
        (
            "shortcut",
            &[91, 93, 95, 96],
            4,
            Some(1_700_000_001 + 60 * 675 / 2),
        ),
    ] {
        let packets = vectors(name);
        let path = parse(&packets[0]).unwrap().path;
        assert_eq!(path.interfaces().collect::<Vec<_>>(), interfaces, "{name}");
        assert_eq!(path.hop_fields(), hop_fields, "{name}");
        assert_eq!(path.expiry(), expiry, "{name}");
    }
}

#[test]
fn fingerprints_follow_the_interfaces_alone() {
    let packets = vectors("up-core-down");
    let bytes = parse(&packets[0]).unwrap().path.as_bytes();
    let (one, two) = (IsdAs::from_u64(1 << 48 | 1), IsdAs::from_u64(1 << 48 | 2));
    let fingerprint = Path::parse(bytes).unwrap().fingerprint(one, two);
    let mut renewed = bytes.to_vec();
    renewed[11] ^= 1; // timestamp
    renewed[4 + 3 * 8 + 11] ^= 1; // MAC
    assert_eq!(
        Path::parse(&renewed).unwrap().fingerprint(one, two),
        fingerprint
    );
    assert_ne!(
        Path::parse(bytes).unwrap().fingerprint(two, one),
        fingerprint
    );
    renewed[4 + 3 * 8 + 3] ^= 1; // interface
    assert_ne!(
        Path::parse(&renewed).unwrap().fingerprint(one, two),
        fingerprint
    );
}

#[test]
fn unanswerable_packets_are_refused() {
    let good = vectors("up")[0].clone();
    let long = vectors("hbh-e2e")[0].clone();
    let header = usize::from(long[5]) * 4;
    for (error, packet, at, value) in [
        (PacketError::Version, &good, 0, 0x10),
        (PacketError::HeaderLength, &good, 5, 8),
        (PacketError::HeaderLength, &good, 5, 2),
        (PacketError::Truncated, &good, 5, 255),
        (PacketError::Truncated, &good, 7, 255),
        (PacketError::PayloadLength, &good, 7, 9),
        (PacketError::AddressType, &good, 9, 0x40), // destination is a service
        (PacketError::AddressType, &good, 9, 0x01), // 8-byte host
        (PacketError::HeaderLength, &good, 8, 0),   // empty path type with a path
        (PacketError::PathType, &good, 8, 2),       // one-hop
        (PacketError::PathType, &good, 8, 3),       // EPIC
        (PacketError::PathType, &good, 8, 4),       // COLIBRI
        (PacketError::PathType, &good, 8, 255),
        (PacketError::NextHeader, &good, 4, 6),
        (PacketError::UdpLength, &good, good.len() - 19, 26),
        (PacketError::ExtensionOrder, &long, 4, END_TO_END),
        (PacketError::ExtensionOrder, &long, header, HOP_BY_HOP),
        (PacketError::ExtensionOrder, &long, header + 8, END_TO_END),
        (PacketError::Truncated, &long, header + 1, 255),
        (PacketError::NextHeader, &long, header + 8, 59),
        (PacketError::Host, &good, 28, 224),
    ] {
        let mut bad = packet.clone();
        bad[at] = value;
        assert_eq!(parse(&bad).unwrap_err(), error, "byte {at} = {value}");
    }
    let mut wildcard = good.clone();
    wildcard[20..22].fill(0);
    assert_eq!(parse(&wildcard).unwrap_err(), PacketError::Wildcard);
    let mut unspecified = good;
    unspecified[32..36].fill(0);
    assert_eq!(parse(&unspecified).unwrap_err(), PacketError::Host);
    let mut mapped = vectors("v6-v4")[0].clone();
    mapped[32..48].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]);
    assert_eq!(parse(&mapped).unwrap_err(), PacketError::Host);
}

#[test]
fn bad_paths_are_refused() {
    let path = |meta: u32, infos: usize, hops: usize| {
        let mut bytes = meta.to_be_bytes().to_vec();
        bytes.resize(4 + 8 * infos + 12 * hops, 0);
        bytes
    };
    for (error, bytes) in [
        (PacketError::PathLength, vec![0; 3]),
        (PacketError::PathSegments, path(0, 0, 0)),
        (PacketError::PathSegments, path(1, 1, 1)),
        (PacketError::PathSegments, path(1 << 12 | 1, 2, 2)),
        (PacketError::PathSegments, path(40 << 12 | 25 << 6, 2, 65)),
        (PacketError::PathLength, path(2 << 12, 1, 1)),
        (PacketError::PathLength, path(2 << 12, 1, 3)),
        (PacketError::PathPosition, path(2 << 24 | 2 << 12, 1, 2)),
        (PacketError::PathPosition, path(1 << 30 | 2 << 12, 1, 2)),
        (
            PacketError::PathPosition,
            path(1 << 30 | 2 << 12 | 2 << 6, 2, 4),
        ),
        (
            PacketError::PathPosition,
            path(3 << 30 | 2 << 12 | 2 << 6 | 2, 3, 6),
        ),
    ] {
        assert_eq!(Path::parse(&bytes).unwrap_err(), error, "{bytes:02x?}");
    }
    assert!(Path::parse(&path(40 << 12 | 24 << 6, 2, 64)).is_ok());
}

#[test]
fn labels_are_unique() {
    let mut labels: Vec<_> = PacketError::ALL.iter().map(|error| error.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), PacketError::ALL.len());
}

/// The bytes of any valid path: 1 to 3 segments, everything else arbitrary.
fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let segments = prop::collection::vec(1_usize..=21, 0..=3);
    (
        segments,
        any::<u16>(),
        prop::collection::vec(any::<u8>(), 1020),
    )
        .prop_map(|(lens, place, noise)| {
            if lens.is_empty() {
                return Vec::new();
            }
            let hops: usize = lens.iter().sum();
            let hop = usize::from(place) % hops;
            let mut before = 0;
            let info = lens.iter().take_while(|len| {
                before += **len;
                before <= hop
            });
            let mut meta = (info.count() << 30 | hop << 24) as u32;
            for (nth, len) in lens.iter().enumerate() {
                meta |= (*len as u32) << (12 - 6 * nth);
            }
            let mut bytes = meta.to_be_bytes().to_vec();
            bytes.extend_from_slice(&noise[..8 * lens.len() + 12 * hops]);
            bytes
        })
}

fn any_addr() -> impl Strategy<Value = ScionAddr> {
    let place = (1..=u16::MAX, 1..1_u64 << 48)
        .prop_map(|(isd, asn)| IsdAs::from_u64(u64::from(isd) << 48 | asn));
    let ip = any::<IpAddr>().prop_filter("names no host", |ip| {
        !ip.is_multicast() && !ip.is_unspecified() && *ip == ip.to_canonical()
    });
    (place, ip, 1..=u16::MAX).prop_map(|(ia, ip, port)| ScionAddr::new(ia, ip, port).unwrap())
}

proptest! {
    #[test]
    fn written_packets_parse(
        source in any_addr(),
        destination in any_addr(),
        path in any_path(),
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let path = Path::parse(&path).unwrap();
        let template = Template::new(source, destination, path).unwrap();
        let mut bytes = b"before".to_vec();
        template.write(&payload, &mut bytes).unwrap();
        let bytes = &bytes[6..];
        prop_assert_eq!(bytes.len(), template.overhead() + payload.len());
        let mut sealed = vec![0xaa; template.overhead()];
        sealed.extend_from_slice(&payload);
        template.seal(&mut sealed).unwrap();
        prop_assert_eq!(&sealed, bytes);
        let packet = parse(bytes).unwrap();
        prop_assert!(packet.checksum_is_right());
        prop_assert_eq!(packet.source, source.host);
        prop_assert_eq!(packet.destination, destination.host);
        prop_assert_eq!(packet.path, path);
        prop_assert_eq!(template.path(), path);
        prop_assert_eq!(udp(&packet), Udp {
            source_port: source.port,
            destination_port: destination.port,
            payload: &payload,
        });

        let answer = Template::answering(&packet, &udp(&packet)).unwrap();
        let mut bytes = Vec::new();
        answer.write(&payload, &mut bytes).unwrap();
        let mut room = vec![0xaa; bytes.len() + 3];
        let mut in_place = Answer::new(&packet, &udp(&packet), &mut room).unwrap();
        prop_assert_eq!(in_place.path(), answer.path());
        in_place.room()[..payload.len()].copy_from_slice(&payload);
        let length = in_place.seal(payload.len()).unwrap();
        prop_assert_eq!(&room[..length], &bytes);
        for cramped in 0..length {
            let answer = Answer::new(&packet, &udp(&packet), &mut room[..cramped]);
            let sealed = answer.and_then(|answer| answer.seal(payload.len()));
            prop_assert_eq!(sealed, Err(BuildError::NoRoom));
        }
        let reply = parse(&bytes).unwrap();
        prop_assert_eq!(reply.source, destination.host);
        prop_assert_eq!(reply.path.links(), path.links());
        prop_assert_eq!(reply.path.expiry(), path.expiry());
        let mut there: Vec<u16> = path.interfaces().collect();
        there.reverse();
        prop_assert_eq!(reply.path.interfaces().collect::<Vec<_>>(), there);
        prop_assert_eq!(Template::answering(&reply, &udp(&reply)).unwrap(), template);
    }

    #[test]
    fn segments_are_packets_of_their_own(
        source in any_addr(),
        destination in any_addr(),
        path in any_path(),
        payloads in prop::collection::vec(any::<u8>(), 1..5000),
        segment in 1_usize..1400,
    ) {
        let path = Path::parse(&path).unwrap();
        let template = Template::new(source, destination, path).unwrap();
        let mut bytes = Vec::new();
        let stride = template.write_segments(&payloads, segment, &mut bytes).unwrap();
        let mut back = Vec::new();
        for datagram in bytes.chunks(stride) {
            let packet = parse(datagram).unwrap();
            prop_assert!(packet.checksum_is_right());
            back.extend_from_slice(udp(&packet).payload);
        }
        prop_assert_eq!(back, payloads);
    }

    #[test]
    fn reversing_twice_changes_nothing(path in any_path()) {
        let mut once = Vec::new();
        Path::parse(&path).unwrap().reverse_into(&mut once);
        let mut twice = Vec::new();
        Path::parse(&once).unwrap().reverse_into(&mut twice);
        prop_assert_eq!(twice, path);
    }

    #[test]
    fn every_truncation_is_refused(
        source in any_addr(),
        destination in any_addr(),
        path in any_path(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let template = Template::new(source, destination, Path::parse(&path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        template.write(&payload, &mut bytes).unwrap();
        for len in 0..bytes.len() {
            prop_assert!(parse(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes).map(|packet| packet.checksum_is_right());
        let _ = Quoted::parse(&bytes);
        let _ = Path::parse(&bytes);
    }

    #[test]
    fn broken_packets_never_panic(
        which in 0_usize..8,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let names = ["empty", "up-core-down", "peering", "shortcut", "v6-v6", "hbh-e2e", "scmp", "v6-v4"];
        let mut bytes = vectors(names[which])[which % 2].clone();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(packet) = parse(&bytes) {
            packet.checksum_is_right();
            if let Message::Udp(udp) = packet.message {
                let _ = Template::answering(&packet, &udp);
            }
            if let Message::Scmp(scmp) = packet.message {
                let _ = scmp.quote().map(Quoted::parse);
            }
            packet.path.interfaces().count();
        }
    }
}
