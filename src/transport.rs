//! Transports: accept, decode, call the tracker, encode.

pub(crate) mod http;
pub(crate) mod http3;
pub(crate) mod routes;
pub(crate) mod udp;
