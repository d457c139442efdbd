//! Access rules hold on every transport over IP. `src/server/tests/access.rs` has those over SCION.

mod matrix;

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
use scion_tracker::records::PasskeyRecord;
use scion_tracker::server::{Kind, Restricted};
use scion_tracker::{Config, Server};

use crate::client::{KINDS, announce};
use crate::common::{self, Running};
use crate::http;

const HASH: InfoHash = InfoHash([1; 20]);

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
    let isolated = handle.isolate_torrent(HASH, isolation.clone()).await;
    let expected = Restricted {
        before: None,
        removed: 2,
    };
    assert_eq!(isolated, Ok(expected));
    assert_eq!(ask(2, "64-1").await, Ok(2));
    assert_eq!(
        ask(4, "65-1").await,
        Err(Refusal::TorrentIsolated.message().into())
    );
    assert_eq!(handle.end_isolation(HASH).await, Ok(Some(isolation)));
    assert_eq!(ask(4, "65-1").await, Ok(3));

    let denied = handle.deny_torrent(HASH).await;
    assert_eq!(
        denied,
        Ok(Restricted {
            before: false,
            removed: 3
        })
    );
    assert_eq!(handle.stats().registry.torrents, 0);
    assert_eq!(
        ask(1, "").await,
        Err(Refusal::TorrentDenied.message().into())
    );
    assert_eq!(
        handle.deny_torrent(HASH).await,
        Ok(Restricted {
            before: true,
            removed: 0
        })
    );
    assert_eq!(handle.undeny_torrent(HASH).await, Ok(true));
    assert_eq!(handle.undeny_torrent(HASH).await, Ok(false));
    assert_eq!(ask(1, "").await, Ok(1));

    let host = BanTarget::host(Host::ip_only([127, 0, 0, 1].into()));
    let ban = Ban {
        until: None,
        reason: "test".into(),
    };
    assert_eq!(handle.ban(host, ban.clone()).await, Ok(None));
    assert_eq!(ask(1, "").await, Err(Refusal::HostBanned.message().into()));
    assert_eq!(handle.bans(0, 9).entries, [(host, ban.clone())]);
    assert_eq!(handle.unban(host).await, Ok(Some(ban)));
    assert_eq!(ask(1, "").await, Ok(1));

    for is_new in [true, false] {
        assert_eq!(handle.allow_torrent(HASH).await, Ok(is_new));
    }
    for was_there in [true, false] {
        assert_eq!(handle.disallow_torrent(HASH).await, Ok(was_there));
    }
    let key = "secret".parse().unwrap();
    let mut record = PasskeyRecord::new(key, Expiry::Never);
    assert_eq!(handle.add_passkey(record.clone()).await, Ok(None));
    let first = handle.passkey(&key).unwrap();
    assert!(first.created > 1_700_000_000);
    record.expiry = Expiry::At(9);
    record.note = Some("a note".into());
    assert_eq!(
        handle.add_passkey(record.clone()).await,
        Ok(Some(first.clone()))
    );
    record.created = first.created;
    assert_eq!(handle.passkeys(0, 9).entries, [record.clone()]);
    assert_eq!(handle.remove_passkey(key).await, Ok(Some(record)));
    assert_eq!(handle.remove_passkey(key).await, Ok(None));
    assert_eq!(handle.passkeys(0, 9).total, 0);
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
    let guest = PasskeyRecord::new("guest".parse().unwrap(), Expiry::Never);
    common::block_on(async {
        let handle = &running.handle;
        handle.allow_torrent(InfoHash([4; 20])).await.unwrap();
        handle.add_passkey(guest).await.unwrap();
    });
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
