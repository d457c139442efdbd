//! Clients of HTTP/3 that violate the protocol.

use quinn::VarInt;
use scion_tracker::Counter;
use tokio::time::timeout;

use crate::http::start;
use crate::http3::raw::{End, GOOD, closed, code, end_of, frame, headers, status, with};
use crate::http3::{PATIENCE, REQUEST_INCOMPLETE, connect};

const FRAME_UNEXPECTED: u32 = 0x105;
const FRAME_ERROR: u32 = 0x106;
const EXCESSIVE_LOAD: u32 = 0x107;
const ID_ERROR: u32 = 0x108;
const SETTINGS_ERROR: u32 = 0x109;
const MISSING_SETTINGS: u32 = 0x10a;
const MESSAGE_ERROR: u32 = 0x10e;
const DECOMPRESSION_FAILED: u32 = 0x200;
const ENCODER_STREAM_ERROR: u32 = 0x201;
const DECODER_STREAM_ERROR: u32 = 0x202;
const STREAM_CREATION_ERROR: u32 = 0x103;
const CLOSED_CRITICAL_STREAM: u32 = 0x104;

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
    // This request is answered before its end.
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
            "GOAWAY more",
            vec![after_settings([frame(7, &[4]), frame(7, &[5])].concat())],
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
async fn unusual_but_valid_streams_are_accepted() {
    let tracker = start(|_| {});
    let (_endpoint, connection) = connect(&tracker).await;
    let mut open = Vec::new();
    // Settings and an unknown frame byte by byte, an encoder stream, and a decoder stream with a
    // cancellation.
    let control = [
        &[0][..],
        &frame(4, &[0x06, 0x10, 0x21, 0x00]),
        &frame(0x21, &[7; 200]),
        &frame(13, &[8]),
        &frame(7, &[8]),
        &frame(7, &[4]),
        &frame(7, &[4]),
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
    // Streams of unknown types are stopped, so that the client can open more.
    for _ in 0..20 {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0x21, 1, 2, 3]).await.unwrap();
        let stopped = timeout(PATIENCE, stream.stopped()).await.unwrap();
        assert_eq!(stopped.unwrap().map(code), Some(STREAM_CREATION_ERROR));
    }
    // A request that arrives byte by byte. Its end arrives alone.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for byte in with(&[]) {
        send.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    send.finish().unwrap();
    assert_eq!(status(&recv.read_to_end(1000).await.unwrap()), "200");
    // A client that resets its request, or refuses the reply, does not affect others.
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
