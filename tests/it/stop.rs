//! Requests and connections over TCP at the moment the server stops: nothing that has arrived is lost.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use scion_tracker::Server;
use scion_tracker::server::Kind;

use crate::common::{self, Running};
use crate::hostile_http::{END_HEADERS, END_STREAM, GET, PREFACE, connect, frame, goaway, rest};
use crate::http::{Client, client_config, start};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// Tells the server to stop, and waits until it does not listen any more.
fn begin_to_stop(tracker: &Running, address: SocketAddr) {
    tracker.handle.stop();
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_millis(20)).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(3), "it still listens");
    }
}

fn says_close(client: &mut Client) -> bool {
    let response = client.receive(false).unwrap();
    assert_eq!(response.status, 200);
    response.header("connection") == Some("close")
}

#[test]
fn kept_connections_get_one_more_answer() {
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let mut kept = [
        Client::connect(address),
        Client::connect_tls(tracker.address(Kind::Https)),
    ];
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
    }
    // It has sent nothing before the stop.
    let mut new = Client::connect_tls(tracker.address(Kind::Https));
    new.send("");
    begin_to_stop(&tracker, address);
    for client in kept.iter_mut().chain([&mut new]) {
        client.send(REQUEST);
        assert!(says_close(client));
        assert!(client.receive(false).is_none());
    }
}

#[test]
fn an_idle_connection_is_closed_in_time_and_without_a_reset() {
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let mut idle = connect(address);
    idle.write_all(REQUEST.as_bytes()).unwrap();
    let mut reply = [0; 1024];
    assert_ne!(idle.read(&mut reply).unwrap(), 0);
    let start = Instant::now();
    begin_to_stop(&tracker, address);
    assert_eq!(idle.read(&mut reply).unwrap(), 0);
    tracker.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn pipelined_requests_are_all_answered() {
    // More bytes than are read at once.
    const REQUESTS: usize = 200;
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").status, 200);
    let requests = REQUEST.repeat(REQUESTS);
    let (sent, unsent) = requests.split_at(requests.len() - 10);
    begin_to_stop(&tracker, address);
    client.send(sent);
    for _ in 1..REQUESTS {
        assert!(!says_close(&mut client));
    }
    // The last one is in flight.
    client.send(unsent);
    assert!(says_close(&mut client));
    assert!(client.receive(false).is_none());
}

#[test]
fn requests_sent_before_the_stop_are_answered() {
    // The server has not even accepted these connections when it is told to stop.
    let server = Server::bind(common::config()).unwrap();
    let listening: Vec<_> = server.listeners().collect();
    let address = |kind| listening.iter().find(|it| it.kind == kind).unwrap().address;
    let mut clients: Vec<_> = (0..50)
        .map(|_| Client::connect(address(Kind::Http)))
        .collect();
    for client in &mut clients {
        client.send(REQUEST);
    }
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(server.run(std::future::ready(())))
            .unwrap();
    });
    for client in &mut clients {
        let _ = says_close(client);
    }
    drop(clients);
    running.join().unwrap();
}

#[test]
fn no_request_on_a_kept_connection_is_lost_under_load() {
    let tracker = start(|_| {});
    let addresses = [tracker.address(Kind::Http), tracker.address(Kind::Https)];
    let answered = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let answered = Arc::clone(&answered);
            let mut client = match n % 2 {
                0 => Client::connect(addresses[0]),
                _ => Client::connect_tls(addresses[1]),
            };
            thread::spawn(move || {
                loop {
                    client.send(REQUEST);
                    // Panics if the connection has ended.
                    if says_close(&mut client) {
                        return assert!(client.receive(false).is_none());
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 500 {
        thread::yield_now();
    }
    tracker.handle.stop();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_handshake_in_flight_is_completed_and_its_request_answered() {
    let tracker = start(|_| {});
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(client_config(&[b"http/1.1"])), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let mut stream = connect(tracker.address(Kind::Https));
    let (sent, unsent) = hello.split_at(hello.len() / 2);
    stream.write_all(sent).unwrap();
    // The server has accepted the connection when it has counted it.
    let start = Instant::now();
    while tracker
        .handle
        .stats()
        .counters
        .get(scion_tracker::Counter::TcpConnections)
        == 0
    {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    begin_to_stop(&tracker, tracker.address(Kind::Http));
    stream.write_all(unsent).unwrap();
    let mut client = Client::new(StreamOwned::new(tls, stream));
    client.send(REQUEST);
    assert!(says_close(&mut client));
}

/// Reads frames of the server until one of this kind, and returns it.
fn await_frame(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == kind {
            return payload;
        }
    }
}

#[test]
fn http2_is_told_to_go_and_requests_on_their_way_are_answered() {
    const DATA: u8 = 0;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    let tracker = start(|_| {});
    let address = tracker.address(Kind::Http);
    let mut stream = connect(address);
    stream.write_all(PREFACE).unwrap();
    let request = |stream| frame(1, END_STREAM | END_HEADERS, stream, GET);
    stream.write_all(&request(1)).unwrap();
    await_frame(&mut stream, DATA);
    begin_to_stop(&tracker, address);
    // The first GOAWAY names the highest id, so that streams opened meanwhile are served.
    let first = await_frame(&mut stream, GOAWAY);
    assert_eq!(first[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let ping = await_frame(&mut stream, PING);
    stream.write_all(&request(3)).unwrap();
    stream.write_all(&frame(PING, ACK, 0, &ping)).unwrap();
    await_frame(&mut stream, DATA);
    let last = rest(&mut stream);
    assert_eq!(goaway(&last), Some(0), "{}", last.escape_ascii());
    let start = Instant::now();
    tracker.stop();
    assert!(start.elapsed() < Duration::from_secs(4));
}
