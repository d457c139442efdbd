use proptest::prelude::*;

use super::*;

const HASH: &str = "info_hash=%91S~%f0%16%ferU%7fi%1e(Q%cb%9dj%c9g%f8%98";
const REST: &str = "peer_id=-LT2110-2Hk2RLxj.gRc&port=6881&left=7";

fn announce_with(extra: &str) -> Result<AnnounceQuery, QueryError> {
    parse_announce(&format!("{HASH}&{REST}&{extra}"))
}

fn read(extra: &str) -> AnnounceRequest {
    announce_with(extra).unwrap().announce
}

#[test]
fn every_field() {
    let query = announce_with(
        "uploaded=1&downloaded=2&event=started&numwant=80&key=23a77969&compact=1&no_peer_id=1\
         &ia=1-ff00%3a0%3A110&scion=1-ff00:0:110,%5B10.0.0.1%5D:6881&ip=192.0.2.1&supportcrypto=1",
    )
    .unwrap();
    let ia: IsdAs = "1-ff00:0:110".parse().unwrap();
    let announce = AnnounceRequest {
        info_hash: "91537ef016fe72557f691e2851cb9d6ac967f898".parse().unwrap(),
        peer_id: PeerId(*b"-LT2110-2Hk2RLxj.gRc"),
        port: 6881,
        left: 7,
        uploaded: 1,
        downloaded: 2,
        event: Event::Started,
        numwant: Some(80),
        key: Some(0x23a7_7969),
        claim: Claim {
            ia: Some(ia),
            scion: ScionClaim::At("1-ff00:0:110,10.0.0.1:6881".parse().unwrap()),
        },
        named_ip: Some("192.0.2.1".parse().unwrap()),
        passkey: None,
    };
    let expected = AnnounceQuery {
        announce,
        compact: Some(true),
        no_peer_id: true,
    };
    assert_eq!(query, expected);
    let mut out = String::new();
    write_announce(&query, &mut out);
    assert_eq!(
        out,
        "info_hash=%91S~%F0%16%FErU%7Fi%1E%28Q%CB%9Dj%C9g%F8%98&peer_id=-LT2110-2Hk2RLxj.gRc\
         &port=6881&uploaded=1&downloaded=2&left=7&event=started&numwant=80&key=23A77969\
         &compact=1&no_peer_id=1&ip=192.0.2.1&ia=1-ff00:0:110\
         &scion=1-ff00:0:110,%5B10.0.0.1%5D:6881"
    );
}

#[test]
fn nothing_optional() {
    let expected = AnnounceRequest::new(
        "91537ef016fe72557f691e2851cb9d6ac967f898".parse().unwrap(),
        PeerId(*b"-LT2110-2Hk2RLxj.gRc"),
        6881,
        7,
    );
    for extra in [
        "",
        "&",
        "&&",
        "event=&numwant=&key=&ip=&compact=&uploaded=&x",
        "=",
        "=1",
    ] {
        let query = announce_with(extra).unwrap();
        assert_eq!(query.announce, expected, "{extra}");
        assert_eq!((query.compact, query.no_peer_id), (None, false), "{extra}");
    }
}

#[test]
fn required_fields() {
    let fields = [
        (HASH, QueryError::NoInfoHash),
        ("peer_id=-LT2110-2Hk2RLxj.gRc", QueryError::NoPeerId),
        ("port=6881", QueryError::NoPort),
    ];
    for (i, (field, error)) in fields.iter().enumerate() {
        let others = || fields.iter().enumerate().filter(move |(j, _)| *j != i);
        let without: Vec<_> = others().map(|(_, (field, _))| *field).collect();
        let without = without.join("&");
        assert_eq!(parse_announce(&without), Err(*error), "{field}");
        assert!(parse_announce(&format!("{without}&{field}")).is_ok());
        let twice = format!("{without}&{field}&{field}");
        assert_eq!(parse_announce(&twice), Err(QueryError::Repeated));
    }
    assert_eq!(parse_announce(""), Err(QueryError::NoInfoHash));
}

#[test]
fn an_unreadable_left_is_unknown() {
    let id = "a".repeat(20);
    let read = |extra: &str| {
        let query = format!("{HASH}&peer_id={id}&port=1{extra}");
        parse_announce(&query).unwrap().announce
    };
    for left in [
        "&left",
        "",
        "-1",
        "18446744073709551616",
        "None",
        "1e3",
        "+5",
    ] {
        let extra = if left.starts_with('&') {
            left.to_owned()
        } else {
            format!("&left={left}")
        };
        let announce = read(&extra);
        assert_eq!(announce.left, AnnounceRequest::LEFT_UNKNOWN, "{left}");
        assert!(!announce.is_seeder());
        assert!(read(&format!("{extra}&event=completed")).is_seeder());
    }
    assert!(read("&left=0").is_seeder());
    assert!(!read("&left=1&event=completed").is_seeder());
    assert_eq!(read("").left, AnnounceRequest::LEFT_UNKNOWN);
}

#[test]
fn values_that_are_not_used_never_refuse() {
    for extra in ["uploaded=-1&downloaded=x", "uploaded=1e3", "key=x&key=%00"] {
        let announce = read(extra);
        assert_eq!((announce.uploaded, announce.downloaded), (0, 0), "{extra}");
    }
}

#[test]
fn bad_values_are_refused() {
    let id = "a".repeat(20);
    for (query, error) in [
        ("info_hash=".to_owned(), QueryError::BadInfoHash),
        (
            format!("info_hash={}", "a".repeat(19)),
            QueryError::BadInfoHash,
        ),
        (
            format!("info_hash={}", "a".repeat(21)),
            QueryError::BadInfoHash,
        ),
        (
            format!("info_hash={}", "a".repeat(33)),
            QueryError::BadInfoHash,
        ),
        (
            format!("info_hash={}%", "a".repeat(20)),
            QueryError::BadInfoHash,
        ),
        (format!("{HASH}&peer_id={id}a"), QueryError::BadPeerId),
        (
            format!("{HASH}&peer_id={}", &id[1..]),
            QueryError::BadPeerId,
        ),
        (
            format!("{HASH}&peer_id=%zz{}", &id[1..]),
            QueryError::BadPeerId,
        ),
    ] {
        assert_eq!(parse_announce(&query), Err(error), "{query}");
    }
    for port in [
        "",
        "65536",
        "-1",
        "+1",
        "1.0",
        "0x10",
        " 1",
        "99999999999999999999999",
    ] {
        let query = format!("{HASH}&peer_id={id}&left=0&port={port}");
        assert_eq!(parse_announce(&query), Err(QueryError::BadPort), "{port}");
    }
    let query = format!("{HASH}&peer_id={id}&left=0&port=0");
    assert_eq!(parse_announce(&query).unwrap().announce.port, 0);
    for (extra, error) in [
        ("ia=", QueryError::BadIa),
        ("ia", QueryError::BadIa),
        ("ia=1", QueryError::BadIa),
        ("ia=1-ff00:0:110%20", QueryError::BadIa),
        ("ia=1-ff00:0:110%ff", QueryError::BadIa),
        (
            "ia=1-ff00:0:1100000000000000000000000000000",
            QueryError::BadIa,
        ),
        ("ia=0-0", QueryError::WildcardIa),
        ("ia=1-0", QueryError::WildcardIa),
        ("ia=1-1&ia=1-1", QueryError::Repeated),
        ("scion=", QueryError::BadScion),
        ("scion", QueryError::BadScion),
        ("scion=2", QueryError::BadScion),
        ("scion=1-1,10.0.0.1", QueryError::BadScion),
        ("scion=1-1,10.0.0.1:0", QueryError::BadScion),
        ("scion=0-1,10.0.0.1:1", QueryError::WildcardScion),
        ("scion=0&scion=1", QueryError::Repeated),
    ] {
        assert_eq!(announce_with(extra), Err(error), "{extra}");
    }
    let long = format!("x={}", "a".repeat(MAX_QUERY));
    assert_eq!(announce_with(&long), Err(QueryError::TooLong));
    assert_eq!(parse_scrape(&long, 1), Err(QueryError::TooLong));
}

#[test]
fn deviations_of_clients_are_accepted() {
    assert_eq!(read("event=paused").event, Event::Paused);
    assert_eq!(read("event=nonsense").event, Event::None);
    for (numwant, expected) in [
        ("0", Some(0)),
        ("-1", None),
        ("-200", None),
        ("None", None),
        ("4294967296", Some(u32::MAX)),
        ("99999999999999999999999999", Some(u32::MAX)),
    ] {
        assert_eq!(read(&format!("numwant={numwant}")).numwant, expected);
    }
    for (key, expected) in [
        ("882362DC", Some(0x8823_62dc)),
        ("7", Some(7)),
        ("%c7e%cbR%8f%a2%9f%07", None),
        ("0123456789", None),
        ("+1", None),
    ] {
        assert_eq!(read(&format!("key={key}")).key, expected, "{key}");
    }
    assert_eq!(read("port%20=1&INFO_HASH=1&left2=").left, 7);
    let v2 = format!("info_hash={}&{REST}", "%ab".repeat(32));
    assert_eq!(
        parse_announce(&v2).unwrap().announce.info_hash,
        InfoHash([0xab; 20])
    );
    let same = format!("info_hash={0}&peer_id={0}&port=1&left=0", "a+".repeat(10));
    let same = parse_announce(&same).unwrap().announce;
    assert_eq!(same.info_hash.0, same.peer_id.0);
    assert_eq!(same.info_hash.0, *b"a+a+a+a+a+a+a+a+a+a+");
}

#[test]
fn named_addresses() {
    for (extra, expected) in [
        ("ip=192.0.2.1", Some("192.0.2.1")),
        ("ipv6=None&ipv4=None", None),
        ("ipv6=None&ipv4=192.0.2.1", Some("192.0.2.1")),
        ("ipv6=2001%3adb8%3A%3a1&ip=192.0.2.1", Some("2001:db8::1")),
        ("ipv6=[2001:db8::1]:6881", Some("2001:db8::1")),
        ("ipv4=192.0.2.1:6881", Some("192.0.2.1")),
        ("ip=::ffff:192.0.2.1", Some("192.0.2.1")),
        ("ip=0.0.0.0&ipv6=::", None),
        ("ip=example.org", None),
        ("ip=1-ff00:0:110,10.0.0.1", None),
    ] {
        let expected = expected.map(|ip| ip.parse().unwrap());
        assert_eq!(read(extra).named_ip, expected, "{extra}");
    }
}

#[test]
fn the_first_of_repeated_optional_fields_counts() {
    let query =
        announce_with("numwant=5&numwant=6&compact=0&compact=1&event=stopped&event=started")
            .unwrap();
    assert_eq!(query.announce.numwant, Some(5));
    assert_eq!(query.announce.event, Event::Stopped);
    assert_eq!(query.compact, Some(false));
}

#[test]
fn scrapes() {
    let hash = "91537ef016fe72557f691e2851cb9d6ac967f898".parse().unwrap();
    let other = InfoHash(*b"aaaaaaaaaaaaaaaaaaaa");
    let three = format!("{HASH}&x=1&info_hash=aaaaaaaaaaaaaaaaaaaa&{HASH}");
    assert_eq!(
        parse_scrape(&three, 3).map(|it| it.hashes),
        Ok(vec![hash, other, hash])
    );
    assert_eq!(parse_scrape(&three, 2), Err(QueryError::TooManyInfoHashes));
    assert_eq!(parse_scrape("", 3), Err(QueryError::NoInfoHash));
    assert_eq!(parse_scrape("info_hash=1", 3), Err(QueryError::BadInfoHash));
    let hundred = format!("info_hash={}", "%ff".repeat(20));
    let hundred = vec![hundred; 100].join("&");
    assert_eq!(
        parse_scrape(&hundred, 100).map(|it| it.hashes.len()),
        Ok(100)
    );
    let mut out = String::new();
    write_scrape(&[hash, other], &mut out);
    assert_eq!(
        out,
        "info_hash=%91S~%F0%16%FErU%7Fi%1E%28Q%CB%9Dj%C9g%F8%98&info_hash=aaaaaaaaaaaaaaaaaaaa"
    );
}

#[test]
fn labels_are_unique_and_messages_are_those_of_display() {
    let mut labels: Vec<_> = QueryError::ALL.iter().map(|e| e.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), QueryError::ALL.len());
    for error in QueryError::ALL {
        assert_eq!(error.to_string(), error.message());
    }
}

/// An address that a single host can have.
fn any_host() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| {
        let ip = ip.to_canonical();
        if ip.is_multicast() || ip.is_unspecified() {
            IpAddr::V4([10, 0, 0, 1].into())
        } else {
            ip
        }
    })
}

/// An arbitrary announce.
pub(crate) fn any_announce() -> impl Strategy<Value = AnnounceRequest> {
    let scion = prop_oneof![
        Just(ScionClaim::Absent),
        Just(ScionClaim::Capable),
        (1_u16.., 1_u64..1 << 48, any_host(), 1_u16..).prop_map(|(isd, asn, ip, port)| {
            let ia = IsdAs::from_u64(u64::from(isd) << 48 | asn);
            ScionClaim::At(ScionAddr::new(ia, ip, port).unwrap())
        }),
    ];
    let ia = (1_u16.., 1_u64..1 << 48)
        .prop_map(|(isd, asn)| IsdAs::from_u64(u64::from(isd) << 48 | asn));
    let event = prop_oneof![
        Just(Event::None),
        Just(Event::Started),
        Just(Event::Completed),
        Just(Event::Stopped),
        Just(Event::Paused),
    ];
    let named_ip = any::<Option<IpAddr>>().prop_map(|ip| {
        ip.map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_unspecified())
    });
    let fixed = (
        any::<[u8; 20]>(),
        any::<[u8; 20]>(),
        1_u16..,
        any::<[u64; 3]>(),
    );
    let optional = (any::<Option<u32>>(), any::<Option<u32>>(), named_ip);
    (fixed, event, optional, prop::option::of(ia), scion).prop_map(
        |((hash, id, port, bytes), event, (numwant, key, named_ip), ia, scion)| AnnounceRequest {
            info_hash: InfoHash(hash),
            peer_id: PeerId(id),
            port,
            left: bytes[0],
            uploaded: bytes[1],
            downloaded: bytes[2],
            event,
            numwant,
            key,
            claim: Claim { ia, scion },
            named_ip,
            passkey: None,
        },
    )
}

proptest! {
    #[test]
    fn pairs_are_what_plain_splitting_finds(query in "[&=a-c\u{80}-\u{ff}]{0,40}") {
        let plain: Vec<_> = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        prop_assert_eq!(pairs(query.as_bytes()).collect::<Vec<_>>(), plain);
    }

    #[test]
    fn announces_round_trip(
        announce in any_announce(),
        compact: Option<bool>,
        no_peer_id: bool,
    ) {
        let query = AnnounceQuery { announce, compact, no_peer_id };
        let mut text = String::new();
        write_announce(&query, &mut text);
        prop_assert_eq!(parse_announce(&text), Ok(query));
        for end in 0..text.len() {
            let _ = parse_announce(&text[..end]);
        }
    }

    #[test]
    fn scrapes_round_trip(hashes in prop::collection::vec(any::<[u8; 20]>(), 1..20)) {
        let hashes: Vec<_> = hashes.into_iter().map(InfoHash).collect();
        let mut text = String::new();
        write_scrape(&hashes, &mut text);
        prop_assert_eq!(parse_scrape(&text, hashes.len()).map(|it| it.hashes), Ok(hashes));
    }

    #[test]
    fn any_text_is_read_or_refused(
        parts in prop::collection::vec(
            ("info_hash|peer_id|port|left|ia|scion|ip|key|event|numwant", "[%0-9a-f:,\\[\\]-]{0,40}|.{0,30}"),
            0..8,
        ),
    ) {
        let text: Vec<_> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = parse_announce(&text.join("&"));
        let _ = parse_scrape(&text.join("&"), 3);
    }
}

#[test]
fn the_first_passkey_that_is_one_counts() {
    let passkey = |text: &str| Some(text.parse::<Passkey>().unwrap());
    let longest = format!("&passkey={}", "%61".repeat(64));
    for (extra, expected) in [
        (&*longest, passkey(&"a".repeat(64))),
        (&*format!("{longest}a"), None),
        ("", None),
        ("&passkey=a_-9", passkey("a_-9")),
        ("&passkey=a&passkey=b", passkey("a")),
        ("&passkey=&passkey=b", passkey("b")),
        ("&passkey=a%2Fb", None),
        ("&passkey=%61%5f%2D9", passkey("a_-9")),
        ("&passkey=a%5", None),
        ("&key=abcdef", None),
    ] {
        assert_eq!(read(extra).passkey, expected, "{extra}");
        let scrape = format!("info_hash={}{extra}", "%01".repeat(20));
        assert_eq!(
            parse_scrape(&scrape, 1).unwrap().passkey,
            expected,
            "{extra}"
        );
    }
}

#[test]
fn question_marks_join_queries() {
    let query = format!("{HASH}&{REST}");
    let passkey = Some("abc".parse::<Passkey>().unwrap());
    for (url, expected) in [
        (format!("?{query}"), None),
        (format!("??{query}"), None),
        (format!("passkey=abc?{query}"), passkey),
        (format!("?passkey=abc?{query}"), passkey),
        (format!("{query}&x=?"), None),
    ] {
        let announce = parse_announce(&url).unwrap().announce;
        assert_eq!((announce.left, announce.passkey), (7, expected), "{url}");
        let scrape = parse_scrape(&url, 1).unwrap();
        assert_eq!(
            (scrape.hashes.len(), scrape.passkey),
            (1, expected),
            "{url}"
        );
    }
    assert_eq!(parse_announce("?"), Err(QueryError::NoInfoHash));
}
