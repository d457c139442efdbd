//! Announces behind border routers, from every AS and over every transport on SCION.

use std::time::Duration;

use scion_local_topology::LinkState;
use scion_tracker_core::request::Event;
use tokio::time::timeout;

use crate::common::{Tracker, announce, ia, network, peers, two_isds};

/// If nothing arrives within this time, nothing is coming.
const NOTHING: Duration = Duration::from_millis(500);

/// Two peers in each AS announce one after the other. Each receives all earlier peers.
async fn check_every_as(scheme: &str, swarm: u8) {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let url = tracker.url(scheme);
    let mut known = Vec::new();
    for _ in 0..2 {
        for it in &topology.config().ases {
            let client = tracker.client(&topology, it.ia);
            let port = 7001 + known.len() as u16;
            let answer = client.announce(&url, &announce(swarm, port)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{scheme}, {}: {error:?}", it.ia));
            let mut given = peers(&answer);
            given.sort_unstable();
            assert_eq!(given, known, "{scheme}, {}", it.ia);
            known.push((it.ia, port));
            known.sort_unstable();
        }
    }
    for it in &topology.config().ases {
        let mut few = announce(swarm, 7099);
        few.announce.numwant = Some(2);
        let client = tracker.client(&topology, it.ia);
        let given = peers(&client.announce(&url, &few).await.unwrap());
        let near = given.iter().filter(|(ia, _)| *ia == it.ia).count();
        assert_eq!(
            near, 2,
            "{scheme}, {}: of 12 peers its own two: {given:?}",
            it.ia
        );
        few.announce.event = Event::Stopped;
        client.announce(&url, &few).await.unwrap();
    }
    let handle = tracker.handle.clone();
    tracker.stop().await;
    let stats = handle.stats();
    assert_eq!(stats.registry.leechers, known.len() as u64, "{stats:?}");
    topology.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces_over_http3() {
    check_every_as("https", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces_over_udp() {
    check_every_as("udp", 2).await;
}

/// The shortest path drops packets without an error message.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_drops_packets_is_abandoned() {
    let topology = two_isds().await;
    topology.set_link("peering", LinkState::Mute).unwrap();
    let tracker = Tracker::start("1-ff00:0:112");
    for (scheme, port) in [("https", 7001), ("udp", 7002)] {
        let client = tracker.client(&topology, ia("2-ff00:0:211"));
        let url = tracker.url(scheme);
        let paths = client.paths(&url).await.unwrap();
        assert_eq!(paths.paths.len(), 3, "{paths:?}");
        let answer = client.announce(&url, &announce(1, port)).await.unwrap();
        assert_eq!(answer.peers.len(), usize::from(port - 7001), "{scheme}");
    }
    tracker.stop().await;
    topology.stop().await;
}

/// All core links are down. Between the ISDs only the peering link remains, for ASes that have it
/// above them on the path.
#[tokio::test(flavor = "multi_thread")]
async fn a_peering_link_carries_announces() {
    let topology = two_isds().await;
    for link in ["core-a", "core-b"] {
        topology.set_link(link, LinkState::Down).unwrap();
    }
    let tracker = Tracker::start("1-ff00:0:112");
    let mut before = 0;
    for (scheme, first) in [("https", 7001), ("udp", 7011)] {
        let url = tracker.url(scheme);
        for (from, port) in ["2-ff00:0:211", "2-ff00:0:212"].into_iter().zip(first..) {
            let client = tracker.client(&topology, ia(from));
            let answer = client.announce(&url, &announce(1, port)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{scheme}, {from}: {error:?}"));
            assert_eq!(answer.peers.len(), before, "{scheme}, {from}");
            before += 1;
        }
    }
    let client = tracker.client(&topology, ia("2-ff00:0:210"));
    let (url, query) = (tracker.url("udp"), announce(1, 7021));
    let early = timeout(NOTHING, client.announce(&url, &query)).await;
    assert!(early.is_err(), "{early:?}");
    tracker.stop().await;
    topology.stop().await;
}

/// Clients use ports from the range that the daemon gives.
#[tokio::test(flavor = "multi_thread")]
async fn clients_announce_from_ports_that_routers_deliver_to() {
    const FROM: &str = "2-ff00:0:211";
    let topology = network(|config| {
        let mut ases = config.ases.iter_mut();
        let it = ases.find(|it| it.ia == ia(FROM)).unwrap();
        it.ports = "31000-32767".parse().unwrap();
    })
    .await;
    let tracker = Tracker::start("1-ff00:0:111");
    for (scheme, port) in [("https", 7001), ("udp", 7002)] {
        let client = tracker.client(&topology, ia(FROM));
        let url = tracker.url(scheme);
        let answer = client.announce(&url, &announce(1, port)).await.unwrap();
        assert_eq!(answer.peers.len(), usize::from(port - 7001), "{scheme}");
    }
    tracker.stop().await;
    topology.stop().await;
}
