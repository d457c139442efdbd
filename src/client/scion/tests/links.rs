//! Links that fail, and links that are too small for the packets.

use std::process::Command;

use super::*;

/// Names the test process in a network namespace of its own.
const INSIDE: &str = "SCION_TRACKER_TEST_NAMESPACE";
/// The MTU of a link that carries IPv4 packets of 1280 bytes behind the headers of the underlay.
const LINK: usize = 1308;

/// A path of one link between these interfaces. `hops` is the number of hop fields: those between the
/// first and the last have no interfaces.
fn path_between(out: u8, into: u8, hops: u8) -> Vec<u8> {
    let mut raw = path(out);
    raw[25 + 2] = into;
    raw[2] = hops << 4;
    for number in 2..hops {
        let hop = [0, 63, 0, 0, 0, 0, 6, 5, 4, 3, 2, number];
        raw.splice(24..24, hop);
    }
    raw
}

/// Three paths. The first two share an interface, which fails after this many packets.
async fn fail_over(tracker: &Tracker, packets: usize) -> Duration {
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[]).await;
    for (out, into) in [(1, 2), (1, 4), (5, 6)] {
        let ends = [
            format!("2-ff00:0:210#{out}"),
            format!("1-ff00:0:110#{into}"),
        ];
        let raw = path_between(out, into, 2);
        daemon.add_path(raw, relay.addr, &[&ends[0], &ends[1]]);
    }
    let client = tracker.client(None, daemon.addr.into());
    relay.take_down_after(1, packets);
    let since = Instant::now();
    let answer = client
        .announce(&tracker.url("https"), &announce(7000))
        .await;
    let took = since.elapsed();
    assert!(answer.is_ok(), "{answer:?}");
    took
}

/// QUIC waits 450 ms before it sends a packet again that it knows nothing of. A packet that a router
/// returns is sent again at once, over a path without the link that failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_path_avoids_the_link_that_fails() {
    let tracker = Tracker::start(&[]);
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(fail_over(&tracker, 0).await);
    }
    // The fastest, because other programs may slow the others down.
    assert!(
        took.iter().min() < Some(&Duration::from_millis(400)),
        "{took:?}"
    );
}

/// If all known paths have the link that fails, returned packet waits for a fresh path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_packet_waits_for_a_fresh_path() {
    let mut took = Vec::new();
    for _ in 0..5 {
        let tracker = Tracker::start(&[]);
        let relay = tracker.relay();
        let daemon = daemon(relay.addr, &[1]).await;
        let [out, into] = ends(5);
        daemon.add_fresh_path(path(5), relay.addr, &[&out, &into]);
        relay.take_down(1);
        let client = tracker.client(None, daemon.addr.into());
        let since = Instant::now();
        let answer = client
            .announce(&tracker.url("https"), &announce(7000))
            .await;
        took.push(since.elapsed());
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert!(
        took.iter().min() < Some(&Duration::from_millis(400)),
        "{took:?}"
    );
}

/// Runs a test again in a network namespace with a loopback interface of this MTU. Returns whether this
/// process is inside, where the test is to go on.
fn with_links_of(mtu: usize, test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let mut ip = Command::new("ip");
        ip.args(["link", "set", "lo", "up", "mtu", &mtu.to_string()]);
        assert!(ip.status().unwrap().success());
        return true;
    }
    let unshare = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user"]).arg(program);
        command
    };
    let can = unshare("ip".as_ref()).args(["link", "show", "lo"]).output();
    if !can.as_ref().is_ok_and(|output| output.status.success()) {
        use std::io::Write as _;
        // Not with a macro, because the output of a test that passes is not shown.
        let line =
            format!("\nSKIPPED: {test} needs root or user namespaces, unshare and ip: {can:?}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        return false;
    }
    let output = unshare(std::env::current_exe().unwrap().as_os_str())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// The longest headers and packets of QUIC pass in fragments. Replies over UDP need none.
#[test]
fn packets_that_are_longer_than_the_mtu_of_a_link_arrive() {
    let test = "client::scion::tests::links::packets_that_are_longer_than_the_mtu_of_a_link_arrive";
    if !with_links_of(LINK, test) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // A packet of 1309 bytes with DF does not pass this link.
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        quinn::udp::UdpSocketState::new((&probe).into()).unwrap();
        let too_long = [0; LINK - 28 + 1];
        let refused = probe.send_to(&too_long, "127.0.0.1:9").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

        let tracker = Tracker::start_with(|config| {
            config.registry.peers_per_source_in_torrent = 1000;
        });
        let near = tracker.client(Some(NEAR), nowhere());
        for nth in 0..200 {
            let mut peer = announce(7000 + nth);
            peer.announce.peer_id.0[18..].copy_from_slice(&nth.to_be_bytes());
            near.announce(&tracker.url("udp"), &peer).await.unwrap();
        }
        // 10 hop fields: QUIC packets of 1404 bytes in the underlay.
        for hops in [2, 10] {
            let relay = tracker.relay();
            let daemon = daemon(relay.addr, &[]).await;
            let [out, into] = ends(1);
            daemon.add_path(path_between(1, 2, hops), relay.addr, &[&out, &into]);
            let client = tracker.client(None, daemon.addr.into());
            let mut asked = announce(8000);
            asked.announce.numwant = Some(200);
            for scheme in ["https", "udp"] {
                let answer = client.announce(&tracker.url(scheme), &asked).await.unwrap();
                let least = if scheme == "udp" { 40 } else { 50 };
                assert!(answer.peers.len() > least, "{hops} {scheme}");
            }
        }
    });
}
