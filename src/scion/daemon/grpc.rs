//! Makes one unary gRPC call on its own connection ([gRPC over
//! HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request, StatusCode, header};
use percent_encoding::percent_decode;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// Longest reply, in bytes: room for some hundred paths.
const MAX_REPLY: usize = 1 << 20;
/// Most bytes of the headers, and of the trailers.
const MAX_HEAD: u32 = 16 << 10;
/// Length of the prefix of a message: a compression flag, and the length in 4 bytes.
const PREFIX: usize = 5;
/// Most characters of an error text that are kept.
const MAX_TEXT: usize = 500;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection broke, or the server does not speak HTTP/2.
    #[error("HTTP/2 failed: is it a SCION daemon?")]
    Http2(#[from] h2::Error),
    /// No request can be built for the address.
    #[error("cannot build a request for this address")]
    Request(#[from] http::Error),
    /// The HTTP status is not 200.
    #[error("it answered with HTTP status {0}: is it a SCION daemon?")]
    HttpStatus(StatusCode),
    /// The daemon answered with a gRPC error.
    #[error("it answered with the error {text:?} (gRPC status {code})")]
    Status {
        /// gRPC status, never 0.
        code: u32,
        /// Text of the error.
        text: String,
    },
    /// The reply is longer than a mebibyte.
    #[error("its reply is longer than {MAX_REPLY} bytes")]
    TooLong,
    /// The reply violates the gRPC protocol.
    #[error("its reply is malformed: {0}")]
    Malformed(&'static str),
    /// The message cannot be decoded.
    #[error("its message cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    /// The message is decoded, but its content is invalid.
    #[error("it answered with {0}")]
    Content(&'static str),
}

/// Calls a method of the daemon's service. Sets no deadline.
pub(super) async fn call<A: Message + Default>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    method: &str,
    request: &impl Message,
) -> Result<A, CallError> {
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEAD)
        .handshake(stream)
        .await?;
    // The task ends with this set, at the latest when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let uri = format!("http://{authority}/proto.daemon.v1.DaemonService/{method}");
    let head = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(
            header::USER_AGENT,
            concat!("scion-tracker/", env!("CARGO_PKG_VERSION")),
        )
        .body(())?;
    let (reply, mut body) = sender.ready().await?.send_request(head, false)?;
    body.send_data(frame(request), true)?;

    let reply = reply.await?;
    if reply.status() != StatusCode::OK {
        return Err(CallError::HttpStatus(reply.status()));
    }
    // An error may have no body and carry its status in the headers.
    check_status(reply.headers(), true)?;
    let mut body = reply.into_body();
    let bytes = read(&mut body).await?;
    check_status(&body.trailers().await?.unwrap_or_default(), false)?;
    Ok(A::decode(unframe(bytes)?)?)
}

fn frame(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX + bytes.len());
    frame.put_u8(0);
    // Requests are a few numbers, so the length fits.
    frame.put_u32(bytes.len() as u32);
    frame.extend_from_slice(&bytes);
    frame.freeze()
}

pub(super) fn unframe(mut bytes: Bytes) -> Result<Bytes, CallError> {
    if bytes.len() < PREFIX {
        return Err(CallError::Malformed("no message"));
    }
    // Compression was not offered.
    if bytes.get_u8() != 0 {
        return Err(CallError::Malformed("a compressed message"));
    }
    if bytes.get_u32() as usize != bytes.len() {
        return Err(CallError::Malformed("not exactly one message"));
    }
    Ok(bytes)
}

async fn read(body: &mut RecvStream) -> Result<Bytes, CallError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > PREFIX + MAX_REPLY {
            return Err(CallError::TooLong);
        }
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Checks the gRPC status. It may be missing if `optional`.
fn check_status(headers: &HeaderMap, optional: bool) -> Result<(), CallError> {
    let Some(status) = headers.get("grpc-status") else {
        return match optional {
            true => Ok(()),
            false => Err(CallError::Malformed("no gRPC status")),
        };
    };
    let code = status.to_str().ok().and_then(|text| text.parse().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let text = headers.get("grpc-message").map(|it| it.as_bytes());
            let text = percent_decode(text.unwrap_or_default());
            let text = text.decode_utf8_lossy().chars().take(MAX_TEXT).collect();
            Err(CallError::Status { code, text })
        }
        None => Err(CallError::Malformed("no gRPC status")),
    }
}
