//! SCION: a datagram socket that sends and receives SCION packets, the client of the daemon, and
//! topology.json.

pub(crate) mod daemon;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod rate;
pub(crate) mod socket;
pub(crate) mod topology;
