//! Access rules hold on every transport over IP. `src/server/tests/access.rs` has those over SCION.

use scion_tracker::client::{Client, Options, RequestError, TrackerUrl, Trust};
use scion_tracker::core::access::Access;
use scion_tracker::core::response::Refusal;
use scion_tracker::core::types::InfoHash;
use scion_tracker::server::Kind;

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
