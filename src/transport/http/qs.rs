//! HTTP/1.1 on a QUIC connection with one pair of streams, which Go programs for SCION use like
//! TCP.
//!
//! The protocol is that of `quicutil.SingleStream` in
//! [scion-apps](https://github.com/netsec-ethz/scion-apps/blob/master/pkg/quicutil/single.go) since
//! 0.4.0. It has no other specification. Each side sends its bytes on the first unidirectional
//! stream that it opens. A side that has read the other's stream to the end acknowledges it: it
//! opens a second stream and ends it at once. To close, a side ends its stream and waits for this
//! acknowledgement before it closes the connection, because a QUIC close could overtake the last
//! bytes.
//!
//! The bytes of the stream are served as over TCP, by a task with a pipe (see
//! [`super::one`]). This module carries bytes between the pipe and the streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use quinn_proto::{
    Connection, ConnectionHandle, Dir, ReadError, StreamEvent, StreamId, VarInt, WriteError,
};
use scion_tracker_core::request::Origin;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_util::task::AbortOnDropHandle;

use super::one::{Ended, Farewell, Incoming};
use crate::transport::Shared;

/// Name of the protocol in TLS (ALPN).
pub(in crate::transport) const PROTOCOL: &[u8] = b"qs";

/// Error codes, as defined by the clients.
const OK: VarInt = VarInt::from_u32(0);
const SHUTDOWN_ERROR: VarInt = VarInt::from_u32(0x101);

/// Time for the client to close the connection after both acknowledgements: in round trips, and the
/// least duration.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait for the client when the server stops.
const LAST_WAIT: Duration = Duration::from_millis(250);
/// Size of the pipe in each direction, and most bytes carried at once.
const PIPE: usize = 4 * 1024;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum End {
    /// One of the sides closed it.
    Regular,
    /// A deadline passed, or a request or stream was malformed.
    Aborted,
}

impl End {
    /// The error code for closing the connection.
    pub(in crate::transport) const fn code(self) -> VarInt {
        match self {
            Self::Regular => OK,
            Self::Aborted => SHUTDOWN_ERROR,
        }
    }
}

/// A connection with this protocol.
#[derive(Debug)]
pub(in crate::transport) struct Session {
    origin: Origin,
    /// The first stream of each side, and the client's second one.
    ours: Option<StreamId>,
    theirs: Option<StreamId>,
    acknowledged: bool,
    state: State,
    /// Deadline of the current state.
    until: Option<Instant>,
    waker: Arc<ConnectionWaker>,
}

#[derive(Debug)]
enum State {
    /// The streams are not open yet.
    Opening,
    Serving(Served),
    /// Everything is written; waiting for the client's acknowledgement.
    Closing,
    /// Waiting for the client to close the connection. Closing it here would overtake our
    /// acknowledgement.
    Quiet,
}

/// The HTTP/1.1 server and the bytes between it and the streams.
#[derive(Debug)]
struct Served {
    pipe: DuplexStream,
    server: AbortOnDropHandle<Ended>,
    /// How the server ended, once it has.
    ended: Option<Ended>,
    /// Whether the client's stream has ended, and whether the server knows it.
    inward: Bytes,
    /// Whether the client's stream has ended, and whether the server has been told.
    inward_ended: bool,
    told: bool,
    /// Bytes read from the pipe that are not yet on our stream.
    outward: Vec<u8>,
    /// Whether the server has written everything and our stream is ended.
    outward_ended: bool,
}

impl Session {
    /// Starts a session on a connection after its handshake.
    pub(in crate::transport) fn new(
        origin: Origin,
        quic: &mut Connection,
        shared: &Shared,
        wakeups: &Arc<WakeQueue>,
        handle: ConnectionHandle,
        now: Instant,
    ) -> Self {
        Self {
            origin,
            ours: quic.streams().open(Dir::Uni),
            theirs: None,
            acknowledged: false,
            state: State::Opening,
            until: Some(now + shared.service.limits().head),
            waker: Arc::new(ConnectionWaker {
                handle,
                wakeups: Arc::clone(wakeups),
                waiting: AtomicBool::new(false),
            }),
        }
    }

    /// Records stream events. [`Session::pump`] acts on them.
    pub(in crate::transport) fn handle(&mut self, event: &StreamEvent, quic: &mut Connection) {
        match event {
            StreamEvent::Available { dir: Dir::Uni } if self.ours.is_none() => {
                self.ours = quic.streams().open(Dir::Uni);
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = quic.streams().accept(Dir::Uni) {
                    if self.theirs.is_none() {
                        self.theirs = Some(id);
                    } else {
                        self.acknowledged = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// Carries all available bytes. Returns how the connection ends, if it does.
    pub(in crate::transport) fn pump(
        &mut self,
        quic: &mut Connection,
        shared: &Arc<Shared>,
        now: Instant,
    ) -> Option<End> {
        self.waker.waiting.store(false, Ordering::Release);
        loop {
            match &mut self.state {
                State::Opening => {
                    let (Some(_), Some(_)) = (self.ours, self.theirs) else {
                        return None;
                    };
                    self.state = State::Serving(Served::new(self.origin, shared));
                    self.until = None;
                }
                State::Serving(served) => {
                    let (Some(ours), Some(theirs)) = (self.ours, self.theirs) else {
                        return None;
                    };
                    let waker = Waker::from(Arc::clone(&self.waker));
                    let cx = &mut Context::from_waker(&waker);
                    if served.carry(ours, theirs, quic, cx).is_err() {
                        return Some(End::Aborted);
                    }
                    match served.poll_ended(cx) {
                        Poll::Pending => return None,
                        Poll::Ready(Ended::Closed) => {}
                        // HTTP/2 is not supported under this ALPN name.
                        Poll::Ready(Ended::Aborted | Ended::Http2) => return Some(End::Aborted),
                    }
                    // From now on the client ends the connection.
                    let patience = if shared.shutdown.is_cancelled() {
                        LAST_WAIT
                    } else {
                        shared.service.limits().reply
                    };
                    self.until.get_or_insert(now + patience);
                    if !served.outward_ended {
                        return None;
                    }
                    if !served.inward_ended {
                        let _ = quic.recv_stream(theirs).stop(OK);
                    }
                    if let Some(id) = quic.streams().open(Dir::Uni) {
                        let _ = quic.send_stream(id).finish();
                    }
                    self.state = State::Closing;
                }
                State::Closing if self.acknowledged => {
                    let quiet = now + (quic.rtt() * QUIET_ROUND_TRIPS).max(QUIET);
                    self.state = State::Quiet;
                    self.until = self.until.map(|until| until.min(quiet));
                }
                State::Closing | State::Quiet => return None,
            }
        }
    }

    /// The client.
    pub(in crate::transport) const fn origin(&self) -> Origin {
        self.origin
    }

    /// When [`Session::time_out`] must be called.
    pub(in crate::transport) const fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Handles the deadline of the state.
    pub(in crate::transport) const fn time_out(&self) -> End {
        match self.state {
            State::Opening => End::Aborted,
            State::Serving(_) | State::Closing | State::Quiet => End::Regular,
        }
    }

    /// Handles the stop of the server. The HTTP/1.1 server notices it by itself.
    pub(in crate::transport) fn go_away(&mut self, now: Instant) -> Option<End> {
        match self.state {
            State::Opening => return Some(End::Regular),
            State::Serving(_) | State::Closing | State::Quiet => {
                let last = now + LAST_WAIT;
                self.until = self.until.map(|until| until.min(last));
            }
        }
        None
    }
}

impl Served {
    fn new(origin: Origin, shared: &Arc<Shared>) -> Self {
        let (pipe, far) = duplex(PIPE);
        let shared = Arc::clone(shared);
        let server = tokio::spawn(async move {
            let mut incoming = Incoming::new(far, Vec::new(), origin, Farewell::InStream);
            incoming.serve(None, &shared).await
        });
        Self {
            pipe,
            server: AbortOnDropHandle::new(server),
            ended: None,
            inward: Bytes::new(),
            inward_ended: false,
            told: false,
            outward: Vec::new(),
            outward_ended: false,
        }
    }

    /// Carries bytes in both directions, as far as both sides accept them.
    fn carry(
        &mut self,
        ours: StreamId,
        theirs: StreamId,
        quic: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        self.carry_in(theirs, quic, cx)?;
        self.carry_out(ours, quic, cx)
    }

    fn carry_in(
        &mut self,
        theirs: StreamId,
        quic: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        loop {
            if !self.inward.is_empty() {
                match Pin::new(&mut self.pipe).poll_write(cx, &self.inward) {
                    Poll::Ready(Ok(length)) => self.inward.advance(length),
                    // The server reads no more, now or ever.
                    Poll::Ready(Err(_)) | Poll::Pending => return Ok(()),
                }
                continue;
            }
            if self.inward_ended {
                if !self.told {
                    self.told = Pin::new(&mut self.pipe).poll_shutdown(cx).is_ready();
                }
                return Ok(());
            }
            let mut stream = quic.recv_stream(theirs);
            let mut chunks = stream.read(true).map_err(|_| Broken)?;
            match chunks.next(PIPE) {
                Ok(Some(chunk)) => self.inward = chunk.bytes,
                Ok(None) => self.inward_ended = true,
                Err(ReadError::Blocked) => return Ok(()),
                Err(ReadError::Reset(_)) => return Err(Broken),
            }
        }
    }

    fn carry_out(
        &mut self,
        ours: StreamId,
        quic: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        while !self.outward_ended {
            let mut stream = quic.send_stream(ours);
            if !self.outward.is_empty() {
                match stream.write(&self.outward) {
                    Ok(length) => drop(self.outward.drain(..length)),
                    Err(WriteError::Blocked) => return Ok(()),
                    Err(_) => return Err(Broken),
                }
                continue;
            }
            let mut room = [0; PIPE];
            let mut room = ReadBuf::new(&mut room);
            match Pin::new(&mut self.pipe).poll_read(cx, &mut room) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Ready(Ok(())) if room.filled().is_empty() => {
                    // An error means that the client has gone, which does not matter here.
                    let _ = stream.finish();
                    self.outward_ended = true;
                }
                Poll::Ready(Ok(())) => self.outward.extend_from_slice(room.filled()),
            }
        }
        Ok(())
    }

    /// Ready when the server has ended. Returns how.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        Pin::new(&mut self.server).poll(cx).map(|joined| {
            // A task that panicked did not end regularly.
            let ended = joined.unwrap_or(Ended::Aborted);
            *self.ended.insert(ended)
        })
    }
}

/// A stream ended that must not end yet.
struct Broken;

/// Tells the driver of an endpoint which connections are ready although no packet arrived for them.
#[derive(Debug, Default)]
pub(in crate::transport) struct WakeQueue(Mutex<(Vec<ConnectionHandle>, Option<Waker>)>);

impl WakeQueue {
    /// Wakes one connection.
    pub(in crate::transport) fn waker(self: &Arc<Self>, handle: ConnectionHandle) -> Waker {
        Waker::from(Arc::new(ConnectionWaker {
            handle,
            wakeups: Arc::clone(self),
            waiting: AtomicBool::new(false),
        }))
    }

    /// Takes the ready connections. The task is woken when there are more.
    pub(in crate::transport) fn take(&self, cx: &Context<'_>) -> Vec<ConnectionHandle> {
        let (waiting, driver) = &mut *self.0.lock();
        match driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
        std::mem::take(waiting)
    }
}

/// Wakes one connection.
#[derive(Debug)]
struct ConnectionWaker {
    handle: ConnectionHandle,
    wakeups: Arc<WakeQueue>,
    /// Whether the connection is already in the queue.
    waiting: AtomicBool,
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (waiting, driver) = &mut *self.wakeups.0.lock();
        waiting.push(self.handle);
        if let Some(driver) = driver {
            driver.wake_by_ref();
        }
    }
}
