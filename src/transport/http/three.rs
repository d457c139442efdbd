//! HTTP/3 on a QUIC connection (RFC 9114), implemented here on top of quinn-proto. A tracker needs
//! only GET without bodies. An own implementation can reject every malformed request ([`message`],
//! [`control`]), and needs no task switch between a request and its reply.

mod budget;
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
