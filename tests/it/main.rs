//! The integration tests: one binary, a module for each side of the tracker.

mod common;

mod cli;
mod udp;
