//! The memory of a QUIC connection: what it is charged with, and how it ends to make room.

use std::time::Instant;

use quinn_proto::{Connection as Quic, Dir};

use super::SEND_WINDOW;
use super::driver::Connection;
use super::state::ConnectionState;
use crate::transport::Shared;
use crate::transport::http::three::EXTRA_BYTES;

/// What a connection is charged with in any case: quinn's state and keys, a reply that the client has
/// not acknowledged, and what three unidirectional streams can hold out of order.
pub(super) const CONNECTION_BYTES: usize = 96 * 1024;
/// The most that a reply takes: 200 peers as dictionaries.
const REPLY_BYTES: usize = 24 * 1024;
/// Unidirectional streams of a client that speaks HTTP/3.
const USUAL_STREAMS: usize = 3;
/// What `qs` takes: a pipe, the buffers of HTTP/1.1 on top of it, and the windows of its streams.
const QS_BYTES: usize = 256 * 1024;

impl Connection {
    /// Charges the connection with the memory that it holds, and ends it if there is not enough, or if
    /// it has to make room.
    pub(super) fn account(&mut self, shared: &Shared, now: Instant) {
        let Self {
            quic, state, held, ..
        } = self;
        if let Some(open) = state.open() {
            held.assign(open);
        }
        let window = shared.service.limits().head_bytes + 2 * EXTRA_BYTES;
        held.set_idle(state.is_idle());
        if held.set(more(state, quic, window)).is_err() || held.is_evicted() {
            state.make_room(quic, shared, now);
        }
    }
}

/// What the connection holds besides [`CONNECTION_BYTES`]. `window` is the receive window of a stream.
fn more(state: &ConnectionState, quic: &mut Quic, window: usize) -> usize {
    let streams = quic.streams();
    let uni = streams.remote_open_streams(Dir::Uni) as usize;
    // One of them is the control stream of the server.
    let replies = streams.send_streams().saturating_sub(1);
    let unacknowledged = (replies * REPLY_BYTES).min(SEND_WINDOW as usize);
    let waiting = match state {
        ConnectionState::Http3 { session, .. } => session.bytes(window),
        ConnectionState::Qs { .. } => QS_BYTES,
        _ => 0,
    };
    waiting
        + unacknowledged.saturating_sub(REPLY_BYTES)
        + uni.saturating_sub(USUAL_STREAMS) * window
}
