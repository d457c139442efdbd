//! Sockets that the transports run on.

pub(crate) mod ip;
#[allow(dead_code, reason = "the calling side waits for the client over SCION")]
pub(crate) mod scion;
