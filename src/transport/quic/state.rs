//! The state of a QUIC connection: its handshake, its protocol, its end.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection as Quic, ConnectionHandle, Event, VarInt};
use scion_tracker_core::request::Origin;

use super::{Handshake, is_abort};
use crate::counters::Counter;
use crate::log::Shown;
use crate::transport::Shared;
use crate::transport::connections::{Open, Over};
use crate::transport::http::qs::{self, WakeQueue};
use crate::transport::http::three::{self, Code, QueuedRequest, RequestQueue};

/// Error codes that close a connection before its protocol is known: those of HTTP/3 (RFC 9114
/// section 8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// The state of a connection.
pub(super) enum ConnectionState {
    Handshake {
        handle: ConnectionHandle,
        origin: Origin,
        until: Instant,
        _counted: Handshake,
    },
    Http3 {
        session: three::Session,
        _counted: Open,
    },
    Qs {
        session: Box<qs::Session>,
        _counted: Open,
    },
    /// Closed, and waiting to be removed.
    Over,
}

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
                Self::Handshake { .. } | Self::Over => {}
            },
            Event::ConnectionLost { reason } => {
                let aborted = match self {
                    Self::Handshake { .. } => true,
                    Self::Http3 { .. } | Self::Qs { .. } => is_abort(&reason),
                    Self::Over => false,
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
                    shared.service.counters.count(Counter::QuicAborted);
                }
                *self = Self::Over;
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
        let Self::Handshake { handle, origin, .. } = *self else {
            return;
        };
        let Shared {
            service, options, ..
        } = &**shared;
        let proxied = options.proxies.trusts(origin.host.ip()) && !origin.is_scion();
        let source = (!proxied).then_some(origin.host);
        let Ok(open) = service.connections.enter(Over::Quic, source) else {
            service.counters.count(Counter::QuicRefused);
            quic.close(now, EXCESSIVE_LOAD, Bytes::new());
            *self = Self::Over;
            return;
        };
        service.counters.count(Counter::QuicConnections);
        if protocol(quic).as_deref() == Some(qs::PROTOCOL) {
            let session = qs::Session::new(origin, quic, shared, wakeups, handle, now);
            *self = Self::Qs {
                session: Box::new(session),
                _counted: open,
            };
            return;
        }
        match three::Session::new(handle, origin, quic, shared, now) {
            Ok(session) => {
                *self = Self::Http3 {
                    session,
                    _counted: open,
                }
            }
            Err(code) => self.end(code, quic, shared, now),
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
    pub(super) fn pump(&mut self, quic: &mut Quic, shared: &Arc<Shared>, now: Instant) {
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
            Self::Over => None,
        }
    }

    pub(super) fn time_out(&mut self, quic: &mut Quic, shared: &Shared, now: Instant) {
        match self {
            Self::Handshake { origin, .. } => {
                tracing::debug!(client = %origin.host, "QUIC handshake timed out");
                shared.service.counters.count(Counter::QuicAborted);
                quic.close(now, VarInt::from_u32(0), Bytes::new());
                *self = Self::Over;
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
            Self::Over => {}
        }
    }

    pub(super) fn go_away(&mut self, quic: &mut Quic, shared: &Shared, now: Instant) {
        match self {
            Self::Handshake { .. } => {
                quic.close(now, NO_ERROR, Bytes::new());
                *self = Self::Over;
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
            Self::Over => {}
        }
    }

    /// The client, unless the connection is over.
    const fn origin(&self) -> Option<Origin> {
        match self {
            Self::Handshake { origin, .. } => Some(*origin),
            Self::Http3 { session, .. } => Some(session.origin()),
            Self::Qs { session, .. } => Some(session.origin()),
            Self::Over => None,
        }
    }

    fn end(&mut self, code: Code, quic: &mut Quic, shared: &Shared, now: Instant) {
        if code != Code::NO_ERROR {
            if let Some(Origin { host, .. }) = self.origin() {
                tracing::debug!(client = %host, ?code, "HTTP/3 connection closed");
            }
            shared.service.counters.count(Counter::QuicAborted);
        }
        quic.close(now, code.into(), Bytes::new());
        *self = Self::Over;
    }

    fn end_qs(&mut self, end: qs::End, quic: &mut Quic, shared: &Shared, now: Instant) {
        if end == qs::End::Aborted {
            if let Some(Origin { host, .. }) = self.origin() {
                tracing::debug!(client = %host, "connection of HTTP/1.1 over QUIC closed");
            }
            shared.service.counters.count(Counter::QuicAborted);
        }
        quic.close(now, end.code(), Bytes::new());
        *self = Self::Over;
    }
}

/// The protocol agreed on with ALPN.
fn protocol(quic: &Quic) -> Option<Vec<u8>> {
    let data = quic.crypto_session().handshake_data()?;
    data.downcast::<HandshakeData>().ok()?.protocol
}
