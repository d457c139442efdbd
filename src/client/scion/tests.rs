//! Tests the client over SCION with a complete tracker and complete packets. A relay acts as the
//! border routers, and a fake daemon speaks gRPC.

mod links;

use std::io::Write as _;
use std::time::{Duration, Instant};

use scion_tracker_core::codec::query::AnnounceQuery;
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::{AnnounceRequest, Claim};
use scion_tracker_core::types::{InfoHash, PeerId};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::path::tests::interface;
use super::*;
use crate::client::{Client, Options, RequestError, Trust};
use crate::config::Config;
use crate::scion::daemon::fake::FakeDaemon;
use crate::scion::socket::tests::net::{Relay, host, path};
use crate::server::Server;

const TRACKER: &str = "1-ff00:0:110,[127.0.0.1]";
const NEAR: &str = "1-ff00:0:110,[127.0.0.1]";
const FAR: &str = "2-ff00:0:210,[127.0.0.1]";
const HASH: InfoHash = InfoHash([0x11; 20]);

/// A tracker on SCION only, with a self-signed certificate. It stops when it is dropped.
struct Tracker {
    addr: ScionAddr,
    trust: Trust,
    _dir: TempDir,
    _stop: DropGuard,
}

impl Tracker {
    fn start(names: &[&str]) -> Self {
        Self::start_with(|config| {
            config.tls.names = names.iter().map(ToString::to_string).collect();
        })
    }

    fn start_with(settings: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.listen.udp.clear();
        config.listen.http.clear();
        config.listen.https.clear();
        config.listen.http3.clear();
        config.listen.scion = vec![format!("{TRACKER}:0").parse().unwrap()];
        config.data_dir = Some(dir.path().into());
        settings(&mut config);
        let server = Server::bind(config).unwrap();
        let addr = server.listeners().find_map(|it| it.scion).unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { server.run(stopped.cancelled_owned()).await.unwrap() });
        Self {
            addr,
            trust: Trust::File(dir.path().join("self-signed.pem")),
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    fn underlay(&self) -> SocketAddr {
        SocketAddr::new(self.addr.host.ip(), self.addr.port)
    }

    fn relay(&self) -> Relay {
        Relay::to([(self.addr.host, self.underlay())])
    }

    fn url(&self, scheme: &str) -> TrackerUrl {
        format!("{scheme}://{}", self.addr.url_authority())
            .parse()
            .unwrap()
    }

    /// A client on this host with this daemon.
    fn client(&self, local: Option<&str>, daemon: DaemonAddr) -> Client {
        self.client_with(ScionOptions {
            daemon,
            local: local.map(host),
            hosts: "/nonexistent/hosts".into(),
            ..ScionOptions::default()
        })
    }

    fn client_with(&self, scion: ScionOptions) -> Client {
        Client::new(&Options {
            timeout: Duration::from_secs(20),
            trust: self.trust.clone(),
            scion,
        })
        .unwrap()
    }
}

/// Starts a daemon of the far AS, with paths that begin at these interfaces.
async fn daemon(next_hop: SocketAddr, interfaces: &[u8]) -> FakeDaemon {
    let daemon = FakeDaemon::start("2-ff00:0:210").await;
    for number in interfaces {
        let [out, into] = ends(*number);
        daemon.add_path(path(*number), next_hop, &[&out, &into]);
    }
    daemon
}

/// The interfaces of [`path`].
fn ends(number: u8) -> [String; 2] {
    [
        format!("2-ff00:0:210#{number}"),
        format!("1-ff00:0:110#{}", number + 1),
    ]
}

/// An address without a daemon.
fn nowhere() -> DaemonAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn announce(port: u16) -> AnnounceQuery {
    AnnounceQuery {
        announce: AnnounceRequest::new(HASH, PeerId(*b"-SC0100-aaaaaaaaaaaa"), port, 1),
        compact: Some(false),
        no_peer_id: false,
    }
}

fn peers(answer: &AnnounceAnswer) -> Vec<String> {
    let peers = answer.peers.iter();
    let mut peers: Vec<_> = peers
        .map(|peer| format!("{},{}", peer.endpoint.ia, peer.endpoint.addr))
        .collect();
    peers.sort_unstable();
    peers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_an_as_no_daemon_is_needed() {
    let tracker = Tracker::start(&[]);
    let client = tracker.client(Some(NEAR), nowhere());
    let mut known = Vec::new();
    for (nth, scheme) in ["https", "udp", "http"].into_iter().enumerate() {
        let port = 7000 + nth as u16;
        let answer = client
            .announce(&tracker.url(scheme), &announce(port))
            .await
            .unwrap();
        assert_eq!(peers(&answer), known, "{scheme}");
        known.push(format!("1-ff00:0:110,127.0.0.1:{port}"));
        assert_eq!(answer.incomplete, Some(known.len() as u64));
    }
    for scheme in ["https", "udp", "h3", "http"] {
        let answer = client.scrape(&tracker.url(scheme), &[HASH]).await.unwrap();
        assert_eq!(answer.files[0].1.leechers, 3, "{scheme}");
    }
    let paths = client.paths(&tracker.url("udp")).await.unwrap();
    assert_eq!((paths.from, paths.to), (tracker.addr.host.ia, tracker.addr));
    assert_eq!(paths.paths, [ScionPath::inside(tracker.underlay())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_ases_paths_come_from_the_daemon() {
    let tracker = Tracker::start(&[]);
    let daemon = daemon(tracker.underlay(), &[1, 3]).await;
    daemon.knows.lock().ports = (31000, 32767);
    // The daemon gives the ISD-AS of the client.
    let client = tracker.client(None, daemon.addr.into());
    let near = tracker.client(Some(NEAR), nowhere());
    near.announce(&tracker.url("udp"), &announce(7000))
        .await
        .unwrap();
    let here = "1-ff00:0:110,127.0.0.1:7000".to_owned();
    for (scheme, known) in [
        ("https", vec![here.clone()]),
        (
            "udp",
            vec![here.clone(), "2-ff00:0:210,127.0.0.1:7001".into()],
        ),
    ] {
        let port = 7001 + known.len() as u16 - 1;
        let answer = client
            .announce(&tracker.url(scheme), &announce(port))
            .await
            .unwrap();
        assert_eq!(peers(&answer), known, "{scheme}");
    }
    let paths = client.paths(&tracker.url("https")).await.unwrap();
    assert_eq!(paths.from, host(FAR).ia);
    let shown: Vec<_> = paths.paths.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "2-ff00:0:210 1>2 1-ff00:0:110",
            "2-ff00:0:210 3>4 1-ff00:0:110"
        ]
    );
    assert_eq!(paths.paths[0].latency(), Some(Duration::from_millis(10)));
    assert_eq!(paths.paths[0].mtu(), Some(1472));

    let call = client.scion.call(tracker.addr).await.unwrap();
    assert!(
        (31000..=32767).contains(&call.local().port),
        "{}",
        call.local()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_lead_to_scion_and_are_on_the_certificate() {
    let tracker = Tracker::start(&["tracker.lab"]);
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "{TRACKER} tracker.lab other.lab").unwrap();
    let client = tracker.client_with(ScionOptions {
        daemon: nowhere(),
        local: Some(host(NEAR)),
        hosts: hosts.path().into(),
        ..ScionOptions::default()
    });
    let url = |scheme: &str, name: &str| -> TrackerUrl {
        format!("{scheme}://{name}:{}/announce", tracker.addr.port)
            .parse()
            .unwrap()
    };
    for scheme in ["https", "h3", "udp", "http"] {
        let answer = client
            .announce(&url(scheme, "tracker.lab"), &announce(7000))
            .await;
        assert!(answer.is_ok(), "{scheme}: {answer:?}");
    }
    let error = client
        .announce(&url("https", "other.lab"), &announce(7000))
        .await;
    assert!(matches!(error, Err(RequestError::Quic { .. })), "{error:?}");
    // http:// verifies no certificate. A name without a SCION address is one on plain IP.
    let answer = client
        .announce(&url("http", "other.lab"), &announce(7000))
        .await;
    assert!(answer.is_ok(), "{answer:?}");
    let error = client
        .announce(&url("http", "third.invalid"), &announce(7000))
        .await;
    assert!(
        matches!(error, Err(RequestError::Resolve { .. })),
        "{error:?}"
    );
    let error = client.paths(&url("udp", "third.lab")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("third.lab is neither a SCION address"),
        "{error}"
    );
}

/// Takes a link of the path in use down after this many packets. Lost packets of the client are
/// reported to the client, those of the tracker to the tracker.
async fn check_link_failure(scheme: &str, packets: usize, within: Duration) {
    let tracker = Tracker::start(&[]);
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[1, 3]).await;
    let client = tracker.client(None, daemon.addr.into());
    relay.take_down_after(1, packets);
    let since = Instant::now();
    let answer = client.announce(&tracker.url(scheme), &announce(7000)).await;
    let took = since.elapsed();
    assert!(answer.is_ok(), "after {packets} packets: {answer:?}");
    assert!(took < within, "after {packets} packets: {took:?}");
    assert_eq!(
        daemon.knows.lock().asked,
        (1, 0),
        "the other path was known"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_http3_survives_a_link_that_goes_down() {
    // The handshake is no faster than the retransmissions of the tracker.
    for packets in 0..9 {
        check_link_failure("https", packets, Duration::from_secs(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_qs_survives_a_link_that_goes_down() {
    for packets in [0, 3, 6] {
        check_link_failure("http", packets, Duration::from_secs(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_udp_survives_a_link_that_goes_down() {
    // Connect and its reply, announce and its reply.
    for packets in [0, 2] {
        check_link_failure("udp", packets, Duration::from_secs(2)).await;
    }
    // The tracker knows no other path to the client, which repeats the request.
    for packets in [1, 3] {
        check_link_failure("udp", packets, Duration::from_secs(4)).await;
    }
}

/// The reply to the announce, packet 3, meets a link that is down. The tracker sends it again over the
/// path of another client in the same AS, which announces before or after the link goes down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_over_udp_takes_the_path_of_another_client_of_the_as() {
    for before in [true, false] {
        let tracker = Tracker::start(&[]);
        let relay = tracker.relay();
        let daemon = daemon(relay.addr, &[1, 3]).await;
        let mut one = tracker.client(None, daemon.addr.into());
        // It does not repeat its request.
        one.udp.first_wait = Duration::from_secs(3600);
        let other = tracker.client_with(ScionOptions {
            daemon: daemon.addr.into(),
            hosts: "/nonexistent/hosts".into(),
            path: Some(1),
            ..ScionOptions::default()
        });
        let url = tracker.url("udp");
        if before {
            other.announce(&url, &announce(7001)).await.unwrap();
        }
        relay.take_down_after(1, 3);
        let asked = announce(7000);
        let answer = one.announce(&url, &asked);
        let answer = match before {
            true => answer.await,
            false => {
                let others = async {
                    // The fuse counts packets, so the link goes down before the first of these.
                    while !relay.is_down(1) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    loop {
                        other.announce(&url, &announce(7001)).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                tokio::select! {
                    answer = answer => answer,
                    () = others => unreachable!(),
                }
            }
        };
        assert!(answer.is_ok(), "{before}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_known_paths_have_failed_the_daemon_is_asked_for_fresh_ones() {
    let tracker = Tracker::start(&[]);
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[1, 3]).await;
    let [out, into] = ends(5);
    daemon.add_fresh_path(path(5), relay.addr, &[&out, &into]);
    relay.take_all_down(&[1, 3]);
    let client = tracker.client(None, daemon.addr.into());
    for scheme in ["https", "udp"] {
        let answer = client.announce(&tracker.url(scheme), &announce(7000)).await;
        assert!(answer.is_ok(), "{scheme}: {answer:?}");
    }
    assert_eq!(daemon.knows.lock().asked, (4, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_swallows_packets_is_left() {
    let tracker = Tracker::start(&[]);
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[1, 3]).await;
    relay.make_hole(1);
    let mut client = tracker.client(None, daemon.addr.into());
    client.udp.first_wait = Duration::from_millis(100);
    for scheme in ["https", "udp"] {
        let answer = client.announce(&tracker.url(scheme), &announce(7000)).await;
        assert!(answer.is_ok(), "{scheme}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_path_works_the_error_says_what_is_down() {
    let tracker = Tracker::start(&[]);
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[1]).await;
    relay.take_all_down(&[1]);
    let mut client = tracker.client(None, daemon.addr.into());
    client.timeout = Duration::from_millis(1500);
    for scheme in ["https", "udp"] {
        let answer = client.announce(&tracker.url(scheme), &announce(7000)).await;
        let error = answer.unwrap_err().to_string();
        let says = "in time: the link at 2-ff00:0:210#1 is down";
        assert!(error.ends_with(says), "{scheme}: {error}");
    }
}

/// Returns the error of a request between ASes with these options.
async fn refused(tracker: &Tracker, options: ScionOptions) -> String {
    let client = tracker.client_with(ScionOptions {
        hosts: "/nonexistent/hosts".into(),
        ..options
    });
    let answer = client
        .announce(&tracker.url("https"), &announce(7000))
        .await;
    format!("{:#}", anyhow::Error::new(answer.unwrap_err()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_and_the_number_choose_the_path() {
    let tracker = Tracker::start(&[]);
    let relay = tracker.relay();
    let daemon = daemon(relay.addr, &[1, 3]).await;
    let options = |policy: &str, path| ScionOptions {
        daemon: daemon.addr.into(),
        policy: policy.parse().unwrap(),
        path,
        ..ScionOptions::default()
    };
    // Only the first path works.
    relay.make_hole(3);
    for (policy, path) in [("- 2-ff00:0:210#3, +", None), ("+", Some(0))] {
        let client = tracker.client_with(options(policy, path));
        let answer = client
            .announce(&tracker.url("https"), &announce(7000))
            .await;
        assert!(answer.is_ok(), "{policy} {path:?}: {answer:?}");
        let paths = client.paths(&tracker.url("https")).await.unwrap().paths;
        assert!(paths[1].crosses(interface("2-ff00:0:210#3")));
        let denied = paths[1].status() == PathStatus::Denied;
        assert_eq!(denied, path.is_none());
    }
    for (policy, path, says) in [
        (
            "- 1, +",
            None,
            "none of the 2 paths from 2-ff00:0:210 to 1-ff00:0:110 is usable: 2 denied by the \
             policy",
        ),
        ("- 2-ff00:0:210#3, +", Some(1), "path 1 is denied"),
        (
            "+",
            Some(2),
            "there is no path 2: paths are numbered from 0 to 1",
        ),
    ] {
        let error = refused(&tracker, options(policy, path)).await;
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_error_names_only_the_reasons_that_apply() {
    let rest = "expired, or beginning at a router of another IP version";
    for (count, denied, says) in [
        (2, 2, "2 denied by the policy".into()),
        (3, 1, format!("1 denied by the policy, 2 {rest}")),
        (1, 0, format!("1 {rest}")),
    ] {
        assert_eq!(unusable(count, denied), says);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_way_the_error_says_what_is_missing() {
    let tracker = Tracker::start(&[]);
    let daemon = daemon(tracker.underlay(), &[]).await;
    let options = |daemon: DaemonAddr| ScionOptions {
        daemon,
        ..ScionOptions::default()
    };
    // A tracker on this host needs no daemon. One elsewhere does.
    let client = tracker.client(None, nowhere());
    let answer = client.announce(&tracker.url("udp"), &announce(7000)).await;
    assert!(answer.is_ok(), "{answer:?}");
    let own = client.isd_as(&tracker.url("udp")).await;
    assert_eq!(own, Some("1-ff00:0:110".parse().unwrap()));
    let elsewhere: TrackerUrl = "udp://[1-ff00:0:110,192.0.2.1]:31969".parse().unwrap();
    let error = client.announce(&elsewhere, &announce(7000)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("daemon at 127.0.0.1:1 (to use another address, set"),
        "{error}"
    );
    let error = refused(&tracker, options(daemon.addr.into())).await;
    assert!(
        error.contains("knows no path from 2-ff00:0:210 to 1-ff00:0:110"),
        "{error}"
    );
    let [out, into] = ends(1);
    daemon.add_path(path(1), tracker.underlay(), &[&out, &into]);
    daemon.knows.lock().ports = (0, 0);
    let error = refused(&tracker, options(daemon.addr.into())).await;
    assert!(error.contains("deliver to no UDP ports"), "{error}");

    // The daemon accepts the connection and does not answer.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tracker.client(None, silent.local_addr().unwrap().into());
    client.timeout = Duration::from_millis(200);
    let error = client.announce(&tracker.url("udp"), &announce(7000)).await;
    assert!(matches!(error, Err(RequestError::Timeout(_))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ports_of_our_own_as_come_from_the_daemon_or_the_topology_file() {
    let daemon = FakeDaemon::start("2-ff00:0:210").await;
    daemon.knows.lock().ports = (31000, 32767);
    let options = |daemon, local: Option<&str>| ScionOptions {
        daemon,
        local: local.map(host),
        hosts: "/nonexistent/hosts".into(),
        ..ScionOptions::default()
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let json = r#"{"isd_as": "1-ff00:0:110", "dispatched_ports": "30000-32767"}"#;
    file.write_all(json.as_bytes()).unwrap();
    let ours = async |daemon, local, topology: &std::path::Path| {
        let mut scion = Scion::new(&options(daemon, local));
        scion.topology = topology.into();
        let ours = scion.own_as().await?;
        Some((ours.isd_as().to_string(), ours.ports()))
    };
    let at = |ia: &str, first| Some((ia.to_owned(), DispatchedPorts::Range(first, 32767)));
    let nofile = std::path::Path::new("/nonexistent/topology.json");
    let found = ours(daemon.addr.into(), None, file.path()).await;
    assert_eq!(found, at("2-ff00:0:210", 31000));
    let found = ours(nowhere(), None, file.path()).await;
    assert_eq!(found, at("1-ff00:0:110", 30000));
    assert_eq!(ours(nowhere(), None, nofile).await, None);
    // This host is said to be in another AS.
    assert_eq!(ours(daemon.addr.into(), Some(NEAR), nofile).await, None);
    let found = ours(daemon.addr.into(), Some(FAR), nofile).await;
    assert_eq!(found, at("2-ff00:0:210", 31000));

    let client = Client::new(&Options {
        scion: options(daemon.addr.into(), None),
        ..Options::default()
    })
    .unwrap();
    let ports = async |url: &str, ia: Option<&str>| {
        let claim = Claim {
            ia: ia.map(|ia| ia.parse().unwrap()),
            ..Claim::default()
        };
        let url = url.parse().unwrap();
        let known = client.peer_as(&url, &claim).await;
        known.map(|it| (it.isd_as().to_string(), it.ports()))
    };
    let far = at("2-ff00:0:210", 31000);
    let scion = "udp://[1-ff00:0:110,10.0.0.1]:31969";
    assert_eq!(ports(scion, None).await, far);
    // Over SCION the claim does not count.
    assert_eq!(ports(scion, Some("1-ff00:0:110")).await, far);
    let plain = "http://127.0.0.1:1";
    assert_eq!(ports(plain, None).await, None);
    assert_eq!(ports(plain, Some("2-ff00:0:210")).await, far);
    let unknown = Some(("1-ff00:0:110".to_owned(), DispatchedPorts::Unknown));
    assert_eq!(ports(plain, Some("1-ff00:0:110")).await, unknown);
}
