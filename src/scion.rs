//! SCION: a datagram socket whose datagrams travel in SCION packets, the daemon, and topology.json.

pub(crate) mod daemon;
pub(crate) mod rate;
pub(crate) mod socket;
pub(crate) mod topology;
