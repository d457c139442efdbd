//! Access rules hold on every transport over SCION. `tests/it/access.rs` has those over IP.

use scion_tracker_core::access::Access;
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
