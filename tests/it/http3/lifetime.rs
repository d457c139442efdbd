//! How long connections over HTTP/3 live: idle ones, those whose client moves, those that cost too
//! much, and handshakes that do not end.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn::VarInt;
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, TokenStore,
};
use scion_tracker::Counter;
use scion_tracker::server::Kind;
use tokio::time::{sleep, timeout};

use super::raw::{End, closed, end_of, status, with};
use super::{PATIENCE, connect, endpoint, goaway};
use crate::common::Running;
use crate::http::{client_config, start};

const EXCESSIVE_LOAD: u32 = 0x107;

fn count(tracker: &Running, counter: Counter) -> u64 {
    tracker.handle.stats().counters.get(counter)
}

/// Waits until a counter has this value.
async fn counted(tracker: &Running, counter: Counter, value: u64) {
    let reached = async {
        while count(tracker, counter) < value {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{counter:?} stays below {value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_keep_no_connection_open() {
    let tracker = start(|config| {
        config.connections.idle_timeout = Duration::from_millis(500);
        config.connections.head_timeout = Duration::from_millis(300);
    });
    let (_endpoint, connection) = connect(&tracker).await;
    let begin = async {
        let mut open = Vec::new();
        // Opening fails when the connection is closed.
        while let Ok((mut send, recv)) = connection.open_bi().await {
            let _ = send.write_all(&with(&[])[..10]).await;
            open.push((send, recv));
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, begin).await.unwrap();
    let end = closed(connection.closed().await);
    assert_eq!(end, End::Connection(0x100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_survives_the_idle_time() {
    let tracker = start(|config| config.connections.idle_timeout = Duration::from_millis(300));
    // QUIC itself also drops a connection that is silent for the idle time. The client pings, which is no
    // request.
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(30)));
    let tls = QuicClientConfig::try_from(client_config(&[b"h3"])).unwrap();
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport));
    let connecting = endpoint()
        .connect_with(client, tracker.address(Kind::Http3), "localhost")
        .unwrap();
    let connection = connecting.await.unwrap();
    let mut control = connection.accept_uni().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let request = with(&[]);
    send.write_all(&request[..10]).await.unwrap();
    assert_eq!(goaway(&mut control).await, 4);
    send.write_all(&request[10..]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(status(&recv.read_to_end(1000).await.unwrap()), "200");
    let end = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(closed(end), End::Connection(0x100));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_carry_nothing_end_the_connection() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let begin = async {
        while let Ok((mut send, mut recv)) = connection.open_bi().await {
            let _ = send.finish();
            let _ = recv.read_to_end(1000).await;
        }
    };
    timeout(PATIENCE, begin).await.unwrap();
    let end = closed(connection.closed().await);
    assert_eq!(end, End::Connection(EXCESSIVE_LOAD));
    assert_eq!(count(&tracker, Counter::Http3Excessive), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_frames_of_a_request_are_bounded() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    for (frames, end) in [
        (500, End::Status("200".into())),
        (513, End::Stream(EXCESSIVE_LOAD)),
    ] {
        let request = [[0x21, 0].repeat(frames), with(&[])].concat();
        assert_eq!(end_of(&connection, &request, true).await, end, "{frames}");
    }
    // The length of a frame counts before its bytes arrive.
    let request = [&[0x21, 0x44, 0][..], &with(&[])].concat();
    let end = end_of(&connection, &request, false).await;
    assert_eq!(end, End::Stream(EXCESSIVE_LOAD));
}

/// A NAT that changes the port. With two workers, the new port may belong to the other one.
#[tokio::test(flavor = "multi_thread")]
async fn clients_whose_port_changes_go_on() {
    let tracker = start(|_| {});
    for client in 0..12 {
        let (endpoint, connection) = connect(&tracker).await;
        for port in 0..2 {
            let end = end_of(&connection, &with(&[]), true).await;
            assert_eq!(end, End::Status("200".into()), "{client} {port}");
            endpoint
                .rebind(UdpSocket::bind("127.0.0.1:0").unwrap())
                .unwrap();
        }
        let end = end_of(&connection, &with(&[]), true).await;
        assert_eq!(end, End::Status("200".into()), "{client}");
    }
    assert_eq!(count(&tracker, Counter::QuicConnections), 12);
    assert_eq!(count(&tracker, Counter::QuicElsewhere), 0);
}

/// The host of a client is the origin of its requests, so another host cannot continue.
#[tokio::test(flavor = "multi_thread")]
async fn connections_do_not_move_to_another_host() {
    let tracker = start(|config| config.workers = 1.try_into().ok());
    let (endpoint, connection) = connect(&tracker).await;
    let end = end_of(&connection, &with(&[]), true).await;
    assert_eq!(end, End::Status("200".into()));
    let before = count(&tracker, Counter::Http3Failures) + count(&tracker, Counter::Http3Rejected);
    endpoint
        .rebind(UdpSocket::bind("127.0.0.2:0").unwrap())
        .unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&with(&[])).await.unwrap();
    send.finish().unwrap();
    counted(&tracker, Counter::QuicElsewhere, 3).await;
    let after = count(&tracker, Counter::Http3Failures) + count(&tracker, Counter::Http3Rejected);
    assert_eq!(before, after);
    // At its own host, the connection goes on.
    endpoint
        .rebind(UdpSocket::bind("127.0.0.1:0").unwrap())
        .unwrap();
    let end = end_of(&connection, &with(&[]), true).await;
    assert_eq!(end, End::Status("200".into()));
}

#[test]
fn only_version_1_is_offered() {
    let tracker = start(|_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = b"\xc3\x1a\x2a\x3a\x4a\x08destiny!\x03src".to_vec();
    packet.resize(1200, 0);
    socket
        .send_to(&packet, tracker.address(Kind::Http3))
        .unwrap();
    let mut answer = [0; 1200];
    let length = socket.recv(&mut answer).unwrap();
    let versions = answer[..length]
        .strip_prefix(&[&[answer[0], 0, 0, 0, 0, 3][..], b"src\x08destiny!"].concat()[..])
        .unwrap();
    // Versions of the form 0x?a?a?a?a are reserved, to exercise negotiation.
    let real = |version: &[u8; 4]| version.iter().any(|byte| byte & 0xf != 0xa);
    let offered: Vec<_> = versions
        .as_chunks::<4>()
        .0
        .iter()
        .map(|version| u32::from_be_bytes(*version))
        .filter(|version| real(&version.to_be_bytes()))
        .collect();
    assert_eq!(offered, [1]);
}

/// A client that asks for a connection and then says nothing more.
struct Silent {
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    /// The Initial packet that the server has received last.
    initial: Vec<u8>,
}

impl Silent {
    fn new(from: &str, to: SocketAddr, token: Option<Bytes>) -> Self {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = Arc::new(EndpointConfig::default());
        let mut endpoint = Endpoint::new(config, None, true, None);
        let tls = QuicClientConfig::try_from(client_config(&[b"h3"])).unwrap();
        let mut config = ClientConfig::new(Arc::new(tls));
        config.token_store(Arc::new(Token(token)));
        let (handle, connection) = endpoint
            .connect(Instant::now(), config, to, "localhost")
            .unwrap();
        let mut client = Self {
            socket,
            endpoint,
            handle,
            connection,
            initial: Vec::new(),
        };
        client.send(to);
        client
    }

    fn send(&mut self, to: SocketAddr) {
        self.initial.clear();
        let now = Instant::now();
        let transmit = self.connection.poll_transmit(now, 1, &mut self.initial);
        assert!(transmit.is_some());
        self.socket.send_to(&self.initial, to).unwrap();
    }

    /// Receives one datagram.
    fn receive(&mut self) -> Vec<u8> {
        let mut datagram = vec![0; 2048];
        let length = self.socket.recv(&mut datagram).unwrap();
        datagram.truncate(length);
        datagram
    }

    /// Shows its address with the token of a Retry.
    fn retry(&mut self, to: SocketAddr) -> Bytes {
        let datagram = self.receive();
        assert_eq!(datagram[0] & 0xf0, 0xf0, "not a Retry packet");
        let payload = BytesMut::from(&datagram[..]);
        let now = Instant::now();
        let event = self
            .endpoint
            .handle(now, to, None, None, payload, &mut Vec::new());
        let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else {
            panic!("the Retry packet belongs to the connection");
        };
        assert_eq!(handle, self.handle);
        self.connection.handle_event(event);
        self.send(to);
        // flags, version, connection ids, token, integrity tag
        let ids = 5 + 1 + usize::from(datagram[5]);
        let token = ids + 1 + usize::from(datagram[ids]);
        Bytes::copy_from_slice(&datagram[token..datagram.len() - 16])
    }
}

/// Gives a new connection this token.
struct Token(Option<Bytes>);

impl TokenStore for Token {
    fn insert(&self, _: &str, _: Bytes) {}

    fn take(&self, _: &str) -> Option<Bytes> {
        self.0.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_one_source_do_not_keep_others_out() {
    let tracker = start(|config| {
        // A worker compares the sources that it knows.
        config.workers = 1.try_into().ok();
        config.connections.handshakes_before_retry = 0;
        config.connections.handshakes = 6;
        config.connections.per_source = 8;
    });
    let to = tracker.address(Kind::Http3);
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut client = Silent::new("127.0.0.2:0", to, None);
        client.retry(to);
        // The server has accepted the handshake when it answers.
        client.receive();
        silent.push(client);
    }
    assert_eq!(count(&tracker, Counter::QuicEvicted), 0);
    // The source with the most handshakes gets no more.
    let mut one_more = Silent::new("127.0.0.2:0", to, None);
    one_more.retry(to);
    one_more.receive();
    assert_eq!(count(&tracker, Counter::QuicRefused), 1);
    // Another source gets in, and the oldest handshake is given up.
    let (_endpoint, connection) = timeout(PATIENCE, connect(&tracker)).await.unwrap();
    let end = end_of(&connection, &with(&[]), true).await;
    assert_eq!(end, End::Status("200".into()));
    assert_eq!(count(&tracker, Counter::QuicEvicted), 1);
    assert_eq!(count(&tracker, Counter::QuicConnections), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_count_against_their_source() {
    let tracker = start(|config| {
        config.connections.handshakes_before_retry = 0;
        config.connections.per_source = 2;
        config.connections.handshake_timeout = Duration::from_millis(500);
    });
    let to = tracker.address(Kind::Http3);
    let mut silent = Vec::new();
    for number in 0..3 {
        let mut client = Silent::new("127.0.0.2:0", to, None);
        client.retry(to);
        client.receive();
        silent.push(client);
        assert_eq!(
            count(&tracker, Counter::QuicRefused),
            u64::from(number == 2)
        );
    }
    let (_endpoint, connection) = connect(&tracker).await;
    let end = end_of(&connection, &with(&[]), true).await;
    assert_eq!(end, End::Status("200".into()));
    // When the handshakes have timed out, the source gets in again.
    counted(&tracker, Counter::QuicAborted, 2).await;
    let mut client = Silent::new("127.0.0.2:0", to, None);
    client.retry(to);
    client.receive();
    assert_eq!(count(&tracker, Counter::QuicRefused), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_token_begins_one_handshake() {
    let tracker = start(|config| {
        config.workers = 1.try_into().ok();
        config.connections.handshakes_before_retry = 0;
    });
    let to = tracker.address(Kind::Http3);
    let mut first = Silent::new("127.0.0.2:0", to, None);
    let from = first.socket.local_addr().unwrap().to_string();
    let token = first.retry(to);
    first.receive();
    assert_eq!(count(&tracker, Counter::QuicRefused), 0);
    drop(first);
    // A new connection, from the same address, with the token of the old one.
    let mut again = Silent::new(&from, to, Some(token));
    again.receive();
    assert_eq!(count(&tracker, Counter::QuicRefused), 1);
    assert_eq!(count(&tracker, Counter::QuicRetries), 1);
}

/// A client that is gone keeps no place.
#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_are_forgotten() {
    let tracker = start(|config| {
        config.connections.quic = 1;
        config.connections.handshakes = 1;
    });
    for _ in 0..6 {
        let client = endpoint();
        let connected = async {
            loop {
                let connecting = client.connect(tracker.address(Kind::Http3), "localhost");
                if let Ok(connection) = connecting.unwrap().await {
                    return connection;
                }
            }
        };
        let connection = timeout(PATIENCE, connected).await.unwrap();
        let end = end_of(&connection, &with(&[]), true).await;
        assert_eq!(end, End::Status("200".into()));
        connection.close(VarInt::from_u32(0x100), b"");
        client.wait_idle().await;
    }
}
