//! A client in Go with scion-apps (tests/pan-client): pan's sockets, shttp, and HTTP/3 on a socket of pan.
//!
//! Inside the AS of the tracker pan sends to UDP port 30041 of the host, whatever the port of the tracker.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scion_local_topology::{LinkState, Topology};
use scion_tracker_core::address::IsdAs;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{GoClient, PROTOCOLS};
use super::program::{Program, skipped};
use crate::common::{Tracker, ia, own_address, two_isds};
use crate::failure::{LINKS, flap};

static PAN: Program = Program::new("pan-client");

/// The name of the tracker for shttp. With Go 1.26 a URL cannot have a SCION address.
const NAME: &str = "tracker.example";

/// Runs a program with another file in place of /etc/hosts, where pan looks names up.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// A client and its folder, with its file of names.
struct PanClient {
    go: GoClient,
    _directory: TempDir,
}

impl PanClient {
    /// Starts a client. `None`, which it says, if it cannot be built, or if it cannot have its own names.
    async fn start(
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
        options: &[&str],
    ) -> Option<Self> {
        let program = PAN.path().await?;
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        let (ia, ip) = (tracker.scion.host.ia, tracker.scion.host.ip());
        fs::write(&hosts, format!("{ia},{ip} {NAME}\n")).unwrap();
        let mut command = if protocol == "qs" {
            if !own_mounts().await {
                return None;
            }
            let mut command = unshare();
            command
                .args(["sh", "-c", WITH_HOSTS])
                .arg(&hosts)
                .arg(program)
                .arg(format!("-name={NAME}"));
            command
        } else {
            Command::new(program)
        };
        // Another host than the tracker's, also in its AS.
        let local = own_address(17);
        command
            .arg(format!("-to={ia},[{ip}]:{}", tracker.scion.port))
            .arg(format!("-local={local}"))
            .args(options)
            // For its socket, which it cannot remove when it is killed.
            .env("TMPDIR", directory.path());
        Some(Self {
            go: GoClient::run(command, topology, tracker, from, protocol),
            _directory: directory,
        })
    }
}

/// A program with its own mounts.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
    command
}

/// Whether this host allows programs their own mounts. Says it if not.
async fn own_mounts() -> bool {
    static ALLOWED: OnceCell<bool> = OnceCell::const_new();
    let allowed = ALLOWED.get_or_init(|| async {
        let mut command = unshare();
        command.args(["sh", "-c", WITH_HOSTS, "/etc/hosts", "true"]);
        let why = match command.output().await {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        skipped(&format!(
            "shttp of scion-apps is not tested: it needs its own /etc/hosts: unshare: {why}"
        ));
        false
    });
    *allowed.await
}

/// One client per AS and protocol announces two peers, each of which receives all earlier ones, and scrapes.
/// The tracker receives on port 30041 too, for the clients of its own AS.
#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces_and_scrapes() {
    const AS: &str = "1-ff00:0:111";
    let topology = two_isds().await;
    let address = format!("{AS},[{}]:0", own_address(16));
    let tracker = Tracker::start_with(&address, |config| config.scion.endhost_port = Some(true));
    let mut known = Vec::new();
    for protocol in PROTOCOLS {
        for it in &topology.config().ases {
            let client = PanClient::start(&topology, &tracker, it.ia, protocol, &[]).await;
            let Some(mut client) = client else { continue };
            for _ in 0..2 {
                let port = 7001 + known.len() as u16;
                let answer = client.go.announce(port, 200).await;
                let mut given = answer.peers;
                given.sort_unstable();
                assert_eq!(given, known, "{protocol}, {}", it.ia);
                assert_eq!(answer.connections, 1, "{protocol}, {}", it.ia);
                known.push((it.ia, port));
                known.sort_unstable();
            }
            let leechers = client.go.scrape().await;
            assert_eq!(leechers as usize, known.len(), "{protocol}, {}", it.ia);
        }
    }
    let stats = tracker.handle.stats();
    assert_eq!(stats.registry.leechers, known.len() as u64, "{stats:?}");
    tracker.stop().await;
    topology.stop().await;
}

/// The longest replies: 200 peers over HTTP, and as many as fit a packet of 1280 bytes over UDP.
#[tokio::test(flavor = "multi_thread")]
async fn long_replies_arrive() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    let filling = PanClient::start(&topology, &tracker, from, "udp", &[]).await;
    let Some(mut filling) = filling else { return };
    for port in 8000..8250 {
        filling.go.announce(port, 1).await;
    }
    for (protocol, expected) in [("qs", 200), ("h3", 200), ("udp", 78)] {
        let client = PanClient::start(&topology, &tracker, from, protocol, &[]).await;
        let Some(mut client) = client else { continue };
        let answer = client.go.announce(9000, 200).await;
        assert_eq!(answer.peers.len(), expected, "{protocol}");
    }
    tracker.stop().await;
    topology.stop().await;
}

/// Each link fails once before an announce, so that the path of one client is gone: pan takes the other one.
/// After that the link flaps during the announces.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_links() {
    let topology = Arc::new(two_isds().await);
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    'protocols: for (protocol, first) in PROTOCOLS.into_iter().zip([7000, 7200, 7400]) {
        let mut changes = 0;
        for (link, first) in LINKS.into_iter().zip([first, first + 100]) {
            let client = PanClient::start(&topology, &tracker, from, protocol, &[]).await;
            let Some(mut client) = client else {
                continue 'protocols;
            };
            client.go.announce(first, 200).await;
            topology.set_link(link, LinkState::Down).unwrap();
            let answer = client.go.announce(first + 1, 200).await;
            assert_eq!(answer.connections, 1, "{protocol}, {link}");
            changes += answer.path_changes;
            topology.set_link(link, LinkState::Up).unwrap();
            let stop = CancellationToken::new();
            let flapping = tokio::spawn(flap(Arc::clone(&topology), stop.clone()));
            let since = Instant::now();
            let mut port = first + 2;
            while since.elapsed() < Duration::from_secs(1) {
                let answer = client.go.announce(port, 200).await;
                assert_eq!(answer.connections, 1, "{protocol}, {link}, peer {port}");
                port = (port + 1).min(first + 99);
            }
            stop.cancel();
            flapping.await.unwrap();
            topology.set_link(LINKS[0], LinkState::Up).unwrap();
        }
        // shttp does not say which path it takes.
        assert!(protocol == "qs" || changes > 0, "{protocol}");
    }
    tracker.stop().await;
    Arc::into_inner(topology).unwrap().stop().await;
}

/// A policy denies the paths over one link. If the other link fails, the announce waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_chooses_the_path() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    let mut links = topology.config().links.iter();
    let denied = &links.find(|it| it.name == LINKS[0]).unwrap().from;
    let rules = format!("-acl=- {}#{},+", denied.ia, denied.number);
    for (protocol, port) in PROTOCOLS.into_iter().zip([7000, 7010, 7020]) {
        let client = PanClient::start(&topology, &tracker, from, protocol, &[&rules]).await;
        let Some(mut client) = client else { continue };
        topology.set_link(LINKS[0], LinkState::Down).unwrap();
        client.go.announce(port, 200).await;
        topology.set_link(LINKS[0], LinkState::Up).unwrap();
        topology.set_link(LINKS[1], LinkState::Down).unwrap();
        let mut asking = Box::pin(client.go.announce(port + 1, 200));
        let early = timeout(Duration::from_millis(500), &mut asking).await;
        assert!(early.is_err(), "{protocol}: {early:?}");
        topology.set_link(LINKS[1], LinkState::Up).unwrap();
        let answer = asking.await;
        assert_eq!(answer.connections, 1, "{protocol}");
        assert_eq!(answer.path_changes, 0, "{protocol}");
    }
    tracker.stop().await;
    topology.stop().await;
}
