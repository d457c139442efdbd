//! A SCION network on one machine: ASes, links, border routers and daemons, for any hosts. It
//! serves to try the tracker, and to test it behind real border routers.
//!
//! Hosts see SCION packets over UDP and a daemon over gRPC. The routers are implemented here; the
//! segments, and the protocols of daemons and endhost APIs, come from
//! [pocketscion](https://docs.rs/pocketscion).

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

/// Makes ring the TLS provider of the process. rustls chooses none by itself if a binary contains
/// two. Call it first; further calls have no effect.
pub fn install_tls_provider() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
