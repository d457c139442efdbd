//! The unidirectional streams of a connection: the client's control and QPACK streams, and ours
//! (RFC 9114 section 6.2, RFC 9204 section 4.2).

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{Connection, RecvStream};
use tokio::sync::oneshot;

use super::frame::{self, Code};
use super::qpack;

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// SETTINGS_MAX_FIELD_SECTION_SIZE.
const MAX_FIELD_SECTION_SIZE: u32 = 0x6;
/// The longest frame of the control stream that is looked at.
const FRAME_BYTES: usize = 1024;

/// Keeps the control streams until the connection ends, or returns the code to end it with.
///
/// `goaway` gives the first request that is not served any more, once the server stops.
pub(super) async fn run(
    connection: Connection,
    head_bytes: usize,
    patience: Duration,
    mut goaway: oneshot::Receiver<u64>,
) -> Result<(), Code> {
    // A client that gives us no stream to send settings on is none of HTTP/3 (section 6.2).
    let opened = tokio::time::timeout(patience, connection.open_uni()).await;
    let Ok(Ok(mut ours)) = opened else {
        return Err(Code::STREAM_CREATION_ERROR);
    };
    let mut greeting = vec![CONTROL as u8, frame::SETTINGS as u8, 0];
    frame::push_varint(MAX_FIELD_SECTION_SIZE, &mut greeting);
    frame::push_varint(
        u32::try_from(head_bytes).unwrap_or(u32::MAX >> 2),
        &mut greeting,
    );
    greeting[2] = (greeting.len() - 3) as u8;
    // What does not go out at once is sent while we wait below.
    ours.write_all(&greeting)
        .await
        .map_err(|_| Code::CLOSED_CRITICAL_STREAM)?;
    let mut theirs = Theirs::default();
    let mut going = false;
    loop {
        tokio::select! {
            accepted = connection.accept_uni() => match accepted {
                Ok(stream) => theirs.streams.push(Stream::new(stream)),
                Err(_) => return Ok(()),
            },
            code = poll_fn(|cx| theirs.poll(cx)) => {
                // Before the streams are dropped: quinn would ask the client to stop its control
                // stream, which is an error of its own (RFC 9114, section 6.2.1).
                connection.close(code.into(), b"");
                return Err(code);
            }
            last = &mut goaway, if !going => {
                going = true;
                if let Ok(id) = last {
                    let mut frame = vec![frame::GOAWAY as u8, 8];
                    frame.extend_from_slice(&(id | 0xc000_0000_0000_0000).to_be_bytes());
                    ours.write_all(&frame).await.map_err(|_| Code::CLOSED_CRITICAL_STREAM)?;
                }
            }
        }
    }
}

/// The client's streams.
#[derive(Debug, Default)]
struct Theirs {
    /// As many as the transport allows to be open.
    streams: Vec<Stream>,
    /// Which of the three kinds that may be there once have been, a bit each.
    kinds: u8,
    push_id: Option<u64>,
}

#[derive(Debug)]
struct Stream {
    stream: RecvStream,
    kind: Option<Kind>,
    /// What was read and not yet understood.
    bytes: Vec<u8>,
    /// How many bytes of an unknown frame are still to come.
    skip: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control {
        settings: bool,
    },
    Encoder,
    Decoder,
    /// Of no interest. Nothing more is read.
    Unknown,
}

impl Stream {
    fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            kind: None,
            bytes: Vec::new(),
            skip: 0,
        }
    }
}

impl Theirs {
    /// Reads whatever has come. Ready when the connection has to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let mut index = 0;
        while index < self.streams.len() {
            match self.poll_stream(index, cx) {
                Ok(true) => index += 1,
                Ok(false) => drop(self.streams.swap_remove(index)),
                Err(code) => return Poll::Ready(code),
            }
        }
        Poll::Pending
    }

    /// Reads a stream as far as it goes; false when it is of no interest any more.
    fn poll_stream(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool, Code> {
        let mut buf = [0; 256];
        loop {
            let stream = &mut self.streams[index];
            let end = match stream.stream.poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0)) => true,
                Poll::Ready(Ok(length)) => {
                    stream.bytes.extend_from_slice(&buf[..length]);
                    false
                }
                // The connection is lost, which its own task will see, or the client has reset the
                // stream.
                Poll::Ready(Err(_)) => true,
            };
            if stream.kind.is_none() && !self.begin(index)? {
                if end {
                    return Ok(false);
                }
                continue;
            }
            let stream = &mut self.streams[index];
            match &mut stream.kind {
                None => {}
                Some(Kind::Unknown) => {
                    // Reading is aborted; the client may have other plans (section 6.2.3).
                    let _ = stream.stream.stop(Code::STREAM_CREATION_ERROR.into());
                    return Ok(false);
                }
                Some(_) if end => return Err(Code::CLOSED_CRITICAL_STREAM),
                Some(Kind::Control { settings }) => {
                    control(
                        &mut stream.bytes,
                        &mut stream.skip,
                        settings,
                        &mut self.push_id,
                    )?;
                }
                Some(Kind::Encoder) => encoder(&mut stream.bytes)?,
                Some(Kind::Decoder) => decoder(&mut stream.bytes)?,
            }
        }
    }

    /// Reads the type of a stream, if it is there.
    fn begin(&mut self, index: usize) -> Result<bool, Code> {
        let stream = &mut self.streams[index];
        let mut rest = &*stream.bytes;
        let Some(number) = frame::varint(&mut rest) else {
            return Ok(false);
        };
        let kind = match number {
            CONTROL => Kind::Control { settings: false },
            ENCODER => Kind::Encoder,
            DECODER => Kind::Decoder,
            // Only servers push (section 6.2.2).
            PUSH => return Err(Code::STREAM_CREATION_ERROR),
            _ => Kind::Unknown,
        };
        let read = stream.bytes.len() - rest.len();
        stream.bytes.drain(..read);
        stream.kind = Some(kind);
        if kind != Kind::Unknown {
            let bit = 1 << number;
            if self.kinds & bit != 0 {
                return Err(Code::STREAM_CREATION_ERROR);
            }
            self.kinds |= bit;
        }
        Ok(true)
    }
}

/// Reads frames of the control stream (RFC 9114 section 7.2), and removes them from `bytes`.
fn control(
    bytes: &mut Vec<u8>,
    skip: &mut u64,
    settings: &mut bool,
    push_id: &mut Option<u64>,
) -> Result<(), Code> {
    let mut rest = &**bytes;
    loop {
        let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(rest.len());
        rest = &rest[skipped..];
        *skip -= skipped as u64;
        let mut after = rest;
        let (Some(kind), Some(length)) = (frame::varint(&mut after), frame::varint(&mut after))
        else {
            break;
        };
        let known = match kind {
            frame::SETTINGS if *settings => return Err(Code::FRAME_UNEXPECTED),
            frame::SETTINGS => true,
            _ if !*settings => return Err(Code::MISSING_SETTINGS),
            frame::DATA | frame::HEADERS | frame::PUSH_PROMISE => {
                return Err(Code::FRAME_UNEXPECTED);
            }
            kind if frame::is_of_http2(kind) => return Err(Code::FRAME_UNEXPECTED),
            frame::GOAWAY | frame::MAX_PUSH_ID | frame::CANCEL_PUSH => true,
            _ => false,
        };
        if !known {
            rest = after;
            *skip = length;
            continue;
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= FRAME_BYTES)
            .ok_or(Code::EXCESSIVE_LOAD)?;
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        rest = after;
        match kind {
            frame::SETTINGS => {
                read_settings(payload)?;
                *settings = true;
            }
            _ => push_frame(kind, payload, push_id)?,
        }
    }
    let read = bytes.len() - rest.len();
    bytes.drain(..read);
    Ok(())
}

/// Section 7.2.4. Nothing that a client may set changes what we send.
fn read_settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (Some(id), Some(_)) = (frame::varint(&mut payload), frame::varint(&mut payload)) else {
            return Err(Code::FRAME_ERROR);
        };
        // Identifiers of HTTP/2, and those that are there twice.
        if matches!(id, 0x0 | 0x2..=0x5) || seen.contains(&id) {
            return Err(Code::SETTINGS_ERROR);
        }
        seen.push(id);
    }
    Ok(())
}

/// GOAWAY, MAX_PUSH_ID and CANCEL_PUSH: about pushes, of which there are none.
fn push_frame(kind: u64, mut payload: &[u8], push_id: &mut Option<u64>) -> Result<(), Code> {
    let id = frame::varint(&mut payload).filter(|_| payload.is_empty());
    let id = id.ok_or(Code::FRAME_ERROR)?;
    match kind {
        // Section 7.2.3: a push that was never promised.
        frame::CANCEL_PUSH => Err(Code::ID_ERROR),
        // Section 7.2.7: it must not get less.
        frame::MAX_PUSH_ID if push_id.is_some_and(|known| id < known) => Err(Code::ID_ERROR),
        frame::MAX_PUSH_ID => {
            *push_id = Some(id);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An encoder may not do more with a table of no capacity than to set it to that (RFC 9204
/// section 4.3.1).
fn encoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
    const SET_CAPACITY_0: u8 = 0b0010_0000;
    if bytes.iter().any(|byte| *byte != SET_CAPACITY_0) {
        return Err(Code::QPACK_ENCODER_STREAM_ERROR);
    }
    bytes.clear();
    Ok(())
}

/// A decoder may tell of cancelled streams; we have sent nothing that could be acknowledged (RFC 9204
/// section 4.4).
fn decoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
    let mut rest = &**bytes;
    while let Some(first) = rest.first() {
        if first >> 6 != 0b01 {
            return Err(Code::QPACK_DECODER_STREAM_ERROR);
        }
        if qpack::integer(&mut rest, 6).is_none() {
            // Cut short, or longer than an integer can be.
            if rest.len() > 10 {
                return Err(Code::QPACK_DECODER_STREAM_ERROR);
            }
            break;
        }
    }
    let read = bytes.len() - rest.len();
    bytes.drain(..read);
    Ok(())
}
