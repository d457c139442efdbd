//! The unidirectional streams of a connection: the client's control and QPACK streams, and ours
//! (RFC 9114 section 6.2, RFC 9204 section 4.2).

use std::time::Instant;

use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};

use super::frame::{self, Code};
use super::qpack;

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// SETTINGS_MAX_FIELD_SECTION_SIZE.
const MAX_FIELD_SECTION_SIZE: u32 = 0x6;
/// The longest frame of the control stream that is parsed.
pub(super) const FRAME_BYTES: usize = 1024;

/// The control streams of a connection. Errors are the code for closing the connection.
#[derive(Debug)]
pub(super) struct Control {
    /// Our stream; or, until it is open, the deadline for opening it.
    ours: Result<StreamId, Instant>,
    /// Bytes that are not yet written to it.
    unwritten: Vec<u8>,
    /// The client's streams: as many as the transport allows to be open.
    theirs: Vec<Stream>,
    /// Which of the three kinds have been opened; one bit each.
    kinds: u8,
    ids: Ids,
    /// Bytes read since the last [`Control::take_read`].
    read: usize,
}

/// The ids in frames of the control stream, which must not change in one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    /// The last MAX_PUSH_ID, which must not decrease (RFC 9114 section 7.2.7).
    max_push: Option<u64>,
    /// The last GOAWAY, which must not increase (section 5.2).
    goaway: Option<u64>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    kind: Option<Kind>,
    /// Bytes that are read but not yet parsed.
    bytes: Vec<u8>,
    /// Bytes of an unknown frame that are still to be skipped.
    skip: u64,
    /// Whether an event has named it since it was last read.
    ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control {
        settings: bool,
    },
    Encoder,
    Decoder,
    /// An unknown type. Nothing more is read.
    Unknown,
}

impl Control {
    /// Creates the streams with SETTINGS as the first frame.
    pub(super) fn new(head_bytes: usize, until: Instant) -> Self {
        let mut greeting = vec![CONTROL as u8, frame::SETTINGS as u8, 0];
        frame::push_varint(MAX_FIELD_SECTION_SIZE, &mut greeting);
        frame::push_varint(
            u32::try_from(head_bytes).unwrap_or(u32::MAX >> 2),
            &mut greeting,
        );
        greeting[2] = (greeting.len() - 3) as u8;
        Self {
            ours: Err(until),
            unwritten: greeting,
            theirs: Vec::new(),
            kinds: 0,
            ids: Ids::default(),
            read: 0,
        }
    }

    /// The deadline by which the client must allow our stream, while it is not open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ours.err()
    }

    /// Opens our stream, if the client allows it.
    pub(super) fn open(&mut self, quic: &mut Connection) -> Result<(), Code> {
        if self.ours.is_err()
            && let Some(id) = quic.streams().open(Dir::Uni)
        {
            self.ours = Ok(id);
            return self.write(quic);
        }
        Ok(())
    }

    /// Writes the pending bytes, as far as flow control allows.
    pub(super) fn write(&mut self, quic: &mut Connection) -> Result<(), Code> {
        let Ok(id) = self.ours else { return Ok(()) };
        let mut stream = quic.send_stream(id);
        if !matches!(stream.stopped(), Ok(None)) {
            return Err(Code::CLOSED_CRITICAL_STREAM);
        }
        while !self.unwritten.is_empty() {
            match stream.write(&self.unwritten) {
                Ok(length) => drop(self.unwritten.drain(..length)),
                Err(WriteError::Blocked) => return Ok(()),
                Err(_) => return Err(Code::CLOSED_CRITICAL_STREAM),
            }
        }
        self.unwritten = Vec::new();
        Ok(())
    }

    /// Sends GOAWAY with the first request that is no longer served.
    pub(super) fn go_away(&mut self, id: u64, quic: &mut Connection) -> Result<(), Code> {
        self.unwritten.extend([frame::GOAWAY as u8, 8]);
        self.unwritten
            .extend((id | 0xc000_0000_0000_0000).to_be_bytes());
        self.write(quic)
    }

    /// Accepts a new stream of the client.
    pub(super) fn accept(&mut self, id: StreamId, quic: &mut Connection) -> Result<(), Code> {
        self.theirs.push(Stream {
            id,
            kind: None,
            bytes: Vec::new(),
            skip: 0,
            ready: true,
        });
        self.read(quic)
    }

    /// Notes an event of a stream, for the next [`Control::read`]. Returns whether the stream is
    /// still read.
    pub(super) fn note(&mut self, id: StreamId) -> bool {
        let stream = self.theirs.iter_mut().find(|stream| stream.id == id);
        stream.map(|stream| stream.ready = true).is_some()
    }

    /// Reads the data that has arrived on the noted streams.
    pub(super) fn read(&mut self, quic: &mut Connection) -> Result<(), Code> {
        while let Some(at) = self.theirs.iter().position(|stream| stream.ready) {
            self.theirs[at].ready = false;
            if !self.read_at(at, quic)? {
                self.theirs.swap_remove(at);
            }
        }
        Ok(())
    }

    /// The number of bytes read since the last call.
    pub(super) fn take_read(&mut self) -> usize {
        std::mem::take(&mut self.read)
    }

    /// Whether our stream is open.
    pub(super) const fn is_open(&self) -> bool {
        self.ours.is_ok()
    }

    /// Reads a stream as far as possible. Returns false if it is no longer needed.
    fn read_at(&mut self, at: usize, quic: &mut Connection) -> Result<bool, Code> {
        let mut recv = quic.recv_stream(self.theirs[at].id);
        let Ok(mut chunks) = recv.read(true) else {
            return Ok(false);
        };
        let unknown = loop {
            let end = match chunks.next(usize::MAX) {
                Err(ReadError::Blocked) => return Ok(true),
                Ok(Some(chunk)) => {
                    self.read += chunk.bytes.len();
                    self.theirs[at].bytes.extend_from_slice(&chunk.bytes);
                    false
                }
                // The stream was finished or reset.
                Ok(None) | Err(ReadError::Reset(_)) => true,
            };
            if self.theirs[at].kind.is_none() && !self.begin(at)? {
                if end {
                    return Ok(false);
                }
                continue;
            }
            let stream = &mut self.theirs[at];
            match &mut stream.kind {
                None => {}
                Some(Kind::Unknown) => break !end,
                Some(_) if end => return Err(Code::CLOSED_CRITICAL_STREAM),
                Some(Kind::Control { settings }) => {
                    control(&mut stream.bytes, &mut stream.skip, settings, &mut self.ids)?;
                }
                Some(Kind::Encoder) => encoder(&mut stream.bytes)?,
                Some(Kind::Decoder) => decoder(&mut stream.bytes)?,
            }
        };
        drop(chunks);
        if unknown {
            // Stop reading an unknown type of stream; the client may use it for an extension
            // (section 6.2.3).
            let _ = recv.stop(Code::STREAM_CREATION_ERROR.into());
        }
        Ok(false)
    }

    /// Reads the type of a stream, if it has arrived.
    fn begin(&mut self, at: usize) -> Result<bool, Code> {
        let stream = &mut self.theirs[at];
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

/// Parses frames of the control stream (RFC 9114 section 7.2), and removes them from `bytes`.
pub(super) fn control(
    bytes: &mut Vec<u8>,
    skip: &mut u64,
    settings: &mut bool,
    ids: &mut Ids,
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
            _ => id_frame(kind, payload, ids)?,
        }
    }
    let read = bytes.len() - rest.len();
    bytes.drain(..read);
    Ok(())
}

/// SETTINGS (section 7.2.4). No setting of the client changes what is sent.
fn read_settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (Some(id), Some(_)) = (frame::varint(&mut payload), frame::varint(&mut payload)) else {
            return Err(Code::FRAME_ERROR);
        };
        // Identifiers of HTTP/2, and duplicates.
        if matches!(id, 0x0 | 0x2..=0x5) || seen.contains(&id) {
            return Err(Code::SETTINGS_ERROR);
        }
        seen.push(id);
    }
    Ok(())
}

/// GOAWAY, MAX_PUSH_ID and CANCEL_PUSH. They concern pushes, which this server does not use.
fn id_frame(kind: u64, mut payload: &[u8], ids: &mut Ids) -> Result<(), Code> {
    let id = frame::varint(&mut payload).filter(|_| payload.is_empty());
    let id = id.ok_or(Code::FRAME_ERROR)?;
    match kind {
        // Section 7.2.3: a push that was never promised.
        frame::CANCEL_PUSH => Err(Code::ID_ERROR),
        // Section 7.2.7: it must not decrease.
        frame::MAX_PUSH_ID if ids.max_push.is_some_and(|known| id < known) => Err(Code::ID_ERROR),
        frame::MAX_PUSH_ID => {
            ids.max_push = Some(id);
            Ok(())
        }
        // Section 5.2: it must not increase.
        frame::GOAWAY if ids.goaway.is_some_and(|known| id > known) => Err(Code::ID_ERROR),
        frame::GOAWAY => {
            ids.goaway = Some(id);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The dynamic table has no capacity, so an encoder may only set its capacity to zero (RFC 9204
/// section 4.3.1).
pub(super) fn encoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
    const SET_CAPACITY_0: u8 = 0b0010_0000;
    if bytes.iter().any(|byte| *byte != SET_CAPACITY_0) {
        return Err(Code::QPACK_ENCODER_STREAM_ERROR);
    }
    bytes.clear();
    Ok(())
}

/// A decoder may report cancelled streams. Nothing was sent that it could acknowledge (RFC 9204
/// section 4.4).
pub(super) fn decoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
    let mut rest = &**bytes;
    while let Some(first) = rest.first() {
        if first >> 6 != 0b01 {
            return Err(Code::QPACK_DECODER_STREAM_ERROR);
        }
        if qpack::integer(&mut rest, 6).is_none() {
            // Incomplete, or longer than an integer can be.
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
