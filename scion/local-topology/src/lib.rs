//! A SCION network on one machine: ASes, links, border routers and daemons, with hosts as they come.
//! For trying the tracker, and for its tests behind real border routers.
//!
//! The network is [pocketscion](https://docs.rs/pocketscion)'s, which simulates what is between the
//! border routers; what hosts see are SCION packets on UDP and a daemon on gRPC. It forwards a packet
//! in some 80 microseconds, so it is nothing to measure speed with.

pub mod config;
pub mod control;
pub mod demo;
pub mod files;
mod topology;

pub use config::Config;
pub use topology::{Error, LinkState, Topology};

/// Makes ring the TLS provider of the process: two may be in one binary, and then rustls takes none by
/// itself. To be called first; calling it again changes nothing.
pub fn install_tls_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
