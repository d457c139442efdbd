//! Clients of HTTP/1.1 and HTTP/2 that are slow, greedy, malformed or dishonest.

mod two;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use scion_tracker::config::Listener;
use scion_tracker::core::response::Refusal;
use scion_tracker::server::Kind;
use scion_tracker::{Config, Counter};

use crate::common::Running;
pub(crate) use two::{END_HEADERS, END_STREAM, GET, PREFACE, frame, goaway};

use crate::http::{Client, announce, bytes, decode, field, http2, start};

/// A deadline of the server that a test waits for.
const SHORT: Duration = Duration::from_millis(300);

/// A stream whose timeout is long enough for a busy machine.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// Reads to the end of the connection, whether it is closed or reset.
pub(crate) fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return read,
            Ok(length) => read.extend_from_slice(&buf[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return read,
            Err(error) => panic!("the connection is not closed: {error}"),
        }
    }
}

/// Waits until the server has counted this many events, which happens after the client sees the
/// effect.
pub(crate) fn await_count(tracker: &Running, counter: Counter, least: u64) {
    let start = Instant::now();
    while tracker.handle.stats().counters.get(counter) < least {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            counter.label()
        );
        thread::yield_now();
    }
}

pub(crate) fn is_served(tracker: &Running) {
    let response =
        Client::connect(tracker.address(Kind::Http)).get(&format!("/announce?{}", announce(1)));
    assert_eq!(response.status, 200);
}

#[test]
fn endless_headers_are_cut_off() {
    let tracker = start(|_| {});
    for line in ["X-Padding: abcdefghijklmnopqrstuvwxyz\r\n", "a:\r\n", "b"] {
        let mut stream = connect(tracker.address(Kind::Http));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n").unwrap();
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(line.repeat(100).as_bytes()).is_ok() {
            sent += line.len() * 100;
        }
        assert!(sent < 64 << 20, "the server reads on");
    }
    // A client that stops sending is told why.
    let mut client = Client::connect(tracker.address(Kind::Http));
    client.send(format!("GET /{} HTTP/1.1\r\n", "a".repeat(11_000)));
    assert_eq!(client.receive(false).unwrap().status, 431);
    let mut client = Client::connect(tracker.address(Kind::Http));
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\n{}\r\n",
        "a: b\r\n".repeat(65)
    ));
    assert_eq!(client.receive(false).unwrap().status, 431);
    is_served(&tracker);
}

#[test]
fn slow_heads_time_out() {
    let tracker = start(|config| config.connections.head_timeout = SHORT);
    let address = tracker.address(Kind::Http);
    let requests = ["", "GET /announce?info", "PRI * HTTP/2.0\r\n\r\n"];
    let mut slow: Vec<_> = requests
        .iter()
        .map(|request| {
            let mut stream = connect(address);
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    // A client that always sends one more byte.
    let dripping = thread::spawn(move || {
        let mut stream = connect(address);
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let start = Instant::now();
        while stream.write_all(b"a").is_ok() && start.elapsed() < Duration::from_secs(20) {
            if let Ok(length) = stream.read(&mut [0; 100]) {
                assert_eq!(length, 0);
                break;
            }
        }
        start.elapsed()
    });
    is_served(&tracker);
    for stream in &mut slow {
        let told = rest(stream);
        assert!(!told.starts_with(b"HTTP/1.1"), "{}", told.escape_ascii());
    }
    assert!(dripping.join().unwrap() < Duration::from_secs(20));
    await_count(&tracker, Counter::TcpAborted, 3);
    is_served(&tracker);
}

#[test]
fn idle_connections_are_closed_without_a_reply() {
    let tracker = start(|config| config.connections.idle_timeout = SHORT);
    let mut client = Client::connect(tracker.address(Kind::Http));
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(client.receive(false).is_none());
    assert_eq!(tracker.handle.stats().counters.get(Counter::TcpAborted), 0);
}

#[test]
fn thousands_of_idle_connections_do_not_block_others() {
    const IDLE: usize = 2000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let tracker = start(|config| config.connections.per_source = 10_000);
    let address = tracker.address(Kind::Http);
    let idle: Vec<_> = (0..IDLE)
        .map(|n| {
            let mut stream = connect(address);
            if n % 2 == 0 {
                stream.write_all(b"GET /announce?").unwrap();
            }
            stream
        })
        .collect();
    let mut kept = Client::connect(address);
    for _ in 0..100 {
        assert_eq!(kept.get("/").status, 200);
        is_served(&tracker);
    }
    await_count(&tracker, Counter::TcpConnections, IDLE as u64 + 101);
    // They are still connected and can still send a request.
    let mut last = &idle[IDLE - 1];
    last.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(rest(&mut last.try_clone().unwrap()).starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn initially_silent_clients_are_served() {
    let tracker = start(|_| {});
    let mut stream = connect(tracker.address(Kind::Http));
    // The kernel holds the connection back for a while, then passes it to the server.
    await_count(&tracker, Counter::TcpConnections, 1);
    stream.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert!(rest(&mut stream).starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn data_after_the_last_request_does_not_destroy_the_reply() {
    let tracker = start(|_| {});
    let mut stream = connect(tracker.address(Kind::Http));
    // More bytes than are read with the request, so that the server closes with unread bytes.
    let sent = format!("GET / HTTP/1.0\r\n\r\n{}", "x".repeat(8192));
    stream.write_all(sent.as_bytes()).unwrap();
    let reply = rest(&mut stream);
    assert!(reply.starts_with(b"HTTP/1.1 200 OK"));
    assert!(reply.ends_with(b"/announce, /scrape\n"));
}

#[test]
fn a_client_that_takes_no_replies_is_dropped() {
    let tracker = start(|config| config.connections.reply_timeout = SHORT);
    let mut client = Client::connect(tracker.address(Kind::Http));
    let requests = "GET / HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1000);
    // The buffers of the sockets fill; the server stops reading, waits for a while, and closes.
    let start = Instant::now();
    while client.try_send(&requests) {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    await_count(&tracker, Counter::TcpAborted, 1);
    is_served(&tracker);
}

#[test]
fn connections_are_limited() {
    type Configure = fn(&mut Config);
    let limits: [Configure; 2] = [
        |config| config.connections.tcp = 3,
        |config| config.connections.per_source = 3,
    ];
    for limit in limits {
        let tracker = start(limit);
        let address = tracker.address(Kind::Http);
        let mut clients: Vec<_> = (0..3).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        assert!(rest(&mut connect(address)).is_empty());
        await_count(&tracker, Counter::TcpRefused, 1);
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        drop(clients.pop());
        // The server needs a moment to notice the free slot.
        let start = Instant::now();
        loop {
            let mut client = Client::connect(address);
            if client.try_send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                && client.receive(false).is_some()
            {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30));
        }
    }
}

/// The client that a tracker sees, or the failure reason or the status that it answers with.
fn observed(client: &mut Client, headers: &str) -> Result<Vec<u8>, String> {
    let target = format!("/announce?{}", announce(1));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
    let response = client.receive(false).unwrap();
    if response.status != 200 {
        return Err(response.status.to_string());
    }
    seen(&response.body)
}

/// The client that a reply to an announce names, or its failure reason.
pub(crate) fn seen(body: &[u8]) -> Result<Vec<u8>, String> {
    let reply = decode(body);
    match field(&reply, "failure reason") {
        Some(_) => Err(String::from_utf8_lossy(bytes(&reply, "failure reason")).into()),
        None => Ok(bytes(&reply, "external ip").to_vec()),
    }
}

/// The failure reason of announces whose client is not known.
pub(crate) const HIDDEN: &str = "the tracker's proxy does not pass on your address";

#[test]
fn forged_headers_of_proxies_are_ignored() {
    let tracker = start(|_| {});
    for headers in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2\r\n",
        "X-Real-IP: 192.0.2.1\r\n",
    ] {
        let mut client = Client::connect(tracker.address(Kind::Http));
        assert_eq!(
            observed(&mut client, headers),
            Ok(vec![127, 0, 0, 1]),
            "{headers}"
        );
    }
}

/// A listener behind proxies on this host.
pub(crate) fn behind_proxies(header: &str, proxy_protocol: bool) -> Vec<Listener> {
    let mut listener = Listener::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    listener.proxies = vec!["127.0.0.0/8".parse().unwrap()];
    listener.header = header.parse().unwrap();
    listener.proxy_protocol = proxy_protocol;
    vec![listener]
}

#[test]
fn trusted_proxies_name_their_clients() {
    for (header, values) in [
        (
            "x-forwarded-for",
            &[
                ("X-Forwarded-For: 192.0.2.1\r\n", true),
                ("X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n", true),
                ("X-Forwarded-For: 192.0.2.1, 127.0.0.9\r\n", true),
                (
                    "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: 192.0.2.1\r\n",
                    true,
                ),
                (
                    "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2\r\n",
                    true,
                ),
                ("", false),
                ("X-Forwarded-For: nonsense\r\n", false),
                ("X-Forwarded-For: 192.0.2.1, nonsense\r\n", false),
                ("X-Real-IP: 192.0.2.1\r\n", false),
                ("Forwarded: for=192.0.2.1\r\n", false),
            ][..],
        ),
        (
            "forwarded",
            &[
                ("Forwarded: for=\"192.0.2.1:80\";proto=https\r\n", true),
                ("Forwarded: for=_hidden\r\n", false),
                ("X-Forwarded-For: 192.0.2.1\r\n", false),
            ][..],
        ),
        (
            "x-real-ip",
            &[
                ("X-Real-IP: 192.0.2.1\r\n", true),
                ("X-Forwarded-For: 192.0.2.1\r\n", false),
            ][..],
        ),
    ] {
        let tracker = start(|config| {
            config.listen.http = behind_proxies(header, false);
            // Proxies are exempt.
            config.connections.per_source = 1;
        });
        let address = tracker.address(Kind::Http);
        let _other = Client::connect(address);
        let mut client = Client::connect(address);
        let mut refused = 0;
        for &(headers, known) in values {
            let expected = match known {
                true => Ok(vec![192, 0, 2, 1]),
                false => Err(HIDDEN.to_owned()),
            };
            assert_eq!(observed(&mut client, headers), expected, "{headers}");
            refused += u64::from(!known);
        }
        let counters = tracker.handle.stats().counters;
        assert_eq!(counters.refused(Refusal::HiddenClient), refused);
        // None of the refused announces has left a peer: the client that was named is alone.
        let (named, _) = values[0];
        client.send(format!(
            "GET /scrape?{} HTTP/1.1\r\nHost: x\r\n{named}\r\n",
            announce(1)
        ));
        let alone = client.receive(false).unwrap();
        let text = alone.body.escape_ascii().to_string();
        assert!(text.contains("10:incompletei1e"), "{text}");
    }
}

#[tokio::test]
async fn proxies_name_clients_over_http2_as_well() {
    let tracker = start(|config| config.listen.http = behind_proxies("x-real-ip", false));
    let request = |header: &str, value: &str| {
        http::Request::builder()
            .uri(format!("http://localhost/announce?{}", announce(1)))
            .header(header, value)
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let requests = [
        request("x-real-ip", "192.0.2.1"),
        request("x-real-ip", "unknown"),
        request("x-forwarded-for", "192.0.2.1"),
    ];
    let responses = http2(tracker.address(Kind::Http), false, requests).await;
    let seen: Vec<_> = responses.iter().map(|(_, body)| seen(body)).collect();
    let hidden = Err(HIDDEN.to_owned());
    assert_eq!(seen, [Ok(vec![192, 0, 2, 1]), hidden.clone(), hidden]);
}

/// A PROXY protocol header, version 2, for a client at 192.0.2.1.
fn proxy_v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 1, 127, 0, 0, 1, 0x12, 0x67, 0, 80]);
    header
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let tracker = start(|config| {
        config.listen.http = behind_proxies("x-forwarded-for", true);
        config.listen.https = behind_proxies("x-forwarded-for", true);
        config.connections.handshake_timeout = SHORT;
    });
    let address = tracker.address(Kind::Http);
    for header in [
        &proxy_v2()[..],
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n",
    ] {
        let mut client = Client::connect(address);
        client.send(header);
        assert_eq!(observed(&mut client, ""), Ok(vec![192, 0, 2, 1]));
        // The client behind the proxy is not a proxy itself.
        let forged = observed(&mut client, "X-Forwarded-For: 198.51.100.7\r\n");
        assert_eq!(forged, Ok(vec![192, 0, 2, 1]));
    }
    for broken in [
        &b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"[..],
        &proxy_v2()[..20],
        b"PROXY nonsense\r\n\r\n",
        b"P",
    ] {
        let mut stream = connect(address);
        stream.write_all(broken).unwrap();
        assert!(rest(&mut stream).is_empty(), "{}", broken.escape_ascii());
    }
    await_count(&tracker, Counter::TcpAborted, 4);
    // The header also precedes TLS.
    let mut client = Client::connect_tls_after(tracker.address(Kind::Https), &proxy_v2());
    assert_eq!(observed(&mut client, ""), Ok(vec![192, 0, 2, 1]));
}

#[test]
fn other_protocols_are_rejected() {
    let tracker = start(|config| config.connections.handshake_timeout = SHORT);
    let mut stream = connect(tracker.address(Kind::Http));
    // The start of a TLS handshake.
    stream
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        .unwrap();
    assert!(rest(&mut stream).starts_with(b"HTTP/1.1 400 "));
    for request in [
        &b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"",
    ] {
        let mut stream = connect(tracker.address(Kind::Https));
        stream.write_all(request).unwrap();
        rest(&mut stream);
    }
    await_count(&tracker, Counter::TlsFailures, 3);
    is_served(&tracker);
}

#[test]
fn announces_with_an_event_are_refused_in_early_data() {
    let tracker = start(|_| {});
    let mut client = Client::connect(tracker.address(Kind::Http));
    for (event, status) in [
        ("", 200),
        ("&event=started", 425),
        ("&event=stopped", 425),
        ("&event=", 200),
    ] {
        let target = format!("/announce?{}{event}", announce(1));
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nEarly-Data: 1\r\n\r\n"
        ));
        assert_eq!(client.receive(false).unwrap().status, status, "{event}");
    }
}
