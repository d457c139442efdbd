//! Sockets that the transports run on.

pub(crate) mod ip;
