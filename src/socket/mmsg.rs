//! Many datagrams per system call: recvmmsg(2) and sendmmsg(2), on buffers that are allocated once.
//!
//! - [`RequestBatch`]: requests in and their replies out, each from the address that was asked.
//! - [`ReceiveBatch`] and [`SendBatch`]: datagrams with their addresses, sent in groups that the kernel cuts.
//! - [`ConnectedReceiver`] and [`ConnectedSender`]: the same on a connected socket.
//!
//! [`messages`] makes the calls, on memory of [`slots`]. [`address`] and [`control`] convert what the kernel
//! reads and writes there; they are safe code on plain bytes.

mod address;
mod addressed;
#[cfg(any(test, feature = "cli"))]
mod connected;
mod control;
#[cfg(test)]
pub(crate) mod injected;
mod messages;
mod requests;
mod slots;

pub(crate) use addressed::{ReceiveBatch, SendBatch};
#[cfg(any(test, feature = "cli"))]
pub(crate) use connected::{ConnectedReceiver, ConnectedSender};
pub(crate) use requests::RequestBatch;

/// Datagrams per system call.
pub(crate) const BATCH: usize = 64;
