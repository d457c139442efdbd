//! Announces over HTTP/3, and breaches of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, ReadError, VarInt};
use scion_tracker::Counter;
use scion_tracker::server::Kind;
use tokio::time::timeout;

use crate::common::Running;
use crate::http::{announce, bytes, client_config, decode, field, start};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const FRAME_UNEXPECTED: u32 = 0x105;
const FRAME_ERROR: u32 = 0x106;
const EXCESSIVE_LOAD: u32 = 0x107;
const ID_ERROR: u32 = 0x108;
const SETTINGS_ERROR: u32 = 0x109;
const MISSING_SETTINGS: u32 = 0x10a;
const REQUEST_INCOMPLETE: u32 = 0x10d;
const MESSAGE_ERROR: u32 = 0x10e;
const DECOMPRESSION_FAILED: u32 = 0x200;
const ENCODER_STREAM_ERROR: u32 = 0x201;
const DECODER_STREAM_ERROR: u32 = 0x202;
const STREAM_CREATION_ERROR: u32 = 0x103;
const CLOSED_CRITICAL_STREAM: u32 = 0x104;

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
    // More at once than streams are allowed: the client waits for its turn.
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

/// A field section with literal names only.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    let length = |prefix: u32, flags: u8, length: usize, out: &mut Vec<u8>| {
        let most = (1 << prefix) - 1;
        if length < most {
            return out.push(flags | length as u8);
        }
        out.push(flags | most as u8);
        let mut rest = length - most;
        while rest >= 128 {
            out.push(rest as u8 | 128);
            rest >>= 7;
        }
        out.push(rest as u8);
    };
    for (name, value) in fields {
        length(3, 0x20, name.len(), &mut section);
        section.extend_from_slice(name.as_bytes());
        length(7, 0, value.len(), &mut section);
        section.extend_from_slice(value.as_bytes());
    }
    section
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 | 0x4000).to_be_bytes();
    [&[kind][..], &length, payload].concat()
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, &section(fields))
}

const GOOD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/"),
];

/// A good request with these fields after it.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    headers(&[&GOOD[..], more].concat())
}

/// How the server ends a request stream: the status of a reply, an error of the stream, or one of the
/// connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Status(String),
    Stream(u32),
    Connection(u32),
}

fn code(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap()
}

fn closed(error: ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(close) => End::Connection(code(close.error_code)),
        other => panic!("{other:?}"),
    }
}

/// Sends these bytes as a request.
async fn end_of(connection: &Connection, request: &[u8], finish: bool) -> End {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // The server may have seen enough before the end.
    let written = send.write_all(request).await;
    if finish && written.is_ok() {
        let _ = send.finish();
    }
    match timeout(PATIENCE, recv.read_to_end(1 << 20)).await.unwrap() {
        Ok(reply) => End::Status(status(&reply)),
        Err(quinn::ReadToEndError::Read(ReadError::Reset(reset))) => End::Stream(code(reset)),
        Err(quinn::ReadToEndError::Read(ReadError::ConnectionLost(error))) => closed(error),
        Err(other) => panic!("{other:?}"),
    }
}

/// The status of a reply as this server writes it: the first field, indexed or with a literal value.
fn status(reply: &[u8]) -> String {
    assert_eq!(reply[0], 1);
    match reply[5] {
        0xd9 => "200".into(),
        0xdb => "404".into(),
        0xff => match reply[6] {
            4 => "400".into(),
            7 => "425".into(),
            other => panic!("{other}"),
        },
        0x5f => str::from_utf8(&reply[8..11]).unwrap().into(),
        other => panic!("{other:x}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_end_their_stream_only() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let without = |name: &str| {
        let fields: Vec<_> = GOOD
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        headers(&fields)
    };
    let replaced = |name: &str, value| {
        headers(&GOOD.map(|field| {
            if field.0 == name {
                (name, value)
            } else {
                field
            }
        }))
    };
    let long = "a".repeat(11_000);
    let data = |length| frame(0, &vec![b'x'; length]);
    let grease = frame(0x21, b"ignore me");
    let status = |status: &str| End::Status(status.into());
    let malformed = || End::Stream(MESSAGE_ERROR);
    for (name, request, end) in [
        ("good", with(&[]), status("200")),
        ("te: trailers", with(&[("te", "trailers")]), status("200")),
        (
            "host beside authority",
            with(&[("host", "localhost")]),
            status("200"),
        ),
        (
            "content-length 0",
            with(&[("content-length", "0")]),
            status("200"),
        ),
        ("empty data", [with(&[]), data(0)].concat(), status("200")),
        (
            "unknown frames",
            [&grease[..], &with(&[]), &grease].concat(),
            status("200"),
        ),
        (
            "trailers",
            [with(&[]), headers(&[("a", "b")])].concat(),
            status("200"),
        ),
        ("body", [with(&[]), data(3)].concat(), status("413")),
        (
            "body of its length",
            [with(&[("content-length", "3")]), data(3)].concat(),
            status("413"),
        ),
        ("other method", replaced(":method", "POST"), status("405")),
        ("too long", with(&[("a", &long)]), status("431")),
        ("no path of ours", replaced(":path", "/x"), status("404")),
        ("path twice", with(&[(":path", "/")]), malformed()),
        ("method twice", with(&[(":method", "GET")]), malformed()),
        (
            "pseudo after regular",
            headers(&[&GOOD[..3], &[("a", "b"), GOOD[3]]].concat()),
            malformed(),
        ),
        (
            "unknown pseudo",
            headers(&[&GOOD[..], &[(":new", "x")]].concat()),
            malformed(),
        ),
        (
            ":status",
            headers(&[&GOOD[..], &[(":status", "200")]].concat()),
            malformed(),
        ),
        (
            ":protocol",
            headers(&[&GOOD[..], &[(":protocol", "websocket")]].concat()),
            malformed(),
        ),
        (
            "connection",
            with(&[("connection", "keep-alive")]),
            malformed(),
        ),
        ("keep-alive", with(&[("keep-alive", "1")]), malformed()),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
            malformed(),
        ),
        ("upgrade", with(&[("upgrade", "h2c")]), malformed()),
        ("te", with(&[("te", "gzip")]), malformed()),
        (
            "content-length without body",
            with(&[("content-length", "3")]),
            malformed(),
        ),
        (
            "content-length too short",
            [with(&[("content-length", "2")]), data(3)].concat(),
            malformed(),
        ),
        (
            "two content-lengths",
            with(&[("content-length", "0"), ("content-length", "1")]),
            malformed(),
        ),
        (
            "content-length of letters",
            with(&[("content-length", "x")]),
            malformed(),
        ),
        ("upper case", with(&[("A", "b")]), malformed()),
        ("space in a name", with(&[("a b", "c")]), malformed()),
        ("empty name", with(&[("", "c")]), malformed()),
        (
            "line end in a value",
            with(&[("a", "b\r\nc: d")]),
            malformed(),
        ),
        ("nul in a value", with(&[("a", "b\0")]), malformed()),
        ("blank at the end", with(&[("a", "b ")]), malformed()),
        ("no method", without(":method"), malformed()),
        ("no scheme", without(":scheme"), malformed()),
        ("no path", without(":path"), malformed()),
        ("no authority", without(":authority"), malformed()),
        ("empty path", replaced(":path", ""), malformed()),
        ("empty authority", replaced(":authority", ""), malformed()),
        (
            "user in authority",
            replaced(":authority", "me@localhost"),
            malformed(),
        ),
        ("another host", with(&[("host", "other")]), malformed()),
        (
            "pseudo in trailers",
            [with(&[]), headers(&[(":path", "/")])].concat(),
            malformed(),
        ),
        (
            "connect with a path",
            replaced(":method", "CONNECT"),
            malformed(),
        ),
        ("nothing", vec![], End::Stream(REQUEST_INCOMPLETE)),
        (
            "unknown frame alone",
            grease.clone(),
            End::Stream(REQUEST_INCOMPLETE),
        ),
        (
            "unknown frames without end",
            grease.repeat(3000),
            End::Stream(EXCESSIVE_LOAD),
        ),
    ] {
        assert_eq!(end_of(&connection, &request, true).await, end, "{name}");
    }
    // A reply where there is no need to wait for the end of the request.
    let body = [with(&[]), data(3)].concat();
    assert_eq!(end_of(&connection, &body, false).await, status("413"));
    assert_eq!(connection.close_reason(), None);
    let counters = tracker.handle.stats().counters;
    assert!(counters.get(Counter::Http3Rejected) > 30);
    assert_eq!(counters.get(Counter::QuicAborted), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_request_streams_end_the_connection() {
    let tracker = start(|_| {});
    for (name, request, code) in [
        ("data first", frame(0, b"x"), FRAME_UNEXPECTED),
        ("settings", frame(4, b""), FRAME_UNEXPECTED),
        ("goaway", frame(7, b"\0"), FRAME_UNEXPECTED),
        ("push promise", frame(5, b"\0"), FRAME_UNEXPECTED),
        ("a frame of HTTP/2", frame(6, b""), FRAME_UNEXPECTED),
        (
            "headers thrice",
            [with(&[]), headers(&[]), headers(&[])].concat(),
            FRAME_UNEXPECTED,
        ),
        (
            "data after trailers",
            [with(&[]), headers(&[]), frame(0, b"x")].concat(),
            FRAME_UNEXPECTED,
        ),
        ("cut in a frame", with(&[])[..20].to_vec(), FRAME_ERROR),
        ("cut in a length", vec![1, 0x40], FRAME_ERROR),
        (
            "dynamic table",
            frame(1, &[2, 0, 0x80]),
            DECOMPRESSION_FAILED,
        ),
        ("no qpack", frame(1, &[0xff; 30]), DECOMPRESSION_FAILED),
        (
            "bad huffman",
            frame(1, &[0, 0, 0x51, 0x82, 0xff, 0xff]),
            DECOMPRESSION_FAILED,
        ),
    ] {
        let (_endpoint, connection) = connect(&tracker).await;
        let end = end_of(&connection, &request, true).await;
        assert_eq!(end, End::Connection(code), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_control_streams_end_the_connection() {
    let tracker = start(|_| {});
    let control = |frames: &[u8]| [&[0][..], frames].concat();
    let settings = frame(4, &[]);
    let after_settings = |frame: Vec<u8>| control(&[&settings[..], &frame].concat());
    for (name, streams, finish, code) in [
        (
            "no settings",
            vec![control(&frame(0x21, b"x"))],
            false,
            MISSING_SETTINGS,
        ),
        (
            "settings twice",
            vec![after_settings(settings.clone())],
            false,
            FRAME_UNEXPECTED,
        ),
        (
            "setting twice",
            vec![control(&frame(4, &[6, 9, 6, 9]))],
            false,
            SETTINGS_ERROR,
        ),
        (
            "setting of HTTP/2",
            vec![control(&frame(4, &[2, 0]))],
            false,
            SETTINGS_ERROR,
        ),
        (
            "half a setting",
            vec![control(&frame(4, &[6]))],
            false,
            FRAME_ERROR,
        ),
        (
            "endless settings",
            vec![control(&[4, 0x7f, 0xff])],
            false,
            EXCESSIVE_LOAD,
        ),
        (
            "data",
            vec![after_settings(frame(0, b"x"))],
            false,
            FRAME_UNEXPECTED,
        ),
        (
            "push id less",
            vec![after_settings([frame(13, &[5]), frame(13, &[4])].concat())],
            false,
            ID_ERROR,
        ),
        (
            "cancelled push",
            vec![after_settings(frame(3, &[5]))],
            false,
            ID_ERROR,
        ),
        (
            "end",
            vec![control(&settings)],
            true,
            CLOSED_CRITICAL_STREAM,
        ),
        (
            "two",
            vec![control(&settings), control(&settings)],
            false,
            STREAM_CREATION_ERROR,
        ),
        ("push stream", vec![vec![1]], false, STREAM_CREATION_ERROR),
        (
            "encoder inserts",
            vec![vec![2, 0x3f, 0x01]],
            false,
            ENCODER_STREAM_ERROR,
        ),
        (
            "decoder acknowledges",
            vec![vec![3, 0x80]],
            false,
            DECODER_STREAM_ERROR,
        ),
    ] {
        let (_endpoint, connection) = connect(&tracker).await;
        let mut open = Vec::new();
        for bytes in &streams {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            if finish {
                stream.finish().unwrap();
            }
            open.push(stream);
        }
        let end = closed(timeout(PATIENCE, connection.closed()).await.unwrap());
        assert_eq!(end, End::Connection(code), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_but_lawful_streams_are_borne() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let mut open = Vec::new();
    // Settings and grease a byte at a time, an encoder, a decoder that cancels.
    let control = [
        &[0][..],
        &frame(4, &[0x06, 0x10, 0x21, 0x00]),
        &frame(0x21, &[7; 200]),
        &frame(13, &[8]),
    ]
    .concat();
    for bytes in [&control[..], &[2, 0x20], &[3, 0x44, 0x7f, 0x10]] {
        let mut stream = connection.open_uni().await.unwrap();
        for byte in bytes {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        open.push(stream);
    }
    // Streams of no known type are stopped, and give room for more.
    for _ in 0..20 {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0x21, 1, 2, 3]).await.unwrap();
        let stopped = timeout(PATIENCE, stream.stopped()).await.unwrap();
        assert_eq!(stopped.unwrap().map(code), Some(STREAM_CREATION_ERROR));
    }
    // A request that comes a byte at a time, with its end alone.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for byte in with(&[]) {
        send.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    send.finish().unwrap();
    assert_eq!(status(&recv.read_to_end(1000).await.unwrap()), "200");
    // A client that resets its request, or does not want the reply, disturbs nobody.
    for turn in 0..50 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&with(&[])[..10 + turn]).await.unwrap();
        send.reset(VarInt::from_u32(0x10c)).unwrap();
        recv.stop(VarInt::from_u32(0x10c)).unwrap();
    }
    assert_eq!(
        end_of(&connection, &with(&[]), true).await,
        End::Status("200".into())
    );
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_given_up_and_holds_up_nobody() {
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
async fn a_source_has_its_share_of_connections() {
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
    // When one of them is gone there is room again; the tracker takes a moment to see it.
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
async fn under_load_clients_have_to_show_their_address() {
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

/// A client's port decides which worker has it. What one worker has given it is good with the others.
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
        // Once is enough: the token from the first connection says the same.
        assert_eq!(counters.get(Counter::QuicRetries), clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_end_and_clients_know() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let mut control = connection.accept_uni().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let request = with(&[]);
    send.write_all(&request[..10]).await.unwrap();
    // Once a second request has been answered, the first is known to have been seen.
    assert_eq!(
        end_of(&connection, &request, true).await,
        End::Status("200".into())
    );
    let stopped = std::thread::spawn(move || tracker.stop());
    let mut seen = Vec::new();
    let mut buf = [0; 64];
    while seen
        .last_chunk::<10>()
        .is_none_or(|last| last[..2] != [7, 8])
    {
        let length = timeout(PATIENCE, control.read(&mut buf))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.extend_from_slice(&buf[..length]);
    }
    assert_eq!(
        seen.last_chunk::<10>(),
        Some(&[7, 8, 0xc0, 0, 0, 0, 0, 0, 0, 8])
    );
    // The third comes too late, the first is still served.
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
