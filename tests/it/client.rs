//! The client and its subcommands against a running tracker, over every transport.

use std::process::{Command, Output};

use scion_tracker::client::{Client, Options, TrackerUrl, Trust};
use scion_tracker::core::codec::query::AnnounceQuery;
use scion_tracker::core::request::{AnnounceRequest, Claim, Event, ScionClaim};
use scion_tracker::core::types::{InfoHash, PeerId};
use scion_tracker::server::Kind;

use crate::common;

pub(crate) const KINDS: [Kind; 4] = [Kind::Udp, Kind::Http, Kind::Https, Kind::Http3];

pub(crate) fn announce(hash: u8, port: u16, event: Event) -> AnnounceQuery {
    let (hash, id) = (InfoHash([hash; 20]), PeerId(*b"-SC0100-aaaaaaaaaaaa"));
    let mut announce = AnnounceRequest::new(hash, id, port, 1);
    announce.event = event;
    AnnounceQuery {
        announce,
        compact: None,
        no_peer_id: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_transports_share_their_swarms() {
    let running = common::start(common::config());
    let mut options = Options::default();
    options.trust = Trust::Anyone;
    let client = Client::new(&options).unwrap();
    let mut known = Vec::new();
    for (i, kind) in KINDS.into_iter().enumerate() {
        let url: TrackerUrl = running.url(kind).parse().unwrap();
        let query = announce(1, 7000 + i as u16, Event::Started);
        let answer = client.announce(&url, &query).await.unwrap();
        let mut ports: Vec<_> = answer
            .peers
            .iter()
            .map(|peer| peer.endpoint.addr.port())
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, known, "{kind:?}");
        known.push(7000 + i as u16);
        assert_eq!(answer.incomplete, Some(known.len() as u64), "{kind:?}");
    }
    for kind in KINDS {
        let url: TrackerUrl = running.url(kind).parse().unwrap();
        let hashes = [InfoHash([1; 20]), InfoHash([2; 20])];
        let answer = client.scrape(&url, &hashes).await.unwrap();
        let counts: Vec<_> = answer
            .files
            .iter()
            .map(|(hash, counts)| (*hash, counts.leechers))
            .collect();
        assert_eq!(counts, [(hashes[0], 4), (hashes[1], 0)], "{kind:?}");
    }
    drop(client);
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_places_are_sent_to_requesters_with_a_claim() {
    let running = common::start(common::config());
    let mut options = Options::default();
    options.trust = Trust::Anyone;
    let client = Client::new(&options).unwrap();
    for (i, kind) in KINDS.into_iter().enumerate() {
        let url: TrackerUrl = running.url(kind).parse().unwrap();
        let hash = 10 + i as u8;
        let mut query = announce(hash, 7000, Event::Started);
        query.announce.claim = Claim {
            ia: Some("1-ff00:0:110".parse().unwrap()),
            scion: ScionClaim::Absent,
        };
        client.announce(&url, &query).await.unwrap();

        // HTTP replies hold this peer, whatever transport the first one used.
        let http: TrackerUrl = running.url(Kind::Http).parse().unwrap();
        for compact in [true, false] {
            let mut query = announce(hash, 7001, Event::Started);
            query.announce.claim.scion = ScionClaim::Capable;
            query.compact = Some(compact);
            let answer = client.announce(&http, &query).await.unwrap();
            let peers: Vec<_> = answer
                .peers
                .iter()
                .map(|peer| peer.endpoint.to_string())
                .collect();
            assert_eq!(peers, ["1-ff00:0:110,[127.0.0.1]:7000"], "{kind:?}");
        }
    }
    running.stop();
}

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scion-tracker"))
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_subcommands_over_every_transport() {
    let running = common::start(common::config());
    for (i, kind) in KINDS.into_iter().enumerate() {
        let url = running.url(kind);
        let hash = format!("{:02x}", 0x20 + i).repeat(20);
        let started = |port: &str, id: &str| {
            let id = format!("--peer-id={id}");
            program(&[
                "announce",
                &url,
                "--insecure",
                "--info-hash",
                &hash,
                "--port",
                port,
                &id,
            ])
        };
        let first = started("7000", "-TR3000-aaaaaaaaaaaa");
        assert!(text(&first.stdout).ends_with("no peers\n"), "{first:?}");
        assert_eq!(first.status.code(), Some(0));
        let second = started("7001", "-SC0100-aaaaaaaaaaaa");
        let software = ["Transmission 3.00", "-"][usize::from(kind == Kind::Udp)];
        let row = format!("-      127.0.0.1:7000  {software}\n");
        assert!(text(&second.stdout).ends_with(&row), "{second:?}");

        let scrape = program(&["scrape", &url, "--insecure", "--json", "--info-hash", &hash]);
        let json: serde_json::Value = serde_json::from_slice(&scrape.stdout).unwrap();
        assert_eq!(json[0]["info_hash"], hash);
        assert_eq!(json[0]["incomplete"], 2);
        assert!(scrape.stderr.is_empty(), "{scrape:?}");
    }
    running.stop();
}

#[test]
fn failures_of_the_subcommands() {
    let running = common::start(common::config());
    let http = running.url(Kind::Http) + "?ia=x";
    let (https, http3) = (running.url(Kind::Https), running.url(Kind::Http3));
    let hash = "11".repeat(20);
    for (args, code, message) in [
        (
            vec!["announce", &http, "--info-hash", &hash],
            1,
            "the tracker refuses: ia must be an ISD-AS",
        ),
        (
            vec!["scrape", &https, "--info-hash", &hash],
            1,
            "UnknownIssuer (trust another authority with --ca FILE, or any certificate with --insecure)",
        ),
        (
            vec!["announce", &http3, "--info-hash", &hash],
            1,
            "UnknownIssuer (trust another authority with --ca FILE, or any certificate with --insecure)",
        ),
        (
            vec!["scrape", &https, "--info-hash", "11"],
            2,
            "40 hexadecimal digits",
        ),
        (
            vec!["scrape", "tracker", "--info-hash", &hash],
            2,
            "begins with udp://",
        ),
        (vec!["scrape", &https], 2, "--info-hash"),
    ] {
        let output = program(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(
            text(&output.stderr).contains(message),
            "{args:?}: {output:?}"
        );
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
    running.stop();
}
