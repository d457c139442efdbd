//! A SCION network on one machine: ASes, links, border routers and daemons, with hosts as they come.
//! For trying the tracker, and for its tests behind real border routers.
//!
//! What hosts see are SCION packets on UDP and a daemon on gRPC. Routers are here; segments, and what
//! daemons and endhost APIs speak, are [pocketscion](https://docs.rs/pocketscion)'s.

pub mod config;
pub mod control;
mod daemon;
pub mod demo;
mod endhost;
pub mod files;
mod paths;
mod routers;
mod topology;

pub use config::Config;
pub use routers::LinkState;
pub use topology::{Error, Topology};

/// Makes ring the TLS provider of the process: two may be in one binary, and then rustls takes none by
/// itself. To be called first; calling it again changes nothing.
pub fn install_tls_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
