//! A BitTorrent tracker for SCION and for the ordinary Internet.
//!
//! This crate is the shell around [`scion_tracker_core`]: it owns every socket, clock, file and task.
//! [`Server`] runs a tracker inside another program; the `scion-tracker` binary is [`cli`] and
//! nothing else.

pub mod cli;
pub mod client;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod server;
pub mod tls;

mod bench;
mod clock;
mod counters;
mod scion;
mod service;
mod socket;
mod transport;

pub use config::Config;
pub use counters::{Counter, Snapshot};
pub use scion_tracker_core as core;
pub use server::Server;
