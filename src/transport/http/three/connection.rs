//! One HTTP/3 connection: what becomes of its streams. Knows QUIC as a state machine, and no socket, no
//! task and no clock.

use std::time::{Duration, Instant};

use quinn_proto::{Connection, ConnectionHandle, Dir, StreamEvent, StreamId};
use scion_tracker_core::registry::PeerKey;
use scion_tracker_core::request::Origin;

use super::control::Control;
use super::frame::Code;
use super::message::Announce;
use super::stream::{self, Progress, Waiting};
use crate::transport::Shared;

/// After GOAWAY, how many round trips without a request end the connection, and how long that is at
/// least: the last replies are under way for half of one.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);

/// Announces of all connections of an endpoint, to be served together: what the tracker reads for one of
/// them is fetched while it reads for another. All else is answered as it comes.
#[derive(Debug, Default)]
pub(in crate::transport) struct Announces {
    line: Vec<Asked>,
    peers: Vec<PeerKey>,
}

/// An announce in line.
#[derive(Debug)]
pub(in crate::transport) struct Asked {
    /// To which [`Session::serve`] is called.
    pub(in crate::transport) connection: ConnectionHandle,
    stream: StreamId,
    announce: Announce,
}

impl Announces {
    /// How many are in line.
    pub(in crate::transport) const fn len(&self) -> usize {
        self.line.len()
    }

    pub(in crate::transport) const fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Hands on what is in line.
    pub(in crate::transport) fn serve(&mut self, shared: &Shared, serve: impl FnMut(Asked)) {
        self.peers.clear();
        let peers = self.line.iter().map(|asked| asked.announce.peer());
        self.peers.extend(peers);
        shared.service.tracker.prefetch(&self.peers);
        self.line.drain(..).for_each(serve);
    }
}

/// What an HTTP/3 connection is besides QUIC. Errors are the code to end the connection with.
#[derive(Debug)]
pub(in crate::transport) struct Session {
    handle: ConnectionHandle,
    origin: Origin,
    control: Control,
    /// Requests that wait for the client.
    waiting: Vec<Waiting>,
    /// The id of the next request.
    next: u64,
    /// Whether the client was told to send no more requests.
    going: bool,
    /// When a connection without a request ends.
    deadline: Instant,
    /// When it ends in any case.
    latest: Option<Instant>,
}

impl Session {
    /// For a connection whose handshake is done.
    pub(in crate::transport) fn new(
        handle: ConnectionHandle,
        origin: Origin,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<Self, Code> {
        let limits = &shared.options.limits;
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

    /// Does what is to be done when something has happened to streams, but for announces, which are put
    /// in line.
    pub(in crate::transport) fn handle(
        &mut self,
        event: &StreamEvent,
        quic: &mut Connection,
        shared: &Shared,
        announces: &mut Announces,
        now: Instant,
    ) -> Result<(), Code> {
        match *event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = quic.streams().accept(Dir::Bi) {
                    self.request(id, quic, shared, announces, now)?;
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
            | StreamEvent::Stopped { id, .. } => self.resume(id, quic, shared, announces, now),
            StreamEvent::Available { dir: Dir::Uni } => self.control.open(quic),
            StreamEvent::Available { dir: Dir::Bi } | StreamEvent::Finished { .. } => Ok(()),
        }
    }

    /// Serves an announce that was in line.
    pub(in crate::transport) fn serve(
        &mut self,
        asked: &Asked,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) {
        if let Some(waiting) = stream::serve(asked.stream, &asked.announce, quic, shared, now) {
            self.waiting.push(waiting);
        } else if self.going {
            self.await_quiet(quic, shared, now);
        }
    }

    /// When [`Session::time_out`] has something to do.
    pub(in crate::transport) fn deadline(&self) -> Instant {
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        waiting
            .chain(self.control.deadline())
            .fold(self.deadline, Instant::min)
    }

    /// Gives up what has taken too long.
    pub(in crate::transport) fn time_out(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), Code> {
        if self.control.deadline().is_some_and(|until| until <= now) {
            // A client that gives us no stream to send settings on is none of HTTP/3 (section 6.2).
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

    /// Tells the client to send no more requests, and leaves the replies time to arrive.
    pub(in crate::transport) fn go_away(
        &mut self,
        quic: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), Code> {
        if !self.going {
            self.going = true;
            self.latest = Some(now + shared.options.limits.drain);
            self.await_quiet(quic, shared, now);
            self.control.go_away(self.next, quic)?;
        }
        Ok(())
    }

    /// Serves a request, as far as it goes.
    fn request(
        &mut self,
        id: StreamId,
        quic: &mut Connection,
        shared: &Shared,
        announces: &mut Announces,
        now: Instant,
    ) -> Result<(), Code> {
        if self.going {
            // Section 5.2: it was told not to.
            stream::abandon(id, Code::REQUEST_REJECTED, quic);
            return Ok(());
        }
        self.next = u64::from(id) + 4;
        self.deadline = now + shared.options.limits.idle;
        match stream::start(id, self.origin, quic, shared, now) {
            Progress::Done => Ok(()),
            Progress::Waiting(waiting) => {
                self.waiting.push(waiting);
                Ok(())
            }
            Progress::Announce(announce) => {
                self.put_in_line(id, announce, announces);
                Ok(())
            }
            Progress::Close(code) => Err(code),
        }
    }

    /// Goes on with a request that has been waiting; others are over as far as we are concerned.
    fn resume(
        &mut self,
        id: StreamId,
        quic: &mut Connection,
        shared: &Shared,
        announces: &mut Announces,
        now: Instant,
    ) -> Result<(), Code> {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return Ok(());
        };
        let waiting = self.waiting.swap_remove(at);
        match waiting.resume(self.origin, quic, shared, now) {
            Progress::Close(code) => return Err(code),
            Progress::Waiting(waiting) => self.waiting.push(waiting),
            Progress::Announce(announce) => self.put_in_line(id, announce, announces),
            Progress::Done if self.going => self.await_quiet(quic, shared, now),
            Progress::Done => {}
        }
        Ok(())
    }

    fn put_in_line(&self, stream: StreamId, announce: Announce, announces: &mut Announces) {
        announces.line.push(Asked {
            connection: self.handle,
            stream,
            announce,
        });
    }

    /// After GOAWAY: ends the connection soon, if no request waits for the client.
    fn await_quiet(&mut self, quic: &Connection, shared: &Shared, now: Instant) {
        let wait = if self.waiting.is_empty() {
            (quic.rtt() * QUIET_ROUND_TRIPS).max(QUIET)
        } else {
            shared.options.limits.drain
        };
        let at = now + wait;
        self.deadline = self.latest.map_or(at, |latest| at.min(latest));
    }
}
