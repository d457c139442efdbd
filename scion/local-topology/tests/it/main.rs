//! Tests the tracker behind border routers, and its codec against others.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by it, here also outside of #[test]"
)]

mod announce;
mod codec;
mod common;
mod demo;
mod failure;
mod foreign;
mod go;
mod limits;
mod own_as;
