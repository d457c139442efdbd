//! Networks with small MTUs and short-lived paths.

use std::process::Command;
use std::time::Duration;

use tokio::runtime;

use crate::common::{Tracker, announce, ia, network, peers};

/// Set for a test process in a network namespace of its own.
const INSIDE: &str = "SCION_LOCAL_TOPOLOGY_TEST_NAMESPACE";
/// MTU of AS and links, in bytes with SCION headers.
const PATH_MTU: u16 = 1280;
/// MTU of the links between hosts and routers: it carries packets of 1280 bytes with the IPv4 and UDP
/// headers of the underlay.
const LINK_MTU: u16 = 1308;

/// Runs a test again in a network namespace with a loopback interface of this MTU. Returns whether this
/// process is inside, where the test is to go on.
fn with_links_of(mtu: u16, test: &str) -> bool {
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
        let line =
            format!("\nSKIPPED: {test} needs root or user namespaces, unshare and ip: {can:?}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
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

/// Paths have an MTU of 1280, and so have the links to the routers. Packets of QUIC are longer on the longest
/// paths, and pass in fragments: a sender that forbids them cannot send. Replies over UDP need none.
#[test]
fn small_links_carry_announces() {
    if !with_links_of(LINK_MTU, "limits::small_links_carry_announces") {
        return;
    }
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let topology = network(|config| {
            config.ases.iter_mut().for_each(|it| it.mtu = PATH_MTU);
            config.links.iter_mut().for_each(|it| it.mtu = PATH_MTU);
        })
        .await;
        let tracker = Tracker::start("1-ff00:0:111");
        let fill = tracker.client(&topology, ia("1-ff00:0:111"));
        for port in 7000..7200 {
            fill.announce(&tracker.url("udp"), &announce(1, port))
                .await
                .unwrap();
        }
        for (from, needs_fragments, most) in [
            ("1-ff00:0:111", false, 46),
            ("1-ff00:0:110", false, 45),
            ("2-ff00:0:212", true, 42),
        ] {
            let client = tracker.client(&topology, ia(from));
            if from != "1-ff00:0:111" {
                for path in client.paths(&tracker.url("https")).await.unwrap().paths {
                    assert_eq!(path.mtu(), Some(PATH_MTU), "{from}");
                    let too_small = path.too_small_for_quic().is_some();
                    assert_eq!(too_small, needs_fragments, "{from}");
                }
            }
            let mut query = announce(1, 8000);
            query.announce.numwant = Some(200);
            let url = tracker.url("https");
            let answer = client.announce(&url, &query).await.unwrap();
            assert_eq!(peers(&answer).len(), 200, "{from}");
            let answer = client.announce(&tracker.url("udp"), &query).await.unwrap();
            // What fits 1280 bytes, with the headers of the path back. A peer has 26 bytes.
            assert_eq!(peers(&answer).len(), most, "{from}");
        }
        tracker.stop().await;
        topology.stop().await;
    });
}

/// A client keeps no path beyond its end: the next announce takes a new one. The tracker does not either, for
/// a client that it knows.
#[tokio::test(flavor = "multi_thread")]
async fn announces_go_on_when_paths_expire() {
    // A client takes no path that expires within 10 s. The rest is time for a busy machine.
    const LIFETIME: u32 = 20;
    let topology = network(|config| config.path_lifetime = LIFETIME).await;
    let tracker = Tracker::start("1-ff00:0:111");
    let client = tracker.client(&topology, ia("2-ff00:0:212"));
    for (round, ports) in [[7001, 7002], [7003, 7004]].into_iter().enumerate() {
        if round > 0 {
            // Every path known so far has expired after this time.
            tokio::time::sleep(Duration::from_secs(u64::from(LIFETIME) + 1)).await;
        }
        for (number, (scheme, port)) in ["https", "udp"].into_iter().zip(ports).enumerate() {
            let url = tracker.url(scheme);
            let answer = client.announce(&url, &announce(1, port)).await.unwrap();
            assert_eq!(peers(&answer).len(), 2 * round + number, "{scheme}, {port}");
        }
    }
    tracker.stop().await;
    topology.stop().await;
}
