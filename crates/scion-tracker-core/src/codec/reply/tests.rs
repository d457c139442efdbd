use std::net::IpAddr;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::address::{CompactAddr, Host};
use crate::codec::compact::Endpoint;
use crate::request::{AnnounceRequest, Claim};
use crate::response::{Reach, Warning};
use crate::types::PeerId;

const ID: PeerId = PeerId(*b"-LT2110-2Hk2RLxj.gRc");

fn reply() -> AnnounceReply {
    AnnounceReply {
        counts: SwarmCounts {
            seeders: 3,
            leechers: 12,
            downloaders: 10,
            completed: 1000,
        },
        interval: 1800,
        min_interval: 300,
        observed: Host::ip_only("192.0.2.1".parse().unwrap()),
        warning: None,
    }
}

fn push(peers: &mut Peers, ia: &str, addr: &str, reach: Reach) {
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    let packed = CompactAddr::new(addr.ip(), addr.port());
    peers.push(Peer {
        ia: ia.parse().unwrap(),
        reach,
        addr: match &packed {
            CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
            CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
        },
        id: &ID,
    });
}

/// One peer of each kind.
fn peers(form: Form) -> Peers {
    let mut peers = Peers::new(form);
    push(&mut peers, "0-0", "10.0.0.1:6881", Reach::Ip);
    push(&mut peers, "0-0", "[2001:db8::1]:6882", Reach::Ip);
    push(&mut peers, "1-ff00:0:110", "10.0.0.2:6883", Reach::Scion);
    push(
        &mut peers,
        "1-ff00:0:111",
        "[2001:db8::2]:6884",
        Reach::Both,
    );
    push(&mut peers, "64-559", "10.0.0.3:6885", Reach::Both);
    push(&mut peers, "64-560", "10.0.0.4:6886", Reach::Ip);
    peers
}

fn written(form: Form) -> String {
    let mut out = Vec::new();
    peers(form).write(&reply(), &mut out);
    out.escape_ascii().to_string()
}

const HEAD: &str = r"d8:completei3e10:downloadedi1000e11:external ip4:\xc0\x00\x02\x0110:incompletei12e8:intervali1800e12:min intervali300e";

#[test]
fn compact_snapshot() {
    let list = r"5:peers18:\n\x00\x00\x01\x1a\xe1\n\x00\x00\x03\x1a\xe5\n\x00\x00\x04\x1a\xe6";
    let list6 = r" \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe2 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x1a\xe4";
    assert_eq!(
        written(Form::Compact),
        format!("{HEAD}{list}6:peers636:{list6}e")
    );
}

#[test]
fn scion_compact_snapshot() {
    let list = r"5:peers12:\n\x00\x00\x01\x1a\xe1\n\x00\x00\x04\x1a\xe6";
    let list6 = r" \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe2";
    let scion4 = r"\x00\x01\xff\x00\x00\x00\x01\x10\n\x00\x00\x02\x1a\xe3\x00@\x00\x00\x00\x00\x02/\n\x00\x00\x03\x1a\xe5";
    let scion6 = r"\x00\x01\xff\x00\x00\x00\x01\x11 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x1a\xe4";
    assert_eq!(
        written(Form::ScionCompact),
        format!(
            "{HEAD}{list}6:peers618:{list6}12:peers_scion428:{scion4}12:peers_scion626:{scion6}e"
        )
    );
}

#[test]
fn dictionaries_snapshot() {
    let peer = |ip: &str, port: u16, id: &str| format!("d2:ip{ip}{id}4:porti{port}ee");
    for (peer_ids, id) in [(true, "7:peer id20:-LT2110-2Hk2RLxj.gRc"), (false, "")] {
        let list = [
            peer("8:10.0.0.1", 6881, id),
            peer("11:2001:db8::1", 6882, id),
            peer("11:2001:db8::2", 6884, id),
            peer("8:10.0.0.3", 6885, id),
            peer("8:10.0.0.4", 6886, id),
        ];
        assert_eq!(
            written(Form::Dictionaries { peer_ids }),
            format!("{HEAD}5:peersl{}ee", list.concat())
        );
    }
}

#[test]
fn scion_dictionaries_snapshot() {
    for (peer_ids, id, peer_id) in [
        (
            true,
            "2:id20:-LT2110-2Hk2RLxj.gRc",
            "7:peer id20:-LT2110-2Hk2RLxj.gRc",
        ),
        (false, "", ""),
    ] {
        let peer = |ia: &str, ip: &str, port: u16| {
            format!("d2:ia{ia}{id}2:ip{ip}{peer_id}4:porti{port}ee")
        };
        let list = [
            peer("3:0-0", "8:10.0.0.1", 6881),
            peer("3:0-0", "11:2001:db8::1", 6882),
            peer("12:1-ff00:0:110", "8:10.0.0.2", 6883),
            peer("12:1-ff00:0:111", "11:2001:db8::2", 6884),
            peer("6:64-559", "8:10.0.0.3", 6885),
            peer("3:0-0", "8:10.0.0.4", 6886),
        ];
        assert_eq!(
            written(Form::ScionDictionaries { peer_ids }),
            format!("{HEAD}5:peersl{}ee", list.concat())
        );
    }
}

#[test]
fn no_peers_snapshot() {
    let mut peers = peers(Form::ScionCompact);
    let mut out = Vec::new();
    peers.reset(Form::Compact);
    let ip: IpAddr = "::1".parse().unwrap();
    let told = AnnounceReply {
        observed: Host::ip_only(ip),
        warning: Some(Warning::ClaimIgnored),
        ..reply()
    };
    peers.write(&told, &mut out);
    let answer = parse_announce_reply(&out).unwrap();
    assert_eq!(answer.external_ip, Some(ip));
    assert_eq!(
        answer.warning.as_deref(),
        Some(Warning::ClaimIgnored.message())
    );
    assert!(out.ends_with(
        b"e5:peers0:15:warning message53:claimed ISD-AS ignored by this tracker's place policye"
    ));

    for (form, tail) in [
        (Form::Compact, "5:peers0:e"),
        (Form::Dictionaries { peer_ids: true }, "5:peerslee"),
        (Form::ScionDictionaries { peer_ids: true }, "5:peerslee"),
        (
            Form::ScionCompact,
            "5:peers0:12:peers_scion40:12:peers_scion60:e",
        ),
    ] {
        let mut out = Vec::new();
        peers.reset(form);
        peers.write(&reply(), &mut out);
        assert_eq!(out.escape_ascii().to_string(), format!("{HEAD}{tail}"));
    }
}

#[test]
fn form_of_each_requester() {
    let ip = Origin::ip("10.0.0.1".parse().unwrap());
    let host = Host::new("1-ff00:0:110".parse().unwrap(), ip.host.ip());
    let scion = Origin::scion(host);
    let none = Claim::default();
    let ia = Claim {
        ia: Some(host.ia),
        ..none
    };
    let capable = Claim {
        scion: ScionClaim::Capable,
        ..none
    };
    let at = Claim {
        scion: ScionClaim::At("1-ff00:0:110,10.0.0.1:1".parse().unwrap()),
        ..none
    };
    let plain = Form::Dictionaries { peer_ids: true };
    let placed = Form::ScionDictionaries { peer_ids: true };
    for (origin, claim, compact, form) in [
        (ip, none, None, Form::Compact),
        (ip, none, Some(true), Form::Compact),
        (ip, none, Some(false), plain),
        (ip, ia, None, placed),
        (ip, ia, Some(true), placed),
        (ip, capable, None, placed),
        (ip, capable, Some(false), placed),
        (ip, capable, Some(true), Form::ScionCompact),
        (ip, at, Some(true), Form::ScionCompact),
        (scion, none, None, placed),
        (scion, none, Some(true), placed),
        (scion, capable, Some(true), Form::ScionCompact),
    ] {
        let port = 1;
        let mut announce = AnnounceRequest::new(InfoHash([0; 20]), ID, port, 0);
        announce.claim = claim;
        let mut query = AnnounceQuery {
            announce,
            compact,
            no_peer_id: false,
        };
        assert_eq!(
            Form::of(&origin, &query),
            form,
            "{origin:?} {claim:?} {compact:?}"
        );
        query.no_peer_id = true;
        let without = match form {
            Form::Dictionaries { .. } => Form::Dictionaries { peer_ids: false },
            Form::ScionDictionaries { .. } => Form::ScionDictionaries { peer_ids: false },
            other => other,
        };
        assert_eq!(Form::of(&origin, &query), without);
    }
}

#[test]
fn the_client_reads_every_form() {
    let endpoint = |ia: &str, addr: &str| Endpoint {
        ia: ia.parse().unwrap(),
        addr: addr.parse().unwrap(),
    };
    let scion = [
        endpoint("1-ff00:0:110", "10.0.0.2:6883"),
        endpoint("64-559", "10.0.0.3:6885"),
        endpoint("1-ff00:0:111", "[2001:db8::2]:6884"),
    ];
    let plain = [
        endpoint("0-0", "10.0.0.1:6881"),
        endpoint("0-0", "10.0.0.4:6886"),
        endpoint("0-0", "[2001:db8::1]:6882"),
    ];
    let both = [
        endpoint("0-0", "10.0.0.3:6885"),
        endpoint("0-0", "[2001:db8::2]:6884"),
    ];
    for (form, mut expected) in [
        (Form::Compact, [&plain[..], &both].concat()),
        (
            Form::Dictionaries { peer_ids: true },
            [&plain[..], &both].concat(),
        ),
        (Form::ScionCompact, [&scion[..], &plain].concat()),
        (
            Form::ScionDictionaries { peer_ids: true },
            [&scion[..], &plain].concat(),
        ),
    ] {
        let mut out = Vec::new();
        peers(form).write(&reply(), &mut out);
        let answer = parse_announce_reply(&out).unwrap();
        let mut found: Vec<_> = answer.peers.iter().map(|peer| peer.endpoint).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{form:?}");
        let ids = matches!(
            form,
            Form::Dictionaries { .. } | Form::ScionDictionaries { .. }
        );
        assert!(answer.peers.iter().all(|peer| peer.id == ids.then_some(ID)));
        assert_eq!(answer.unreadable, 0);
        assert_eq!((answer.complete, answer.incomplete), (Some(3), Some(12)));
        assert_eq!((answer.interval, answer.min_interval), (1800, Some(300)));
        assert_eq!(answer.downloaded, Some(1000));
        for end in 0..out.len() {
            assert!(parse_announce_reply(&out[..end]).is_err());
        }
    }
}

#[test]
fn the_client_takes_no_wildcard_for_a_place() {
    // In dictionaries `0-0` means plain IP.
    let peer = |ia: &str| format!("d2:ia{}:{ia}2:ip8:10.0.0.14:porti9ee", ia.len());
    let peers: String = ["0-0", "1-0", "0-ff00:0:110", "1-1"].map(peer).concat();
    let reply = format!("d8:intervali60e5:peersl{peers}ee");
    let answer = parse_announce_reply(reply.as_bytes()).unwrap();
    assert_eq!(answer.unreadable, 2);
    let found: Vec<_> = answer
        .peers
        .iter()
        .map(|peer| peer.endpoint.to_string())
        .collect();
    assert_eq!(found, ["10.0.0.1:9", "1-1,[10.0.0.1]:9"]);

    // In a list of SCION peers, a host in `0-0` would look like one on the ordinary Internet.
    let mut reply = b"d8:intervali60e12:peers_scion442:".to_vec();
    for ia in [0_u64, 1 << 48, (1 << 48) | 1] {
        reply.extend(ia.to_be_bytes());
        reply.extend([10, 0, 0, 1, 0, 9]);
    }
    reply.push(b'e');
    let answer = parse_announce_reply(&reply).unwrap();
    assert_eq!(answer.unreadable, 2);
    assert_eq!(answer.peers.len(), 1);
    assert_eq!(answer.peers[0].endpoint.to_string(), "1-1,[10.0.0.1]:9");
}

#[test]
fn the_client_accepts_replies_of_other_trackers() {
    let reply = b"d8:intervali60e5:peersld2:ip11:example.org4:porti1eed2:ip9:127.0.0.14:porti0ee\
        d2:ip9:127.0.0.17:peer id2:xy4:porti9eed2:ia3:x-y2:ip9:127.0.0.14:porti9eei7eee";
    let answer = parse_announce_reply(reply).unwrap();
    assert_eq!(answer.unreadable, 4);
    assert_eq!(answer.peers.len(), 1);
    assert_eq!(answer.peers[0].id, None);
    assert_eq!(answer.complete, None);
    for reply in [
        "d8:intervali1800e5:peers6:\x01\x02\x03\x04\x1a\x01e\r\n",
        "d5:peers6:\x01\x02\x03\x04\x1a\x01e",
        "d8:interval2:605:peers6:\x01\x02\x03\x04\x1a\x01e",
        "d8:intervali-1e5:peers6:\x01\x02\x03\x04\x1a\x01ed",
    ] {
        let answer = parse_announce_reply(reply.as_bytes()).unwrap();
        assert_eq!((answer.interval, answer.peers.len()), (1800, 1), "{reply}");
    }
    let followed = parse_scrape_reply(b"d5:filesdee\n").unwrap();
    assert_eq!(followed, ScrapeAnswer::default());
    for (reply, error) in [
        ("de", ReplyError::Field("interval")),
        ("i1e", ReplyError::Field("dictionary")),
        ("d8:intervali-1ee", ReplyError::Field("interval")),
        ("d8:intervali1e5:peers5:abcdee", ReplyError::Field("peers")),
        ("d8:intervali1e5:peersi1ee", ReplyError::Field("peers")),
        (
            "<html>",
            ReplyError::Bencode(crate::codec::bencode::BencodeError::Syntax),
        ),
    ] {
        assert_eq!(
            parse_announce_reply(reply.as_bytes()),
            Err(error),
            "{reply}"
        );
    }
    assert_eq!(parse_scrape_reply(b"de"), Err(ReplyError::Field("files")));
    assert_eq!(
        parse_scrape_reply(b"d5:filesd1:adeee"),
        Err(ReplyError::Field("files"))
    );
}

#[test]
fn failures() {
    let failure = |retry, interval| Failure {
        reason: "no".to_owned(),
        retry,
        interval,
    };
    for (retry_in, interval, bytes, expected) in [
        (None, None, "d14:failure reason2:noe", failure(None, None)),
        (
            Some(30),
            Some(1800),
            "d14:failure reason2:no8:intervali1800e8:retry ini30ee",
            failure(Some(Retry::InMinutes(30)), Some(1800)),
        ),
        (
            Some(0),
            None,
            "d14:failure reason2:no8:retry ini1ee",
            failure(Some(Retry::InMinutes(1)), None),
        ),
    ] {
        let mut out = Vec::new();
        write_failure("no", retry_in, interval, &mut out);
        assert_eq!(out, bytes.as_bytes());
        assert_eq!(
            parse_announce_reply(&out),
            Err(ReplyError::Failure(expected.clone()))
        );
        assert_eq!(parse_scrape_reply(&out), Err(ReplyError::Failure(expected)));
    }
    for (retry, expected) in [
        ("5:never", Some(Retry::Never)),
        ("1:5", Some(Retry::InMinutes(5))),
        ("1:x", None),
        ("le", None),
    ] {
        let bytes = format!("d14:failure reason2:no8:retry in{retry}e");
        assert_eq!(
            parse_announce_reply(bytes.as_bytes()),
            Err(ReplyError::Failure(failure(expected, None)))
        );
    }
}

#[test]
fn scrape_snapshot() {
    let counts = reply().counts;
    let mut entries = [
        (InfoHash(*b"bbbbbbbbbbbbbbbbbbbb"), SwarmCounts::default()),
        (InfoHash(*b"aaaaaaaaaaaaaaaaaaaa"), counts),
        (InfoHash(*b"bbbbbbbbbbbbbbbbbbbb"), SwarmCounts::default()),
    ];
    let mut out = Vec::new();
    write_scrape(&mut entries, 300, &mut out);
    let expected = "d5:filesd\
        20:aaaaaaaaaaaaaaaaaaaad8:completei3e10:downloadedi1000e11:downloadersi10e10:incompletei12ee\
        20:bbbbbbbbbbbbbbbbbbbbd8:completei0e10:downloadedi0e10:incompletei0ee\
        e5:flagsd20:min_request_intervali300eee";
    assert_eq!(out.escape_ascii().to_string(), expected);
    let answer = parse_scrape_reply(&out).unwrap();
    assert_eq!(answer.files, [entries[0], entries[1]]);
    assert_eq!(answer.min_request_interval, Some(300));
    for end in 0..out.len() {
        assert!(parse_scrape_reply(&out[..end]).is_err());
    }
}

/// The reply as decoded by an independent implementation.
#[derive(Debug, Deserialize)]
struct Independent {
    complete: u32,
    downloaded: u32,
    incomplete: u32,
    interval: u32,
    peers: serde_bencode::value::Value,
    peers6: Option<serde_bencode::value::Value>,
}

proptest! {
    #[test]
    fn replies_round_trip(
        counts: [u32; 4],
        interval: u32,
        // No wildcards: readers drop peers that are nowhere.
        hosts in prop::collection::vec(
            ((1_u16.., 1..1_u64 << 48), any::<IpAddr>(), 1_u16.., 0..3_u8),
            0..40,
        ),
    ) {
        let reply = AnnounceReply {
            counts: SwarmCounts {
                seeders: counts[0],
                leechers: counts[1],
                downloaders: counts[2],
                completed: counts[3],
            },
            interval,
            ..reply()
        };
        for form in [
            Form::Compact,
            Form::ScionCompact,
            Form::Dictionaries { peer_ids: true },
            Form::ScionDictionaries { peer_ids: false },
        ] {
            let mut peers = Peers::new(form);
            let mut expected = 0;
            for ((isd, asn), ip, port, reach) in &hosts {
                let packed = CompactAddr::new(*ip, *port);
                let reach = [Reach::Ip, Reach::Scion, Reach::Both][usize::from(*reach)];
                peers.push(Peer {
                    ia: IsdAs::from_u64(u64::from(*isd) << 48 | asn),
                    reach,
                    addr: match &packed {
                        CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
                        CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
                    },
                    id: &ID,
                });
                let scion = matches!(form, Form::ScionCompact | Form::ScionDictionaries { .. });
                expected += usize::from(scion || reach.over_ip());
            }
            let mut out = Vec::new();
            peers.write(&reply, &mut out);
            let answer = parse_announce_reply(&out).unwrap();
            prop_assert_eq!(answer.peers.len(), expected);
            let other: Independent = serde_bencode::from_bytes(&out).unwrap();
            prop_assert_eq!(
                [other.complete, other.incomplete, counts[2], other.downloaded],
                counts
            );
            prop_assert_eq!(other.interval, interval);
            let _ = (other.peers, other.peers6);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_announce_reply(&bytes);
        let _ = parse_scrape_reply(&bytes);
    }
}
