//! Announces and scrapes over HTTP/1.1 and HTTP/2, with and without TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use scion_tracker::core::response::Refusal;
use scion_tracker::server::Kind;
use scion_tracker::{Config, Counter};
use serde_bencode::value::Value;

use crate::common::{self, Running};

/// The info hash of nearly all tests, as in a query.
pub(crate) const HASH: &str = "%01%23%45%67%89%ab%cd%ef%01%23%45%67%89%ab%cd%ef%01%23%45%67";
/// The same info hash as in a reply.
const HASH_BYTES: [u8; 20] =
    *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67";

/// The query of an announce from a leecher on this port.
pub(crate) fn announce(port: u16) -> String {
    format!("info_hash={HASH}&peer_id=-XX0001-{port:012}&port={port}&left=1000")
}

/// A tracker with a certificate for localhost that [`client_config`] trusts.
pub(crate) fn start(configure: impl FnOnce(&mut Config)) -> Running {
    let mut config = common::config();
    let certificates = certificates();
    config.tls.cert = Some(certificates.join("cert.pem"));
    config.tls.key = Some(certificates.join("key.pem"));
    configure(&mut config);
    common::start(config)
}

fn certificates() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/http"));
        // Tests may run in several processes.
        let directory = directory.join(std::process::id().to_string());
        scion_tracker::tls::authority(&directory, &["localhost".into()]).unwrap();
        directory
    })
}

pub(crate) fn client_config(alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificates().join("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// An HTTP/1.1 connection that sends exactly the given bytes.
pub(crate) struct Client {
    stream: Box<dyn ReadWrite>,
    read: Vec<u8>,
}

/// An HTTP/1.1 reply.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(other, _)| other == name);
        header.map(|(_, value)| &**value)
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        // Long enough for a busy machine, short enough to notice a test that hangs.
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self::new(stream)
    }

    pub(crate) fn connect_tls(address: SocketAddr) -> Self {
        Self::connect_tls_after(address, &[])
    }

    /// Connects over TLS, and sends `before` in front of the handshake.
    pub(crate) fn connect_tls_after(address: SocketAddr, preamble: &[u8]) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let config = client_config(&[b"http/1.1"]);
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(preamble).unwrap();
        Self::new(StreamOwned::new(tls, stream))
    }

    pub(crate) fn new(stream: impl ReadWrite + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            read: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends as much as the server accepts, which may already have closed the connection.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next reply; `None` at the end of the connection.
    pub(crate) fn receive(&mut self, head: bool) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill() == 0 {
                assert!(
                    self.read.is_empty(),
                    "{:?}",
                    self.read.escape_ascii().to_string()
                );
                return None;
            }
        };
        let text: Vec<u8> = self.read.drain(..end).collect();
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.lines();
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response {
            status: status[..3].parse().unwrap(),
            headers,
            body: Vec::new(),
        };
        let length = response.header("content-length").unwrap().parse().unwrap();
        if !head {
            while self.read.len() < length {
                assert_ne!(self.fill(), 0, "the body is truncated");
            }
            response.body = self.read.drain(..length).collect();
        }
        Some(response)
    }

    fn fill(&mut self) -> usize {
        let mut buf = [0; 4096];
        // A reset also ends the connection.
        let length = self.stream.read(&mut buf).unwrap_or(0);
        self.read.extend_from_slice(&buf[..length]);
        length
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n"));
        self.receive(false).unwrap()
    }
}

/// Sends one request on a new connection.
pub(crate) fn get(tracker: &Running, target: &str) -> Response {
    Client::connect(tracker.address(Kind::Http)).get(target)
}

/// Reads a dictionary, nested no deeper than replies are.
pub(crate) fn decode(body: &[u8]) -> Value {
    let (mut depth, mut deepest, mut at) = (0, 0, 0);
    while at < body.len() {
        match body[at] {
            b'd' | b'l' => {
                depth += 1;
                deepest = deepest.max(depth);
                at += 1;
            }
            b'i' => at += body[at..].iter().position(|byte| *byte == b'e').unwrap() + 1,
            b'e' => {
                depth -= 1;
                at += 1;
            }
            _ => {
                let colon = at + body[at..].iter().position(|byte| *byte == b':').unwrap();
                let length: usize = str::from_utf8(&body[at..colon]).unwrap().parse().unwrap();
                at = colon + 1 + length;
            }
        }
    }
    assert!(deepest <= 3, "{}", body.escape_ascii());
    serde_bencode::from_bytes(body).unwrap()
}

/// The value of a key in a dictionary.
pub(crate) fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Dict(fields) => fields.get(key.as_bytes()),
        _ => panic!("{value:?} is not a dictionary"),
    }
}

pub(crate) fn bytes<'a>(value: &'a Value, key: &str) -> &'a [u8] {
    match field(value, key) {
        Some(Value::Bytes(bytes)) => bytes,
        other => panic!("{key}: {other:?}"),
    }
}

fn int(value: &Value, key: &str) -> i64 {
    match field(value, key) {
        Some(Value::Int(int)) => *int,
        other => panic!("{key}: {other:?}"),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    match field(value, key) {
        Some(Value::List(list)) => list,
        other => panic!("{key}: {other:?}"),
    }
}

fn compact(port: u16) -> Vec<u8> {
    [&[127, 0, 0, 1][..], &port.to_be_bytes()].concat()
}

#[test]
fn peers_of_each_form() {
    let tracker = start(|_| {});
    let place = "&ia=1-ff00:0:110";
    for query in [announce(1), announce(2) + place] {
        get(&tracker, &format!("/announce?{query}"));
    }
    let reply =
        |more: &str| decode(&get(&tracker, &format!("/announce?{}{more}", announce(3))).body);

    for more in ["", "&compact=1"] {
        let reply = reply(more);
        let mut peers: Vec<_> = bytes(&reply, "peers").chunks(6).collect();
        peers.sort_unstable();
        assert_eq!(peers, [compact(1), compact(2)], "{more}");
        assert_eq!(int(&reply, "incomplete"), 3);
        assert_eq!(int(&reply, "complete"), 0);
        assert!((1800..=1980).contains(&int(&reply, "interval")));
        assert_eq!(bytes(&reply, "external ip"), [127, 0, 0, 1]);
    }
    for (more, with_id) in [("&compact=0", true), ("&compact=0&no_peer_id=1", false)] {
        let reply = reply(more);
        let peers = list(&reply, "peers");
        assert_eq!(peers.len(), 2);
        for peer in peers {
            assert_eq!(bytes(peer, "ip"), b"127.0.0.1");
            assert_eq!(field(peer, "peer id").is_some(), with_id);
            assert_eq!(field(peer, "ia"), None);
        }
    }
    // With a place the reply has dictionaries, each with its ISD-AS, in any order.
    let scion = reply("&ia=1-ff00:0:110&compact=1");
    let places: Vec<_> = list(&scion, "peers")
        .iter()
        .map(|peer| (bytes(peer, "ia"), int(peer, "port")))
        .collect();
    assert!(places.contains(&(b"1-ff00:0:110", 2)), "{scion:?}");
    let packed = reply("&ia=1-ff00:0:110&scion=1&compact=1");
    let expected = [&[0, 1, 0xff, 0, 0, 0, 1, 0x10][..], &compact(2)].concat();
    assert_eq!(bytes(&packed, "peers_scion4"), expected);
    assert_eq!(bytes(&packed, "peers"), compact(1));
}

#[test]
fn failures_are_bencoded() {
    let tracker = start(|config| config.registry.peers_per_torrent = 1);
    let first = get(&tracker, &format!("/announce?{}", announce(1)));
    assert_eq!(field(&decode(&first.body), "failure reason"), None);
    for (target, reason) in [
        ("/announce".to_owned(), "info_hash is missing"),
        (
            "/?info_hash=a".to_owned(),
            "info_hash must be 20 percent-encoded bytes",
        ),
        (format!("/announce?info_hash={HASH}"), "peer_id is missing"),
        (
            format!("/announce?{}&ia=1-0", announce(2)),
            "ia with a zero ISD or AS is a wildcard and names no place",
        ),
        (format!("/announce?{}", announce(2)), "swarm is full"),
        ("/scrape".to_owned(), "info_hash is missing"),
    ] {
        let response = get(&tracker, &target);
        let reply = decode(&response.body);
        assert_eq!(
            str::from_utf8(bytes(&reply, "failure reason")),
            Ok(reason),
            "{target}"
        );
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("content-type"),
            Some("application/octet-stream")
        );
        if reason == "swarm is full" {
            assert_eq!(
                (int(&reply, "retry in"), int(&reply, "interval")),
                (60, 3600)
            );
        }
    }
    let counters = tracker.handle.stats().counters;
    assert_eq!(counters.get(Counter::HttpFailures), 6);
    assert_eq!(counters.refused(Refusal::SwarmLimit), 1);
    assert_eq!(counters.get(Counter::HttpAnnounces), 1);
}

#[test]
fn every_path_of_an_announce_and_a_scrape() {
    let tracker = start(|_| {});
    let mut client = Client::connect(tracker.address(Kind::Http));
    for path in [
        "/announce",
        "/announce/key",
        "/key/announce",
        "/",
        "http://any.where/announce",
    ] {
        let reply = decode(&client.get(&format!("{path}?{}", announce(1))).body);
        assert_eq!(int(&reply, "incomplete"), 1, "{path}");
    }
    for path in ["/scrape", "/scrape/key", "/key/scrape"] {
        let unknown = "%00".repeat(20);
        let reply = decode(
            &client
                .get(&format!("{path}?info_hash={HASH}&info_hash={unknown}"))
                .body,
        );
        let Some(Value::Dict(files)) = field(&reply, "files") else {
            panic!("{reply:?}");
        };
        assert_eq!(files.len(), 2);
        assert_eq!(int(&files[&HASH_BYTES[..]], "incomplete"), 1);
        assert_eq!(int(&files[&[0; 20][..]], "incomplete"), 0);
    }
    let index = client.get("/");
    assert_eq!(index.status, 200);
    assert!(index.body.starts_with(b"scion-tracker"));
    assert_eq!(client.get("/nothing").status, 404);
}

#[test]
fn a_scrape_has_a_hundred_hashes_at_most() {
    let tracker = start(|_| {});
    // Twenty percent-encoded bytes each: the longest scrape request.
    let hundred: String = (0..100)
        .map(|n: u32| format!("&info_hash={}", format!("%{n:02x}").repeat(20)))
        .collect();
    let reply = decode(&get(&tracker, &format!("/scrape?{}", &hundred[1..])).body);
    let Some(Value::Dict(files)) = field(&reply, "files") else {
        panic!("{reply:?}");
    };
    assert_eq!(files.len(), 100);
    let reply = decode(&get(&tracker, &format!("/scrape?info_hash={HASH}{hundred}")).body);
    assert!(bytes(&reply, "failure reason").starts_with(b"too many"));
}

#[test]
fn methods_and_bodies() {
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let target = format!("/announce?{}", announce(1));
    let mut client = Client::connect(address);
    client.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let head = client.receive(true).unwrap();
    assert_eq!(head.status, 200);
    let get = client.get(&target);
    assert_eq!(
        head.header("content-length"),
        Some(&*get.body.len().to_string())
    );
    client.send(format!("DELETE {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let other = client.receive(false).unwrap();
    assert_eq!(
        (other.status, other.header("allow")),
        (405, Some("GET, HEAD"))
    );
    // The connection is still open. A request with a body ends it.
    for (framing, status) in [
        ("Content-Length: 3", 413),
        ("Transfer-Encoding: chunked", 413),
        ("Content-Length: x", 400),
    ] {
        for method in ["GET", "POST"] {
            let mut client = Client::connect(address);
            client.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\na=b"
            ));
            let response = client.receive(false).unwrap();
            assert_eq!(response.status, status, "{method} {framing}");
            assert_eq!(response.header("connection"), Some("close"));
            assert!(client.receive(false).is_none());
        }
    }
}

#[test]
fn connections_are_kept_as_the_client_asks() {
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let target = format!("/announce?{}", announce(1));
    for (version, more, kept, said) in [
        ("1.1", "", true, None),
        ("1.1", "Connection: close\r\n", false, Some("close")),
        ("1.0", "", false, Some("close")),
        (
            "1.0",
            "Connection: keep-alive\r\n",
            true,
            Some("keep-alive"),
        ),
    ] {
        let mut client = Client::connect(address);
        for turn in 0..if kept { 3 } else { 1 } {
            client.send(format!(
                "GET {target} HTTP/{version}\r\nHost: t\r\n{more}\r\n"
            ));
            let response = client.receive(false).unwrap();
            assert_eq!(
                response.header("connection"),
                said,
                "{version} {more}: {turn}"
            );
        }
        if !kept {
            assert!(client.receive(false).is_none());
        }
    }
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let tracker = start(|_| {});
    let mut client = Client::connect(tracker.address(Kind::Http));
    let requests: String = (0..500)
        .map(|n| {
            format!(
                "GET /{} HTTP/1.1\r\nHost: t\r\n\r\n",
                if n % 3 == 0 { "" } else { "nothing" }
            )
        })
        .collect();
    client.send(requests);
    for n in 0..500 {
        let expected = if n % 3 == 0 { 200 } else { 404 };
        assert_eq!(client.receive(false).unwrap().status, expected, "{n}");
    }
}

#[test]
fn over_tls_http3_is_advertised() {
    let tracker = start(|_| {});
    let mut client = Client::connect_tls(tracker.address(Kind::Https));
    let response = client.get(&format!("/announce?{}", announce(1)));
    let port = tracker.address(Kind::Http3).port();
    assert_eq!(
        response.header("alt-svc"),
        Some(&*format!("h3=\":{port}\"; ma=86400"))
    );
    assert_eq!(int(&decode(&response.body), "incomplete"), 1);
    assert_eq!(get(&tracker, "/").header("alt-svc"), None);
}

#[test]
fn requests_of_real_clients_are_served() {
    let tracker = start(|_| {});
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/http");
    let mut served = 0;
    for entry in std::fs::read_dir(vectors).unwrap() {
        let request = std::fs::read(entry.unwrap().path()).unwrap();
        let mut client = Client::connect(tracker.address(Kind::Http));
        client.send(&request);
        let reply = decode(&client.receive(false).unwrap().body);
        assert_eq!(
            field(&reply, "failure reason"),
            None,
            "{}",
            request.escape_ascii()
        );
        served += 1;
    }
    assert!(served >= 12, "{served}");
}

/// Sends requests over HTTP/2 on one connection.
pub(crate) async fn http2(
    address: SocketAddr,
    tls: bool,
    requests: impl IntoIterator<Item = http::Request<Empty<Bytes>>>,
) -> Vec<(http::response::Parts, Bytes)> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = if tls {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&[b"h2"])));
        let name = ServerName::try_from("localhost").unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        let (sender, connection) = handshake.handshake(TokioIo::new(tls)).await.unwrap();
        (sender, tokio::spawn(connection))
    } else {
        let (sender, connection) = handshake.handshake(TokioIo::new(tcp)).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let mut responses = Vec::new();
    for request in requests {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        responses.push((parts, body.collect().await.unwrap().to_bytes()));
    }
    driver.abort();
    // The connection is closed when this ends.
    let _ = driver.await;
    responses
}

pub(crate) fn http2_request(method: &str, target: &str) -> http::Request<Empty<Bytes>> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{target}"))
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn http2_with_and_without_tls() {
    let tracker = start(|_| {});
    for (kind, tls) in [(Kind::Http, false), (Kind::Https, true)] {
        let target = format!("/announce?{}", announce(1));
        let requests = [
            http2_request("GET", &target),
            http2_request("HEAD", &target),
            http2_request("PUT", &target),
            http2_request("GET", "/nothing"),
        ];
        let responses = http2(tracker.address(kind), tls, requests).await;
        let statuses: Vec<_> = responses
            .iter()
            .map(|(parts, _)| parts.status.as_u16())
            .collect();
        assert_eq!(statuses, [200, 200, 405, 404]);
        assert_eq!(int(&decode(&responses[0].1), "incomplete"), 1);
        let length = responses[0].1.len().to_string();
        assert_eq!(responses[1].0.headers["content-length"], &*length);
        assert!(responses[1].1.is_empty());
        assert_eq!(responses[2].0.headers["allow"], "GET, HEAD");
        assert_eq!(responses[0].0.headers.contains_key("alt-svc"), tls);
    }
}
