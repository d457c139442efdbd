//! The server embedded in another program.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use scion_tracker::config::Tls;
use scion_tracker::core::response::Refusal;
use scion_tracker::server::{BindError, Kind};
use scion_tracker::{Config, Counter, Server, tls};
use tempfile::TempDir;

use crate::common::{self, Running};
use crate::http::{self, Client};

#[test]
fn a_server_starts_and_stops() {
    let running = common::start(common::config());
    for (kind, start) in [
        (Kind::Udp, "udp://127.0.0.1:"),
        (Kind::Http, "http://127.0.0.1:"),
        (Kind::Https, "https://127.0.0.1:"),
        (Kind::Http3, "h3://127.0.0.1:"),
    ] {
        assert_ne!(running.address(kind).port(), 0);
        assert!(running.url(kind).starts_with(start));
    }
    assert_eq!(running.handle.stats().registry.torrents, 0);
    running.stop();
}

#[test]
fn ports_are_released_after_shutdown() {
    let running = common::start(common::config());
    let address = running.address(Kind::Udp);
    running.stop();
    UdpSocket::bind(address).unwrap();
}

#[test]
fn a_contradiction_is_refused() {
    let mut config = Config::default();
    config.announce.numwant = config.announce.numwant_max + 1;
    assert!(matches!(Server::bind(config), Err(BindError::Config(_))));
}

type Https = StreamOwned<ClientConnection, TcpStream>;

/// Connects to the HTTPS listener. Trusts the authority in this directory.
fn connect(tracker: &Running, authority: &TempDir) -> Https {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(authority.path().join("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(tracker.address(Kind::Https)).unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}

/// Sends a request that is answered with an error, and checks that the connection stays open.
fn ask(connection: &mut Https) {
    connection
        .write_all(b"GET /announce HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"e") {
        let mut bytes = [0; 1024];
        let length = connection.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "the connection is closed");
        reply.extend_from_slice(&bytes[..length]);
    }
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.contains("failure reason"), "{reply}");
}

fn certificate(connection: &Https) -> CertificateDer<'_> {
    connection.conn.peer_certificates().unwrap()[0].clone()
}

#[test]
fn a_reload_changes_the_certificate_under_open_connections() {
    let lab = TempDir::new().unwrap();
    tls::authority(lab.path(), &[]).unwrap();
    let mut config = common::config();
    config.tls = Tls::files(lab.path().join("cert.pem"), lab.path().join("key.pem"));
    let tracker = common::start(config);
    let mut old = connect(&tracker, &lab);
    ask(&mut old);

    tls::authority(lab.path(), &[]).unwrap();
    tracker.handle.reload_certificates().unwrap();

    let mut new = connect(&tracker, &lab);
    ask(&mut new);
    assert_ne!(certificate(&old), certificate(&new));
    ask(&mut old);
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let tracker = common::start(common::config());
    let address = tracker.address(Kind::Http);
    let idle: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut asked = TcpStream::connect(address).unwrap();
    asked
        .write_all(b"GET /announce HTTP/1.1\r\nhost: a\r\n\r\nGET /ann")
        .unwrap();
    asked.read_exact(&mut [0; 20]).unwrap();
    let started = Instant::now();
    tracker.stop();
    assert!(started.elapsed().as_secs() < 5);
    drop(idle);
}

#[test]
fn a_reload_changes_rules_ceilings_and_limits_while_connections_are_open() {
    let tracker = common::start(common::config());
    let mut client = Client::connect(tracker.address(Kind::Http));
    let mut announce = |port: u16| {
        let reply = client.get(&format!("/announce?{}", http::announce(port)));
        String::from_utf8_lossy(&reply.body).into_owned()
    };
    assert!(announce(1).contains("12:min intervali300e"));

    let mut config = common::config();
    config.announce.min_interval = Duration::from_secs(7);
    config.registry.peers_per_torrent = 1;
    config.connections.per_source = 1;
    config.workers = 3.try_into().ok();
    let changes = tracker.handle.reload(config.clone()).unwrap();
    let changed = [
        "announce.min_interval",
        "registry.peers_per_torrent",
        "connections.per_source",
    ];
    assert_eq!(changes.reloaded, changed);
    assert_eq!(changes.need_restart, ["workers"]);
    let again = tracker.handle.reload(config.clone()).unwrap();
    assert!(again.reloaded.is_empty());
    assert_eq!(again.need_restart, ["workers"], "it is still to come");
    assert!(announce(1).contains("12:min intervali7e"));
    assert!(announce(2).contains(Refusal::SwarmLimit.message()));
    let mut second = Client::connect(tracker.address(Kind::Http));
    assert!(
        second.receive(false).is_none(),
        "a second connection of one host"
    );

    let mut wrong = config;
    wrong.announce.min_interval = Duration::from_secs(8);
    wrong.announce.numwant = wrong.announce.numwant_max + 1;
    let error = tracker.handle.reload(wrong).unwrap_err().to_string();
    assert!(error.contains("announce.numwant = 201"), "{error}");
    assert!(announce(1).contains("12:min intervali7e"));
}

/// Workers do not count these, so a second passes until they are seen.
#[test]
fn datagrams_that_the_kernel_drops_are_counted() {
    let mut config = common::config();
    config.udp.receive_buffer = 1;
    config.workers = 1.try_into().ok();
    let tracker = common::start(config);
    let drops = || tracker.handle.stats().counters.get(Counter::UdpKernelDrops);
    for kind in [Kind::Udp, Kind::Http3] {
        let before = drops();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while drops() == before {
            assert!(Instant::now() < deadline, "{kind}");
            let _ = client.send_to(&[0; 1200], tracker.address(kind));
        }
    }
    tracker.stop();
}

#[test]
fn files_that_an_earlier_run_did_not_complete_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join(".scion-tracker-new-x");
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::create(&left).unwrap().set_modified(old).unwrap();
    let mut config = common::config();
    config.data_dir = Some(directory.path().to_owned());
    Server::bind(config).unwrap();
    let names = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["self-signed.key", "self-signed.pem", "udp-secrets"]);
}
