//! Clients in Go, with the libraries that programs in Go have: those of scionproto (snet, daemon) and quic-go
//! here, those of scion-apps in pan.rs.
//!
//! Without Go, or where its modules cannot be had, these tests are skipped, and say so.

mod client;
mod pan;
mod program;

use std::sync::Arc;
use std::time::{Duration, Instant};

use scion_local_topology::{LinkState, Topology};
use scion_tracker_core::address::IsdAs;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::{Tracker, ia, network, own_address, two_isds};
use crate::failure::{LINKS, flap};
use client::{GoClient, PROTOCOLS};

/// One client per AS and protocol announces two peers, each of which receives all earlier ones, and scrapes.
/// Leaves out what cannot be started.
async fn check_every_as(
    topology: &Topology,
    tracker: &Tracker,
    start: impl AsyncFn(IsdAs, &'static str) -> Option<GoClient>,
) {
    let mut known = Vec::new();
    for protocol in PROTOCOLS {
        for it in &topology.config().ases {
            let Some(mut client) = start(it.ia, protocol).await else {
                continue;
            };
            for _ in 0..2 {
                let port = 7001 + known.len() as u16;
                let answer = client.announce(port, 200).await;
                let mut given = answer.peers;
                given.sort_unstable();
                assert_eq!(given, known, "{protocol}, {}", it.ia);
                assert_eq!(answer.connections, 1, "{protocol}, {}", it.ia);
                known.push((it.ia, port));
                known.sort_unstable();
            }
            let leechers = client.scrape().await;
            assert_eq!(leechers as usize, known.len(), "{protocol}, {}", it.ia);
        }
    }
    let stats = tracker.handle.stats();
    assert_eq!(stats.registry.leechers, known.len() as u64, "{stats:?}");
}

/// The longest replies: 200 peers over HTTP, and as many as fit a packet of 1280 bytes over UDP, over paths of
/// three segments. Leaves out what cannot be started.
async fn check_long_replies(start: impl AsyncFn(&'static str) -> Option<GoClient>) {
    let Some(mut filling) = start("udp").await else {
        return;
    };
    for port in 8000..8250 {
        filling.announce(port, 1).await;
    }
    for (protocol, expected) in [("qs", 200), ("h3", 200), ("udp", 78)] {
        let Some(mut client) = start(protocol).await else {
            continue;
        };
        let answer = client.announce(9000, 200).await;
        assert_eq!(answer.peers.len(), expected, "{protocol}");
    }
}

/// The client in the AS of the tracker sends to the tracker's port, without a path.
#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let start = async |from, protocol| GoClient::start(&topology, &tracker, from, protocol).await;
    check_every_as(&topology, &tracker, start).await;
    tracker.stop().await;
    topology.stop().await;
}

/// Inside an AS, programs of scion-apps send to UDP port 30041 of the host, and take an answer from its port.
#[tokio::test(flavor = "multi_thread")]
async fn the_own_as_announces_through_the_endhost_port() {
    const AS: &str = "1-ff00:0:111";
    let topology = two_isds().await;
    let address = format!("{AS},[{}]:0", own_address(10));
    let tracker = Tracker::start_with(&address, |config| config.scion.endhost_port = Some(true));
    let local = format!("-local={}", own_address(11));
    for (number, protocol) in PROTOCOLS.into_iter().enumerate() {
        let options = [local.as_str(), "-endhost-port"];
        let client = GoClient::start_with(&topology, &tracker, ia(AS), protocol, &options).await;
        let Some(mut client) = client else { return };
        for known in 2 * number..2 * number + 2 {
            let answer = client.announce(7001 + known as u16, 100).await;
            assert_eq!(answer.peers.len(), known, "{protocol}");
            assert_eq!(answer.connections, 1, "{protocol}");
        }
    }
    tracker.stop().await;
    topology.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_replies_arrive() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    check_long_replies(async |protocol| GoClient::start(&topology, &tracker, from, protocol).await)
        .await;
    tracker.stop().await;
    topology.stop().await;
}

/// Each link fails in turn before an announce, so that the path of the last one is gone. After that a link
/// flaps during the announces.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_links() {
    const ANNOUNCES: u16 = 20;
    let topology = Arc::new(two_isds().await);
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    for (protocol, first) in PROTOCOLS.into_iter().zip([7000, 7100, 7200]) {
        let client = GoClient::start(&topology, &tracker, from, protocol).await;
        let Some(mut client) = client else { return };
        for number in 0..ANNOUNCES {
            let down = usize::from(number) % 2;
            topology.set_link(LINKS[down], LinkState::Down).unwrap();
            topology.set_link(LINKS[1 - down], LinkState::Up).unwrap();
            let answer = client.announce(first + number, 200).await;
            assert_eq!(answer.connections, 1, "{protocol}, announce {number}");
            let changes = usize::from(number) / 2;
            assert!(answer.path_changes >= changes, "{protocol}: {answer:?}");
        }
        topology.set_link(LINKS[1], LinkState::Up).unwrap();
        let stop = CancellationToken::new();
        let flapping = tokio::spawn(flap(Arc::clone(&topology), stop.clone()));
        let since = Instant::now();
        let mut port = first + ANNOUNCES;
        while since.elapsed() < Duration::from_secs(1) {
            let answer = client.announce(port, 200).await;
            assert_eq!(answer.connections, 1, "{protocol}, peer {port}");
            port = (port + 1).min(first + 99);
        }
        stop.cancel();
        flapping.await.unwrap();
        topology.set_link(LINKS[0], LinkState::Up).unwrap();
    }
    tracker.stop().await;
    Arc::into_inner(topology).unwrap().stop().await;
}

/// Paths expire in a few seconds. A client renews them, and the tracker has to answer over the renewed ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_its_paths() {
    const LIFETIME: u32 = 3;
    let topology = Arc::new(network(|config| config.path_lifetime = LIFETIME).await);
    let tracker = Arc::new(Tracker::start("1-ff00:0:111"));
    let mut clients = JoinSet::new();
    for (protocol, first) in PROTOCOLS.into_iter().zip([7000, 7100, 7200]) {
        let from = ia("2-ff00:0:212");
        let client = GoClient::start(&topology, &tracker, from, protocol).await;
        let Some(mut client) = client else { return };
        clients.spawn(async move {
            let since = Instant::now();
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            let mut port = first;
            while since.elapsed() < Duration::from_secs((3 * LIFETIME).into()) {
                ticks.tick().await;
                let answer = client.announce(port, 200).await;
                assert_eq!(answer.connections, 1, "{protocol}, peer {port}");
                assert_eq!(answer.path_changes, 0, "{protocol}: the way is the same");
                port = (port + 1).min(first + 99);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(tracker).unwrap().stop().await;
    Arc::into_inner(topology).unwrap().stop().await;
}
