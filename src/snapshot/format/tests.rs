use proptest::prelude::*;

use super::*;

type Parts = Vec<Exported>;

fn encode(parts: &Parts, written: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), written).unwrap();
    for part in parts {
        if !matches!(part, Exported::Peer(_)) {
            encoder.end_step().unwrap();
        }
        encoder.add(part);
    }
    let clients = |body: &mut Vec<u8>| body.extend(vec![7; CLIENTS_BYTES]);
    let (bytes, contents, length) = encoder.finish(clients).unwrap();
    assert_eq!(length, bytes.len() as u64);
    let count = |is: fn(&Exported) -> bool| parts.iter().filter(|it| is(it)).count() as u64;
    assert_eq!(contents.peers, count(|it| matches!(it, Exported::Peer(_))));
    bytes
}

fn decode(bytes: &[u8], older: u32) -> Result<Parts, DecodeError> {
    let mut parts = Vec::new();
    let mut clients = 0;
    let decoder = Decoder::new(bytes, bytes.len() as u64)?;
    decoder.read(older, |item| match item {
        Item::Torrent {
            info_hash,
            completed,
            peers,
        } => {
            parts.push(Exported::Torrent {
                info_hash,
                completed,
            });
            parts.extend(peers.iter().copied().map(Exported::Peer));
        }
        Item::Past {
            info_hash,
            completed,
        } => parts.push(Exported::Past {
            info_hash,
            completed,
        }),
        Item::Clients(bytes) => {
            assert_eq!(bytes, vec![7; CLIENTS_BYTES]);
            clients += 1;
        }
    })?;
    assert_eq!(clients, 1);
    Ok(parts)
}

fn torrent(number: u8) -> Exported {
    Exported::Torrent {
        info_hash: InfoHash([number; 20]),
        completed: u32::from(number) * 1000,
    }
}

fn peer(ia: &str, ip: &str, state: u8, age: u32) -> Exported {
    let addr = CompactAddr::new(ip.parse().unwrap(), 6881);
    let peer = StoredPeer::new(ia.parse().unwrap(), addr, PeerId([b'p'; 20]), state, age);
    Exported::Peer(peer.unwrap())
}

fn sample() -> Parts {
    vec![
        torrent(1),
        peer("0-0", "10.0.0.1", 0x01, 0),
        peer("1-ff00:0:110", "2001:db8::1", 0xa6, 800),
        torrent(2),
        peer("1-ff00:0:110", "10.0.0.1", 0x10, 8),
        Exported::Past {
            info_hash: InfoHash([3; 20]),
            completed: 9,
        },
    ]
}

/// The bytes that docs/snapshot.md describes.
#[test]
fn the_layout_stays() {
    let bytes = encode(&sample(), 0x0102_0304);
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            text += &format!("{byte:02x}");
            text
        })
    };
    let header = hex(&bytes[..20]);
    assert_eq!(
        header,
        "53435453574152 4d00000001 0000000001020304".replace(' ', "")
    );
    let id = "70".repeat(20);
    let items = [
        "01",
        &"01".repeat(20),
        "000003e8",
        "0002",
        "00",
        "01",
        "0000",
        &id,
        "0a000001",
        "1ae1",
        "03",
        "a6",
        "0064",
        &id,
        "0001ff0000000110",
        "20010db8000000000000000000000001",
        "1ae1",
        "01",
        &"02".repeat(20),
        "000007d0",
        "0001",
        "02",
        "10",
        "0001",
        &id,
        "0001ff0000000110",
        "0a000001",
        "1ae1",
        "02",
        &"03".repeat(20),
        "00000009",
    ]
    .concat();
    let length = items.len() / 2;
    assert_eq!(hex(&bytes[24..28]), format!("{length:08x}"));
    assert_eq!(hex(&bytes[32..32 + length]), items);
    let end = "0000000000000002 0000000000000003 0000000000000001".replace(' ', "");
    assert_eq!(hex(&bytes[bytes.len() - 25..]), format!("00{end}"));
    assert_eq!(decode(&bytes, 0).unwrap(), sample());
}

#[test]
fn ages_grow_by_the_time_that_has_passed() {
    let parts = decode(&encode(&sample(), 0), 1600).unwrap();
    let ages: Vec<_> = parts
        .iter()
        .filter_map(|part| match part {
            Exported::Peer(peer) => Some(peer.age()),
            _ => None,
        })
        .collect();
    assert_eq!(ages, [1600, 2400, 1608]);
    let parts = decode(&encode(&sample(), 0), u32::MAX).unwrap();
    assert!(matches!(parts[1], Exported::Peer(peer) if peer.age() == u32::MAX));
}

/// A file that ends early or has any other byte is refused, whatever the byte.
#[test]
fn damage_is_noticed() {
    let bytes = encode(&sample(), 1);
    let step = (bytes.len() / 700).max(1);
    let near_the_ends = |at: usize| at < 400 || at + 100 > bytes.len();
    for at in (0..bytes.len()).filter(|at| near_the_ends(*at) || at % step == 0) {
        assert!(decode(&bytes[..at], 0).is_err(), "{at}");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(decode(&damaged, 0).is_err(), "{at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer, 0).is_err());
    // Nothing but blocks that are good by themselves: one is missing, or they are out of place.
    let many: Parts = (0..=255)
        .cycle()
        .take(12_000)
        .flat_map(|number| [torrent(number), peer("0-0", "10.0.0.1", 0, 0)])
        .collect();
    let bytes = encode(&many, 1);
    let first = 24 + PREFIX + be(&bytes[24..28]) as usize;
    let second = first + PREFIX + be(&bytes[first..first + 4]) as usize;
    assert!(decode(&bytes, 0).is_ok());
    let without = [&bytes[..24], &bytes[first..]].concat();
    assert!(matches!(decode(&without, 0), Err(DecodeError::Checksum(_))));
    let swapped = [
        &bytes[..24],
        &bytes[first..second],
        &bytes[24..first],
        &bytes[second..],
    ]
    .concat();
    assert!(matches!(decode(&swapped, 0), Err(DecodeError::Checksum(_))));
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let mut bytes = encode(&sample(), 1);
    bytes[11] = 2;
    assert!(matches!(decode(&bytes, 0), Err(DecodeError::Version(2))));
    // A newer version may have a shorter header.
    assert!(matches!(
        decode(&bytes[..12], 0),
        Err(DecodeError::Version(2))
    ));
    for other in [&b""[..], b"SCTSWAR", b"# Secrets of connection ids\n"] {
        assert!(
            matches!(decode(other, 0), Err(DecodeError::Magic)),
            "{other:?}"
        );
    }
}

/// Blocks with good checksums and bad contents.
#[test]
fn lengths_are_not_trusted() {
    let with_block = |length: u32, body: &[u8]| {
        let mut bytes = encode(&sample(), 1)[..24].to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend(checksum(0, body).to_be_bytes());
        bytes.extend(body);
        decode(&bytes, 0).unwrap_err()
    };
    for length in [0, u32::MAX, MOST as u32 + 1, 2] {
        let error = with_block(length, b"\x01");
        let expected = matches!(error, DecodeError::Truncated | DecodeError::Invalid(_));
        assert!(expected, "{length}: {error}");
    }
    let torrent = [&[kind::TORRENT][..], &[1; 24], &[0xff; 2]].concat();
    let end = [&[kind::END][..], &[1; 24]].concat();
    for body in [&b"\x09"[..], b"\x02", b"\x03abc", &torrent, &end] {
        let error = with_block(body.len() as u32, body);
        assert!(
            matches!(error, DecodeError::Invalid(_)),
            "{body:?}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn any_contents_come_back(
        parts: Vec<(u8, u8, bool, bool, u8, u16)>,
        written: u64,
    ) {
        let mut contents = vec![torrent(0)];
        for (number, id, six, placed, state, age) in parts {
            let ip = match six {
                true => std::net::Ipv6Addr::from([0x2001, 0xdb8, 0, u16::from(number), 0, 0, 0, 1]).into(),
                false => std::net::Ipv4Addr::from([10, 0, 0, number]).into(),
            };
            let ia = if placed { "1-ff00:0:110".parse().unwrap() } else { IsdAs::NONE };
            let age = u32::from(age) * StoredPeer::RESOLUTION;
            let addr = CompactAddr::new(ip, 1 + u16::from(id));
            match StoredPeer::new(ia, addr, PeerId([id; 20]), state, age) {
                Some(peer) => contents.push(Exported::Peer(peer)),
                None => contents.push(torrent(number)),
            }
        }
        let bytes = encode(&contents, written);
        prop_assert_eq!(Decoder::new(&bytes[..], bytes.len() as u64).unwrap().written(), written);
        prop_assert_eq!(decode(&bytes, 0).unwrap(), contents);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        fuzz::snapshot(&bytes);
    }
}
