//! Makes one GET request over HTTP/1.1 on a QUIC connection with one pair of streams, which Go
//! programs for SCION use like TCP (ALPN `qs`).
//!
//! The protocol is that of the server, [`crate::transport`]: each side sends on the first
//! unidirectional stream that it opens. A side that has read the other's stream to its end opens a
//! second stream and ends it at once, as an acknowledgement. The side that ends the connection waits
//! for the acknowledgement of its own stream, and closes with code 0.

use std::io;
use std::pin::pin;
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;

use super::http;
use super::http3::close;
use super::{HttpReply, RequestError, TrackerAddr, TrackerUrl};

/// Name of the protocol in TLS (ALPN).
pub(super) const PROTOCOL: &[u8] = b"qs";

const OK: VarInt = VarInt::from_u32(0);

/// Time to close a connection in order after the reply has arrived.
const CLOSING: Duration = Duration::from_secs(2);
/// Size of the pipe in each direction.
const PIPE: usize = 16 * 1024;

/// Requests the URL on a new connection, and closes it in order.
pub(super) async fn ask(
    connection: &Connection,
    url: &TrackerUrl,
    addr: TrackerAddr,
) -> Result<HttpReply, RequestError> {
    let (ours, theirs) = duplex(PIPE);
    let mut carrying = Box::pin(carry(connection, theirs));
    let mut asking = pin!(http::exchange(ours, url));
    let carried = tokio::select! {
        biased;
        reply = &mut asking => {
            // The reply counts, however the connection ends.
            if let Ok(Err(error)) = timeout(CLOSING, carrying).await {
                tracing::debug!("the connection to {addr} was not closed in order: {error}");
            }
            close(connection, OK).await;
            return reply;
        }
        carried = &mut carrying => carried,
    };
    // Closes the pipe, in which the reply may be.
    drop(carrying);
    let reply = asking.await;
    close(connection, OK).await;
    match carried {
        Err(source) if reply.is_err() => Err(RequestError::Io { addr, source }),
        _ => reply,
    }
}

/// Carries bytes between the pipe and the streams. Ends when both sides have ended their streams and
/// acknowledged those of the other side.
async fn carry(connection: &Connection, pipe: DuplexStream) -> io::Result<()> {
    let (mut from_pipe, mut into_pipe) = tokio::io::split(pipe);
    let outward = async {
        let mut send = connection.open_uni().await?;
        tokio::io::copy(&mut from_pipe, &mut send).await?;
        send.shutdown().await
    };
    let inward = async {
        let mut recv = connection.accept_uni().await?;
        // The reply may have been read to its end already: the rest is read all the same, and then
        // the stream ends regularly. A tracker that sends without an end is cut off by the timeout.
        let mut bytes = [0; 4096];
        let mut open = true;
        loop {
            let length = recv.read(&mut bytes).await.map_err(io::Error::other)?;
            let Some(length) = length else { break };
            open = open && into_pipe.write_all(&bytes[..length]).await.is_ok();
        }
        if open {
            // Fails if the reply has been read and the pipe is closed.
            let _ = into_pipe.shutdown().await;
        }
        connection.open_uni().await?.shutdown().await?;
        let mut acknowledgement = connection.accept_uni().await?;
        let end = acknowledgement.read_to_end(0).await;
        end.map_err(io::Error::other).map(|_| ())
    };
    tokio::try_join!(outward, inward).map(|_| ())
}
