//! One request stream. Most requests are there in whole when the stream is, and are answered on the
//! spot. Those that are not wait for the client, with a deadline, and hold up nobody.

use std::cell::RefCell;
use std::time::Instant;

use quinn_proto::{Connection, ReadError, StreamId, WriteError};
use scion_tracker_core::request::Origin;

use super::frame::Code;
use super::message::{self, Buffers, Stop};
use crate::transport::Shared;
use crate::transport::http::answer::{Request, Transport};

thread_local! {
    /// The bytes of a request, and what it takes to answer it.
    static BUFFERS: RefCell<(Vec<u8>, Buffers)> = RefCell::default();
}

/// How far an exchange has come.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, and moved on at once"
)]
pub(super) enum Progress {
    /// To its end.
    Done,
    /// It has to wait for the client.
    Waiting(Waiting),
    /// The request is there, to be answered by [`answer`].
    Request(Request),
    /// To the end of the whole connection.
    Close(Code),
}

/// An exchange that waits for the client.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: StreamId,
    /// How long the client may take.
    pub(super) until: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// For the rest of the request, which began with these bytes.
    Request(Vec<u8>),
    /// For the client to take the rest of the reply: the bytes from here on.
    Reply(Vec<u8>, usize),
}

/// What there is to read.
enum Read {
    /// The client may send more.
    Open,
    Finished,
    /// The client has thought better of it.
    Reset,
}

/// Goes as far with a new request as it goes without waiting.
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
        decode(id, bytes, &read, origin, quic, shared, buffers).unwrap_or_else(|| {
            Progress::Waiting(Waiting {
                id,
                until: now + shared.service.limits().head,
                state: State::Request(bytes.as_slice().into()),
            })
        })
    })
}

/// Answers a request. Returns what has to wait.
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
    /// Goes on after something has happened to the stream.
    pub(super) fn resume(self, origin: Origin, quic: &mut Connection, shared: &Shared) -> Progress {
        let Self { id, until, state } = self;
        match state {
            State::Request(mut bytes) => {
                let read = read(id, quic, &mut bytes);
                let progress = BUFFERS.with_borrow_mut(|(_, buffers)| {
                    decode(id, &bytes, &read, origin, quic, shared, buffers)
                });
                progress.unwrap_or(Progress::Waiting(Self {
                    id,
                    until,
                    state: State::Request(bytes),
                }))
            }
            State::Reply(bytes, written) => match write(id, &bytes[written..], quic) {
                Some(more) => Progress::Waiting(Self {
                    id,
                    until,
                    state: State::Reply(bytes, written + more),
                }),
                None => Progress::Done,
            },
        }
    }

    /// Gives the exchange up: the client has taken too long.
    pub(super) fn give_up(self, quic: &mut Connection, shared: &Shared) {
        let code = match self.state {
            State::Request(_) => Code::REQUEST_INCOMPLETE,
            State::Reply(..) => Code::REQUEST_CANCELLED,
        };
        reject(self.id, code, quic, shared);
    }
}

/// Reads whatever has come. A stream that has been read to its end is gone.
fn read(id: StreamId, quic: &mut Connection, bytes: &mut Vec<u8>) -> Read {
    let mut stream = quic.recv_stream(id);
    // It is there until it has been read to its end or stopped.
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

/// Decodes what has been read. `None` if more has to come.
fn decode(
    id: StreamId,
    bytes: &[u8],
    read: &Read,
    origin: Origin,
    quic: &mut Connection,
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
        bytes,
        finished,
        origin,
        &shared.options,
        head_bytes,
        buffers,
    ) {
        Ok(request) => {
            if !finished {
                // Section 4.1: the rest of a request that is answered makes no difference.
                let _ = quic.recv_stream(id).stop(Code::NO_ERROR.into());
            }
            Some(Progress::Request(request))
        }
        Err(Stop::More) => None,
        Err(Stop::TooLong) => {
            reject(id, Code::EXCESSIVE_LOAD, quic, shared);
            Some(Progress::Done)
        }
        Err(Stop::Reset(code)) => {
            reject(id, code, quic, shared);
            Some(Progress::Done)
        }
        Err(Stop::Close(code)) => Some(Progress::Close(code)),
    }
}

/// Writes a reply, or as much of it as the client has room for. Returns what has to wait.
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
        state: State::Reply(bytes[written..].into(), 0),
    })
}

/// Writes as much as there is room for and returns how much that was, or ends the stream.
fn write(id: StreamId, bytes: &[u8], quic: &mut Connection) -> Option<usize> {
    let mut stream = quic.send_stream(id);
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(length) => written += length,
            Err(WriteError::Blocked) => return Some(written),
            // The client does not want it any more.
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

/// Ends the stream because of what the client did.
fn reject(id: StreamId, code: Code, quic: &mut Connection, shared: &Shared) {
    shared.service.counters.count(Transport::Http3.rejected());
    abandon(id, code, quic);
}

/// Ends both directions, as far as they are open: neither call minds if they are not.
pub(super) fn abandon(id: StreamId, code: Code, quic: &mut Connection) {
    let _ = quic.send_stream(id).reset(code.into());
    let _ = quic.recv_stream(id).stop(code.into());
}
