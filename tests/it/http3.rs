//! Announces over HTTP/3, and the lifetime of its connections.

mod lifetime;
pub(crate) mod raw;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, ReadError, VarInt};
use scion_tracker::Counter;
use scion_tracker::config::Http3Listener;
use scion_tracker::server::Kind;
use serde_bencode::value::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::Running;
use crate::hostile_http::{HIDDEN, seen};
use crate::http::{announce, bytes, client_config, decode, field, start};
use raw::{End, closed, end_of, status, with};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A QUIC client that trusts the tracker's certificate.
pub(crate) fn endpoint() -> Endpoint {
    let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let tls = QuicClientConfig::try_from(client_config(&[b"h3"])).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

pub(crate) async fn connect(tracker: &Running) -> (Endpoint, Connection) {
    let endpoint = endpoint();
    let connecting = endpoint.connect(tracker.address(Kind::Http3), "localhost");
    let connection = connecting.unwrap().await.unwrap();
    (endpoint, connection)
}

/// H3_REQUEST_INCOMPLETE (RFC 9114, section 8.1).
pub(crate) const REQUEST_INCOMPLETE: u32 = 0x10d;

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn request(sender: &mut Sender, request: http::Request<()>) -> (http::Response<()>, Vec<u8>) {
    let mut stream = sender.send_request(request).await.unwrap();
    stream.finish().await.unwrap();
    let response = stream.recv_response().await.unwrap();
    let mut body = Vec::new();
    while let Some(mut chunk) = stream.recv_data().await.unwrap() {
        body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    (response, body)
}

fn to(method: &str, target: &str) -> http::Request<()> {
    let uri = format!("https://localhost{target}");
    http::Request::builder()
        .method(method)
        .uri(uri)
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_name_clients_over_http3_as_well() {
    let tracker = start(|config| {
        let mut listener = Http3Listener::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        listener.proxies = vec!["127.0.0.0/8".parse().unwrap()];
        listener.header = "x-real-ip".parse().unwrap();
        config.listen.http3 = vec![listener];
    });
    let (_endpoint, connection) = connect(&tracker).await;
    let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection))
        .await
        .unwrap();
    let driver = tokio::spawn(async move { driver.wait_idle().await });
    for (header, value, expected) in [
        ("x-real-ip", "192.0.2.1", Ok(vec![192, 0, 2, 1])),
        ("x-real-ip", "unknown", Err(HIDDEN.to_owned())),
        ("x-forwarded-for", "192.0.2.1", Err(HIDDEN.to_owned())),
    ] {
        let mut asked = to("GET", &format!("/announce?{}", announce(1)));
        let name = http::HeaderName::from_static(header);
        asked.headers_mut().insert(name, value.parse().unwrap());
        let (_, body) = request(&mut sender, asked).await;
        assert_eq!(seen(&body), expected, "{header}: {value}");
    }
    drop(sender);
    driver.abort();
    let _ = driver.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_is_served() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection))
        .await
        .unwrap();
    let driver = tokio::spawn(async move { driver.wait_idle().await });
    let target = format!("/announce?{}", announce(1));
    let (response, body) = request(&mut sender, to("GET", &target)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "application/octet-stream"
    );
    assert_eq!(
        response.headers()["content-length"],
        &*body.len().to_string()
    );
    assert_eq!(bytes(&decode(&body), "external ip"), [127, 0, 0, 1]);
    let (response, body) = request(&mut sender, to("HEAD", &target)).await;
    assert_eq!((response.status().as_u16(), body.len()), (200, 0));
    let (response, _) = request(&mut sender, to("OPTIONS", &target)).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    let (response, _) = request(&mut sender, to("GET", "/nothing")).await;
    assert_eq!(response.status(), 404);
    let (response, body) = request(&mut sender, to("GET", "/announce")).await;
    assert_eq!(response.status(), 200);
    assert!(field(&decode(&body), "failure reason").is_some());
    // More requests at once than streams are allowed: the client waits for free ones.
    let many = (0..100).map(|port| {
        let mut sender = sender.clone();
        async move {
            let target = format!("/announce?{}", announce(port + 1));
            request(&mut sender, to("GET", &target)).await
        }
    });
    for task in many.map(tokio::spawn).collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().0.status(), 200);
    }
    drop(sender);
    driver.abort();
    let _ = driver.await;
}

/// Checks that announces of many connections at the same time, which are answered in groups, each
/// get their own reply: the swarm of each peer has as many peers as its number says.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_announces_get_their_own_replies() {
    const CONNECTIONS: u16 = 12;
    const STREAMS: u16 = 20;
    let tracker = start(|config| config.registry.peers_per_source = u32::MAX);
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (endpoint, connection) = connect(&tracker).await;
        clients.spawn(async move {
            let connection = h3_quinn::Connection::new(connection);
            let (mut driver, sender) = h3::client::new(connection).await.unwrap();
            let driver = tokio::spawn(async move { driver.wait_idle().await });
            for round in 1..=3 {
                let mut streams = JoinSet::new();
                for stream in 0..STREAMS {
                    let mut sender = sender.clone();
                    let hash = format!("%{number:02x}%{stream:02x}{}", "x".repeat(18));
                    let port = 1000 + round;
                    let target = format!(
                        "/announce?info_hash={hash}&peer_id=-XX0001-{port:012}&port={port}&left={}",
                        stream % 2
                    );
                    streams.spawn(async move {
                        // One of the requests is malformed.
                        let wrong = request(&mut sender, to("GET", "/announce?port=0"));
                        let (_, body) = wrong.await;
                        assert!(field(&decode(&body), "failure reason").is_some());
                        let (response, body) = request(&mut sender, to("GET", &target)).await;
                        assert_eq!(response.status(), 200);
                        let of = ["complete", "incomplete"][usize::from(stream % 2)];
                        let count = Value::Int(round.into());
                        assert_eq!(field(&decode(&body), of), Some(&count), "{target}");
                    });
                }
                while let Some(done) = streams.join_next().await {
                    done.unwrap();
                }
            }
            driver.abort();
            drop(endpoint);
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let stats = tracker.handle.stats();
    let peers = u64::from(CONNECTIONS * STREAMS) * 3;
    assert_eq!(stats.registry.seeders + stats.registry.leechers, peers);
    assert_eq!(stats.counters.get(Counter::Http3Announces), peers);
    tracker.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_times_out_and_blocks_nobody() {
    let tracker = start(|config| config.connections.head_timeout = Duration::from_millis(300));
    let (_endpoint, connection) = connect(&tracker).await;
    let (mut slow, mut answer) = connection.open_bi().await.unwrap();
    slow.write_all(&with(&[])[..10]).await.unwrap();
    assert_eq!(
        end_of(&connection, &with(&[]), true).await,
        End::Status("200".into())
    );
    let end = timeout(PATIENCE, answer.read_to_end(1000)).await.unwrap();
    let reset = ReadError::Reset(VarInt::from_u32(REQUEST_INCOMPLETE));
    assert_eq!(end, Err(quinn::ReadToEndError::Read(reset)));
    assert_eq!(
        end_of(&connection, &with(&[]), true).await,
        End::Status("200".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_even_if_they_are_kept_alive() {
    let tracker = start(|config| config.connections.idle_timeout = Duration::from_millis(500));
    let mut endpoint = endpoint();
    let mut config = quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(client_config(&[b"h3"])).unwrap(),
    ));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(100)));
    config.transport_config(Arc::new(transport));
    endpoint.set_default_client_config(config);
    let connecting = endpoint
        .connect(tracker.address(Kind::Http3), "localhost")
        .unwrap();
    let connection = connecting.await.unwrap();
    let end = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(closed(end), End::Connection(0x100));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_per_source_are_limited() {
    let tracker = start(|config| config.connections.per_source = 2);
    let (_one, first) = connect(&tracker).await;
    let (_two, second) = connect(&tracker).await;
    for connection in [&first, &second] {
        assert_eq!(
            end_of(connection, &with(&[]), true).await,
            End::Status("200".into())
        );
    }
    let third = endpoint();
    let refused = third
        .connect(tracker.address(Kind::Http3), "localhost")
        .unwrap()
        .await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionClosed(_))),
        "{refused:?}"
    );
    assert!(tracker.handle.stats().counters.get(Counter::QuicRefused) >= 1);
    // When a connection is closed, another is accepted. The tracker needs a moment to notice it.
    first.close(VarInt::from_u32(0x100), b"");
    let served = async {
        loop {
            let connecting = third
                .connect(tracker.address(Kind::Http3), "localhost")
                .unwrap();
            if let Ok(connection) = connecting.await {
                return connection;
            }
        }
    };
    timeout(PATIENCE, served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_clients_must_validate_their_address() {
    let tracker = start(|config| config.connections.handshakes_before_retry = 0);
    let (_endpoint, connection) = connect(&tracker).await;
    assert_eq!(
        end_of(&connection, &with(&[]), true).await,
        End::Status("200".into())
    );
    assert_eq!(tracker.handle.stats().counters.get(Counter::QuicRetries), 1);
    drop(tracker);
    let tracker = start(|config| config.connections.handshakes = 0);
    let refused = endpoint()
        .connect(tracker.address(Kind::Http3), "localhost")
        .unwrap()
        .await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionClosed(_))),
        "{refused:?}"
    );
}

/// Checks that a token from one worker is valid for the others. The port of a client decides which
/// worker serves it.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_change_their_port_connect_anew() {
    let tracker = start(|config| config.connections.handshakes_before_retry = 0);
    for clients in 1..=12 {
        let (endpoint, connection) = connect(&tracker).await;
        assert_eq!(
            end_of(&connection, &with(&[]), true).await,
            End::Status("200".into())
        );
        endpoint
            .rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let address = tracker.address(Kind::Http3);
        let again = endpoint.connect(address, "localhost").unwrap();
        let again = timeout(PATIENCE, again).await.unwrap().unwrap();
        assert_eq!(
            end_of(&again, &with(&[]), true).await,
            End::Status("200".into())
        );
        let counters = tracker.handle.stats().counters;
        assert_eq!(counters.get(Counter::QuicConnections), 2 * clients);
        // Once is enough: the token of the first connection shows the same.
        assert_eq!(counters.get(Counter::QuicRetries), clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_completes_requests_and_sends_goaway() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let mut control = connection.accept_uni().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let request = with(&[]);
    send.write_all(&request[..10]).await.unwrap();
    // When a second request has been answered, the tracker has seen the first one.
    assert_eq!(
        end_of(&connection, &request, true).await,
        End::Status("200".into())
    );
    let stopped = std::thread::spawn(move || tracker.stop());
    assert_eq!(goaway(&mut control).await, (1 << 62) - 4);
    // Requests that were sent before the client knew are served.
    assert_eq!(
        end_of(&connection, &request, true).await,
        End::Status("200".into())
    );
    assert_eq!(goaway(&mut control).await, 12);
    // The fourth request comes too late; the first one is still served.
    let (mut late, mut rejected) = connection.open_bi().await.unwrap();
    let _ = late.write_all(&request).await;
    let end = rejected.read_to_end(1000).await;
    let reset = ReadError::Reset(VarInt::from_u32(0x10b));
    assert_eq!(end, Err(quinn::ReadToEndError::Read(reset)));
    send.write_all(&request[10..]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(status(&recv.read_to_end(1000).await.unwrap()), "200");
    let end = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(closed(end), End::Connection(0x100));
    tokio::task::spawn_blocking(|| stopped.join())
        .await
        .unwrap()
        .unwrap();
}

/// Reads the server's control stream up to the next GOAWAY. Returns its id.
async fn goaway(control: &mut quinn::RecvStream) -> u64 {
    let mut last = [0; 10];
    while last[..2] != [7, 8] {
        let mut byte = [0];
        timeout(PATIENCE, control.read_exact(&mut byte))
            .await
            .unwrap()
            .unwrap();
        last.rotate_left(1);
        last[9] = byte[0];
    }
    u64::from_be_bytes(last[2..].try_into().unwrap()) & ((1 << 62) - 1)
}
