//! Clients of HTTP/2 that are greedy or do not end what they begin, and the frames to play them.

use super::*;

/// A HEADERS frame of a whole request.
fn whole_request(stream: u32) -> Vec<u8> {
    frame(1, END_STREAM | END_HEADERS, stream, GET)
}

/// Counts the frames of this kind.
fn count_frames(mut sent: &[u8], kind: u8) -> usize {
    let mut count = 0;
    while let Some((head, after)) = sent.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        count += usize::from(head[3] == kind);
        sent = after.get(length..).unwrap_or_default();
    }
    count
}

#[test]
fn surplus_streams_of_http2_are_refused_and_the_others_answered() {
    const STREAMS: usize = 500;
    let tracker = start(|_| {});
    let mut stream = connect(tracker.address(Kind::Http));
    let mut burst = PREFACE.to_vec();
    for n in 0..STREAMS as u32 {
        burst.extend(whole_request(2 * n + 1));
    }
    // The client has not read the SETTINGS of the server.
    stream.write_all(&burst).unwrap();
    let mut sent = Vec::new();
    let mut buf = [0; 4096];
    // Each stream ends with DATA or RST_STREAM.
    while count_frames(&sent, 0) + count_frames(&sent, 3) < STREAMS {
        let length = stream.read(&mut buf).unwrap();
        assert_ne!(length, 0, "the connection has ended");
        sent.extend_from_slice(&buf[..length]);
    }
    assert!(count_frames(&sent, 0) >= 16);
    assert_eq!(goaway(&sent), None);
    // A refused request can be sent again on the same connection.
    stream
        .write_all(&whole_request(2 * STREAMS as u32 + 1))
        .unwrap();
    let before = count_frames(&sent, 0);
    while count_frames(&sent, 0) == before {
        let length = stream.read(&mut buf).unwrap();
        assert_ne!(length, 0, "the connection has ended");
        sent.extend_from_slice(&buf[..length]);
    }
}

/// An HTTP/2 frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GET / with the authority `t`, in HPACK.
pub(crate) const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b't'];
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The error code of the GOAWAY frame that the HTTP/2 server sent.
pub(crate) fn goaway(mut sent: &[u8]) -> Option<u32> {
    while let Some((head, after)) = sent.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = after.get(..length)?;
        if head[3] == 7 {
            let code: [u8; 4] = payload[4..8].try_into().unwrap();
            return Some(u32::from_be_bytes(code));
        }
        sent = &after[length..];
    }
    None
}

#[test]
fn rapid_resets_end_the_connection() {
    let tracker = start(|_| {});
    let mut stream = connect(tracker.address(Kind::Http));
    stream.write_all(PREFACE).unwrap();
    let mut flood = Vec::new();
    for id in 0..5000 {
        flood.extend(frame(1, END_STREAM | END_HEADERS, 2 * id + 1, GET));
        flood.extend(frame(3, 0, 2 * id + 1, &8_u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood);
    // ENHANCE_YOUR_CALM, unless the reset of the socket overtakes it.
    let code = goaway(&rest(&mut stream));
    assert!(matches!(code, Some(11) | None), "{code:?}");
    await_count(&tracker, Counter::TcpAborted, 1);
    is_served(&tracker);
}

#[test]
fn endless_continuations_end_the_connection() {
    let tracker = start(|_| {});
    let mut stream = connect(tracker.address(Kind::Http));
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(1, END_STREAM, 1, GET)).unwrap();
    let field = [&[0x00, 1, b'a', 100][..], &[b'b'; 100]].concat();
    let continuation = frame(9, 0, 1, &field.repeat(10));
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&continuation).is_ok() {
        sent += continuation.len();
    }
    assert!(sent < 64 << 20, "the server reads on");
    is_served(&tracker);
}

#[test]
fn idle_connections_of_http2_are_told_to_go() {
    let tracker = start(|config| {
        config.connections.idle_timeout = SHORT;
        config.connections.head_timeout = SHORT;
        config.connections.reply_timeout = SHORT;
    });
    let mut stream = connect(tracker.address(Kind::Http));
    stream.write_all(PREFACE).unwrap();
    stream
        .write_all(&frame(1, END_STREAM | END_HEADERS, 1, GET))
        .unwrap();
    // The client answers every ping, but is still idle.
    let mut pinging = stream.try_clone().unwrap();
    let pinger = thread::spawn(move || {
        while pinging.write_all(&frame(6, 0, 0, &[0; 8])).is_ok() {
            thread::yield_now();
        }
    });
    let sent = rest(&mut stream);
    assert_eq!(goaway(&sent), Some(0));
    let _ = stream.shutdown(std::net::Shutdown::Both);
    pinger.join().unwrap();
}
