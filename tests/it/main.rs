//! The integration tests: one binary, a module for each side of the tracker.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by it, here also outside of #[test]"
)]

mod common;

mod access;
mod bench;
mod cli;
mod client;
mod health;
mod hostile_http;
mod hostile_http3;
mod http;
mod http3;
mod server;
mod tls;
mod udp;
