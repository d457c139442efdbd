//! Serves the streams of one HTTP/3 connection. Works on QUIC as a state machine: it has no socket,
//! no task and no clock.

use std::time::{Duration, Instant};

use quinn_proto::{Connection, ConnectionHandle, Dir, StreamEvent, StreamId};
use scion_tracker_core::request::Origin;
use scion_tracker_core::request::PeerKey;

use super::budget::Budget;
use super::control::Control;
use super::frame::Code;
use super::stream::{self, Progress, Waiting};
use crate::transport::Shared;
use crate::transport::http::answer::Request;

/// Each phase of a connection after GOAWAY takes so many round trips, and no less than this
/// duration. A request on its way needs half a round trip, and an acknowledgement as well.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);
/// The id of the first GOAWAY, which rejects no request (RFC 9114 section 5.2).
const ANY_REQUEST: u64 = (1 << 62) - 4;

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
    budget: Budget,
    /// Requests that wait for the client.
    waiting: Vec<Waiting>,
    /// Whether events have named streams that [`Session::proceed`] must continue.
    ready: bool,
    /// The id of the next request.
    next: u64,
    phase: Phase,
    /// When the phase ends. In [`Phase::Open`], the idle time from the last answered request:
    /// requests that do not end keep no connection open.
    deadline: Instant,
}

/// How far a connection is from its end.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    /// A GOAWAY that rejects nothing was sent. Requests that were on their way are served.
    Leaving {
        latest: Instant,
    },
    /// The last GOAWAY was sent. New requests are rejected. The connection ends when its replies
    /// are acknowledged, or at `latest`.
    Ending {
        latest: Instant,
    },
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
            budget: Budget::new(),
            waiting: Vec::new(),
            ready: false,
            next: 0,
            phase: Phase::Open,
            deadline: now + limits.idle,
        })
    }

    /// Handles a stream event. Queues requests that have arrived in full. Streams that are already
    /// known are only noted: call [`Session::proceed`] after the events of a batch.
    pub(in crate::transport) fn handle(
        &mut self,
        event: &StreamEvent,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        // Our own replies cause the other events.
        if !matches!(
            event,
            StreamEvent::Finished { .. } | StreamEvent::Available { .. }
        ) {
            self.budget.pay_event()?;
        }
        match *event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = quic.streams().accept(Dir::Bi) {
                    self.request(id, quic, shared, queue, now)?;
                }
                Ok(())
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = quic.streams().accept(Dir::Uni) {
                    self.budget.pay_stream()?;
                    self.control.accept(id, quic)?;
                    self.budget.earn_bytes(self.control.take_read());
                }
                Ok(())
            }
            StreamEvent::Readable { id } if id.dir() == Dir::Uni => {
                self.ready |= self.control.note(id);
                Ok(())
            }
            StreamEvent::Writable { id } | StreamEvent::Stopped { id, .. }
                if id.dir() == Dir::Uni =>
            {
                self.control.write(quic)
            }
            StreamEvent::Readable { id }
            | StreamEvent::Writable { id }
            | StreamEvent::Stopped { id, .. } => {
                // Events of requests that are over are ignored.
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == id) {
                    waiting.ready = true;
                    self.ready = true;
                }
                Ok(())
            }
            StreamEvent::Available { dir: Dir::Uni } => self.control.open(quic),
            StreamEvent::Available { dir: Dir::Bi } | StreamEvent::Finished { .. } => Ok(()),
        }
    }

    /// Continues the streams that events have named, each once. Queues requests that have arrived
    /// in full.
    pub(in crate::transport) fn proceed(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        if !std::mem::take(&mut self.ready) {
            return Ok(());
        }
        self.control.read(quic)?;
        self.budget.earn_bytes(self.control.take_read());
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.ready) {
            let waiting = self.waiting.swap_remove(at);
            self.resume(waiting, quic, shared, queue, now)?;
        }
        Ok(())
    }

    /// Bytes of requests and replies that wait for the client. A request may also have as much as its
    /// window outstanding in QUIC, out of order.
    pub(in crate::transport) fn bytes(&self, window: usize) -> usize {
        let waiting = self.waiting.iter();
        waiting.map(|it| it.bytes(window)).sum()
    }

    /// Whether no request and no reply waits for the client.
    pub(in crate::transport) const fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers a queued request.
    pub(in crate::transport) fn answer(
        &mut self,
        queued: &QueuedRequest,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) {
        self.budget.earn_answer();
        if let Some(waiting) = stream::answer(queued.stream, &queued.request, quic, shared, now) {
            self.waiting.push(waiting);
        }
        match self.phase {
            Phase::Open if shared.service.is_draining() => {
                if self.go_away(quic, shared, now).is_err() {
                    // The connection is broken: it ends at its deadline.
                    self.deadline = now;
                }
            }
            Phase::Open => self.deadline = now + shared.service.limits().idle,
            Phase::Leaving { .. } | Phase::Ending { .. } => self.await_quiet(quic, now),
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

    /// Ends exchanges that have passed their deadline. Begins the next phase if the deadline of the
    /// phase has passed.
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
        for late in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            late.give_up(&self.origin, quic, shared);
        }
        if self.deadline > now {
            return Ok(());
        }
        match self.phase {
            Phase::Open => {
                // Requests in flight are not cut. They have deadlines of their own.
                let latest = self.waiting.iter().map(|waiting| waiting.until).max();
                self.end(latest.ok_or(Code::NO_ERROR)?, quic, now)
            }
            Phase::Leaving { latest } => self.end(latest, quic, now),
            Phase::Ending { latest } if latest <= now || self.is_settled(quic) => {
                Err(Code::NO_ERROR)
            }
            Phase::Ending { .. } => {
                self.await_quiet(quic, now);
                Ok(())
            }
        }
    }

    /// Begins to close the connection (section 5.2): says so with a first GOAWAY, serves the
    /// requests that are on their way, and then sends the last GOAWAY.
    pub(in crate::transport) fn go_away(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), Code> {
        let latest = now + shared.service.limits().drain;
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Leaving { latest };
                self.deadline = latest.min(now + quiet(quic));
                self.control.go_away(ANY_REQUEST, quic)
            }
            Phase::Ending { latest: before } if latest < before => {
                self.phase = Phase::Ending { latest };
                self.deadline = self.deadline.min(latest);
                Ok(())
            }
            Phase::Leaving { .. } | Phase::Ending { .. } => Ok(()),
        }
    }

    /// Sends the last GOAWAY, and leaves the replies time to arrive.
    fn end(&mut self, latest: Instant, quic: &mut Connection, now: Instant) -> Result<(), Code> {
        self.phase = Phase::Ending { latest };
        self.control.go_away(self.next, quic)?;
        self.await_quiet(quic, now);
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
        self.budget.pay_stream()?;
        if matches!(self.phase, Phase::Ending { .. }) {
            // Section 5.2: requests after the last GOAWAY are rejected.
            stream::abandon(id, Code::REQUEST_REJECTED, quic);
            return Ok(());
        }
        self.next = u64::from(id) + 4;
        match stream::start(id, self.origin, quic, shared, now) {
            Progress::Done => Ok(()),
            Progress::Waiting(waiting) => {
                self.budget.earn_bytes(waiting.arrived());
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

    /// Continues a request that waited for the client.
    fn resume(
        &mut self,
        waiting: Waiting,
        quic: &mut Connection,
        shared: &Shared,
        queue: &mut RequestQueue,
        now: Instant,
    ) -> Result<(), Code> {
        let (id, arrived) = (waiting.id, waiting.arrived());
        match waiting.resume(self.origin, quic, shared) {
            Progress::Close(code) => return Err(code),
            Progress::Waiting(waiting) => {
                let more = waiting.arrived().saturating_sub(arrived);
                self.budget.earn_bytes(more);
                self.waiting.push(waiting);
            }
            Progress::Request(request) => self.enqueue(id, request, queue),
            Progress::Done => self.await_quiet(quic, now),
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

    /// After the last GOAWAY: leaves the replies some time before the connection ends. Does nothing
    /// in other phases.
    fn await_quiet(&mut self, quic: &Connection, now: Instant) {
        if let Phase::Ending { latest } = self.phase {
            self.deadline = latest.min(now + quiet(quic));
        }
    }

    /// Whether no request waits for the client, and the client has acknowledged all replies.
    fn is_settled(&self, quic: &mut Connection) -> bool {
        // Our control stream stays open.
        let open = usize::from(self.control.is_open());
        self.waiting.is_empty() && quic.streams().send_streams() <= open
    }
}

/// How long a phase after GOAWAY takes.
fn quiet(quic: &Connection) -> Duration {
    (quic.rtt() * QUIET_ROUND_TRIPS).max(QUIET)
}
