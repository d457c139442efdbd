//! Tests the client with small trackers, built from the codecs of the core.

mod odd;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use scion_tracker_core::address::{CompactAddr, Host};
use scion_tracker_core::codec::bep15::{
    self, AnnounceWriter, Request, UrlBuffer, write_connect, write_error, write_scrape,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionId;
use scion_tracker_core::codec::reply::{Form, Peers, write_failure};
use scion_tracker_core::request::{AnnounceRequest, Origin};
use scion_tracker_core::response::{AddrBytes, AnnounceReply, Peer, PeerSink, Reach, SwarmCounts};
use scion_tracker_core::types::PeerId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::config;
use crate::tls::{self, Certificates};

const HASH: InfoHash = InfoHash([0x11; 20]);
const COUNTS: SwarmCounts = SwarmCounts {
    seeders: 3,
    leechers: 12,
    downloaders: 0,
    completed: 7,
};

fn reply() -> AnnounceReply {
    AnnounceReply {
        counts: COUNTS,
        interval: 1800,
        min_interval: 300,
        observed: Host::ip_only("192.0.2.1".parse().unwrap()),
        warning: None,
    }
}

fn push(sink: &mut impl PeerSink) {
    let CompactAddr::V4(addr) = CompactAddr::new("10.0.0.2".parse().unwrap(), 6881) else {
        panic!("an IPv4 address")
    };
    sink.push(Peer {
        ia: "1-ff00:0:110".parse().unwrap(),
        reach: Reach::Both,
        addr: AddrBytes::V4(&addr),
        id: &PeerId(*b"-LT2110-2Hk2RLxj.gRc"),
    });
}

fn announce() -> AnnounceQuery {
    let port = 6881;
    AnnounceQuery {
        announce: AnnounceRequest::new(HASH, PeerId([0x22; 20]), port, 1),
        compact: None,
        no_peer_id: false,
    }
}

fn client(trust: Trust) -> Client {
    let timeout = Duration::from_secs(20);
    let options = Options {
        timeout,
        trust,
        ..Options::default()
    };
    let mut client = Client::new(&options).unwrap();
    client.udp.first_wait = Duration::from_millis(50);
    client
}

fn localhost(scheme: &str, port: u16, path: &str) -> TrackerUrl {
    format!("{scheme}://127.0.0.1:{port}{path}")
        .parse()
        .unwrap()
}

/// What the UDP tracker below has received.
#[derive(Debug, Default)]
struct Seen {
    connects: AtomicUsize,
    requests: AtomicUsize,
}

/// Starts a UDP tracker. It does not answer the first `deaf` datagrams, and answers an announce to
/// `/refused` with an error.
async fn udp_tracker(tasks: &mut JoinSet<()>, deaf: usize) -> (u16, Arc<Seen>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    tasks.spawn(async move {
        let mut datagram = [0; 2048];
        let mut out = [0; 2048];
        let mut deaf = deaf;
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            if deaf > 0 {
                deaf -= 1;
                continue;
            }
            let length = match bep15::parse(&datagram[..length], 74).unwrap() {
                Request::Connect { transaction } => {
                    seen.connects.fetch_add(1, Ordering::Relaxed);
                    // The reply of another transaction arrives first and must be ignored.
                    let other = bep15::TransactionId(!transaction.0);
                    write_error(&mut out, other, "not yours");
                    socket.send_to(&out[..16], from).await.unwrap();
                    write_connect(&mut out, transaction, ConnectionId(7))
                }
                Request::Announce {
                    connection,
                    transaction,
                    announce,
                    url,
                    ..
                } => {
                    assert_eq!(connection, ConnectionId(7));
                    assert_eq!(announce.unwrap().info_hash, HASH);
                    seen.requests.fetch_add(1, Ordering::Relaxed);
                    let mut buffer = UrlBuffer::new();
                    if url.read(&mut buffer).unwrap().path == "/refused" {
                        write_error(&mut out, transaction, "no")
                    } else {
                        let mut writer = AnnounceWriter::new(&mut out, transaction, Layout::Ip4);
                        push(&mut writer);
                        writer.finish(&reply())
                    }
                }
                Request::Scrape {
                    transaction,
                    hashes,
                    ..
                } => {
                    seen.requests.fetch_add(1, Ordering::Relaxed);
                    write_scrape(&mut out, transaction, hashes.map(|_| COUNTS))
                }
            };
            socket.send_to(&out[..length], from).await.unwrap();
        }
    });
    (port, shared)
}

#[tokio::test]
async fn udp() {
    let mut tasks = JoinSet::new();
    let (port, seen) = udp_tracker(&mut tasks, 0).await;
    let client = client(Trust::Anyone);
    let url = localhost("udp", port, "/announce");
    for _ in 0..2 {
        let answer = client.announce(&url, &announce()).await.unwrap();
        assert_eq!((answer.interval, answer.complete), (1800, Some(3)));
        assert_eq!(answer.incomplete, Some(12));
        let peers: Vec<_> = answer.peers.iter().map(|peer| peer.endpoint).collect();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].to_string(), "10.0.0.2:6881");
    }
    let answer = client.scrape(&url, &[HASH; 100]).await.unwrap();
    assert_eq!(answer.files, [(HASH, COUNTS); 100]);
    // All requests use one connection id. 100 hashes need two scrapes.
    assert_eq!(seen.connects.load(Ordering::Relaxed), 1);
    assert_eq!(seen.requests.load(Ordering::Relaxed), 4);

    let url = localhost("udp", port, "/refused");
    let refused = client.announce(&url, &announce()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the tracker refuses: no");
}

#[tokio::test]
async fn an_unused_udp_socket_is_closed() {
    let mut tasks = JoinSet::new();
    let (port, seen) = udp_tracker(&mut tasks, 0).await;
    let client = client(Trust::Anyone);
    let url = localhost("udp", port, "/announce");
    client.announce(&url, &announce()).await.unwrap();
    // The clock is paused: until it is resumed, it moves only to the next timer.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(client.udp.idle(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.udp.idle(), 0);
    tokio::time::resume();
    client.announce(&url, &announce()).await.unwrap();
    assert_eq!(seen.connects.load(Ordering::Relaxed), 2);
    assert_eq!(client.udp.idle(), 1);
}

#[tokio::test]
async fn udp_repeats_what_is_not_answered() {
    let mut tasks = JoinSet::new();
    let (port, seen) = udp_tracker(&mut tasks, 2).await;
    let client = client(Trust::Anyone);
    let answer = client.scrape(&localhost("udp", port, ""), &[HASH]).await;
    assert_eq!(answer.unwrap().files, [(HASH, COUNTS)]);
    assert_eq!(seen.connects.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn udp_that_nobody_answers() {
    let mut tasks = JoinSet::new();
    let (port, _) = udp_tracker(&mut tasks, usize::MAX).await;
    let mut client = client(Trust::Anyone);
    client.timeout = Duration::from_millis(200);
    let url = localhost("udp", port, "");
    let error = client.announce(&url, &announce()).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 200ms");

    // Without a listener, the error arrives at once.
    tasks.shutdown().await;
    client.timeout = Duration::from_secs(20);
    let error = client.announce(&url, &announce()).await.unwrap_err();
    assert!(matches!(error, RequestError::Io { .. }), "{error:?}");
}

/// Returns status and body for a target of the tests.
fn body(target: &str) -> (u16, Vec<u8>) {
    let mut out = Vec::new();
    let (path, query) = target.split_once('?').unwrap();
    match path {
        "/announce" => {
            let read = query::parse_announce(query).unwrap();
            let origin = Origin::ip(IpAddr::from([127, 0, 0, 1]));
            let mut peers = Peers::new(Form::of(&origin, &read));
            push(&mut peers);
            peers.write(&reply(), &mut out);
        }
        "/scrape" => {
            let hashes = query::parse_scrape(query, 100).unwrap().hashes;
            let mut files: Vec<_> = hashes.iter().map(|hash| (*hash, COUNTS)).collect();
            scion_tracker_core::codec::reply::write_scrape(&mut files, 300, &mut out);
        }
        "/refused" => write_failure("no", Some(5), None, &mut out),
        "/html" => out.extend_from_slice(b"<html>"),
        "/long" => out.resize(MAX_REPLY + 1, b'0'),
        _ => return (404, b"nothing\n here".to_vec()),
    }
    (200, out)
}

/// Answers one HTTP/1.1 request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Ends without a request if the client closes the connection, as it does if it does not
        // trust the certificate.
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.to_lowercase().contains("\r\nhost: 127.0.0.1:"),
        "{head}"
    );
    let (status, body) = body(head.split(' ').nth(1).unwrap());
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
    let reply = [head.into_bytes(), body].concat();
    // The client may have closed the connection.
    let _ = stream.write_all(&reply).await;
    let _ = stream.shutdown().await;
}

async fn http_tracker(tasks: &mut JoinSet<()>, tls: Option<rustls::ServerConfig>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match &tls {
                None => answer(stream).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => answer(stream).await,
                    Err(_) => continue,
                },
            }
        }
    });
    port
}

async fn http3_tracker(tasks: &mut JoinSet<()>, tls: rustls::ServerConfig) -> u16 {
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    tasks.spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            let connection = h3_quinn::Connection::new(connection);
            let mut connection = h3::server::Connection::<_, Bytes>::new(connection)
                .await
                .unwrap();
            while let Ok(Some(request)) = connection.accept().await {
                let (request, mut stream) = request.resolve_request().await.unwrap();
                let (status, body) = body(request.uri().path_and_query().unwrap().as_str());
                let head = ::http::Response::builder().status(status).body(()).unwrap();
                // The client may have closed the connection.
                let _ = stream.send_response(head).await;
                let _ = stream.send_data(body.into()).await;
                let _ = stream.finish().await;
            }
        }
    });
    port
}

/// Checks all kinds of answers over HTTP.
async fn check_http(client: &Client, scheme: &str, port: u16) {
    let url = |path: &str| localhost(scheme, port, path);
    let answer = client.announce(&url(""), &announce()).await.unwrap();
    assert_eq!((answer.interval, answer.downloaded), (1800, Some(7)));
    assert_eq!(answer.peers.len(), 1);
    let mut dictionaries = announce();
    dictionaries.compact = Some(false);
    let answer = client.announce(&url("/announce"), &dictionaries).await;
    let id = answer.unwrap().peers[0].id.unwrap();
    assert_eq!(software(&id).unwrap().to_string(), "libtorrent 2.1.1");

    let answer = client
        .scrape(&url("/announce"), &[HASH, HASH])
        .await
        .unwrap();
    assert_eq!(answer.files, [(HASH, COUNTS)]);
    assert_eq!(answer.min_request_interval, Some(300));

    for (path, message) in [
        ("/refused", "the tracker refuses: no"),
        ("/html", "cannot decode the reply"),
        ("/long", "the reply is longer than 1048576 bytes"),
        (
            "/",
            "the tracker answered with status 404 Not Found: nothing here",
        ),
    ] {
        let error = client.announce(&url(path), &announce()).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// Makes a certificate for 127.0.0.1 and a client configuration that trusts it.
fn certificates() -> (Certificates, Trust, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    tls::authority(dir.path(), &[]).unwrap();
    let config = config::Tls {
        cert: Some(dir.path().join("cert.pem")),
        key: Some(dir.path().join("key.pem")),
        names: Vec::new(),
    };
    let trust = Trust::File(dir.path().join("ca.pem"));
    (Certificates::load(&config, None).unwrap(), trust, dir)
}

#[tokio::test]
async fn http() {
    let mut tasks = JoinSet::new();
    let port = http_tracker(&mut tasks, None).await;
    check_http(&client(Trust::Anyone), "http", port).await;

    tasks.shutdown().await;
    let client = client(Trust::Anyone);
    let gone = client.scrape(&localhost("http", port, ""), &[HASH]).await;
    assert!(matches!(gone, Err(RequestError::Io { .. })), "{gone:?}");
}

#[tokio::test]
async fn https() {
    let mut tasks = JoinSet::new();
    let (certificates, trust, _dir) = certificates();
    let port = http_tracker(&mut tasks, Some(certificates.server_config(&[b"http/1.1"]))).await;
    check_http(&client(trust), "https", port).await;
    check_http(&client(Trust::Anyone), "https", port).await;
    let stranger = client(Trust::System);
    let refused = stranger
        .scrape(&localhost("https", port, ""), &[HASH])
        .await;
    assert!(
        matches!(&refused, Err(error @ RequestError::Io { .. }) if error.is_of_unknown_authority()),
        "{refused:?}"
    );
}

#[tokio::test]
async fn http3() {
    let mut tasks = JoinSet::new();
    let (certificates, trust, _dir) = certificates();
    let port = http3_tracker(&mut tasks, certificates.quic_config(&[b"h3"])).await;
    check_http(&client(trust), "h3", port).await;
    check_http(&client(Trust::Anyone), "h3", port).await;
    let stranger = client(Trust::System);
    let refused = stranger.scrape(&localhost("h3", port, ""), &[HASH]).await;
    assert!(
        matches!(&refused, Err(error @ RequestError::Quic { .. }) if error.is_of_unknown_authority()),
        "{refused:?}"
    );
}

/// The close must arrive even if the program ends right after the answer.
#[tokio::test]
async fn a_tracker_over_http3_is_told_that_the_connection_ends() {
    let (certificates, _, _dir) = certificates();
    let tls = certificates.quic_config(&[b"h3"]);
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = localhost("h3", endpoint.local_addr().unwrap().port(), "");
    let asking = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let client = client(Trust::Anyone);
        runtime.block_on(client.scrape(&url, &[HASH])).unwrap_err()
    });
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    receive.read_to_end(1 << 16).await.unwrap();
    // HEADERS with `:status: 404` from the static table (RFC 9204, appendix A).
    send.write_all(&[0x01, 0x03, 0x00, 0x00, 0xdb])
        .await
        .unwrap();
    send.finish().unwrap();
    let reason = connection.closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = &reason else {
        panic!("{reason:?}");
    };
    assert_eq!(close.error_code, 0x100u32.into(), "H3_NO_ERROR: {reason:?}");
    let error = asking.join().unwrap();
    assert!(matches!(error, RequestError::Status { .. }), "{error:?}");
}

#[tokio::test]
async fn a_host_without_an_address() {
    let client = client(Trust::Anyone);
    let url: TrackerUrl = "http://host.invalid/".parse().unwrap();
    let error = client.scrape(&url, &[HASH]).await.unwrap_err();
    assert!(matches!(error, RequestError::Resolve { .. }), "{error:?}");
    assert!(!error.is_of_unknown_authority());
}

#[test]
fn requests_can_be_made_in_tasks_of_their_own() {
    fn check(_: impl Send) {}
    let client = client(Trust::Anyone);
    let url: TrackerUrl = "http://host.invalid/".parse().unwrap();
    check(client.announce(&url, &announce()));
    check(client.scrape(&url, &[HASH]));
    check(client.paths(&url));
}
