//! One unary gRPC call on a connection of its own
//! ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request, StatusCode, header};
use percent_encoding::percent_decode;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// The longest reply that is read, in bytes: some hundred paths.
const MAX_REPLY: usize = 1 << 20;
/// The longest head and trailers together, in bytes.
const MAX_HEAD: u32 = 16 << 10;
/// Before each message: a flag for compression, and its length, 4 bytes.
const PREFIX: usize = 5;
/// How much of an error's text is kept, in characters.
const MAX_TEXT: usize = 500;

/// Why a call brings no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection broke, or what listens there does not speak HTTP/2.
    #[error("HTTP/2 failed: is it a SCION daemon?")]
    Http2(#[from] h2::Error),
    /// The address makes no request.
    #[error("no request can be made for this address")]
    Request(#[from] http::Error),
    /// Not a status that gRPC knows.
    #[error("it answers with HTTP status {0}: is it a SCION daemon?")]
    HttpStatus(StatusCode),
    /// The daemon refuses, with a status of gRPC.
    #[error("it says {text:?} (gRPC status {code})")]
    Status {
        /// Status of gRPC, never 0.
        code: u32,
        /// What it says.
        text: String,
    },
    /// A reply longer than a mebibyte.
    #[error("its reply is longer than {MAX_REPLY} bytes")]
    TooLong,
    /// The reply breaks the rules of gRPC.
    #[error("its reply is malformed: {0}")]
    Malformed(&'static str),
    /// The message cannot be decoded.
    #[error("its message cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    /// The message is decoded, and says what cannot be.
    #[error("it answers with {0}")]
    Content(&'static str),
}

/// Calls a method of the daemon's service. Has no deadline of its own.
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
    // Ends with this set, at the latest when this function does.
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
    // An error may come without a body, its status among the headers.
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
    // Requests are a few numbers.
    frame.put_u32(bytes.len() as u32);
    frame.extend_from_slice(&bytes);
    frame.freeze()
}

fn unframe(mut bytes: Bytes) -> Result<Bytes, CallError> {
    if bytes.len() < PREFIX {
        return Err(CallError::Malformed("no message"));
    }
    // Nobody has offered compression.
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

/// `optional` where a status may be missing.
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
