//! Serves the streams of one HTTP/3 connection. Works on QUIC as a state machine: it has no socket,
//! no task and no clock.

use std::time::{Duration, Instant};

use quinn_proto::{Connection, ConnectionHandle, Dir, StreamEvent, StreamId};
use scion_tracker_core::request::Origin;
use scion_tracker_core::request::PeerKey;

use super::control::Control;
use super::frame::Code;
use super::stream::{self, Progress, Waiting};
use crate::transport::Shared;
use crate::transport::http::answer::Request;

/// After GOAWAY, a connection ends after so many round trips without a request, and after no less
/// than this duration. The last replies need half a round trip.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);

/// Queues the requests of all connections of an endpoint, to answer them together: the tracker
/// prefetches the memory for one announce while it handles another.
#[derive(Debug, Default)]
pub(in crate::transport) struct RequestQueue {
    queued: Vec<QueuedRequest>,
    peers: Vec<PeerKey>,
}

/// A request for [`Session::answer`] of its connection.
#[derive(Debug)]
pub(in crate::transport) struct QueuedRequest {
    pub(in crate::transport) connection: ConnectionHandle,
    stream: StreamId,
    request: Request,
}

impl RequestQueue {
    pub(in crate::transport) const fn len(&self) -> usize {
        self.queued.len()
    }

    pub(in crate::transport) const fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Passes each request to `answer`, and empties the queue.
    pub(in crate::transport) fn answer(
        &mut self,
        shared: &Shared,
        answer: impl FnMut(QueuedRequest),
    ) {
        self.peers.clear();
        let peers = self.queued.iter().filter_map(|it| it.request.peer());
        self.peers.extend(peers);
        shared.service.tracker.prefetch(&self.peers);
        self.queued.drain(..).for_each(answer);
    }
}

/// The HTTP/3 state of a connection. Errors are the code to close the connection with.
#[derive(Debug)]
pub(in crate::transport) struct Session {
    handle: ConnectionHandle,
    origin: Origin,
    control: Control,
    /// Requests that wait for the client.
    waiting: Vec<Waiting>,
    /// The id of the next request.
    next: u64,
    /// Whether GOAWAY was sent.
    going: bool,
    /// When the connection ends unless a request arrives.
    deadline: Instant,
    /// When the connection ends in any case.
    latest: Option<Instant>,
}

impl Session {
    /// Starts a session on a connection after its handshake.
    pub(in crate::transport) fn new(
        handle: ConnectionHandle,
        origin: Origin,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<Self, Code> {
        let limits = shared.service.limits();
        let mut control = Control::new(limits.head_bytes, now + limits.handshake);
        control.open(quic)?;
        Ok(Self {
            handle,
            origin,
            control,
            waiting: Vec::new(),
            next: 0,
            going: false,
            deadline: now + limits.idle,
            latest: None,
        })
    }

    /// Handles a stream event. Queues requests that have arrived in full.
    pub(in crate::transport) fn handle(
        &mut self,
        event: &StreamEvent,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        match *event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = quic.streams().accept(Dir::Bi) {
                    self.request(id, quic, shared, queue, now)?;
                }
                Ok(())
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = quic.streams().accept(Dir::Uni) {
                    self.control.accept(id, quic)?;
                }
                Ok(())
            }
            StreamEvent::Readable { id } if id.dir() == Dir::Uni => self.control.read(id, quic),
            StreamEvent::Writable { id } | StreamEvent::Stopped { id, .. }
                if id.dir() == Dir::Uni =>
            {
                self.control.write(quic)
            }
            StreamEvent::Readable { id }
            | StreamEvent::Writable { id }
            | StreamEvent::Stopped { id, .. } => self.resume(id, quic, shared, queue, now),
            StreamEvent::Available { dir: Dir::Uni } => self.control.open(quic),
            StreamEvent::Available { dir: Dir::Bi } | StreamEvent::Finished { .. } => Ok(()),
        }
    }

    /// Answers a queued request.
    pub(in crate::transport) fn answer(
        &mut self,
        queued: &QueuedRequest,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) {
        if let Some(waiting) = stream::answer(queued.stream, &queued.request, quic, shared, now) {
            self.waiting.push(waiting);
        } else if self.going {
            self.await_quiet(quic, shared, now);
        }
    }

    /// The client.
    pub(in crate::transport) const fn origin(&self) -> Origin {
        self.origin
    }

    /// When [`Session::time_out`] must be called.
    pub(in crate::transport) fn deadline(&self) -> Instant {
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        waiting
            .chain(self.control.deadline())
            .fold(self.deadline, Instant::min)
    }

    /// Ends exchanges that have passed their deadline, or the connection if its own deadline has
    /// passed.
    pub(in crate::transport) fn time_out(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), Code> {
        if self.control.deadline().is_some_and(|until| until <= now) {
            // Section 6.2: a client that does not let us open our control stream does not speak
            // HTTP/3.
            return Err(Code::STREAM_CREATION_ERROR);
        }
        let waiting = self.waiting.len();
        for late in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            late.give_up(quic, shared);
        }
        if self.going && self.waiting.len() < waiting {
            self.await_quiet(quic, shared, now);
        }
        if self.deadline <= now {
            return Err(Code::NO_ERROR);
        }
        Ok(())
    }

    /// Sends GOAWAY, and leaves the replies time to arrive.
    pub(in crate::transport) fn go_away(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), Code> {
        if !self.going {
            self.going = true;
            self.latest = Some(now + shared.service.limits().drain);
            self.await_quiet(quic, shared, now);
            self.control.go_away(self.next, quic)?;
        }
        Ok(())
    }

    /// Serves a new request, as far as possible without waiting.
    fn request(
        &mut self,
        id: StreamId,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        if self.going {
            // Section 5.2: requests after GOAWAY are rejected.
            stream::abandon(id, Code::REQUEST_REJECTED, quic);
            return Ok(());
        }
        self.next = u64::from(id) + 4;
        self.deadline = now + shared.service.limits().idle;
        match stream::start(id, self.origin, quic, shared, now) {
            Progress::Done => Ok(()),
            Progress::Waiting(waiting) => {
                self.waiting.push(waiting);
                Ok(())
            }
            Progress::Request(request) => {
                self.enqueue(id, request, queue);
                Ok(())
            }
            Progress::Close(code) => Err(code),
        }
    }

    /// Continues a request that waits for the client. Events of other streams are ignored.
    fn resume(
        &mut self,
        id: StreamId,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return Ok(());
        };
        let waiting = self.waiting.swap_remove(at);
        match waiting.resume(self.origin, quic, shared) {
            Progress::Close(code) => return Err(code),
            Progress::Waiting(waiting) => self.waiting.push(waiting),
            Progress::Request(request) => self.enqueue(id, request, queue),
            Progress::Done if self.going => self.await_quiet(quic, shared, now),
            Progress::Done => {}
        }
        Ok(())
    }

    fn enqueue(&self, stream: StreamId, request: Request, queue: &mut RequestQueue) {
        queue.queued.push(QueuedRequest {
            connection: self.handle,
            stream,
            request,
        });
    }

    /// After GOAWAY: ends the connection soon if no request waits for the client.
    fn await_quiet(&mut self, quic: &Connection, shared: &Shared, now: Instant) {
        let wait = if self.waiting.is_empty() {
            (quic.rtt() * QUIET_ROUND_TRIPS).max(QUIET)
        } else {
            shared.service.limits().drain
        };
        let at = now + wait;
        self.deadline = self.latest.map_or(at, |latest| at.min(latest));
    }
}
