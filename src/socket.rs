//! Sockets that the transports run on.

pub(crate) mod ip;
pub(crate) mod mmsg;
