//! HTTP/1.1 on a QUIC connection of one stream pair: what Go programs of the SCION world take for TCP.
//!
//! The protocol is that of `quicutil.SingleStream` in
//! [scion-apps](https://github.com/netsec-ethz/scion-apps/blob/master/pkg/quicutil/single.go) since
//! 0.4.0, and there is no other specification of it. Each side sends its bytes on the first unidirectional
//! stream that it opens. Once it has read the other's to the end, it says so by opening a second one and
//! ending it at once. A side that closes ends its stream and waits for this acknowledgement before it
//! closes the connection: QUIC would let a close overtake the last bytes.
//!
//! What is on the stream is served as on TCP: see [`super::http::one`].

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use scion_tracker_core::request::Origin;
use tokio::io::join;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::http::one::{Ended, Farewell, Incoming};
use super::quic::is_abort;
use crate::counters::Counter;

/// The name of the protocol in TLS (ALPN).
pub(super) const PROTOCOL: &[u8] = b"qs";

/// Error codes, as clients have them.
const OK: u32 = 0;
const SHUTDOWN_ERROR: u32 = 0x101;

/// After both acknowledgements, how many round trips the client has to close the connection, and how
/// long that is at least.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);
/// How long the client is waited for when the server stops.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// Serves a connection until it ends.
pub(super) async fn serve(connection: Connection, origin: Origin, shared: Arc<Shared>) {
    let limits = &shared.options.limits;
    let streams = tokio::select! {
        streams = timeout(limits.head, streams(&connection)) => streams,
        () = shared.shutdown.cancelled() => return close(&connection, OK),
    };
    let Ok(Ok((send, recv))) = streams else {
        return abort(&connection, &shared);
    };
    let mut incoming = Incoming::new(join(recv, send), Vec::new(), origin, Farewell::InStream);
    match incoming.serve(&shared).await {
        Ended::Closed => {}
        // HTTP/2 is not spoken under this name.
        Ended::Aborted | Ended::Http2 => return abort(&connection, &shared),
    }
    // Ends our stream, and stops the client's where that has not ended.
    drop(incoming);
    let acknowledged = async {
        connection.open_uni().await?.finish().ok();
        connection.accept_uni().await?;
        // Its turn to close: ours would overtake our acknowledgement.
        sleep((connection.rtt() * QUIET_ROUND_TRIPS).max(QUIET)).await;
        Ok::<_, ConnectionError>(())
    };
    tokio::select! {
        _ = acknowledged => {}
        () = sleep(limits.reply) => {}
        () = async {
            shared.shutdown.cancelled().await;
            sleep(LAST_WAIT).await;
        } => {}
    }
    close(&connection, OK);
}

/// Our stream and the client's, which is there when it has sent something on it.
async fn streams(connection: &Connection) -> Result<(SendStream, RecvStream), ConnectionError> {
    Ok((connection.open_uni().await?, connection.accept_uni().await?))
}

/// Ends a connection that did not come to a regular end, or has been closed by the client already.
fn abort(connection: &Connection, shared: &Shared) {
    if connection
        .close_reason()
        .is_none_or(|error| is_abort(&error))
    {
        shared.service.counters.count(Counter::QuicAborted);
    }
    close(connection, SHUTDOWN_ERROR);
}

fn close(connection: &Connection, code: u32) {
    connection.close(VarInt::from_u32(code), b"");
}
