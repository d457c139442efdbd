//! Each rule about who is served, on each transport: what announces and scrapes get.

use super::*;

/// The place of the client in a row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Nowhere,
    /// 64-1, by the operator's table.
    Proven,
    /// 64-1, as the client says. A scrape cannot say it.
    Claimed,
}
use Place::{Claimed, Nowhere, Proven};

/// A row of the matrix: rules, where the client is and the path of its URL, and why its announces and scrapes
/// are refused.
type Row = (
    &'static str,
    fn(&mut Access),
    Place,
    &'static str,
    [Option<Refusal>; 2],
);

const SERVED: [Option<Refusal>; 2] = [None, None];

const fn refused(refusal: Refusal) -> [Option<Refusal>; 2] {
    [Some(refusal), Some(refusal)]
}

fn rules(access: &mut Access, rules: RuleSet) {
    access.set_rules(rules);
}

fn isolate(access: &mut Access, isd: u16, proven_only: bool) {
    let isds = vec![isd.to_string().parse().unwrap()];
    access.isolate(HASH, Some(Isolation { isds, proven_only }));
}

fn networks(allow: &str, deny: &str) -> RuleSet {
    let nets = |text: &str| {
        let nets = text.split_whitespace().map(|net| net.parse().unwrap());
        nets.collect::<Vec<_>>()
    };
    RuleSet {
        networks: NetworkRules::new(nets(allow), nets(deny)),
        ..RuleSet::default()
    }
}

fn clients(deny: &str) -> RuleSet {
    RuleSet {
        clients: ClientRules::new([], [deny.parse().unwrap()]),
        ..RuleSet::default()
    }
}

fn places(acl: &str, proven_only: bool) -> RuleSet {
    RuleSet {
        places: PlaceRules {
            acl: acl.parse().unwrap(),
            proven_only,
        },
        ..RuleSet::default()
    }
}

fn private_and_listed(access: &mut Access) {
    access.set_private(true);
    access.set_listed(true);
    access.add_passkey("secret".parse().unwrap(), Expiry::Never);
    access.add_passkey("old".parse().unwrap(), Expiry::At(1));
}

const MATRIX: &[Row] = {
    use Refusal as R;
    &[
        ("public", |_| {}, Nowhere, "/announce", SERVED),
        ("public", |_| {}, Nowhere, "/announce/any", SERVED),
        (
            "private",
            private_and_listed,
            Nowhere,
            "/announce",
            refused(R::PasskeyMissing),
        ),
        (
            "private",
            private_and_listed,
            Nowhere,
            "/announce/other",
            refused(R::PasskeyUnknown),
        ),
        (
            "expired",
            private_and_listed,
            Nowhere,
            "/announce/old",
            refused(R::PasskeyUnknown),
        ),
        (
            "not listed",
            private_and_listed,
            Nowhere,
            "/secret/announce",
            refused(R::TorrentUnlisted),
        ),
        (
            "private and listed",
            |it| {
                private_and_listed(it);
                it.allow(HASH);
            },
            Nowhere,
            "/announce?passkey=secret",
            SERVED,
        ),
        (
            "listed",
            |it| it.set_listed(true),
            Nowhere,
            "/announce",
            refused(R::TorrentUnlisted),
        ),
        (
            "denied",
            |it| {
                it.deny(HASH);
            },
            Nowhere,
            "/announce",
            refused(R::TorrentDenied),
        ),
        (
            "banned",
            |it| {
                let host = BanTarget::host(Host::ip_only([127, 0, 0, 1].into()));
                let reason = "test".into();
                it.ban(
                    host,
                    Ban {
                        until: None,
                        reason,
                    },
                );
            },
            Nowhere,
            "/announce",
            refused(R::HostBanned),
        ),
        (
            "network",
            |it| rules(it, networks("", "127.0.0.0/8")),
            Nowhere,
            "/announce",
            refused(R::NetworkDenied),
        ),
        (
            "network",
            |it| rules(it, networks("10.0.0.0/8", "")),
            Nowhere,
            "/announce",
            refused(R::NetworkDenied),
        ),
        (
            "network",
            |it| rules(it, networks("127.0.0.1/32", "127.0.0.0/8")),
            Nowhere,
            "/announce",
            SERVED,
        ),
        (
            "client",
            |it| rules(it, clients("-SC")),
            Nowhere,
            "/announce",
            [Some(R::ClientDenied), None],
        ),
        (
            "client",
            |it| rules(it, clients("-XX")),
            Nowhere,
            "/announce",
            SERVED,
        ),
        (
            "ISD-AS",
            |it| rules(it, places("+ 64, -", false)),
            Nowhere,
            "/announce",
            refused(R::PlaceDenied),
        ),
        (
            "ISD-AS",
            |it| rules(it, places("+ 64, -", true)),
            Proven,
            "/announce",
            SERVED,
        ),
        (
            "ISD-AS",
            |it| rules(it, places("- 64-1, +", false)),
            Proven,
            "/announce",
            refused(R::PlaceDenied),
        ),
        (
            "ISD-AS",
            |it| rules(it, places("+ 64, -", false)),
            Claimed,
            "/announce",
            [None, Some(R::PlaceDenied)],
        ),
        (
            "ISD-AS",
            |it| rules(it, places("+ 64, -", true)),
            Claimed,
            "/announce",
            refused(R::PlaceDenied),
        ),
        (
            "isolated",
            |it| isolate(it, 64, true),
            Proven,
            "/announce",
            SERVED,
        ),
        (
            "isolated",
            |it| isolate(it, 65, true),
            Proven,
            "/announce",
            refused(R::TorrentIsolated),
        ),
        (
            "isolated",
            |it| isolate(it, 64, false),
            Nowhere,
            "/announce",
            refused(R::TorrentIsolated),
        ),
        (
            "isolated",
            |it| isolate(it, 64, false),
            Claimed,
            "/announce",
            [None, Some(R::TorrentIsolated)],
        ),
        (
            "isolated, only proven",
            |it| isolate(it, 64, true),
            Claimed,
            "/announce",
            [Some(R::PlaceUnproven), Some(R::TorrentIsolated)],
        ),
    ]
};

/// The matrix on UDP, HTTP/1.1 with and without TLS, and HTTP/3.
#[tokio::test(flavor = "multi_thread")]
async fn the_matrix_of_access_on_every_transport() {
    let unplaced = common::start(common::config());
    let mut config = common::config();
    let net = "127.0.0.0/8".parse().unwrap();
    config.places.prefixes = [(net, "64-1".parse().unwrap())].into();
    let placed = common::start(config);
    let mut options = Options::default();
    options.trust = Trust::Anyone;
    let client = Client::new(&options).unwrap();
    for (name, setup, place, path, [announces, scrapes]) in MATRIX {
        let tracker = if *place == Proven { &placed } else { &unplaced };
        let mut rules = tracker.handle.rules();
        let epoch = rules.access.epoch();
        rules.access = Access::default();
        rules.access.set_epoch(epoch);
        setup(&mut rules.access);
        tracker.handle.set_rules(rules);
        for kind in KINDS {
            let what = format!("{name} {place:?} {path} {kind:?}");
            let url: TrackerUrl = tracker
                .url(kind)
                .replace("/announce", path)
                .parse()
                .unwrap();
            let mut query = announce(1, 7000, Default::default());
            if *place == Claimed {
                query.announce.claim.ia = Some("64-1".parse().unwrap());
            }
            let held = tracker.handle.stats().registry;
            let answer = client.announce(&url, &query).await;
            match announces {
                Some(refusal) => {
                    assert_eq!(reason(answer), refusal.message(), "{what}");
                    // Decided before anything is stored.
                    assert_eq!(tracker.handle.stats().registry, held, "{what}");
                }
                None => assert_eq!(answer.unwrap().incomplete, Some(1), "{what}"),
            }
            let scraped = client.scrape(&url, &[HASH]).await;
            let scrapes = match (kind, scrapes) {
                // BEP 15 has no place for a passkey in a scrape.
                (Kind::Udp, _) if *name != "public" && path.len() > "/announce".len() => {
                    &Some(Refusal::PasskeyMissing)
                }
                (_, scrapes) => scrapes,
            };
            match scrapes {
                Some(refusal) => assert_eq!(reason(scraped), refusal.message(), "scrape {what}"),
                None => assert_eq!(scraped.unwrap().files.len(), 1, "scrape {what}"),
            }
        }
        tracker.handle.deny_torrent(HASH).await.unwrap();
        tracker.handle.undeny_torrent(HASH).await.unwrap();
        assert_eq!(tracker.handle.stats().registry.torrents, 0, "{name}");
    }
    drop(client);
}

/// The matrix on HTTP/2, with and without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_matrix_of_access_over_http2() {
    let unplaced = http::start(|_| {});
    let placed = http::start(|config| {
        let net = "127.0.0.0/8".parse().unwrap();
        config.places.prefixes = [(net, "64-1".parse().unwrap())].into();
    });
    for (name, setup, place, path, expected) in MATRIX {
        let tracker = if *place == Proven { &placed } else { &unplaced };
        let mut rules = tracker.handle.rules();
        let epoch = rules.access.epoch();
        rules.access = Access::default();
        rules.access.set_epoch(epoch);
        setup(&mut rules.access);
        tracker.handle.set_rules(rules);
        let hash = "%01".repeat(20);
        let mut query = format!("info_hash={hash}&peer_id=-SC0100-aaaaaaaaaaaa&port=7000&left=1");
        if *place == Claimed {
            query += "&ia=64-1";
        }
        let and = if path.contains('?') { '&' } else { '?' };
        let announce = format!("{path}{and}{query}");
        let scrape = path.replace("announce", "scrape");
        let scrape = format!("{scrape}{and}info_hash={hash}");
        for (kind, tls) in [(Kind::Http, false), (Kind::Https, true)] {
            let requests = [&announce, &scrape].map(|target| http::http2_request("GET", target));
            let responses = http::http2(tracker.address(kind), tls, requests).await;
            for ((_, body), expected) in responses.iter().zip(expected) {
                let body = String::from_utf8_lossy(body);
                match expected {
                    Some(refusal) => assert!(body.contains(refusal.message()), "{name}: {body}"),
                    None => assert!(!body.contains("failure reason"), "{name} {path}: {body}"),
                }
            }
        }
    }
}
