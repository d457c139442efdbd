//! Compares the tracker's packet codec with that of sciparse, byte for byte.
//!
//! The packets are random: addresses of both versions, no path or one with one to three segments
//! and any flags (including shortcuts and peering paths), and the packet at any position on it. To
//! repeat a failure, set `SEED` to the seed that it prints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use scion_tracker_core::address::{Asn, Host, Isd, IsdAs, ScionAddr};
use scion_tracker_core::codec::scion::{Message, Packet, Path, Template, Udp, parse};
use sciparse::address::socket_addr::ScionSocketAddr;
use sciparse::checksum::ChecksumDigest;
use sciparse::core::convert::TryFromView as _;
use sciparse::core::encode::WireEncode as _;
use sciparse::dataplane_path::model::DpPath;
use sciparse::dataplane_path::standard::model::{HopField, InfoField, Segment, StandardPath};
use sciparse::dataplane_path::standard::types::{HopFieldFlags, HopFieldMac, InfoFieldFlags};
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::packet::model::ScionUdpPacket;

const PACKETS: usize = 20_000;
/// Most hops in a path: the range of the field for the current hop.
const HOPS: usize = 64;
/// Most hops in a segment: the range of the field for its length.
const SEGMENT_HOPS: usize = 63;
/// Source port, destination port, length, checksum.
const UDP_HEADER: usize = 8;

fn address(rng: &mut Rng) -> ScionAddr {
    let ia = IsdAs::new(Isd(rng.u16(1..)), Asn::new(rng.u64(1..=Asn::MAX)).unwrap());
    let ip: IpAddr = if rng.bool() {
        Ipv4Addr::new(rng.u8(1..=223), rng.u8(..), rng.u8(..), rng.u8(..)).into()
    } else {
        Ipv6Addr::from(u128::from(rng.u64(..)) | 0xfd00 << 112).into()
    };
    ScionAddr::new(ia, ip, rng.u16(1..)).unwrap()
}

fn theirs(address: ScionAddr) -> ScionSocketAddr {
    ScionSocketAddr::new(
        IsdAsn(address.host.ia.to_u64()),
        address.host.ip().into(),
        address.port,
    )
}

fn hop(rng: &mut Rng) -> HopField {
    HopField {
        flags: HopFieldFlags::from_bits_retain(rng.u8(0..4)),
        expiration_units: rng.u8(..),
        cons_ingress: rng.u16(..),
        cons_egress: rng.u16(..),
        mac: HopFieldMac::new(rng.u64(..).to_be_bytes()[..6].try_into().unwrap()),
    }
}

fn path(rng: &mut Rng) -> DpPath {
    let segments = rng.usize(0..=3);
    if segments == 0 {
        return DpPath::Empty;
    }
    let mut path = StandardPath::new_empty();
    let longest = *rng
        .choice(&[2, 5, SEGMENT_HOPS.min(HOPS / segments)])
        .unwrap();
    for _ in 0..segments {
        path.segments.push(Segment {
            info_field: InfoField {
                flags: InfoFieldFlags::from_bits_retain(rng.u8(0..4)),
                segment_id: rng.u16(..),
                timestamp: rng.u32(..),
            },
            hop_fields: (0..rng.usize(1..=longest)).map(|_| hop(rng)).collect(),
        });
    }
    let current = rng.usize(..segments);
    let before: usize = path.segments[..current]
        .iter()
        .map(|it| it.hop_fields.len())
        .sum();
    let hop = before + rng.usize(..path.segments[current].hop_fields.len());
    path.current_info_field = current as u8;
    path.current_hop_field = hop as u8;
    DpPath::Standard(path)
}

/// Encodes with sciparse, but with a checksum over header *and* payload. sciparse leaves the
/// payload out.
fn encode(mut packet: ScionUdpPacket, flow_id: u32) -> Vec<u8> {
    packet.header.common.flow_id = flow_id;
    let addresses = packet.header.address.clone();
    let payload = packet.payload.payload.len();
    let mut bytes = packet.try_encode_to_vec().unwrap();
    let udp = bytes.len() - payload - UDP_HEADER;
    bytes[udp + 6..udp + 8].fill(0);
    let upper = &bytes[udp..];
    let sum = ChecksumDigest::with_pseudoheader(&addresses, 17, upper)
        .add_slice(upper)
        .checksum();
    // A sum of zero is sent as its complement, because zero means no checksum (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    bytes[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn flow_id(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[..4].try_into().unwrap()) & 0xf_ffff
}

fn udp<'a>(packet: &Packet<'a>) -> Udp<'a> {
    match packet.message {
        Message::Udp(udp) => udp,
        Message::Scmp(_) => panic!("not UDP"),
    }
}

#[test]
fn packets_equal_those_of_sciparse() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    eprintln!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut shapes = std::collections::BTreeMap::new();
    for number in 0..PACKETS {
        let (source, destination, path) = (address(&mut rng), address(&mut rng), path(&mut rng));
        let mut payload = vec![0; rng.usize(..1400)];
        rng.fill(&mut payload);
        *shapes.entry(shape(&path)).or_insert(0) += 1;
        check(
            source,
            destination,
            path,
            &payload,
            number % 10 == 0,
            &format!("packet {number} of SEED={seed}"),
        );
    }
    eprintln!("{shapes:?}");
    assert_eq!(
        shapes.len(),
        1 + 2 + 2 + 2,
        "none, and by segments with and without peering"
    );
}

/// Segments, and whether one is for peering.
fn shape(path: &DpPath) -> (usize, bool) {
    let segments = path
        .standard()
        .map(|path| &path.segments[..])
        .unwrap_or_default();
    let peering = segments.iter().any(|it| it.info_field.flags.peering());
    (segments.len(), peering)
}

fn check(
    source: ScionAddr,
    destination: ScionAddr,
    path: DpPath,
    payload: &[u8],
    truncations: bool,
    what: &str,
) {
    let raw_path = match &path {
        DpPath::Standard(path) => path.try_encode_to_vec().unwrap(),
        _ => Vec::new(),
    };
    let template = Template::new(source, destination, Path::parse(&raw_path).unwrap()).unwrap();
    let mut ours = Vec::new();
    template.write(payload, &mut ours).unwrap();
    let packet = ScionUdpPacket::new(
        theirs(source),
        theirs(destination),
        path.clone(),
        payload.to_vec(),
    );
    let expected = encode(packet, flow_id(&ours));
    assert_eq!(ours, expected, "request, {what}");

    // This codec reads what sciparse writes, and replies in the same way.
    let read = parse(&expected).unwrap();
    assert!(read.checksum_is_right(), "{what}");
    assert_eq!(
        (read.source, read.destination),
        (source.host, destination.host),
        "{what}"
    );
    assert_eq!(read.path.as_bytes(), raw_path, "{what}");
    let datagram = udp(&read);
    assert_eq!(
        (
            datagram.source_port,
            datagram.destination_port,
            datagram.payload
        ),
        (source.port, destination.port, payload),
        "{what}"
    );
    let mut answer = Vec::new();
    Template::answering(&read, &datagram)
        .unwrap()
        .write(b"answer", &mut answer)
        .unwrap();
    let reversed = match path {
        DpPath::Empty => DpPath::Empty,
        path => path.try_into_reversed().unwrap(),
    };
    let packet = ScionUdpPacket::new(
        theirs(destination),
        theirs(source),
        reversed,
        b"answer".to_vec(),
    );
    assert_eq!(answer, encode(packet, flow_id(&answer)), "answer, {what}");

    // sciparse reads what this codec writes.
    let (theirs_read, rest) = ScionUdpPacket::try_from_slice(&ours).unwrap();
    assert!(rest.is_empty(), "{what}");
    assert_eq!(
        theirs_read.src_socket_addr().unwrap(),
        theirs(source),
        "{what}"
    );
    assert_eq!(
        theirs_read.dst_socket_addr().unwrap(),
        theirs(destination),
        "{what}"
    );
    assert_eq!(theirs_read.payload.payload, payload, "{what}");

    if truncations {
        for length in 0..expected.len() {
            assert!(
                parse(&expected[..length]).is_err(),
                "cut to {length}, {what}"
            );
        }
    }
}

/// This codec is at least as strict: sciparse accepts everything that it accepts.
#[test]
fn packets_that_sciparse_refuses_are_refused() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    eprintln!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut taken = 0;
    for number in 0..PACKETS {
        let (source, destination, path) = (address(&mut rng), address(&mut rng), path(&mut rng));
        let packet = ScionUdpPacket::new(theirs(source), theirs(destination), path, vec![7; 20]);
        let mut bytes = encode(packet, 1);
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
        let Ok(read) = parse(&bytes) else { continue };
        if !matches!(read.message, Message::Udp(_)) {
            continue;
        }
        taken += 1;
        let other = ScionUdpPacket::try_from_slice(&bytes);
        let (other, _) =
            other.unwrap_or_else(|error| panic!("packet {number} of SEED={seed}: {error:?}"));
        let hosts: [Host; 2] = [read.source, read.destination];
        let [from, to] = hosts
            .map(|host| ScionAddr::new(host.ia, host.ip(), 1).unwrap())
            .map(theirs);
        assert_eq!(
            other.src_scion_addr().unwrap(),
            from.scion_addr(),
            "packet {number} of SEED={seed}"
        );
        assert_eq!(
            other.dst_scion_addr().unwrap(),
            to.scion_addr(),
            "packet {number} of SEED={seed}"
        );
    }
    assert!(taken > PACKETS / 8, "{taken}");
}
