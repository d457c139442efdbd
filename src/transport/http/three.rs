//! HTTP/3 on a QUIC connection (RFC 9114): our own, but for QUIC itself. A tracker needs GET without
//! bodies, can close every gap of the protocol in it ([`message`], [`control`]), and has no task switch
//! between the arrival of a request and its reply.

mod connection;
mod control;
mod frame;
#[cfg(any(test, fuzzing))]
pub(in crate::transport) mod fuzz;
mod huffman;
mod message;
mod qpack;
mod stream;
mod table;

pub(in crate::transport) use connection::{QueuedRequest, RequestQueue, Session};
pub(in crate::transport) use frame::Code;
pub(in crate::transport) use message::EXTRA_BYTES;
