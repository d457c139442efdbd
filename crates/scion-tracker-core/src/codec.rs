//! Translates bytes to requests and replies to bytes. A codec makes no decisions.

pub mod bencode;
pub mod bep15;
pub mod compact;
pub mod connection;
pub mod query;
pub mod reply;
pub mod scion;
pub mod target;

#[cfg(test)]
mod vectors;
