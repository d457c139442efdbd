//! The integration tests: one binary, with a module per part of the program.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap fails the test, also outside of #[test]"
)]

mod common;

mod access;
mod activation;
mod admin;
mod bench;
mod cli;
mod client;
mod configuration;
mod generate;
mod health;
mod help;
mod hostile_http;
mod hostile_http3;
mod http;
mod http3;
mod log;
mod memory;
#[cfg(feature = "admin")]
mod monitoring;
#[cfg(feature = "sqlite")]
mod records;
mod server;
mod snapshot;
mod stop;
mod tls;
mod udp;
