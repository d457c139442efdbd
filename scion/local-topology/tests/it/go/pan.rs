//! A client in Go with scion-apps (tests/pan-client): pan's sockets, shttp, and HTTP/3 on a socket of pan.
//!
//! Inside the AS of the tracker pan sends to UDP port 30041 of the host, whatever the port of the tracker.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scion_local_topology::{LinkState, Topology};
use scion_tracker_core::address::IsdAs;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{GoClient, PROTOCOLS};
use super::program::{Program, skipped};
use super::{check_every_as, check_long_replies};
use crate::common::{Tracker, ia, own_address, two_isds};
use crate::failure::{LINKS, flap};

static PAN: Program = Program::new("pan-client");

/// The name of the tracker for shttp. With Go 1.26 a URL cannot have a SCION address.
const NAME: &str = "tracker.example";

/// Runs a program with another file in place of /etc/hosts, where pan looks names up.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// Starts a client. `None`, which it says, if it cannot be built, or if it cannot have its own names.
async fn start(
    topology: &Topology,
    tracker: &Tracker,
    from: IsdAs,
    protocol: &'static str,
    options: &[&str],
) -> Option<GoClient> {
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
    let client = GoClient::run(command, topology, tracker, from, protocol);
    Some(client.with(directory))
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

/// The tracker receives on port 30041 too, for the clients of its own AS.
#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces_and_scrapes() {
    const AS: &str = "1-ff00:0:111";
    let topology = two_isds().await;
    let address = format!("{AS},[{}]:0", own_address(16));
    let tracker = Tracker::start_with(&address, |config| config.scion.endhost_port = Some(true));
    let start = async |from, protocol| start(&topology, &tracker, from, protocol, &[]).await;
    check_every_as(&topology, &tracker, start).await;
    tracker.stop().await;
    topology.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_replies_arrive() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let from = ia("2-ff00:0:212");
    check_long_replies(async |protocol| start(&topology, &tracker, from, protocol, &[]).await)
        .await;
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
            let client = start(&topology, &tracker, from, protocol, &[]).await;
            let Some(mut client) = client else {
                continue 'protocols;
            };
            client.announce(first, 200).await;
            topology.set_link(link, LinkState::Down).unwrap();
            let answer = client.announce(first + 1, 200).await;
            assert_eq!(answer.connections, 1, "{protocol}, {link}");
            changes += answer.path_changes;
            topology.set_link(link, LinkState::Up).unwrap();
            let stop = CancellationToken::new();
            let flapping = tokio::spawn(flap(Arc::clone(&topology), stop.clone()));
            let since = Instant::now();
            let mut port = first + 2;
            while since.elapsed() < Duration::from_secs(1) {
                let answer = client.announce(port, 200).await;
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
        let client = start(&topology, &tracker, from, protocol, &[&rules]).await;
        let Some(mut client) = client else { continue };
        topology.set_link(LINKS[0], LinkState::Down).unwrap();
        client.announce(port, 200).await;
        topology.set_link(LINKS[0], LinkState::Up).unwrap();
        topology.set_link(LINKS[1], LinkState::Down).unwrap();
        let mut asking = Box::pin(client.announce(port + 1, 200));
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
