//! Access rules hold on every transport over SCION. `tests/it/access.rs` has those over IP.

use scion_tracker_core::access::{
    Access, Ban, BanTarget, ClientRules, Expiry, Isolation, NetworkRules, PlaceRules, RuleSet,
};
use scion_tracker_core::response::Refusal;

use super::*;

const FROM: &str = "1-ff00:0:111,[10.0.0.1]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_tracker_refuses_over_scion() {
    let tracker = start();
    let mut rules = tracker.handle.rules();
    rules.access = Access::private(["secret".parse().unwrap()]);
    tracker.handle.set_rules(rules);

    let query = format!("info_hash={HASH}&peer_id=-XX0001-000000000001&port=7001&left=1");
    for (target, refusal) in [
        (format!("/announce?{query}"), Some(Refusal::PasskeyMissing)),
        (
            format!("/announce/other?{query}"),
            Some(Refusal::PasskeyUnknown),
        ),
        (format!("/announce/secret?{query}"), None),
        (format!("/scrape?{query}"), Some(Refusal::PasskeyMissing)),
        (format!("/secret/scrape?{query}"), None),
    ] {
        let over_h3 = tracker.get(FROM, &path(1), &target).await;
        let over_qs = qs::get(&tracker, FROM, &target).await;
        for body in [over_h3, over_qs] {
            let text = String::from_utf8_lossy(&body);
            match refusal {
                Some(refusal) => assert!(text.contains(refusal.message()), "{target}: {text}"),
                None => assert!(!text.contains("failure reason"), "{target}: {text}"),
            }
        }
    }

    let running = Arc::new(tracker);
    let tracker = Arc::clone(&running);
    tokio::task::spawn_blocking(move || {
        let client = UdpClient::new(tracker.scion, FROM, &path(1));
        let error = |reply: Reply<'_>| match reply {
            Reply::Error { message, .. } => String::from_utf8_lossy(message).into_owned(),
            other => panic!("{other:?}"),
        };
        for (url, refusal) in [
            ("", Refusal::PasskeyMissing),
            ("/announce?passkey=other", Refusal::PasskeyUnknown),
        ] {
            let request = client.announce_request(7002, url);
            assert_eq!(
                client.ask(&request, Layout::Scion4, error),
                refusal.message()
            );
        }
        let request = client.announce_request(7002, "/announce/secret");
        client.ask(&request, Layout::Scion4, |reply| {
            assert!(matches!(reply, Reply::Announce { .. }), "{reply:?}");
        });
    })
    .await
    .unwrap();
    let counters = running.handle.stats().counters;
    assert_eq!(counters.refused(Refusal::PasskeyMissing), 5);
    assert_eq!(counters.refused(Refusal::PasskeyUnknown), 3);
    Arc::into_inner(running).unwrap().stop().await;
}

/// A row of the matrix: rules, whether the tracker proves the place of its clients (it knows its border
/// routers), the path of the URL, and why announces and scrapes are refused.
type Row = (
    &'static str,
    fn(&mut Access),
    bool,
    &'static str,
    [Option<Refusal>; 2],
);

const SERVED: [Option<Refusal>; 2] = [None, None];
const CLAIMED: bool = false;
const PROVEN: bool = true;

const fn refused(refusal: Refusal) -> [Option<Refusal>; 2] {
    [Some(refusal), Some(refusal)]
}

fn hash() -> InfoHash {
    InfoHash::from_slice(HASH.as_bytes()).unwrap()
}

fn private_and_listed(access: &mut Access) {
    access.set_private(true);
    access.set_listed(true);
    access.add_passkey("secret".parse().unwrap(), Expiry::Never);
    access.add_passkey("old".parse().unwrap(), Expiry::At(1));
}

fn isolate(access: &mut Access, isd: u16, proven_only: bool) {
    let isds = vec![isd.to_string().parse().unwrap()];
    access.isolate(hash(), Some(Isolation { isds, proven_only }));
}

fn ban(access: &mut Access, host_text: &str) {
    let ban = Ban {
        until: None,
        reason: "test".into(),
    };
    access.ban(BanTarget::host(host(host_text)), ban);
}

fn places(access: &mut Access, acl: &str, proven_only: bool) {
    let acl = acl.parse().unwrap();
    access.set_rules(RuleSet {
        places: PlaceRules { acl, proven_only },
        ..RuleSet::default()
    });
}

fn client(access: &mut Access, deny: &str) {
    access.set_rules(RuleSet {
        clients: ClientRules::new([], [deny.parse().unwrap()]),
        ..RuleSet::default()
    });
}

fn network(access: &mut Access, deny: &str) {
    access.set_rules(RuleSet {
        networks: NetworkRules::new([], [deny.parse().unwrap()]),
        ..RuleSet::default()
    });
}

const MATRIX: &[Row] = {
    use Refusal as R;
    &[
        ("public", |_| {}, CLAIMED, "", SERVED),
        (
            "private",
            private_and_listed,
            CLAIMED,
            "",
            refused(R::PasskeyMissing),
        ),
        (
            "private",
            private_and_listed,
            PROVEN,
            "other",
            refused(R::PasskeyUnknown),
        ),
        (
            "expired",
            private_and_listed,
            PROVEN,
            "old",
            refused(R::PasskeyUnknown),
        ),
        (
            "not listed",
            private_and_listed,
            PROVEN,
            "secret",
            refused(R::TorrentUnlisted),
        ),
        (
            "private and listed",
            |it| {
                private_and_listed(it);
                it.allow(hash());
            },
            CLAIMED,
            "secret",
            SERVED,
        ),
        (
            "listed",
            |it| it.set_listed(true),
            CLAIMED,
            "",
            refused(R::TorrentUnlisted),
        ),
        (
            "denied",
            |it| {
                it.deny(hash());
            },
            PROVEN,
            "",
            refused(R::TorrentDenied),
        ),
        (
            "banned",
            |it| ban(it, FROM),
            PROVEN,
            "",
            refused(R::HostBanned),
        ),
        // The same address in another AS is another host.
        (
            "banned",
            |it| ban(it, "1-ff00:0:112,[10.0.0.1]"),
            PROVEN,
            "",
            SERVED,
        ),
        // Networks are about plain IP.
        (
            "network",
            |it| network(it, "10.0.0.0/8"),
            PROVEN,
            "",
            SERVED,
        ),
        (
            "client",
            |it| client(it, "-XX"),
            PROVEN,
            "",
            [Some(R::ClientDenied), None],
        ),
        (
            "ISD-AS",
            |it| places(it, "+ 1, -", true),
            PROVEN,
            "",
            SERVED,
        ),
        (
            "ISD-AS",
            |it| places(it, "- 1-ff00:0:111, +", true),
            PROVEN,
            "",
            refused(R::PlaceDenied),
        ),
        (
            "ISD-AS",
            |it| places(it, "+ 2, -", false),
            PROVEN,
            "",
            refused(R::PlaceDenied),
        ),
        (
            "ISD-AS",
            |it| places(it, "+ 1, -", false),
            CLAIMED,
            "",
            SERVED,
        ),
        (
            "ISD-AS",
            |it| places(it, "+ 1, -", true),
            CLAIMED,
            "",
            refused(R::PlaceDenied),
        ),
        ("isolated", |it| isolate(it, 1, true), PROVEN, "", SERVED),
        (
            "isolated",
            |it| isolate(it, 2, true),
            PROVEN,
            "",
            refused(R::TorrentIsolated),
        ),
        ("isolated", |it| isolate(it, 1, false), CLAIMED, "", SERVED),
        (
            "isolated, only proven",
            |it| isolate(it, 1, true),
            CLAIMED,
            "",
            refused(R::PlaceUnproven),
        ),
    ]
};

/// Why a request by UDP over SCION was refused, if it was.
fn udp_refusal(client: &UdpClient, request: &[u8]) -> Option<String> {
    client.ask(request, Layout::Scion4, |reply| match reply {
        Reply::Error { message, .. } => Some(String::from_utf8_lossy(message).into_owned()),
        Reply::Announce { .. } | Reply::Scrape { .. } => None,
        other => panic!("{other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_matrix_of_access_over_scion() {
    let claiming = start();
    let mut config = config();
    config.scion.routers = vec!["127.0.0.0/8".parse().unwrap()];
    let proving = start_with(config);
    for (name, setup, proven, passkey, expected) in MATRIX {
        let tracker = if *proven { &proving } else { &claiming };
        let mut rules = tracker.handle.rules();
        let epoch = rules.access.epoch();
        rules.access = Access::default();
        rules.access.set_epoch(epoch);
        setup(&mut rules.access);
        tracker.handle.set_rules(rules);
        let what = format!("{name}, proven: {proven}, passkey {passkey:?}");

        let query = format!("info_hash={HASH}&peer_id=-XX0001-000000000001&port=7001&left=1");
        let [announce, scrape] = ["announce", "scrape"].map(|path| match *passkey {
            "" => format!("/{path}?{query}"),
            passkey => format!("/{passkey}/{path}?{query}"),
        });
        for (target, expected) in [announce, scrape].iter().zip(expected) {
            let over_h3 = tracker.get(FROM, &path(1), target).await;
            let over_qs = qs::get(tracker, FROM, target).await;
            for body in [over_h3, over_qs] {
                let text = String::from_utf8_lossy(&body);
                match expected {
                    Some(refusal) => assert!(text.contains(refusal.message()), "{what}: {text}"),
                    None => assert!(!text.contains("failure reason"), "{what}: {text}"),
                }
            }
        }

        let scion = tracker.scion;
        let [announces, scrapes] = tokio::task::spawn_blocking(move || {
            let client = UdpClient::new(scion, FROM, &path(1));
            let mut announce = client.announce_request(7002, &format!("/{passkey}/announce"));
            // Bytes 36 to 55 are the peer id (BEP 15).
            announce[36..56].copy_from_slice(b"-XX0001-000000000002");
            [announce, client.scrape_request()].map(|request| udp_refusal(&client, &request))
        })
        .await
        .unwrap();
        let message = |refusal: &Option<Refusal>| refusal.map(|it| it.message().to_owned());
        assert_eq!(announces, message(&expected[0]), "UDP, {what}");
        // BEP 15 has no place for a passkey in a scrape.
        let scrape = match name.contains("private") || !passkey.is_empty() {
            true => Some(Refusal::PasskeyMissing.message().to_owned()),
            false => message(&expected[1]),
        };
        assert_eq!(scrapes, scrape, "UDP scrape, {what}");
    }
    claiming.stop().await;
    proving.stop().await;
}
