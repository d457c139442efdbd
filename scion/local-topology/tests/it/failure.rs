//! Links that fail during announces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scion_local_topology::{LinkState, Topology};
use scion_tracker_core::codec::reply::parse_announce_reply;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::common::{PATIENCE, Tracker, announce, ia, two_isds};
use crate::foreign::{StreamPair, last_request};

pub(crate) const LINKS: [&str; 2] = ["core-a", "core-b"];

/// How long a link stays in one state: several announces.
const PERIOD: Duration = Duration::from_millis(100);

/// Takes a core link down and up until told to stop, while the other one stays up. Returns how
/// often.
pub(crate) async fn flap(topology: Arc<Topology>, stop: CancellationToken) -> usize {
    let mut count = 0;
    let mut ticks = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let state = [LinkState::Down, LinkState::Up][count % 2];
        topology.set_link(LINKS[0], state).unwrap();
        count += 1;
    }
    count
}

/// 1,000 peers send 1,000 announces from the other ISD while a core link fails and comes back.
/// Every announce is answered, and every peer is in the registry.
#[tokio::test(flavor = "multi_thread")]
async fn no_announce_is_lost_while_a_link_flaps() {
    const CLIENTS: u16 = 10;
    const EACH: u16 = 50;
    let topology = Arc::new(two_isds().await);
    let tracker = Tracker::start("1-ff00:0:111");
    let stop = CancellationToken::new();
    let flapping = tokio::spawn(flap(Arc::clone(&topology), stop.clone()));
    for (scheme, swarm) in [("https", 1), ("udp", 2)] {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let from = ["2-ff00:0:210", "2-ff00:0:211", "2-ff00:0:212"][usize::from(number) % 3];
            let client = tracker.client(&topology, ia(from));
            let url = tracker.url(scheme);
            clients.spawn(async move {
                for port in (1000 + number * EACH..).take(EACH.into()) {
                    let answer = client.announce(&url, &announce(swarm, port)).await;
                    answer.unwrap_or_else(|error| panic!("{scheme}, {from}, {port}: {error:?}"));
                }
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    }
    stop.cancel();
    let flaps = flapping.await.unwrap();
    eprintln!("the link changed {flaps} times");
    assert!(flaps > 10, "{flaps}");
    let handle = tracker.handle.clone();
    tracker.stop().await;
    assert_eq!(
        handle.stats().registry.leechers,
        2 * u64::from(CLIENTS * EACH)
    );
    Arc::into_inner(topology).unwrap().stop().await;
}

/// The link goes down between the two halves of a request. The client may use either of two links,
/// so each one fails once.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_fails_during_a_request_loses_nothing() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    for (number, link) in LINKS.into_iter().enumerate() {
        let port = 7001 + number as u16;
        let request = last_request(&tracker, port);
        let (first, second) = request.split_at(request.len() / 2);
        let asking = async {
            let mut client = StreamPair::connect(&topology, &tracker, "2-ff00:0:212").await;
            client.send(first.as_bytes()).await;
            topology.set_link(link, LinkState::Down).unwrap();
            client.send(second.as_bytes()).await;
            client.last_reply().await
        };
        let reply = timeout(PATIENCE, asking).await.unwrap();
        topology.set_link(link, LinkState::Up).unwrap();
        let answer = parse_announce_reply(&reply).unwrap();
        assert_eq!(answer.peers.len(), number, "{link}");
    }
    tracker.stop().await;
    topology.stop().await;
}

/// There is no path until one link comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_announce_waits_for_a_link_to_come_back() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    for (scheme, link, port) in [("https", "core-b", 7001), ("udp", "core-a", 7002)] {
        for link in LINKS {
            topology.set_link(link, LinkState::Down).unwrap();
        }
        let client = tracker.client(&topology, ia("2-ff00:0:211"));
        let (url, query) = (tracker.url(scheme), announce(1, port));
        let mut asking = Box::pin(client.announce(&url, &query));
        let early = timeout(Duration::from_millis(500), &mut asking).await;
        assert!(early.is_err(), "{scheme}: {early:?}");
        topology.set_link(link, LinkState::Up).unwrap();
        let answer = asking.await.unwrap();
        assert_eq!(answer.peers.len(), usize::from(port - 7001), "{scheme}");
    }
    tracker.stop().await;
    topology.stop().await;
}

/// How long an announce takes while a link fails after this number of packets. The client is new: it first
/// takes the path over this link.
async fn fail_over(
    topology: &Topology,
    tracker: &Tracker,
    scheme: &str,
    fails_after: Option<u64>,
    port: u16,
) -> Duration {
    let client = tracker.client(topology, ia("2-ff00:0:212"));
    let url = tracker.url(scheme);
    // Looks the paths up before the time counts.
    let paths = client.paths(&url).await.unwrap();
    let way = paths.paths[0].interfaces();
    let mut links = topology.config().links.iter();
    let link = links.find(|link| {
        LINKS.contains(&link.name.as_str())
            && way
                .iter()
                .any(|it| it.ia == link.from.ia && it.id == link.from.number.get())
    });
    let link = &link.unwrap().name;
    if let Some(packets) = fails_after {
        topology.fail_link_after(link, packets).unwrap();
    }
    let since = Instant::now();
    let answer = client.announce(&url, &announce(1, port)).await;
    let took = since.elapsed();
    topology.set_link(link, LinkState::Up).unwrap();
    answer.unwrap_or_else(|error| panic!("{scheme}, {fails_after:?}: {error:?}"));
    took
}

/// A tracker in 1-ff00:0:111 that asks the daemon for the routers of its AS, so that it knows the ISD-AS of
/// its clients.
fn tracker_with_daemon(topology: &Topology) -> Tracker {
    const AS: &str = "1-ff00:0:111";
    let mut ases = topology.config().ases.iter();
    let daemon = ases.find(|it| it.ia == ia(AS)).unwrap().daemon;
    Tracker::start_with(&format!("{AS},[127.0.0.1]:0"), |config| {
        config.scion.daemon = Some(daemon.into());
    })
}

/// Packets of an announce that cross the link, at least.
const PACKETS: [(&str, u64); 2] = [("udp", 4), ("https", 7)];

/// A router returns any packet of an announce, of the client or of the tracker, and quotes only the beginning
/// of long ones. It is sent again over the other link, and no timer has to run out: that of QUIC takes 450
/// ms, that of UDP a second.
#[tokio::test(flavor = "multi_thread")]
async fn any_returned_packet_is_sent_again_at_once() {
    const TIMER: Duration = Duration::from_millis(400);
    let topology = two_isds().await;
    let tracker = tracker_with_daemon(&topology);
    for (scheme, packets) in PACKETS {
        for packet in 0..packets {
            // The fastest of some, because other programs may slow the others down.
            let mut took = Vec::new();
            for port in 7000..7010 {
                took.push(fail_over(&topology, &tracker, scheme, Some(packet), port).await);
                if took.last() < Some(&TIMER) {
                    break;
                }
            }
            assert!(took.last() < Some(&TIMER), "{scheme}, {packet}: {took:?}");
        }
    }
    tracker.stop().await;
    topology.stop().await;
}

/// Prints the figures of docs/wire.md: medians over 20 announces each, without a failure and with one before
/// each packet of the announce.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures on a quiet machine: --ignored --nocapture fail_over_in_numbers"]
async fn fail_over_in_numbers() {
    let topology = two_isds().await;
    let tracker = tracker_with_daemon(&topology);
    for (scheme, most) in [("udp", 4), ("https", 10)] {
        for fails_after in std::iter::once(None).chain((0..most).map(Some)) {
            let mut took = Vec::new();
            for port in 7000..7020 {
                took.push(fail_over(&topology, &tracker, scheme, fails_after, port).await);
            }
            took.sort_unstable();
            eprintln!(
                "{scheme}, {fails_after:?}: median {:?}, longest {:?}",
                took[10], took[19]
            );
        }
    }
    tracker.stop().await;
    topology.stop().await;
}
