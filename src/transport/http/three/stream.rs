//! Serves one request stream.
//!
//! Most requests have arrived in full when their stream appears, and are answered at once. The
//! others wait for the client, with a deadline. They delay no other request.

use std::cell::RefCell;
use std::time::Instant;

use quinn_proto::{Connection, ReadError, StreamId, WriteError};
use scion_tracker_core::request::Origin;

use super::frame::Code;
use super::message::{self, Buffers, Frames, Stop};
use crate::transport::Shared;
use crate::transport::http::answer::{Request, Transport};

thread_local! {
    /// The bytes of a request, and the buffers for answering it.
    static BUFFERS: RefCell<(Vec<u8>, Buffers)> = RefCell::default();
}

/// The progress of an exchange.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "only one exists at a time, and it is moved at once"
)]
pub(super) enum Progress {
    /// The exchange is complete.
    Done,
    /// It waits for the client.
    Waiting(Waiting),
    /// The request has arrived, and [`answer`] is to answer it.
    Request(Request),
    /// The connection must be closed.
    Close(Code),
}

/// An exchange that waits for the client.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: StreamId,
    /// Deadline of the client.
    pub(super) until: Instant,
    /// Whether an event has named it since it was last continued.
    pub(super) ready: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Waits for the rest of the request, which begins with these bytes and frames.
    Request(Vec<u8>, Frames),
    /// Waits for the client to take the rest of the reply: the bytes from this index on.
    Reply(Vec<u8>, usize),
}

/// The state of a stream after reading.
enum Read {
    /// The client may send more.
    Open,
    Finished,
    /// The client has reset the stream.
    Reset,
}

/// Serves a new request as far as possible without waiting.
pub(super) fn start(
    id: StreamId,
    origin: Origin,
    quic: &mut Connection,
    shared: &Shared,
    now: Instant,
) -> Progress {
    BUFFERS.with_borrow_mut(|(bytes, buffers)| {
        bytes.clear();
        let read = read(id, quic, bytes);
        let mut frames = Frames::default();
        let stream = (id, quic);
        decode(&mut frames, bytes, &read, origin, stream, shared, buffers).unwrap_or_else(|| {
            Progress::Waiting(Waiting {
                id,
                until: now + shared.service.limits().head,
                ready: false,
                state: State::Request(bytes.as_slice().into(), frames),
            })
        })
    })
}

/// Answers a request. Returns the exchange if it has to wait.
pub(super) fn answer(
    id: StreamId,
    request: &Request,
    quic: &mut Connection,
    shared: &Shared,
    now: Instant,
) -> Option<Waiting> {
    BUFFERS.with_borrow_mut(|(_, buffers)| {
        message::answer(request, shared, buffers);
        reply(id, &buffers.reply, quic, shared, now)
    })
}

impl Waiting {
    /// The number of bytes of the request that have arrived, if it is not complete.
    pub(super) const fn arrived(&self) -> usize {
        match &self.state {
            State::Request(bytes, _) => bytes.len(),
            State::Reply(..) => 0,
        }
    }

    /// Continues after events of the stream.
    pub(super) fn resume(self, origin: Origin, quic: &mut Connection, shared: &Shared) -> Progress {
        let Self {
            id, until, state, ..
        } = self;
        match state {
            State::Request(mut bytes, mut frames) => {
                let before = bytes.len();
                let read = read(id, quic, &mut bytes);
                let progress = if bytes.len() == before && matches!(read, Read::Open) {
                    None
                } else {
                    BUFFERS.with_borrow_mut(|(_, buffers)| {
                        let stream = (id, quic);
                        decode(&mut frames, &bytes, &read, origin, stream, shared, buffers)
                    })
                };
                progress.unwrap_or(Progress::Waiting(Self {
                    id,
                    until,
                    ready: false,
                    state: State::Request(bytes, frames),
                }))
            }
            State::Reply(bytes, written) => match write(id, &bytes[written..], quic) {
                Some(more) => Progress::Waiting(Self {
                    id,
                    until,
                    ready: false,
                    state: State::Reply(bytes, written + more),
                }),
                None => Progress::Done,
            },
        }
    }

    /// Bytes that the exchange holds, with those that QUIC may hold of the request.
    pub(super) const fn bytes(&self, window: usize) -> usize {
        match &self.state {
            State::Request(bytes, _) => bytes.capacity() + window,
            State::Reply(bytes, _) => bytes.capacity(),
        }
    }

    /// Aborts the exchange: the client has missed its deadline.
    pub(super) fn give_up(self, origin: &Origin, quic: &mut Connection, shared: &Shared) {
        let code = match self.state {
            State::Request(..) => Code::REQUEST_INCOMPLETE,
            State::Reply(..) => Code::REQUEST_CANCELLED,
        };
        reject(self.id, code, origin, quic, shared);
    }
}

/// Reads all received bytes. A stream read to its end is forgotten.
fn read(id: StreamId, quic: &mut Connection, bytes: &mut Vec<u8>) -> Read {
    let mut stream = quic.recv_stream(id);
    // The stream exists until it is read to its end or stopped.
    let Ok(mut chunks) = stream.read(true) else {
        return Read::Reset;
    };
    loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
            Ok(None) => return Read::Finished,
            Err(ReadError::Blocked) => return Read::Open,
            Err(ReadError::Reset(_)) => return Read::Reset,
        }
    }
}

/// Decodes the bytes read so far. `None` if more are needed.
fn decode(
    frames: &mut Frames,
    bytes: &[u8],
    read: &Read,
    origin: Origin,
    (id, quic): (StreamId, &mut Connection),
    shared: &Shared,
    buffers: &mut Buffers,
) -> Option<Progress> {
    let finished = match read {
        Read::Open => false,
        Read::Finished => true,
        Read::Reset => {
            abandon(id, Code::REQUEST_CANCELLED, quic);
            return Some(Progress::Done);
        }
    };
    let head_bytes = shared.service.limits().head_bytes;
    match message::decode(
        frames,
        bytes,
        finished,
        origin,
        &shared.options,
        head_bytes,
        buffers,
    ) {
        Ok(request) => {
            if !finished {
                // Section 4.1: the rest of an answered request can be ignored.
                let _ = quic.recv_stream(id).stop(Code::NO_ERROR.into());
            }
            Some(Progress::Request(request))
        }
        Err(Stop::More) => None,
        Err(Stop::TooLong) => {
            reject(id, Code::EXCESSIVE_LOAD, &origin, quic, shared);
            Some(Progress::Done)
        }
        Err(Stop::Reset(code)) => {
            tracing::debug!(client = %origin.host, ?code, "HTTP/3 request malformed");
            reject(id, code, &origin, quic, shared);
            Some(Progress::Done)
        }
        Err(Stop::Close(code)) => Some(Progress::Close(code)),
    }
}

/// Writes a reply, as far as flow control allows. Returns the exchange if it has to wait.
fn reply(
    id: StreamId,
    bytes: &[u8],
    quic: &mut Connection,
    shared: &Shared,
    now: Instant,
) -> Option<Waiting> {
    let written = write(id, bytes, quic)?;
    Some(Waiting {
        id,
        until: now + shared.service.limits().reply,
        ready: false,
        state: State::Reply(bytes[written..].into(), 0),
    })
}

/// Writes as many bytes as flow control allows and returns their number. Ends the stream after the
/// last one.
fn write(id: StreamId, bytes: &[u8], quic: &mut Connection) -> Option<usize> {
    let mut stream = quic.send_stream(id);
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(length) => written += length,
            Err(WriteError::Blocked) => return Some(written),
            // The client has stopped reading.
            Err(WriteError::Stopped(code)) => {
                let _ = stream.reset(code);
                return None;
            }
            Err(WriteError::ClosedStream) => return None,
        }
    }
    if let Err(quinn_proto::FinishError::Stopped(code)) = stream.finish() {
        let _ = stream.reset(code);
    }
    None
}

/// Ends the stream because of an error of the client.
fn reject(id: StreamId, code: Code, origin: &Origin, quic: &mut Connection, shared: &Shared) {
    shared.count(Transport::Http3.rejected(), origin);
    abandon(id, code, quic);
}

/// Ends both directions. A direction that has already ended is left as it is.
pub(super) fn abandon(id: StreamId, code: Code, quic: &mut Connection) {
    let _ = quic.send_stream(id).reset(code.into());
    let _ = quic.recv_stream(id).stop(code.into());
}
