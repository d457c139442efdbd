//! Access rules hold on every transport over IP. `src/server/tests/access.rs` has those over SCION.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use scion_tracker::client::{Client, Options, RequestError, TrackerUrl, Trust};
use scion_tracker::config::TorrentAccess;
use scion_tracker::core::access::{
    Access, Ban, BanTarget, ClientRules, Expiry, Isolation, NetworkRules, PlaceRules, Rate, Rates,
    RuleSet,
};
use scion_tracker::core::address::Host;
use scion_tracker::core::response::Refusal;
use scion_tracker::core::types::InfoHash;
use scion_tracker::server::{Kind, Restricted};
use scion_tracker::{Config, Server};

use crate::client::{KINDS, announce};
use crate::common::{self, Running};
use crate::http;

/// A tracker that serves those with the passkey `secret`.
fn private(running: &Running) {
    let mut rules = running.handle.rules();
    rules.access = Access::private(["secret".parse().unwrap()]);
    running.handle.set_rules(rules);
}

fn reason<T: std::fmt::Debug>(answer: Result<T, RequestError>) -> String {
    match answer {
        Err(RequestError::Refused(failure)) => failure.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_tracker_serves_its_passkeys_alone() {
    let running = common::start(common::config());
    private(&running);
    let mut options = Options::default();
    options.trust = Trust::Anyone;
    let client = Client::new(&options).unwrap();
    let hashes = [InfoHash([1; 20])];
    for (i, kind) in KINDS.into_iter().enumerate() {
        let plain = running.url(kind);
        let url = |path: &str| -> TrackerUrl { plain.replace("/announce", path).parse().unwrap() };
        let query = announce(1, 7000 + i as u16, Default::default());
        for (path, refusal) in [
            ("/announce", Refusal::PasskeyMissing),
            ("/announce/other", Refusal::PasskeyUnknown),
            ("/announce?passkey=Secret", Refusal::PasskeyUnknown),
        ] {
            let answer = client.announce(&url(path), &query).await;
            assert_eq!(reason(answer), refusal.message(), "{kind:?} {path}");
        }
        for path in [
            "/announce/secret",
            "/secret/announce",
            "/announce?passkey=secret",
        ] {
            let answer = client.announce(&url(path), &query).await.unwrap();
            assert_eq!(answer.incomplete, Some(i as u64 + 1), "{kind:?} {path}");
        }
        // BEP 15 has no place for a passkey in a scrape.
        let scraped = client.scrape(&url("/announce/secret"), &hashes).await;
        match kind {
            Kind::Udp => assert_eq!(reason(scraped), Refusal::PasskeyMissing.message()),
            _ => assert_eq!(scraped.unwrap().files[0].1.leechers, i as u32 + 1),
        }
        let refused = client.scrape(&url("/announce"), &hashes).await;
        assert_eq!(
            reason(refused),
            Refusal::PasskeyMissing.message(),
            "{kind:?}"
        );
    }
    let counters = running.handle.stats().counters;
    assert_eq!(counters.refused(Refusal::PasskeyUnknown), 2 * 4);
    assert_eq!(counters.refused(Refusal::PasskeyMissing), 2 * 4 + 1);
    drop(client);
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_tracker_refuses_over_http2() {
    let running = http::start(|_| {});
    private(&running);
    for (kind, tls) in [(Kind::Http, false), (Kind::Https, true)] {
        let requests = ["/announce", "/announce/secret"]
            .map(|path| http::http2_request("GET", &format!("{path}?{}", http::announce(1))));
        let responses = http::http2(running.address(kind), tls, requests).await;
        let refused = String::from_utf8_lossy(&responses[0].1);
        assert!(
            refused.contains(Refusal::PasskeyMissing.message()),
            "{refused}"
        );
        let served = String::from_utf8_lossy(&responses[1].1);
        assert!(served.contains("10:incompletei1e"), "{served}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_for_connections_that_are_open() {
    let running = http::start(|_| {});
    let target = format!("/announce?{}", http::announce(1));
    let mut connection = http::Client::connect(running.address(Kind::Http));
    let mut get = || {
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let body = connection.receive(false).unwrap().body;
        String::from_utf8_lossy(&body).into_owned()
    };
    assert!(get().contains("10:incompletei1e"));
    private(&running);
    assert!(get().contains(Refusal::PasskeyMissing.message()));
}

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

const HASH: InfoHash = InfoHash([1; 20]);
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
        tracker.handle.deny_torrent(HASH);
        tracker.handle.undeny_torrent(&HASH);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_announces_too_often_is_refused_and_told_when_to_come_back() {
    let running = http::start(|_| {});
    let mut rules = running.handle.rules();
    let rate = Rate {
        per_second: 1,
        burst: 300,
    };
    let rates = Rates::new(rate, Default::default(), [1, 2, 3, 4]);
    rules.rates = Some(std::sync::Arc::new(rates));
    running.handle.set_rules(rules);
    let target = format!("/announce?{}", http::announce(1));
    let mut connection = http::Client::connect(running.address(Kind::Http));
    let start = Instant::now();
    let mut bodies = Vec::new();
    for _ in 0..1000 {
        bodies.push(connection.get(&target).body);
    }
    let refused = bodies.iter().filter(|body| {
        let body = String::from_utf8_lossy(body);
        let is_refused = body.contains(Refusal::RateLimit.message());
        assert_eq!(body.contains("8:retry ini1e"), is_refused, "{body}");
        is_refused
    });
    let refused = refused.count();
    let most = 700 - start.elapsed().as_secs() as usize - 1;
    assert!((most..=700).contains(&refused), "{refused}");
    let counters = running.handle.stats().counters;
    assert_eq!(counters.refused(Refusal::RateLimit), refused as u64);
    let busiest = running.handle.busiest_hosts(10);
    assert_eq!(busiest.len(), 1);
    assert_eq!(busiest[0].host, Host::ip_only([127, 0, 0, 1].into()));
    // Scrapes are not limited.
    let scrape = format!("/scrape?info_hash={}", http::HASH);
    assert!(!String::from_utf8_lossy(&connection.get(&scrape).body).contains("failure"));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_entries_change_at_run_time() {
    let running = common::start(common::config());
    let handle = &running.handle;
    let client = Client::new(&Options::default()).unwrap();
    let url: TrackerUrl = running.url(Kind::Udp).parse().unwrap();
    let ask = async |port, claim: &str| {
        let mut query = announce(1, port, Default::default());
        query.announce.claim.ia = (!claim.is_empty()).then(|| claim.parse().unwrap());
        match client.announce(&url, &query).await {
            Ok(answer) => Ok(answer.incomplete.unwrap()),
            Err(RequestError::Refused(failure)) => Err(failure.reason),
            Err(error) => panic!("{error}"),
        }
    };
    for (port, claim) in [(1, ""), (2, "64-1"), (3, "64-2"), (4, "65-1")] {
        assert_eq!(ask(port, claim).await, Ok(port.into()));
    }
    let isolation = Isolation {
        isds: vec!["64".parse().unwrap()],
        proven_only: false,
    };
    let isolated = handle.isolate_torrent(HASH, isolation.clone());
    let expected = Restricted {
        before: None,
        removed: 2,
    };
    assert_eq!(isolated, expected);
    assert_eq!(ask(2, "64-1").await, Ok(2));
    assert_eq!(
        ask(4, "65-1").await,
        Err(Refusal::TorrentIsolated.message().into())
    );
    assert_eq!(handle.end_isolation(HASH), Some(isolation));
    assert_eq!(ask(4, "65-1").await, Ok(3));

    let denied = handle.deny_torrent(HASH);
    assert_eq!(
        denied,
        Restricted {
            before: false,
            removed: 3
        }
    );
    assert_eq!(handle.stats().registry.torrents, 0);
    assert_eq!(
        ask(1, "").await,
        Err(Refusal::TorrentDenied.message().into())
    );
    assert_eq!(
        handle.deny_torrent(HASH),
        Restricted {
            before: true,
            removed: 0
        }
    );
    assert!(handle.undeny_torrent(&HASH) && !handle.undeny_torrent(&HASH));
    assert_eq!(ask(1, "").await, Ok(1));

    let host = BanTarget::host(Host::ip_only([127, 0, 0, 1].into()));
    let ban = Ban {
        until: None,
        reason: "test".into(),
    };
    assert_eq!(handle.ban(host, ban.clone()), None);
    assert_eq!(ask(1, "").await, Err(Refusal::HostBanned.message().into()));
    assert_eq!(handle.bans(), [(host, ban.clone())]);
    assert_eq!(handle.unban(&host), Some(ban));
    assert_eq!(ask(1, "").await, Ok(1));

    assert!(handle.allow_torrent(HASH) && !handle.allow_torrent(HASH));
    assert!(handle.disallow_torrent(&HASH) && !handle.disallow_torrent(&HASH));
    let key = "secret".parse().unwrap();
    assert_eq!(handle.add_passkey(key, Expiry::Never), None);
    assert_eq!(handle.add_passkey(key, Expiry::At(9)), Some(Expiry::Never));
    assert_eq!(handle.remove_passkey(&key), Some(Expiry::At(9)));
    assert_eq!(handle.remove_passkey(&key), None);
}

/// A configuration with lists in this directory, private and listed.
fn with_lists(directory: &Path) -> Config {
    let mut config = common::config();
    config.access.private = true;
    config.access.listed = true;
    config.access.passkeys = Some(directory.join("passkeys"));
    config.access.allow = Some(directory.join("allow"));
    config.access.deny = Some(directory.join("deny"));
    config
}

#[test]
fn lists_in_files_are_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let hash = "01".repeat(20);
    write("passkeys", "secret\n");
    write(
        "allow",
        &format!("# torrents\n{hash}\n{}\n", "02".repeat(32)),
    );
    write("deny", "");
    let config = with_lists(directory.path());
    let running = common::start(config.clone());
    let target = |passkey: &str, hash: &str| {
        let hash = format!("%{hash}").repeat(20);
        format!("/{passkey}/announce?info_hash={hash}&peer_id=-SC0100-aaaaaaaaaaaa&port=1&left=1")
    };
    let ask = |passkey: &str, hash: &str| {
        let body = http::get(&running, &target(passkey, hash)).body;
        String::from_utf8_lossy(&body).into_owned()
    };
    // Files are read within a few seconds: two looks, two seconds apart.
    let until = |passkey: &str, hash: &str, expected: &str| {
        let start = Instant::now();
        while !ask(passkey, hash).contains(expected) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{}",
                ask(passkey, hash)
            );
            thread::sleep(Duration::from_millis(50));
        }
    };
    let served = "10:incompletei1e";
    until("secret", "01", served);
    until("secret", "02", served);
    until("secret", "03", Refusal::TorrentUnlisted.message());
    // An entry that is not from a file stays when the file changes.
    running.handle.allow_torrent(InfoHash([4; 20]));
    running
        .handle
        .add_passkey("guest".parse().unwrap(), Expiry::Never);
    write("allow", &format!("{hash} a comment\n{}\n", "03".repeat(20)));
    until("secret", "03", served);
    until("secret", "02", Refusal::TorrentUnlisted.message());
    until("secret", "04", served);
    write("passkeys", "other - a note\nlater 2000-01-01\n");
    until("secret", "01", Refusal::PasskeyUnknown.message());
    until("other", "01", served);
    until("guest", "01", served);
    until("later", "01", Refusal::PasskeyUnknown.message());
    let torrents = running.handle.stats().registry.torrents;
    write("deny", &format!("{hash}\n"));
    until("other", "01", Refusal::TorrentDenied.message());
    assert_eq!(running.handle.stats().registry.torrents, torrents - 1);

    // A wrong file leaves everything as it is, and says where it is wrong.
    write("allow", "x\n");
    let error = running.handle.reload(config.clone()).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.contains("allow:1: an info hash is 40"), "{error}");
    until("other", "03", served);
    fs::remove_file(directory.path().join("allow")).unwrap();
    assert!(running.handle.reload(config.clone()).is_err());
    assert!(Server::check(&config).is_err());
    until("other", "03", served);
    write("allow", "");
    running.handle.reload(config).unwrap();
    until("other", "03", Refusal::TorrentUnlisted.message());
    until("other", "04", served);
}

#[test]
fn a_reload_changes_what_the_configuration_changes() {
    let mut config = common::config();
    let running = common::start(config.clone());
    let handle = &running.handle;
    let target = format!("/announce?{}", http::announce(1));
    let ask = || String::from_utf8_lossy(&http::get(&running, &target).body).into_owned();
    assert!(ask().contains("10:incompletei1e"));
    // Set otherwise, and not changed by a configuration that says the same as before.
    private(&running);
    handle.reload(config.clone()).unwrap();
    assert!(ask().contains(Refusal::PasskeyMissing.message()));
    config.access.private = true;
    handle.reload(config.clone()).unwrap();
    config.access.private = false;
    config.access.deny_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let changes = handle.reload(config.clone()).unwrap();
    assert_eq!(changes.reloaded, ["access.private", "access.deny_networks"]);
    assert_eq!(changes.need_restart, [""; 0]);
    assert!(ask().contains(Refusal::NetworkDenied.message()));
    config.access.deny_networks.clear();
    handle.reload(config.clone()).unwrap();
    assert!(ask().contains("10:incompletei1e"));
    // The peer that is there has no place.
    let mut isolated = TorrentAccess::default();
    isolated.isds = Some(vec![64]);
    let hash = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    config.access.torrents = [(hash, isolated)].into();
    handle.reload(config.clone()).unwrap();
    assert_eq!(handle.stats().registry.torrents, 0);
    assert!(ask().contains(Refusal::TorrentIsolated.message()));
    config.access.torrents.clear();
    config.access.announces_per_second = 1;
    config.access.announces_at_once = 1;
    config.access.unlimited.clear();
    handle.reload(config.clone()).unwrap();
    let answers: Vec<_> = (0..20).map(|_| ask()).collect();
    let refused = answers
        .iter()
        .filter(|it| it.contains(Refusal::RateLimit.message()));
    assert!(refused.count() > 5, "{answers:?}");
    config.access.announces_per_second = 0;
    handle.reload(config).unwrap();
    assert!(ask().contains("10:incompletei1e"));
    assert_eq!(handle.busiest_hosts(9), []);
}
