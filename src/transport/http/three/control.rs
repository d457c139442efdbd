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
/// The longest frame of the control stream that is looked at.
pub(super) const FRAME_BYTES: usize = 1024;

/// The control streams of a connection. Errors are the code to end the connection with.
#[derive(Debug)]
pub(super) struct Control {
    /// Ours; until it is open, when it has to be at the latest.
    ours: Result<StreamId, Instant>,
    /// What is still to be written on it.
    unwritten: Vec<u8>,
    /// The client's: as many as the transport allows to be open.
    theirs: Vec<Stream>,
    /// Which of the three kinds that may be there once have been, a bit each.
    kinds: u8,
    push_id: Option<u64>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
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

impl Control {
    /// Settings are the first that the client is told.
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
            push_id: None,
        }
    }

    /// When the client has to have let us open our stream, if it has not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ours.err()
    }

    /// Opens our stream, if the client lets us.
    pub(super) fn open(&mut self, quic: &mut Connection) -> Result<(), Code> {
        if self.ours.is_err()
            && let Some(id) = quic.streams().open(Dir::Uni)
        {
            self.ours = Ok(id);
            return self.write(quic);
        }
        Ok(())
    }

    /// Writes what there is to be written, as far as the client has room for it.
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

    /// Tells the client the first request that is not served any more.
    pub(super) fn go_away(&mut self, id: u64, quic: &mut Connection) -> Result<(), Code> {
        self.unwritten.extend([frame::GOAWAY as u8, 8]);
        self.unwritten
            .extend((id | 0xc000_0000_0000_0000).to_be_bytes());
        self.write(quic)
    }

    /// Takes a new stream of the client's.
    pub(super) fn accept(&mut self, id: StreamId, quic: &mut Connection) -> Result<(), Code> {
        self.theirs.push(Stream {
            id,
            kind: None,
            bytes: Vec::new(),
            skip: 0,
        });
        self.read(id, quic)
    }

    /// Reads what has come on a stream.
    pub(super) fn read(&mut self, id: StreamId, quic: &mut Connection) -> Result<(), Code> {
        let Some(at) = self.theirs.iter().position(|stream| stream.id == id) else {
            return Ok(());
        };
        if !self.read_at(at, quic)? {
            self.theirs.swap_remove(at);
        }
        Ok(())
    }

    /// Reads a stream as far as it goes; false when it is of no interest any more.
    fn read_at(&mut self, at: usize, quic: &mut Connection) -> Result<bool, Code> {
        let mut recv = quic.recv_stream(self.theirs[at].id);
        let Ok(mut chunks) = recv.read(true) else {
            return Ok(false);
        };
        let unknown = loop {
            let end = match chunks.next(usize::MAX) {
                Err(ReadError::Blocked) => return Ok(true),
                Ok(Some(chunk)) => {
                    self.theirs[at].bytes.extend_from_slice(&chunk.bytes);
                    false
                }
                // To the end, or to a reset.
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
        };
        drop(chunks);
        if unknown {
            // Reading is aborted; the client may have other plans (section 6.2.3).
            let _ = recv.stop(Code::STREAM_CREATION_ERROR.into());
        }
        Ok(false)
    }

    /// Reads the type of a stream, if it is there.
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

/// Reads frames of the control stream (RFC 9114 section 7.2), and removes them from `bytes`.
pub(super) fn control(
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
pub(super) fn encoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
    const SET_CAPACITY_0: u8 = 0b0010_0000;
    if bytes.iter().any(|byte| *byte != SET_CAPACITY_0) {
        return Err(Code::QPACK_ENCODER_STREAM_ERROR);
    }
    bytes.clear();
    Ok(())
}

/// A decoder may tell of cancelled streams; we have sent nothing that could be acknowledged (RFC 9204
/// section 4.4).
pub(super) fn decoder(bytes: &mut Vec<u8>) -> Result<(), Code> {
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
