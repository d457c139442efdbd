//! Checks the codecs against the test vectors of `docs/bittorrent-scion-peers.md`, in both
//! directions: the values parsed from the bytes, and the bytes written. A change of the wire format
//! must also change the data file of that document, and so the document.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap fails the test, also outside of #[test]"
)]

mod udp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use scion_tracker_core::Tracker;
use scion_tracker_core::address::{AddressError, CompactAddr, Host, IsdAs, ScionAddr};
use scion_tracker_core::codec::bep15::{self, AnnounceWriter, Reply, TransactionId};
use scion_tracker_core::codec::compact::{Endpoint, Layout, push_scion};
use scion_tracker_core::codec::query::{parse_announce, write_announce};
use scion_tracker_core::codec::reply::{Form, Peers, parse_announce_reply};
use scion_tracker_core::place::Places;
use scion_tracker_core::registry::memory::{Ceilings, Memory};
use scion_tracker_core::request::{AnnounceRequest, Carries, Claim, Origin, ScionClaim};
use scion_tracker_core::response::{
    AddrBytes, AnnounceReply, NoPeers, Peer, PeerSink, Reach, SwarmCounts, Warning,
};
use scion_tracker_core::tracker::{Context, Rules};
use scion_tracker_core::types::{PeerId, Rng, Time};

/// The peer id of every peer in the vectors.
const ID: PeerId = PeerId(*b"-LT2110-2Hk2RLxj.gRc");

/// Bytes of the largest UDP reply.
const ROOM: usize = 1432;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "about")]
    _about: String,
    isd_as: IsdAsTexts,
    scion_addresses: ScionAddrTexts,
    compact_lists: CompactLists,
    queries: Queries,
    places: Placing,
    announce_replies: Vec<AnnounceReplyCase>,
    udp_announces: udp::Announces,
    udp_replies: Vec<udp::ReplyCase>,
    swarm: Swarm,
}

/// The data file. It is outside of this crate, next to the document; without it the tests fail.
#[expect(clippy::disallowed_methods, reason = "test data is stored in files")]
fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bittorrent-scion-peers.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read the vectors in {path:?}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// Runs the cases of a section, which must have at least one.
fn each<T>(cases: &[T], check: impl Fn(&T)) {
    assert!(!cases.is_empty(), "a section has no vectors");
    cases.iter().for_each(check);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// An origin in the format of the vectors: `192.0.2.1`, or `1-ff00:0:110,10.0.0.1` over SCION.
fn origin(text: &str) -> Origin {
    let (ia, ip) = text.split_once(',').unwrap_or(("0-0", text));
    let ip = ip.trim_matches(['[', ']']).parse().unwrap();
    Origin::scion(Host::new(ia.parse().unwrap(), ip))
}

fn place(text: Option<&str>) -> IsdAs {
    text.map_or(IsdAs::NONE, |ia| IsdAs::parse_place(ia).unwrap())
}

fn reach(text: &str) -> Reach {
    match text {
        "ip" => Reach::Ip,
        "scion" => Reach::Scion,
        "both" => Reach::Both,
        other => panic!("{other} is not a reach"),
    }
}

fn claim(ia: Option<&str>, scion: Option<&str>) -> Claim {
    Claim {
        ia: ia.map(|ia| place(Some(ia))),
        scion: match scion {
            None => ScionClaim::Absent,
            Some("1") => ScionClaim::Capable,
            Some(address) => ScionClaim::At(address.parse().unwrap()),
        },
    }
}

/// A peer of a swarm before it is written. `place` and `reach` decide which list it goes into.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerCase {
    address: SocketAddr,
    place: Option<String>,
    reach: String,
}

fn push(sink: &mut impl PeerSink, peer: &PeerCase) {
    let packed = CompactAddr::new(peer.address.ip(), peer.address.port());
    sink.push(Peer {
        ia: place(peer.place.as_deref()),
        reach: reach(&peer.reach),
        addr: addr_bytes(&packed),
        id: &ID,
    });
}

const fn addr_bytes(packed: &CompactAddr) -> AddrBytes<'_> {
    match packed {
        CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
        CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
    }
}

fn endpoint(addr: &ScionAddr) -> Endpoint {
    Endpoint {
        ia: addr.host.ia,
        addr: SocketAddr::new(addr.host.ip(), addr.port),
    }
}

/// The peer as a compact SCION peer.
fn pack(endpoint: &Endpoint) -> Vec<u8> {
    let packed = CompactAddr::new(endpoint.addr.ip(), endpoint.addr.port());
    let peer = Peer {
        ia: endpoint.ia,
        reach: Reach::Scion,
        addr: addr_bytes(&packed),
        id: &ID,
    };
    let mut list = Vec::new();
    push_scion(&peer, &mut list);
    list
}

fn sorted(texts: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut texts: Vec<_> = texts.into_iter().map(|text| text.to_string()).collect();
    texts.sort_unstable();
    texts
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IsdAsTexts {
    valid: Vec<IsdAsText>,
    wildcard: Vec<String>,
    invalid: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IsdAsText {
    text: String,
    canonical: String,
    hex: String,
}

#[test]
fn isd_as_texts() {
    let texts = vectors().isd_as;
    each(&texts.valid, |case| {
        let ia = IsdAs::parse_place(&case.text).unwrap();
        assert_eq!(ia.to_string(), case.canonical, "{}", case.text);
        assert_eq!(hex(&ia.to_u64().to_be_bytes()), case.hex, "{}", case.text);
        let bits = u64::from_str_radix(&case.hex, 16).unwrap();
        assert_eq!(IsdAs::from_u64(bits), ia, "{}", case.text);
    });
    each(&texts.wildcard, |text| {
        assert_eq!(IsdAs::parse_place(text), Err(AddressError::Wildcard));
    });
    each(&texts.invalid, |text| {
        let error = IsdAs::parse_place(text).unwrap_err();
        assert_ne!(error, AddressError::Wildcard, "{text}");
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScionAddrTexts {
    valid: Vec<ScionAddrText>,
    wildcard: Vec<String>,
    invalid: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScionAddrText {
    text: String,
    canonical: String,
    url: String,
    hex: String,
}

#[test]
fn scion_address_texts() {
    let texts = vectors().scion_addresses;
    each(&texts.valid, |case| {
        let addr: ScionAddr = case.text.parse().unwrap();
        assert_eq!(addr.to_string(), case.canonical, "{}", case.text);
        assert_eq!(addr.url_authority(), case.url, "{}", case.text);
        assert_eq!(case.canonical.parse(), Ok(addr));
        assert_eq!(case.url.parse(), Ok(addr));
        assert_eq!(hex(&pack(&endpoint(&addr))), case.hex, "{}", case.text);
    });
    each(&texts.wildcard, |text| {
        assert_eq!(text.parse::<ScionAddr>(), Err(AddressError::Wildcard));
    });
    each(&texts.invalid, |text| {
        let error = text.parse::<ScionAddr>().unwrap_err();
        assert_ne!(error, AddressError::Wildcard, "{text}");
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactLists {
    valid: Vec<CompactList>,
    invalid: Vec<BrokenList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactList {
    list: String,
    hex: String,
    peers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokenList {
    list: String,
    hex: String,
}

fn layout(list: &str) -> Layout {
    match list {
        "peers_scion4" => Layout::Scion4,
        "peers_scion6" => Layout::Scion6,
        other => panic!("{other} is not a list"),
    }
}

#[test]
fn compact_lists() {
    let lists = vectors().compact_lists;
    each(&lists.valid, |case| {
        let peers: Vec<Endpoint> = case
            .peers
            .iter()
            .map(|peer| endpoint(&peer.parse().unwrap()))
            .collect();
        let bytes = unhex(&case.hex);
        let read: Vec<_> = layout(&case.list).unpack(&bytes).unwrap().collect();
        assert_eq!(read, peers, "{}", case.hex);
        let written: Vec<_> = peers.iter().flat_map(pack).collect();
        assert_eq!(hex(&written), case.hex);
    });
    each(&lists.invalid, |case| {
        let bytes = unhex(&case.hex);
        assert!(layout(&case.list).unpack(&bytes).is_none(), "{}", case.hex);
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Queries {
    valid: Vec<QueryCase>,
    invalid: Vec<RefusedQuery>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryCase {
    query: String,
    ia: Option<String>,
    scion: Option<String>,
    compact: Option<bool>,
    no_peer_id: bool,
    /// The fields as a client with the parsed values writes them.
    claim: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedQuery {
    query: String,
    #[serde(rename = "failure reason")]
    reason: String,
}

#[test]
fn queries() {
    let queries = vectors().queries;
    each(&queries.valid, |case| {
        let read = parse_announce(&case.query).unwrap();
        let expected = claim(case.ia.as_deref(), case.scion.as_deref());
        assert_eq!(read.announce.claim, expected, "{}", case.query);
        assert_eq!(read.compact, case.compact, "{}", case.query);
        assert_eq!(read.no_peer_id, case.no_peer_id, "{}", case.query);
        let mut written = String::new();
        write_announce(&read, &mut written);
        let fields = written
            .split('&')
            .filter(|field| field.starts_with("ia=") || field.starts_with("scion="));
        assert_eq!(fields.collect::<Vec<_>>().join("&"), case.claim);
        assert_eq!(parse_announce(&written), Ok(read), "{written}");
    });
    each(&queries.invalid, |case| {
        let error = parse_announce(&case.query).unwrap_err();
        assert_eq!(error.message(), case.reason, "{}", case.query);
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placing {
    prefixes: BTreeMap<String, String>,
    trusted: Vec<String>,
    cases: Vec<PlaceCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceCase {
    policy: String,
    origin: String,
    query: String,
    place: Option<String>,
    proven: bool,
    address: SocketAddr,
    reach: String,
    warning: Option<String>,
}

#[test]
fn places() {
    let placing = vectors().places;
    let prefixes: Vec<_> = placing
        .prefixes
        .iter()
        .map(|(net, ia)| (net.parse().unwrap(), place(Some(ia))))
        .collect();
    let trusted: Vec<_> = placing
        .trusted
        .iter()
        .map(|net| net.parse().unwrap())
        .collect();
    each(&placing.cases, |case| {
        let policy = case.policy.parse().unwrap();
        let places = Places::new(policy, prefixes.clone(), trusted.clone());
        let read = parse_announce(&case.query).unwrap();
        let resolved = places.resolve(&origin(&case.origin), &read.announce, Carries::All);
        let name = format!("{} {} {}", case.policy, case.origin, case.query);
        assert_eq!(resolved.ia, place(case.place.as_deref()), "{name}");
        assert_eq!(resolved.verified, case.proven, "{name}");
        assert_eq!(resolved.addr.socket_addr(), case.address, "{name}");
        assert_eq!(resolved.reach, reach(&case.reach), "{name}");
        let warning = resolved.warning.map(Warning::message);
        assert_eq!(warning, case.warning.as_deref(), "{name}");
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnounceReplyCase {
    name: String,
    origin: String,
    query: String,
    warning: Option<String>,
    peers: Vec<PeerCase>,
    bencode: String,
    /// The addresses at which a client finds peers, in any order.
    read: Vec<String>,
}

/// The values that all replies of the vectors share, besides their peers.
fn reply(origin: &Origin, warning: Option<&str>) -> AnnounceReply {
    let warning = warning.map(|text| {
        let all = [Warning::ClaimIgnored, Warning::ScionHostUntrusted];
        all.into_iter().find(|w| w.message() == text).unwrap()
    });
    AnnounceReply {
        counts: SwarmCounts {
            seeders: 3,
            leechers: 12,
            downloaders: 12,
            completed: 1000,
        },
        interval: 1800,
        min_interval: 300,
        observed: origin.host,
        warning,
    }
}

#[test]
fn announce_replies() {
    each(&vectors().announce_replies, |case| {
        let name = &case.name;
        let origin = origin(&case.origin);
        let query = parse_announce(&case.query).unwrap();
        let mut peers = Peers::new(Form::of(&origin, &query));
        case.peers.iter().for_each(|peer| push(&mut peers, peer));
        let mut written = Vec::new();
        peers.write(&reply(&origin, case.warning.as_deref()), &mut written);
        let written: String = written.iter().copied().map(char::from).collect();
        assert_eq!(written, case.bencode, "{name}");

        let chars = case.bencode.chars();
        let bytes: Vec<_> = chars.map(|c| u8::try_from(c).unwrap()).collect();
        let answer = parse_announce_reply(&bytes).unwrap();
        let found = answer.peers.iter().map(|peer| peer.endpoint);
        assert_eq!(sorted(found), sorted(&case.read), "{name}");
        assert_eq!(answer.unreadable, 0, "{name}");
        assert_eq!(answer.external_ip, Some(origin.host.ip()), "{name}");
        assert_eq!(answer.warning, case.warning, "{name}");
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Swarm {
    members: Vec<Member>,
    asks: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    origin: String,
    query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    name: String,
    over: String,
    origin: String,
    query: String,
    /// The peers that the requester receives, in any order.
    peers: Vec<String>,
}

/// Checks which peers each requester receives, through the whole tracker and the bytes of the
/// reply.
#[test]
fn swarm() {
    let swarm = vectors().swarm;
    each(&swarm.asks, |ask| {
        let tracker = Tracker::new(Memory::new(Ceilings::default(), [1, 2, 3, 4]));
        each(&swarm.members, |member| {
            let announce = parse_announce(&member.query).unwrap().announce;
            let from = origin(&member.origin);
            enter(&tracker, &from, &announce, Carries::All, &mut NoPeers);
        });
        let query = parse_announce(&ask.query).unwrap();
        let origin = origin(&ask.origin);
        let found = match &*ask.over {
            "http" => {
                let mut peers = Peers::new(Form::of(&origin, &query));
                let carries = Carries::All;
                let reply = enter(&tracker, &origin, &query.announce, carries, &mut peers);
                let mut written = Vec::new();
                peers.write(&reply, &mut written);
                let answer = parse_announce_reply(&written).unwrap();
                sorted(answer.peers.iter().map(|peer| peer.endpoint))
            }
            over @ ("udp" | "udp, scion46=1") => {
                let layout = udp::layout(&origin, over != "udp");
                let carries = layout.carries();
                let mut buffer = [0; ROOM];
                let mut writer = AnnounceWriter::new(&mut buffer, TransactionId(7), layout);
                let reply = enter(&tracker, &origin, &query.announce, carries, &mut writer);
                let length = writer.finish(&reply);
                let Ok(Reply::Announce { peers, .. }) =
                    bep15::parse_reply(&buffer[..length], Layout::of(&origin))
                else {
                    panic!("{}: not an announce reply", ask.name);
                };
                sorted(peers)
            }
            other => panic!("{other} is not a transport of the vectors"),
        };
        assert_eq!(found, sorted(&ask.peers), "{}", ask.name);
    });
}

fn enter(
    tracker: &Tracker<Memory>,
    origin: &Origin,
    announce: &AnnounceRequest,
    carries: Carries,
    sink: &mut impl PeerSink,
) -> AnnounceReply {
    let mut context = Context {
        rules: &Rules::default(),
        now: Time::from_secs(100),
        rng: &mut Rng::with_seed(1),
    };
    tracker
        .announce(&mut context, origin, announce, carries, sink)
        .unwrap()
}
