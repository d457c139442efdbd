//! Sockets that the transports run on.

pub(crate) mod ip;
#[allow(dead_code, reason = "waits for its listeners in config and server")]
pub(crate) mod scion;
