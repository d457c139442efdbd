//! Sockets that the transports run on: every system call that std and tokio do not have.
//!
//! This is the only module of the crate with unsafe code. Its functions are safe, its types own all that
//! they hand to the kernel, and their fields are private to it.

#![allow(
    unsafe_code,
    reason = "batched system calls, socket options and readiness without write interest: no safe crate \
              in use has them"
)]
#![deny(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, reason = "only the program has a service manager")
)]
pub(crate) mod inherited;
pub(crate) mod ip;
pub(crate) mod mmsg;
mod options;
mod readable;

pub(crate) use options::{allow_fragments, kernel_drops, receive_plain_datagrams};
pub(crate) use readable::Readable;
