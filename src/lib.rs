//! A BitTorrent tracker for SCION and for the ordinary Internet.
//!
//! This crate is the shell around [`scion_tracker_core`]: it owns every socket, clock, file and task.
//! [`Server`] runs a tracker inside another program, [`client`] announces to trackers and scrapes them.
//!
//! # Embedding
//!
//! Depend on the library without the program. The feature `cli`, on by default, holds the command line,
//! the load generator and what only they need:
//!
//! ```toml
//! [dependencies]
//! scion-tracker = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! ```
//!
//! Start from the defaults and set what differs: structs of the configuration may get more fields.
//!
//! ```no_run
//! use scion_tracker::config::{Config, Listen};
//! use scion_tracker::Server;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.listen = Listen::none();
//! config.listen.http = vec!["127.0.0.1:6969".parse()?];
//! let server = Server::bind(config)?;
//! for listening in server.listeners() {
//!     println!("announce to {}", listening.url());
//! }
//! server.run(tokio::time::sleep(std::time::Duration::from_secs(10))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` is a whole program.

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod records;
pub mod server;
pub mod snapshot;
pub mod tls;

mod access;
#[cfg(feature = "admin")]
mod admin;
#[cfg(feature = "cli")]
mod bench;
mod budget;
mod clock;
mod counters;
mod data_dir;
#[cfg_attr(
    not(feature = "admin"),
    expect(dead_code, reason = "only the metrics read them")
)]
mod gauges;
mod log;
#[cfg_attr(
    not(feature = "admin"),
    expect(dead_code, reason = "only the metrics read them")
)]
mod samples;
mod scion;
mod service;
mod socket;
mod transport;
mod watch;

pub use config::Config;
pub use counters::{Counter, Network, Snapshot};
pub use samples::Proximity;
pub use scion_tracker_core as core;
pub use server::Server;
