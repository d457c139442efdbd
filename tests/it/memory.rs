//! The memory for connections: who loses his when it is used up, and replies that are not taken.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use scion_tracker::Counter;
use scion_tracker::server::Kind;
use tokio::time::timeout;

use crate::common::Running;
use crate::hostile_http::{
    END_HEADERS, END_STREAM, GET, PREFACE, await_count, connect, frame, is_served, rest,
};
use crate::http::{Client, start};
use crate::http3::{self, PATIENCE};

/// H3_EXCESSIVE_LOAD (RFC 9114 section 8.1).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// A tracker with 1 MiB for its connections.
fn small() -> Running {
    start(|config| config.connections.memory = Some(1 << 20))
}

/// A connection from this address of the loopback interface.
fn connect_from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((IpAddr::from(ip), 0)).into())
        .unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until the connections that have to make room have ended, and another host gets a connection
/// that is kept.
fn await_service_of_others(address: SocketAddr) {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    let begun = Instant::now();
    loop {
        let mut other = Client::new(connect_from([127, 0, 0, 4], address));
        let mut is_served = || other.try_send(REQUEST) && other.receive(false).is_some();
        if is_served() && is_served() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
fn unfinished_heads_of_one_host_cost_others_nothing() {
    let tracker = small();
    let address = tracker.address(Kind::Http);
    let mut kept = Client::new(connect_from([127, 0, 0, 2], address));
    assert_eq!(kept.get("/").status, 200);
    // 200 buffers of 16 KiB would be three times the limit.
    let head = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}", "x".repeat(9_000));
    let mut held = Vec::new();
    for n in 1..=200 {
        let mut stream = connect_from([127, 0, 0, 3], address);
        // It may be closed already.
        let _ = stream.write_all(head.as_bytes());
        held.push(stream);
        await_count(&tracker, Counter::TcpConnections, n + 1);
    }
    let counted = tracker.handle.stats().counters;
    let evicted = counted.get(Counter::ConnectionsEvicted);
    assert!(evicted > 0);
    assert!(evicted + counted.get(Counter::ConnectionsOverMemory) > 100);
    assert_eq!(kept.get("/").status, 200);
    await_service_of_others(address);
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn replies_of_http2_that_are_not_taken_end_the_connection() {
    let short = Duration::from_millis(300);
    let tracker = start(|config| config.connections.reply_timeout = short);
    let mut stream = connect(tracker.address(Kind::Http));
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    stream.write_all(&PREFACE[..PREFACE.len() - 9]).unwrap();
    let settings = [&[0, 4][..], &[0; 4]].concat();
    stream.write_all(&frame(4, 0, 0, &settings)).unwrap();
    let begun = Instant::now();
    stream
        .write_all(&frame(1, END_STREAM | END_HEADERS, 1, GET))
        .unwrap();
    // The client does all it can to seem alive: it pings, and takes the replies of other streams.
    let mut alive = stream.try_clone().unwrap();
    let client = thread::spawn(move || {
        for stream in (3..).step_by(2) {
            let window = frame(8, 0, stream, &1000_u32.to_be_bytes());
            let request = frame(1, END_STREAM | END_HEADERS, stream, GET);
            let more = [request, window, frame(6, 0, 0, &[0; 8])].concat();
            if alive.write_all(&more).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    rest(&mut stream);
    assert!(begun.elapsed() >= short);
    assert!(begun.elapsed() < Duration::from_secs(10));
    await_count(&tracker, Counter::TcpAborted, 1);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    client.join().unwrap();
    is_served(&tracker);
}

#[test]
fn a_client_that_takes_its_replies_slowly_is_served() {
    let short = Duration::from_secs(1);
    let tracker = start(|config| config.connections.reply_timeout = short);
    let mut stream = connect(tracker.address(Kind::Http));
    stream.write_all(PREFACE).unwrap();
    let begun = Instant::now();
    let mut buf = [0; 4096];
    for stream_id in (1..).step_by(2) {
        if begun.elapsed() > 2 * short {
            break;
        }
        stream
            .write_all(&frame(1, END_STREAM | END_HEADERS, stream_id, GET))
            .unwrap();
        assert_ne!(stream.read(&mut buf).unwrap(), 0);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tracker.handle.stats().counters.get(Counter::TcpAborted), 0);
}

#[test]
fn streams_of_http2_whose_replies_wait_are_charged() {
    let tracker = small();
    let address = tracker.address(Kind::Http);
    let mut held = Vec::new();
    // 100 KiB each.
    for _ in 0..30 {
        let mut stream = connect_from([127, 0, 0, 3], address);
        let _ = stream.write_all(PREFACE);
        held.push(stream);
    }
    await_count(&tracker, Counter::ConnectionsEvicted, 1);
    await_service_of_others(address);
}

async fn connect_quic(
    endpoint: &Endpoint,
    tracker: &Running,
) -> Result<Connection, ConnectionError> {
    let connecting = endpoint.connect(tracker.address(Kind::Http3), "localhost");
    connecting.unwrap().await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_quic_make_room_or_are_refused() {
    let tracker = small();
    let endpoint = http3::endpoint();
    let mut first = None;
    let mut refused = 0;
    // 96 KiB each.
    for _ in 0..30 {
        match connect_quic(&endpoint, &tracker).await {
            Ok(connection) => {
                first.get_or_insert(connection);
            }
            Err(_) => refused += 1,
        }
    }
    let counted = tracker.handle.stats().counters;
    let evicted = counted.get(Counter::ConnectionsEvicted);
    assert!(evicted + refused > 0);
    assert!(evicted > 0);
    let reason = timeout(PATIENCE, first.unwrap().closed()).await;
    match reason.unwrap() {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, EXCESSIVE_LOAD),
        other => panic!("{other:?}"),
    }
    // TCP has its part of the same memory, and other hosts are served.
    let address = tracker.address(Kind::Http);
    await_service_of_others(address);
}
