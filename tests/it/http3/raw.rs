//! HTTP/3 requests and replies, byte by byte.

use quinn::{Connection, ConnectionError, ReadError, VarInt};
use tokio::time::timeout;

use super::PATIENCE;

/// A field section with literal names only.
pub(crate) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
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

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 | 0x4000).to_be_bytes();
    [&[kind][..], &length, payload].concat()
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, &section(fields))
}

pub(crate) const GOOD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/"),
];

/// A valid request with these fields appended.
pub(crate) fn with(more: &[(&str, &str)]) -> Vec<u8> {
    headers(&[&GOOD[..], more].concat())
}

/// How the server ends a request stream: with the status of a reply, an error of the stream, or an
/// error of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(String),
    Stream(u32),
    Connection(u32),
}

pub(crate) fn code(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap()
}

pub(crate) fn closed(error: ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(close) => End::Connection(code(close.error_code)),
        other => panic!("{other:?}"),
    }
}

/// Sends these bytes as a request.
pub(crate) async fn end_of(connection: &Connection, request: &[u8], finish: bool) -> End {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // The server may stop reading before the end.
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

/// The status of a reply as this server writes it: the first field, indexed or with a literal
/// value.
pub(crate) fn status(reply: &[u8]) -> String {
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
