//! The state of a QUIC connection: its handshake, its protocol, its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection as Quic, ConnectionHandle, Event, VarInt};
use scion_tracker_core::address::Host;
use scion_tracker_core::request::Origin;

use super::handshakes::Handshake;
use super::is_abort;
use crate::counters::Counter;
use crate::log::Shown;
use crate::transport::connections::{Open, Over};
use crate::transport::http::qs::{self, WakeQueue};
use crate::transport::http::three::{self, Code, QueuedRequest, RequestQueue};
use crate::transport::{Options, Shared};

/// Error codes that close a connection before its protocol is known: those of HTTP/3 (RFC 9114
/// section 8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// The state of a connection.
pub(super) enum ConnectionState {
    Handshake {
        handle: ConnectionHandle,
        origin: Origin,
        until: Instant,
        /// The connection, counted already if the client has validated its address.
        open: Option<Open>,
        _counted: Handshake,
    },
    Http3 {
        session: three::Session,
        open: Open,
    },
    Qs {
        session: Box<qs::Session>,
        open: Open,
    },
    /// Closed, and waiting to be removed: by QUIC, or at `until`.
    Over {
        until: Instant,
    },
}

/// How long a closed connection is kept to answer late packets. QUIC keeps one for some round
/// trips, whose length the client decides.
const CLOSED: Duration = Duration::from_secs(1);

impl ConnectionState {
    pub(super) fn handle(
        &mut self,
        event: Event,
        quic: &mut Quic,
        shared: &Arc<Shared>,
        wakeups: &Arc<WakeQueue>,
        queue: &mut RequestQueue,
        now: Instant,
    ) {
        match event {
            Event::Connected => self.begin(quic, shared, wakeups, now),
            Event::Stream(event) => match self {
                Self::Http3 { session, .. } => {
                    if let Err(code) = session.handle(&event, quic, shared, queue, now) {
                        self.end(code, quic, shared, now);
                    }
                }
                Self::Qs { session, .. } => session.handle(&event, quic),
                // Nothing may be sent before the handshake is complete. Events after the end are
                // ignored.
                Self::Handshake { .. } | Self::Over { .. } => {}
            },
            Event::ConnectionLost { reason } => {
                let aborted = match self {
                    Self::Handshake { .. } => true,
                    Self::Http3 { .. } | Self::Qs { .. } => is_abort(&reason),
                    Self::Over { .. } => false,
                };
                if aborted {
                    if let Some(Origin { host, .. }) = self.origin() {
                        tracing::debug!(
                            client = %host,
                            // It may have words of the client in it.
                            reason = %Shown(reason.to_string().as_bytes()),
                            "QUIC connection lost"
                        );
                    }
                    self.count(Counter::QuicAborted, shared);
                }
                self.close(now);
            }
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    /// Starts the protocol when the handshake is complete and has validated the client's address.
    fn begin(
        &mut self,
        quic: &mut Quic,
        shared: &Arc<Shared>,
        wakeups: &Arc<WakeQueue>,
        now: Instant,
    ) {
        let Self::Handshake {
            handle,
            origin,
            open,
            ..
        } = self
        else {
            return;
        };
        let (handle, origin, open) = (*handle, *origin, open.take());
        let Shared {
            service, options, ..
        } = &**shared;
        let open = match open {
            Some(open) => Ok(open),
            None => {
                let source = source_of(&origin, options);
                service.connections.enter(Over::Quic, source)
            }
        };
        let Ok(open) = open else {
            shared.count(Counter::QuicRefused, &origin);
            quic.close(now, EXCESSIVE_LOAD, Bytes::new());
            return self.close(now);
        };
        shared.count(Counter::QuicConnections, &origin);
        if protocol(quic).as_deref() == Some(qs::PROTOCOL) {
            let session = qs::Session::new(origin, quic, shared, wakeups, handle, now);
            *self = Self::Qs {
                session: Box::new(session),
                open,
            };
            return;
        }
        match three::Session::new(handle, origin, quic, shared, now) {
            Ok(session) => *self = Self::Http3 { session, open },
            Err(code) => self.end(code, quic, shared, now),
        }
    }

    /// Continues the streams that events have named since the last call.
    pub(super) fn proceed(
        &mut self,
        quic: &mut Quic,
        shared: &Arc<Shared>,
        queue: &mut RequestQueue,
        now: Instant,
    ) {
        match self {
            Self::Http3 { session, .. } => {
                if let Err(code) = session.proceed(quic, shared, queue, now) {
                    self.end(code, quic, shared, now);
                }
            }
            Self::Qs { .. } => self.pump(quic, shared, now),
            Self::Handshake { .. } | Self::Over { .. } => {}
        }
    }

    /// Answers a queued request.
    pub(super) fn answer(
        &mut self,
        queued: &QueuedRequest,
        quic: &mut Quic,
        shared: &Shared,
        now: Instant,
    ) {
        // An event after the request may have ended the connection.
        if let Self::Http3 { session, .. } = self {
            session.answer(queued, quic, shared, now);
        }
    }

    /// Carries bytes between the streams of `qs` and its server.
    fn pump(&mut self, quic: &mut Quic, shared: &Arc<Shared>, now: Instant) {
        if let Self::Qs { session, .. } = self
            && let Some(end) = session.pump(quic, shared, now)
        {
            self.end_qs(end, quic, shared, now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Handshake { until, .. } => Some(*until),
            Self::Http3 { session, .. } => Some(session.deadline()),
            Self::Qs { session, .. } => session.deadline(),
            Self::Over { until } => Some(*until),
        }
    }

    pub(super) fn time_out(&mut self, quic: &mut Quic, shared: &Shared, now: Instant) {
        match self {
            Self::Handshake { origin, .. } => {
                tracing::debug!(client = %origin.host, "QUIC handshake timed out");
                self.count(Counter::QuicAborted, shared);
                quic.close(now, VarInt::from_u32(0), Bytes::new());
                self.close(now);
            }
            Self::Http3 { session, .. } => {
                if let Err(code) = session.time_out(quic, shared, now) {
                    self.end(code, quic, shared, now);
                }
            }
            Self::Qs { session, .. } => {
                let end = session.time_out();
                self.end_qs(end, quic, shared, now);
            }
            Self::Over { .. } => {}
        }
    }

    /// Whether the connection is closed and has been kept for long enough.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        matches!(self, Self::Over { until } if *until <= now)
    }

    pub(super) fn go_away(&mut self, quic: &mut Quic, shared: &Shared, now: Instant) {
        match self {
            Self::Handshake { .. } => {
                quic.close(now, NO_ERROR, Bytes::new());
                self.close(now);
            }
            Self::Http3 { session, .. } => {
                if let Err(code) = session.go_away(quic, shared, now) {
                    self.end(code, quic, shared, now);
                }
            }
            Self::Qs { session, .. } => {
                if let Some(end) = session.go_away(now) {
                    self.end_qs(end, quic, shared, now);
                }
            }
            Self::Over { .. } => {}
        }
    }

    /// The client, unless the connection is over.
    const fn origin(&self) -> Option<Origin> {
        match self {
            Self::Handshake { origin, .. } => Some(*origin),
            Self::Http3 { session, .. } => Some(session.origin()),
            Self::Qs { session, .. } => Some(session.origin()),
            Self::Over { .. } => None,
        }
    }

    /// Counts what happened to the connection, unless it is over.
    pub(super) fn count(&self, counter: Counter, shared: &Shared) {
        if let Some(origin) = self.origin() {
            shared.count(counter, &origin);
        }
    }

    fn close(&mut self, now: Instant) {
        *self = Self::Over {
            until: now + CLOSED,
        };
    }

    /// The connection as it is counted, once the client has validated its address.
    pub(super) const fn open(&self) -> Option<&Open> {
        match self {
            Self::Http3 { open, .. } | Self::Qs { open, .. } => Some(open),
            Self::Handshake { .. } | Self::Over { .. } => None,
        }
    }

    /// Whether nothing is lost if the connection is closed.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Http3 { session, .. } => session.is_idle(),
            Self::Handshake { .. } | Self::Qs { .. } => false,
            Self::Over { .. } => true,
        }
    }

    /// Ends the connection, as the memory for connections is used up.
    pub(super) fn make_room(&mut self, quic: &mut Quic, shared: &Shared, now: Instant) {
        match self {
            Self::Over { .. } => {}
            _ => self.end(Code::EXCESSIVE_LOAD, quic, shared, now),
        }
    }

    fn end(&mut self, code: Code, quic: &mut Quic, shared: &Shared, now: Instant) {
        if code != Code::NO_ERROR {
            if let Some(Origin { host, .. }) = self.origin() {
                tracing::debug!(client = %host, ?code, "HTTP/3 connection closed");
            }
            self.count(Counter::QuicAborted, shared);
        }
        if code == Code::EXCESSIVE_LOAD {
            self.count(Counter::Http3Excessive, shared);
        }
        quic.close(now, code.into(), Bytes::new());
        self.close(now);
    }

    fn end_qs(&mut self, end: qs::End, quic: &mut Quic, shared: &Shared, now: Instant) {
        if end == qs::End::Aborted {
            if let Some(Origin { host, .. }) = self.origin() {
                tracing::debug!(client = %host, "connection of HTTP/1.1 over QUIC closed");
            }
            self.count(Counter::QuicAborted, shared);
        }
        quic.close(now, end.code(), Bytes::new());
        self.close(now);
    }
}

/// The host whose connections are counted together. `None` for a trusted proxy, which speaks for
/// many hosts.
pub(super) fn source_of(origin: &Origin, options: &Options) -> Option<Host> {
    let proxied = options.proxies.trusts(origin.host.ip()) && !origin.is_scion();
    (!proxied).then_some(origin.host)
}

/// The protocol agreed on with ALPN.
fn protocol(quic: &Quic) -> Option<Vec<u8>> {
    let data = quic.crypto_session().handshake_data()?;
    data.downcast::<HandshakeData>().ok()?.protocol
}
