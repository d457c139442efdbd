use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::address::{CompactAddr, Host, IsdAs};
use crate::codec::compact::Layout;
use crate::codec::connection::ConnectionId;
use crate::codec::query::QueryError;
use crate::codec::query::tests::any_announce;
use crate::request::{AnnounceRequest, Carries, Claim, Event, Family, ScionClaim};
use crate::response::{AddrBytes, AnnounceReply, Peer, PeerSink, Reach, SwarmCounts};
use crate::types::{InfoHash, PeerId};

const T: TransactionId = TransactionId(0x0102_0304);
const C: ConnectionId = ConnectionId(0x1122_3344_5566_7788);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn announce() -> AnnounceRequest {
    AnnounceRequest {
        uploaded: 3,
        downloaded: 1,
        event: Event::Started,
        numwant: Some(50),
        key: Some(0xaabb_ccdd),
        ..AnnounceRequest::new(InfoHash([0x11; 20]), PeerId([0x22; 20]), 6881, 2)
    }
}

fn packet(announce: &AnnounceRequest, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_announce_request(C, T, announce, path, &mut out);
    out
}

fn read(datagram: &[u8]) -> Result<AnnounceRequest, QueryError> {
    match parse(datagram, MAX_SCRAPE).unwrap() {
        Request::Announce {
            connection,
            transaction,
            announce,
            ..
        } => {
            assert_eq!((connection, transaction), (C, T));
            announce
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_snapshot() {
    let mut out = Vec::new();
    write_connect_request(T, &mut out);
    assert_eq!(hex(&out), "00000417271019800000000001020304");
    assert!(matches!(
        parse(&out, 1),
        Ok(Request::Connect { transaction: T })
    ));

    let expected = [
        "1122334455667788",
        "00000001",
        "01020304",
        &"11".repeat(20),
        &"22".repeat(20),
        "0000000000000001",
        "0000000000000002",
        "0000000000000003",
        "00000002",
        "00000000",
        "aabbccdd",
        "00000032",
        "1ae1",
    ]
    .concat();
    assert_eq!(hex(&packet(&announce(), "")), expected);
    assert_eq!(read(&packet(&announce(), "")), Ok(announce()));
    // libtorrent sends `02 09 /announce`.
    assert_eq!(
        hex(&packet(&announce(), "/announce")),
        expected + "02092f616e6e6f756e6365"
    );

    let mut out = Vec::new();
    write_scrape_request(C, T, &[InfoHash([1; 20]), InfoHash([2; 20])], &mut out);
    assert_eq!(
        hex(&out),
        format!(
            "11223344556677880000000201020304{}{}",
            "01".repeat(20),
            "02".repeat(20)
        )
    );
}

#[test]
fn passkeys_stand_in_url_data() {
    for (url, expected) in [
        ("/announce/secret", Some("secret")),
        ("/secret/announce?x=1", Some("secret")),
        ("/announce?passkey=secret", Some("secret")),
        ("/announce/path?passkey=query", Some("query")),
        ("/announce/no.passkey?passkey=query", Some("query")),
        ("/announce", None),
        ("/other/secret", None),
        ("secret", None),
    ] {
        let passkey = expected.map(|text| text.parse().unwrap());
        let read = read(&packet(&announce(), url)).unwrap();
        assert_eq!(read.passkey, passkey, "{url}");
    }
}

#[test]
fn claims_stand_in_url_data() {
    let mut placed = announce();
    placed.claim = Claim {
        ia: Some("1-ff00:0:110".parse().unwrap()),
        scion: ScionClaim::At("1-ff00:0:110,[10.0.0.1]:6881".parse().unwrap()),
    };
    for (path, url) in [
        (
            "",
            Url {
                path: "",
                query: "ia=1-ff00:0:110&scion=1-ff00:0:110,%5B10.0.0.1%5D:6881",
            },
        ),
        (
            "/announce/secret?x=1",
            Url {
                path: "/announce/secret",
                query: "x=1&ia=1-ff00:0:110&scion=1-ff00:0:110,%5B10.0.0.1%5D:6881",
            },
        ),
    ] {
        let packet = packet(&placed, path);
        let passkey = path.contains("secret").then(|| "secret".parse().unwrap());
        assert_eq!(read(&packet), Ok(AnnounceRequest { passkey, ..placed }));
        let Ok(Request::Announce { url: data, .. }) = parse(&packet, 1) else {
            panic!("{path}")
        };
        assert_eq!(data.read(&mut UrlBuffer::new()), Some(url));
    }
    let long = format!("/{}", "a".repeat(300));
    assert_eq!(read(&packet(&placed, &long)), Ok(placed));
    let too_long = format!("/{}", "a".repeat(MAX_URL));
    assert_eq!(
        read(&packet(&placed, &too_long)),
        Err(QueryError::BadUrlData)
    );
}

#[test]
fn options() {
    let with = |options: &[u8]| read(&[packet(&announce(), ""), options.to_vec()].concat());
    let mut placed = announce();
    placed.claim.ia = Some("1-1".parse().unwrap());
    for (options, expected) in [
        (&b""[..], Ok(announce())),
        (b"\x00\x00", Ok(announce())),
        (b"\x01\x01\x01", Ok(announce())),
        (b"\x02\x00", Ok(announce())),
        (b"\x02\x09/announce", Ok(announce())),
        (b"\x02\x07?ia=1-1", Ok(placed)),
        (b"\x01\x09\x02xx\x02\x07?ia=1-1\x01\x00", Ok(placed)),
        // URL data split over several options.
        (b"\x02\x03/?i\x01\x02\x00\x02\x05a=1-1", Ok(placed)),
        // After the end of options, and in a path.
        (b"\x00\x02\x07?ia=1-1", Ok(announce())),
        (b"\x02\x07/ia=1-1", Ok(announce())),
        // A truncated unknown option.
        (b"\x09", Ok(announce())),
        (b"\x09\x05xx", Ok(announce())),
        // Truncated URL data.
        (b"\x02", Err(QueryError::BadUrlData)),
        (b"\x02\x08?ia=1-1", Err(QueryError::BadUrlData)),
        (b"\x02\x07?ia=0-0", Err(QueryError::WildcardIa)),
        (b"\x02\x07?ia=1-x", Err(QueryError::BadIa)),
        (b"\x02\x08?scion=2", Err(QueryError::BadScion)),
        (b"\x02\x0e?ia=1-1&ia=1-1", Err(QueryError::Repeated)),
    ] {
        assert_eq!(with(options), expected, "{}", options.escape_ascii());
    }
}

#[test]
fn fields_that_clients_fill_differently() {
    let packet = packet(&announce(), "");
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = packet.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        read(&packet)
    };
    assert_eq!(with(96, &[0, 0]).unwrap().port, 0);
    for (number, event) in [
        (0, Event::None),
        (1, Event::Completed),
        (2, Event::Started),
        (3, Event::Stopped),
        (4, Event::Paused),
        (5, Event::None),
        (u32::MAX, Event::None),
    ] {
        assert_eq!(with(80, &u32::to_be_bytes(number)).unwrap().event, event);
    }
    for (number, numwant) in [(-1, None), (i32::MIN, None), (0, None), (7, Some(7))] {
        assert_eq!(
            with(92, &i32::to_be_bytes(number)).unwrap().numwant,
            numwant
        );
    }
    // A seed and a peer that leaves may want nobody.
    for (at, bytes) in [(64, &[0; 8][..]), (80, &[0, 0, 0, 3][..])] {
        let mut changed = packet.clone();
        changed[92..96].fill(0);
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(read(&changed).unwrap().numwant, Some(0));
    }
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(with(84, &[192, 0, 2, 1]).unwrap().named_ip, Some(ip));
    assert_eq!(with(88, &[0; 4]).unwrap().key, None);
    assert_eq!(with(64, &[0xff; 8]).unwrap().left, u64::MAX);
}

#[test]
fn every_length_of_every_action() {
    let bytes = [0; 2000];
    for length in 0..bytes.len() {
        for action in 0..5_u32 {
            let mut packet = bytes[..length].to_vec();
            if length >= 12 {
                packet[8..12].copy_from_slice(&action.to_be_bytes());
            }
            let request = parse(&packet, 30);
            match action {
                ANNOUNCE => assert_eq!(request.is_ok(), length >= 98),
                SCRAPE => match request {
                    Ok(Request::Scrape { hashes, .. }) => {
                        assert_eq!(hashes.len(), ((length - 16) / 20).min(30));
                        assert_eq!(hashes.len(), hashes.count());
                    }
                    _ => assert!(length < 36),
                },
                // A connect needs the magic number; 3 and 4 are not actions of a request.
                _ => assert!(request.is_err() || (action == ERROR && length < 12)),
            }
        }
    }
    let mut connect = Vec::new();
    write_connect_request(T, &mut connect);
    for length in 0..16 {
        assert_eq!(parse(&connect[..length], 1).err(), Some(Malformed));
    }
    connect.push(0);
    assert!(parse(&connect, 1).is_ok());
}

#[test]
fn scrapes_keep_order_and_duplicates() {
    let asked = [InfoHash([1; 20]), InfoHash([2; 20]), InfoHash([1; 20])];
    let mut out = Vec::new();
    write_scrape_request(C, T, &asked, &mut out);
    out.extend_from_slice(&[9; 19]);
    let Ok(Request::Scrape { hashes, .. }) = parse(&out, 100) else {
        panic!("not a scrape")
    };
    assert_eq!(hashes.collect::<Vec<_>>(), asked);
    let mut many = Vec::new();
    write_scrape_request(C, T, &[InfoHash([1; 20]); 100], &mut many);
    let Ok(Request::Scrape { hashes, .. }) = parse(&many, 100) else {
        panic!("not a scrape")
    };
    assert_eq!(hashes.len(), MAX_SCRAPE);
    assert!(parse(&many, 0).is_err());
}

fn reply() -> AnnounceReply {
    AnnounceReply {
        counts: SwarmCounts {
            seeders: 3,
            leechers: 12,
            downloaders: 12,
            completed: 7,
        },
        interval: 1800,
        min_interval: 300,
        observed: Host::ip_only("192.0.2.1".parse().unwrap()),
        warning: None,
    }
}

fn push_all(writer: &mut AnnounceWriter<'_>) {
    for (ia, ip, reach) in [
        ("0-0", "10.0.0.1", Reach::Ip),
        ("0-0", "2001:db8::1", Reach::Ip),
        ("1-ff00:0:110", "10.0.0.2", Reach::Scion),
        ("1-ff00:0:110", "2001:db8::2", Reach::Scion),
        ("1-ff00:0:111", "10.0.0.3", Reach::Both),
    ] {
        let packed = CompactAddr::new(ip.parse().unwrap(), 6881);
        writer.push(Peer {
            ia: ia.parse().unwrap(),
            reach,
            addr: match &packed {
                CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
                CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
            },
            id: &PeerId([0; 20]),
        });
    }
}

const LAYOUTS: [Layout; 5] = [
    Layout::Ip4,
    Layout::Ip6,
    Layout::Scion4,
    Layout::Scion6,
    Layout::Scion46,
];

#[test]
fn replies_snapshot() {
    let mut buffer = [0xee; 200];
    let length = write_connect(&mut buffer, T, C);
    assert_eq!(hex(&buffer[..length]), "00000000010203041122334455667788");

    let head = "0000000101020304000007080000000c00000003";
    let v6 = "20010db80000000000000000000000";
    for (layout, peers) in [
        (Layout::Ip4, "0a0000011ae10a0000031ae1".to_owned()),
        (Layout::Ip6, format!("{v6}011ae1")),
        (
            Layout::Scion4,
            "0001ff00000001100a0000021ae10001ff00000001110a0000031ae1".to_owned(),
        ),
        (Layout::Scion6, format!("0001ff0000000110{v6}021ae1")),
        (
            Layout::Scion46,
            format!(
                "0000000000000000\
                 0001ff000000011000000000000000000000ffff0a0000021ae1\
                 0001ff0000000110{v6}021ae1\
                 0001ff000000011100000000000000000000ffff0a0000031ae1"
            ),
        ),
    ] {
        let mut writer = AnnounceWriter::new(&mut buffer, T, layout);
        push_all(&mut writer);
        let length = writer.finish(&reply());
        assert_eq!(hex(&buffer[..length]), format!("{head}{peers}"));
    }

    let counts = [reply().counts, SwarmCounts::default()];
    let length = write_scrape(&mut buffer, T, counts);
    assert_eq!(
        hex(&buffer[..length]),
        "000000020102030400000003000000070000000c000000000000000000000000"
    );
    let length = write_error(&mut buffer, T, "no");
    assert_eq!(hex(&buffer[..length]), "00000003010203046e6f");
}

#[test]
fn a_reply_is_bounded_by_its_buffer() {
    for room in ANNOUNCE_HEADER..120 {
        for layout in LAYOUTS {
            let mut buffer = vec![0; room];
            let mut writer = AnnounceWriter::new(&mut buffer, T, layout);
            (0..10).for_each(|_| push_all(&mut writer));
            let length = writer.finish(&reply());
            let empty = announce_room(room, layout) * layout.size();
            let opening = match layout {
                Layout::Scion46 if room >= ANNOUNCE_HEADER + 8 => 8,
                _ => 0,
            };
            assert_eq!(length, ANNOUNCE_HEADER + opening + empty);
        }
        let mut buffer = vec![0; room];
        let length = write_scrape(&mut buffer, T, [SwarmCounts::default(); 20]);
        assert_eq!(length, 8 + (room - 8) / 12 * 12);
        assert_eq!(write_error(&mut buffer, T, &"x".repeat(200)), room);
    }
}

#[test]
fn a_list_of_both_families_is_recognized() {
    let mut buffer = [0; 200];
    let mut writer = AnnounceWriter::new(&mut buffer, T, Layout::Scion46);
    push_all(&mut writer);
    let length = writer.finish(&reply());
    for layout in [Layout::Scion4, Layout::Scion6, Layout::Scion46] {
        let Ok(Reply::Announce { peers, .. }) = parse_reply(&buffer[..length], layout) else {
            panic!("not an announce")
        };
        assert_eq!(peers.layout(), Layout::Scion46);
        let peers: Vec<_> = peers.map(|peer| peer.to_string()).collect();
        assert_eq!(
            peers,
            [
                "1-ff00:0:110,[10.0.0.2]:6881",
                "1-ff00:0:110,[2001:db8::2]:6881",
                "1-ff00:0:111,[10.0.0.3]:6881"
            ]
        );
    }
    for layout in [Layout::Ip4, Layout::Ip6] {
        if let Ok(Reply::Announce { peers, .. }) = parse_reply(&buffer[..length], layout) {
            assert_eq!(peers.layout(), layout);
        }
    }
}

#[test]
fn a_client_says_that_it_reads_both_families() {
    for (url, expected) in [
        ("", false),
        ("/scion46=1", false),
        ("?scion46=1", true),
        ("/announce?x=1&scion46=1&ia=1-1", true),
        ("?scion46=0", false),
        ("?scion46=", false),
        ("?scion46", false),
        ("?scion46=2", false),
        ("?scion46=1&scion46=0", true),
        ("?scion46=0&scion46=1", false),
        ("?scion=1", false),
        // The announce has an error.
        ("?scion46=1&ia=0-0", false),
    ] {
        let packet = packet(&announce(), url);
        let Ok(Request::Announce { reads_scion46, .. }) = parse(&packet, 1) else {
            panic!("{url}")
        };
        assert_eq!(reads_scion46, expected, "{url}");
    }
}

#[test]
fn the_client_reads_every_reply() {
    let mut buffer = [0; 200];
    let length = write_connect(&mut buffer, T, C);
    let read = parse_reply(&buffer[..length], Layout::Ip4).unwrap();
    assert!(matches!(
        read,
        Reply::Connect {
            transaction: T,
            connection: C
        }
    ));

    let mut writer = AnnounceWriter::new(&mut buffer, T, Layout::Scion4);
    push_all(&mut writer);
    let length = writer.finish(&reply());
    let Ok(Reply::Announce {
        interval,
        leechers,
        seeders,
        peers,
        ..
    }) = parse_reply(&buffer[..length], Layout::Scion4)
    else {
        panic!("not an announce")
    };
    assert_eq!((interval, leechers, seeders), (1800, 12, 3));
    let peers: Vec<_> = peers.map(|peer| peer.to_string()).collect();
    assert_eq!(
        peers,
        [
            "1-ff00:0:110,[10.0.0.2]:6881",
            "1-ff00:0:111,[10.0.0.3]:6881"
        ]
    );

    let counts = SwarmCounts {
        downloaders: 0,
        ..reply().counts
    };
    let length = write_scrape(&mut buffer, T, [counts, SwarmCounts::default()]);
    let Ok(Reply::Scrape { counts: read, .. }) = parse_reply(&buffer[..length], Layout::Ip4) else {
        panic!("not a scrape")
    };
    assert_eq!(read.collect::<Vec<_>>(), [counts, SwarmCounts::default()]);

    let length = write_error(&mut buffer, T, "no");
    let read = parse_reply(&buffer[..length], Layout::Ip4).unwrap();
    assert!(matches!(read, Reply::Error { message: b"no", .. }));
    assert_eq!(read.transaction(), T);
    for length in 0..8 {
        assert!(parse_reply(&buffer[..length], Layout::Ip4).is_err());
    }
}

proptest! {
    #[test]
    fn announces_round_trip(mut announce in any_announce()) {
        // Values that BEP 15 cannot hold.
        announce.named_ip = announce.named_ip.filter(IpAddr::is_ipv4);
        announce.numwant = announce.numwant.map(|n| (n >> 1).max(1));
        announce.key = announce.key.filter(|key| *key != 0);
        let packet = packet(&announce, "/announce");
        prop_assert_eq!(read(&packet), Ok(announce));
        for end in 0..98 {
            prop_assert!(parse(&packet[..end], MAX_SCRAPE).is_err());
        }
        for end in 98..packet.len() {
            let _ = parse(&packet[..end], MAX_SCRAPE);
        }
    }

    #[test]
    // No peer over SCION has the ISD-AS 0-0.
    fn peers_round_trip(ia in 1..=u64::MAX, peers: Vec<(IpAddr, u16)>) {
        for layout in LAYOUTS {
            let mut buffer = vec![0; 6000];
            let mut writer = AnnounceWriter::new(&mut buffer, T, layout);
            let mut expected = Vec::new();
            for (ip, port) in &peers {
                let packed = CompactAddr::new(*ip, *port);
                let addr = match &packed {
                    CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
                    CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
                };
                let ia = IsdAs::from_u64(ia);
                writer.push(Peer { ia, reach: Reach::Both, addr, id: &PeerId([0; 20]) });
                let family = Family::of(packed.socket_addr().ip());
                if [Carries::All, Carries::One(family)].contains(&layout.carries()) {
                    expected.push(packed.socket_addr());
                }
            }
            let length = writer.finish(&reply());
            let Ok(Reply::Announce { peers, .. }) = parse_reply(&buffer[..length], layout) else {
                panic!("not an announce")
            };
            prop_assert_eq!(peers.map(|peer| peer.addr).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        action in 0..4_u8,
        max: usize,
    ) {
        let _ = parse(&bytes, max);
        for (at, byte) in bytes.iter_mut().enumerate().take(12).skip(8) {
            *byte = if at == 11 { action } else { 0 };
        }
        if let Ok(Request::Announce { url, .. }) = parse(&bytes, max) {
            let _ = url.read(&mut UrlBuffer::new());
        }
        for layout in LAYOUTS {
            let _ = parse_reply(&bytes, layout);
        }
    }
}
