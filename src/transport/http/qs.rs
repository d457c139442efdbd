//! HTTP/1.1 on a QUIC connection of one stream pair: what Go programs of the SCION world take for TCP.
//!
//! The protocol is that of `quicutil.SingleStream` in
//! [scion-apps](https://github.com/netsec-ethz/scion-apps/blob/master/pkg/quicutil/single.go) since
//! 0.4.0, and there is no other specification of it. Each side sends its bytes on the first unidirectional
//! stream that it opens. Once it has read the other's to the end, it says so by opening a second one and
//! ending it at once. A side that closes ends its stream and waits for this acknowledgement before it
//! closes the connection: QUIC would let a close overtake the last bytes.
//!
//! What is on the stream is served as on TCP: see [`super::http::one`]. That is a task with a pipe; here
//! is what carries bytes between the pipe and the streams.

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

/// The name of the protocol in TLS (ALPN).
pub(in crate::transport) const PROTOCOL: &[u8] = b"qs";

/// Error codes, as clients have them.
const OK: VarInt = VarInt::from_u32(0);
const SHUTDOWN_ERROR: VarInt = VarInt::from_u32(0x101);

/// After both acknowledgements, how many round trips the client has to close the connection, and how
/// long that is at least.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);
/// How long the client is waited for when the server stops.
const LAST_WAIT: Duration = Duration::from_millis(250);
/// Bytes of a pipe, each way, and those that are carried at once.
const PIPE: usize = 4 * 1024;

/// How a connection comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum End {
    /// As either side wished.
    Regular,
    /// By a deadline, a broken request or a broken stream.
    Aborted,
}

impl End {
    /// The code to close the connection with.
    pub(in crate::transport) const fn code(self) -> VarInt {
        match self {
            Self::Regular => OK,
            Self::Aborted => SHUTDOWN_ERROR,
        }
    }
}

/// A connection that speaks this protocol.
#[derive(Debug)]
pub(in crate::transport) struct Session {
    origin: Origin,
    /// The first stream of either side, and the client's second.
    ours: Option<StreamId>,
    theirs: Option<StreamId>,
    acknowledged: bool,
    state: State,
    /// When the state has lasted too long.
    until: Option<Instant>,
    waker: Arc<ConnectionWaker>,
}

#[derive(Debug)]
enum State {
    /// The streams are not there.
    Opening,
    Serving(Served),
    /// All has been written. The client has to acknowledge that.
    Closing,
    /// It is the client's turn to close: our close would overtake our acknowledgement.
    Quiet,
}

/// Between the streams and the server of HTTP/1.1.
#[derive(Debug)]
struct Served {
    pipe: DuplexStream,
    server: AbortOnDropHandle<Ended>,
    /// How the server came to its end, once it has.
    ended: Option<Ended>,
    /// Read from the client's stream and not yet in the pipe.
    inward: Bytes,
    /// Whether the client's stream has ended, and whether the server knows.
    inward_ended: bool,
    told: bool,
    /// Read from the pipe and not yet on our stream.
    outward: Vec<u8>,
    /// Whether the server has written its last, and our stream is ended.
    outward_ended: bool,
}

impl Session {
    /// For a connection whose handshake is done.
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
            until: Some(now + shared.options.limits.head),
            waker: Arc::new(ConnectionWaker {
                handle,
                wakeups: Arc::clone(wakeups),
                waiting: AtomicBool::new(false),
            }),
        }
    }

    /// Takes notice of what has happened to streams; [`Session::pump`] does what is to be done.
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

    /// Carries what there is to be carried. Says so when the connection is to end.
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
                        // HTTP/2 is not spoken under this name.
                        Poll::Ready(Ended::Aborted | Ended::Http2) => return Some(End::Aborted),
                    }
                    // From here on it is the client's to come to an end.
                    let patience = if shared.shutdown.is_cancelled() {
                        LAST_WAIT
                    } else {
                        shared.options.limits.reply
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

    /// When [`Session::time_out`] is to be called.
    pub(in crate::transport) const fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// The state has lasted too long.
    pub(in crate::transport) const fn time_out(&self) -> End {
        match self.state {
            State::Opening => End::Aborted,
            State::Serving(_) | State::Closing | State::Quiet => End::Regular,
        }
    }

    /// The server stops, which the server of HTTP/1.1 knows by itself.
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
            incoming.serve(&shared).await
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

    /// Carries bytes both ways, as far as either side takes them.
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
                    // The server reads no more, for now or at all.
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
                    // That the client is gone already is its own affair.
                    let _ = stream.finish();
                    self.outward_ended = true;
                }
                Poll::Ready(Ok(())) => self.outward.extend_from_slice(room.filled()),
            }
        }
        Ok(())
    }

    /// Ready when the server has come to its end, and with how it did.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        Pin::new(&mut self.server).poll(cx).map(|joined| {
            // A task that panicked is none that came to a regular end.
            let ended = joined.unwrap_or(Ended::Aborted);
            *self.ended.insert(ended)
        })
    }
}

/// A stream has come to an end that it should not have come to.
struct Broken;

/// Tells the driver of an endpoint which connections have something to do, though nothing has come for
/// them.
#[derive(Debug, Default)]
pub(in crate::transport) struct WakeQueue(Mutex<(Vec<ConnectionHandle>, Option<Waker>)>);

impl WakeQueue {
    /// Takes those that have. The task is woken when there are more.
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
    /// Whether it has knocked since it was looked at.
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
