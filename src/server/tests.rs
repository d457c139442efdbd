//! A whole tracker over SCION: full packets with real paths against its socket, no router.

mod access;
mod cost;
mod daemon;
mod qs;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::bep15::{
    Reply, TransactionId, announce_room, parse_reply, write_announce_request,
    write_connect_request, write_scrape_request,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionId;
use scion_tracker_core::codec::scion::{Message, Path, Template, parse};
use scion_tracker_core::request::AnnounceRequest;
use scion_tracker_core::types::{InfoHash, PeerId};
use serde::Deserialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::ScionTransports;
use crate::scion::socket::ScionSocket;
use crate::scion::socket::tests::net::{host, loopback, path};

const HASH: &str = "aaaaaaaaaaaaaaaaaaaa";
const TRANSACTION: TransactionId = TransactionId(7);

/// A tracker at 1-ff00:0:110,[127.0.0.1], on a free port, and on plain HTTP.
struct Running {
    scion: ScionAddr,
    http: SocketAddr,
    /// On IP, if they are there.
    udp: Option<SocketAddr>,
    http3: Option<SocketAddr>,
    certificate: rustls_pki_types::CertificateDer<'static>,
    handle: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn config() -> Config {
    let mut config = Config::default();
    config.listen.udp.clear();
    config.listen.https.clear();
    config.listen.http3.clear();
    config.listen.admin.clear();
    config.listen.http = vec![loopback().into()];
    config.listen.scion = vec!["1-ff00:0:110,[127.0.0.1]:0".parse().unwrap()];
    config
}

/// Binds a server with a data directory of its own, which is removed when its guard is dropped.
fn bind(mut config: Config) -> (Result<Server, BindError>, TempDir) {
    let data_dir = tempfile::tempdir().unwrap();
    config.data_dir = Some(data_dir.path().to_owned());
    (Server::bind(config), data_dir)
}

fn start() -> Running {
    start_with(config())
}

fn start_with(config: Config) -> Running {
    let (server, data_dir) = bind(config);
    let server = server.unwrap();
    let pem = std::fs::read(data_dir.path().join("self-signed.pem")).unwrap();
    let listeners: Vec<_> = server.listeners().collect();
    let scion = listeners.iter().find_map(|it| it.scion).unwrap();
    let on_ip = |kind| {
        listeners
            .iter()
            .find(|it| it.kind == kind)
            .map(|it| it.address)
    };
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let running = Running {
        scion,
        http: on_ip(Kind::Http).unwrap(),
        udp: on_ip(Kind::Udp),
        http3: on_ip(Kind::Http3),
        certificate: rustls_pki_types::pem::PemObject::from_pem_slice(&pem).unwrap(),
        handle: server.handle(),
        stop: stop.clone(),
        tasks: tasks.clone(),
    };
    tasks.spawn(async move { server.run(stop.cancelled_owned()).await.unwrap() });
    running
}

impl Running {
    fn underlay(&self) -> SocketAddr {
        SocketAddr::new(self.scion.host.ip(), self.scion.port)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What a client needs that trusts the tracker and speaks this protocol.
    fn client_config(&self, alpn: &[u8]) -> quinn::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        quinn::ClientConfig::new(Arc::new(crypto))
    }

    /// Connects from this host and over this path.
    async fn connect(
        &self,
        from: &str,
        path: &[u8],
        alpn: &[u8],
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let socket = ScionSocket::bind(host(from), loopback()).unwrap();
        let to = socket
            .set_paths(self.scion, (path, self.underlay()), None)
            .unwrap();
        let endpoint = socket.endpoint(None).unwrap();
        endpoint
            .connect_with(self.client_config(alpn), to, "localhost")
            .unwrap()
            .await
    }

    /// One GET over HTTP/3 over SCION, with the h3 crate, from this host and over this path.
    async fn get(&self, from: &str, path: &[u8], target: &str) -> Vec<u8> {
        let exchange = async {
            let connection = self.connect(from, path, b"h3").await.unwrap();
            let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection))
                .await
                .unwrap();
            let driving =
                tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
            let uri = format!("https://localhost{target}");
            let request = http::Request::get(uri).body(()).unwrap();
            let mut stream = sender.send_request(request).await.unwrap();
            stream.finish().await.unwrap();
            let reply = stream.recv_response().await.unwrap();
            assert_eq!(reply.status(), 200);
            let mut body = Vec::new();
            while let Some(mut chunk) = stream.recv_data().await.unwrap() {
                body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
            }
            drop(sender);
            driving.abort();
            body
        };
        tokio::time::timeout(Duration::from_secs(10), exchange)
            .await
            .expect("a reply in time")
    }

    async fn announce(&self, from: &str, path: &[u8], port: u16, more: &str) -> Answer {
        let target = format!(
            "/announce?info_hash={HASH}&peer_id=-XX0001-0000000{port:05}&port={port}&left=1{more}"
        );
        let body = self.get(from, path, &target).await;
        serde_bencode::from_bytes(&body)
            .unwrap_or_else(|error| panic!("{error}: {}", body.escape_ascii()))
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    complete: u32,
    incomplete: u32,
    peers: Vec<Peer>,
}

/// A peer as the first SCION tracker's clients read it.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    ia: String,
    ip: String,
    port: u16,
}

fn peer(ia: &str, ip: &str, port: u16) -> Peer {
    Peer {
        ia: ia.into(),
        ip: ip.into(),
        port,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announces_over_scion_are_where_their_packets_come_from() {
    let tracker = start();
    let near = path(1);
    let far = path(5);
    // The same IP and port in two ASes, and one in the tracker's own.
    let answer = tracker
        .announce("1-ff00:0:111,[10.0.0.1]", &near, 6881, "")
        .await;
    assert_eq!((answer.complete, answer.incomplete), (0, 1));
    assert!(answer.peers.is_empty());
    // What it claims besides does not count.
    let answer = tracker
        .announce("2-ff00:0:211,[10.0.0.1]", &far, 6881, "&ia=1-ff00:0:111")
        .await;
    assert_eq!(answer.incomplete, 2);
    assert_eq!(answer.peers, [peer("1-ff00:0:111", "10.0.0.1", 6881)]);
    let mut answer = tracker
        .announce("1-ff00:0:110,[127.0.0.1]", &[], 7000, "")
        .await;
    answer.peers.sort();
    assert_eq!(
        answer.peers,
        [
            peer("1-ff00:0:111", "10.0.0.1", 6881),
            peer("2-ff00:0:211", "10.0.0.1", 6881),
        ]
    );
    let counters = tracker.handle.stats().counters;
    assert_eq!(counters.get(crate::Counter::Http3Announces), 3);
    assert_eq!(counters.get(crate::Counter::ScionRemotesAdded), 3);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_over_ip_and_over_scion_meet_where_they_reach_each_other() {
    let tracker = start();
    let http = |more: &str, port: u16| {
        format!(
            "http://{}/announce?info_hash={HASH}&peer_id=-XX0001-0000000{port:05}&port={port}&left=1{more}",
            tracker.http
        )
    };
    // One with SCION and IP, one with IP alone.
    for (more, port) in [("&ia=1-ff00:0:111", 1001), ("", 1002)] {
        let url = http(more, port);
        let text = url.strip_prefix("http://").unwrap();
        let (address, target) = text.split_once('/').unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        assert!(
            reply.starts_with(b"HTTP/1.1 200"),
            "{}",
            reply.escape_ascii()
        );
    }
    let answer = tracker
        .announce("1-ff00:0:112,[10.0.0.1]", &path(1), 6881, "")
        .await;
    assert_eq!(answer.incomplete, 3);
    assert_eq!(answer.peers, [peer("1-ff00:0:111", "127.0.0.1", 1001)]);
    tracker.stop().await;
}

/// BEP 15 in SCION packets, by hand.
struct UdpClient {
    socket: UdpSocket,
    template: Template,
}

impl UdpClient {
    fn new(tracker: ScionAddr, from: &str, path: &[u8]) -> Self {
        let socket = UdpSocket::bind(loopback()).unwrap();
        let underlay = SocketAddr::new(tracker.host.ip(), tracker.port);
        socket.connect(underlay).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let from = host(from);
        let port = socket.local_addr().unwrap().port();
        let local = ScionAddr::new(from.ia, from.ip(), port).unwrap();
        let template = Template::new(local, tracker, Path::parse(path).unwrap()).unwrap();
        Self { socket, template }
    }

    fn ask<T>(&self, request: &[u8], layout: Layout, then: impl FnOnce(Reply<'_>) -> T) -> T {
        let mut packet = Vec::new();
        self.template.write(request, &mut packet).unwrap();
        self.socket.send(&packet).unwrap();
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).unwrap();
        let packet = parse(&buffer[..length]).unwrap();
        assert!(packet.checksum_is_right());
        let Message::Udp(udp) = packet.message else {
            panic!("{packet:?}");
        };
        then(parse_reply(udp.payload, layout).unwrap())
    }

    /// Announces and returns the peers, as ISD-AS and address.
    fn announce(&self, layout: Layout, port: u16) -> Vec<(IsdAs, SocketAddr)> {
        self.announce_by(layout, port, "")
    }

    /// Announces by a URL with this path and query.
    fn announce_by(&self, layout: Layout, port: u16, url: &str) -> Vec<(IsdAs, SocketAddr)> {
        self.ask(
            &self.announce_request(port, url),
            layout,
            |reply| match reply {
                Reply::Announce { peers, .. } => peers.map(|peer| (peer.ia, peer.addr)).collect(),
                other => panic!("{other:?}"),
            },
        )
    }

    fn connect(&self) -> ConnectionId {
        let mut request = Vec::new();
        write_connect_request(TRANSACTION, &mut request);
        self.ask(&request, Layout::Scion4, |reply| match reply {
            Reply::Connect { connection, .. } => connection,
            other => panic!("{other:?}"),
        })
    }

    /// Connects, and writes a scrape.
    fn scrape_request(&self) -> Vec<u8> {
        let hash = InfoHash::from_slice(HASH.as_bytes()).unwrap();
        let mut request = Vec::new();
        write_scrape_request(self.connect(), TRANSACTION, &[hash], &mut request);
        request
    }

    /// Connects, and writes an announce by a URL with this path and query.
    fn announce_request(&self, port: u16, url: &str) -> Vec<u8> {
        let connection = self.connect();
        let mut request = Vec::new();
        let mut id = [b'x'; 20];
        id[18..].copy_from_slice(&port.to_be_bytes());
        let hash = InfoHash::from_slice(HASH.as_bytes()).unwrap();
        let announce = AnnounceRequest::new(hash, PeerId(id), port, 1);
        write_announce_request(connection, TRANSACTION, &announce, url, &mut request);
        request
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_over_scion_carries_scion_peers() {
    let tracker = start();
    tracker
        .announce("1-ff00:0:111,[10.0.0.1]", &path(1), 6881, "")
        .await;
    let running = Arc::new(tracker);
    let tracker = Arc::clone(&running);
    tokio::task::spawn_blocking(move || {
        let four = UdpClient::new(tracker.scion, "2-ff00:0:211,[10.0.0.1]", &path(3));
        let ia = |text: &str| text.parse::<IsdAs>().unwrap();
        let ten = "10.0.0.1:6881".parse().unwrap();
        assert_eq!(
            four.announce(Layout::Scion4, 6881),
            [(ia("1-ff00:0:111"), ten)]
        );
        let six = UdpClient::new(tracker.scion, "2-ff00:0:211,[fd00::1]", &path(3));
        assert_eq!(six.announce(Layout::Scion6, 6881), []);
        let other = UdpClient::new(tracker.scion, "2-ff00:0:212,[fd00::1]", &path(5));
        let six = "[fd00::1]:6881".parse().unwrap();
        assert_eq!(
            other.announce(Layout::Scion6, 6881),
            [(ia("2-ff00:0:211"), six)]
        );
    })
    .await
    .unwrap();
    let counters = running.handle.stats().counters;
    assert_eq!(counters.get(crate::Counter::UdpAnnounces), 3);
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_over_scion_carries_hosts_of_both_families_on_request() {
    let running = Arc::new(start());
    let tracker = Arc::clone(&running);
    tokio::task::spawn_blocking(move || {
        let four = UdpClient::new(tracker.scion, "2-ff00:0:211,[10.0.0.1]", &path(3));
        let six = UdpClient::new(tracker.scion, "2-ff00:0:212,[fd00::1]", &path(5));
        let both = "?scion46=1";
        let at = |ia: &str, addr: &str| (ia.parse().unwrap(), addr.parse().unwrap());
        let first = at("2-ff00:0:211", "10.0.0.1:6881");
        let second = at("2-ff00:0:212", "[fd00::1]:6882");
        assert_eq!(four.announce_by(Layout::Scion4, 6881, both), []);
        // Each sees the other only when it asks for both families.
        assert_eq!(six.announce(Layout::Scion6, 6882), []);
        assert_eq!(six.announce_by(Layout::Scion6, 6882, both), [first]);
        assert_eq!(four.announce(Layout::Scion4, 6881), []);
        assert_eq!(four.announce_by(Layout::Scion4, 6881, both), [second]);
        // A packet has at most 1280 bytes with its headers.
        for host in 2..=60 {
            let host = format!("2-ff00:0:211,[10.0.0.{host}]");
            UdpClient::new(tracker.scion, &host, &path(3)).announce(Layout::Scion4, 6881);
        }
        let peers = six.announce_by(Layout::Scion6, 6882, both);
        // Common header 12, ISD-ASes 16, hosts 4 and 16, path 36, UDP 8.
        let room = announce_room(1280 - (12 + 16 + 4 + 16 + 36 + 8), Layout::Scion46);
        assert!(room < 50, "as many as the tracker gives by default: {room}");
        assert_eq!(peers.len(), room);
        assert!(peers.iter().all(|(ia, _)| *ia == first.0));
    })
    .await
    .unwrap();
    Arc::into_inner(running).unwrap().stop().await;
}

#[test]
fn a_scion_listener_has_two_urls() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let server = bind(config()).0.unwrap();
    let urls: Vec<_> = server
        .listeners()
        .filter(|it| it.scion.is_some())
        .map(|it| (it.address.port(), it.url()))
        .collect();
    let port = urls[0].0;
    assert_eq!(
        urls,
        [
            (
                port,
                format!("https://[1-ff00:0:110,127.0.0.1]:{port}/announce")
            ),
            (
                port,
                format!("udp://[1-ff00:0:110,127.0.0.1]:{port}/announce")
            ),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scion_listener_for_udp_alone_needs_no_certificate() {
    let mut config = config();
    config.listen.http.clear();
    config.listen.scion[0].transports = ScionTransports::Udp;
    // Nothing can be written there, so that making a certificate would fail.
    config.data_dir = Some("/proc/nowhere".into());
    let server = Server::bind(config).unwrap();
    let handle = server.handle();
    assert!(handle.certificates().is_none());
    let listeners: Vec<_> = server.listeners().collect();
    let [listening] = listeners.as_slice() else {
        panic!("{listeners:?}");
    };
    let scion = listening.scion.unwrap();
    assert_eq!(
        listening.url(),
        format!("udp://{}/announce", scion.url_authority())
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    let announced = tokio::task::spawn_blocking(move || {
        let client = UdpClient::new(scion, "2-ff00:0:211,[10.0.0.1]", &path(3));
        client.announce(Layout::Scion4, 6881)
    });
    assert_eq!(announced.await.unwrap(), []);
    assert_eq!(handle.stats().counters.get(crate::Counter::UdpAnnounces), 1);
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// What is said of a topology file that does not fit.
fn refused(topology: &str, scion: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), topology).unwrap();
    let mut config = config();
    config.listen.scion = scion.iter().map(|it| it.parse().unwrap()).collect();
    config.scion.topology = Some(file.path().to_owned());
    let error = bind(config).0.map(|_| ()).unwrap_err();
    format!("{:#}", anyhow::Error::new(error))
}

#[test]
fn a_port_that_routers_do_not_deliver_to_is_an_error() {
    let topology = r#"{"isd_as": "1-ff00:0:110", "dispatched_ports": "31000-32767",
        "border_routers": {"br": {"internal_addr": "127.0.0.1:30042", "interfaces": {"1": {}}}}}"#;
    let error = refused(topology, &["1-ff00:0:110,[127.0.0.1]:6969"]);
    assert!(
        error.contains("31000-32767") && error.contains("6969"),
        "{error}"
    );
    let error = refused(topology, &["1-ff00:0:111,[127.0.0.1]:31969"]);
    assert!(
        error.contains("the topology file is that of 1-ff00:0:110"),
        "{error}"
    );
    let error = refused("{}", &["1-ff00:0:110,[127.0.0.1]:31969"]);
    assert!(error.contains("isd_as"), "{error}");
    let closed = topology.replace("31000-32767", "-");
    let error = refused(&closed, &[]);
    assert!(error.contains("31969"), "{error}");
}

/// Whether a program can bind the port of end hosts on this address.
fn endhost_port_is_free(ip: &str) -> bool {
    UdpSocket::bind(format!("{ip}:30041")).is_ok()
}

#[test]
fn the_port_of_end_hosts_is_taken_if_it_is_free() {
    let ip = "127.30.41.1";
    let with = |setting| {
        let mut config = config();
        config.listen.scion = vec![format!("1-ff00:0:110,[{ip}]:0").parse().unwrap()];
        config.scion.endhost_port = setting;
        bind(config)
    };
    for setting in [None, Some(true)] {
        assert!(endhost_port_is_free(ip));
        let (first, _dir) = with(setting);
        first.as_ref().unwrap();
        assert!(!endhost_port_is_free(ip), "{setting:?}");
        let (second, _dir) = with(None);
        second.unwrap();
        let (third, _dir) = with(Some(true));
        let error = format!("{:#}", anyhow::Error::new(third.unwrap_err()));
        assert!(error.contains(&format!("[{ip}]:30041")), "{error}");
    }
    let (server, _dir) = with(Some(false));
    server.unwrap();
    assert!(endhost_port_is_free(ip));
    let (server, _dir) = with(Some(false));
    let _server = server.unwrap();
    assert!(endhost_port_is_free(ip));
}
