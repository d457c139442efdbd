//! The core of scion-tracker: everything a BitTorrent tracker decides, and nothing that touches the
//! world. No socket, clock, file or task is in here; time, randomness and origin are arguments.
//!
//! A request takes this path, whatever the transport:
//!
//! ```text
//! bytes -> codec -> request -> access -> place -> registry -> selection -> codec -> bytes
//!                             |                   |
//!                             `-> refusal         `-> observer (what the announce changed)
//! ```
//!
//! Modules, in the order of that path:
//! - [`codec`]: bytes to requests and replies to bytes, each message in both directions: BEP 15 and
//!   BEP 41, HTTP queries, bencode, compact peer lists, UDP connection ids, SCION packets.
//! - [`address`], [`types`]: ISD-AS numbers, SCION hosts, info hashes, peer ids.
//! - [`request`], [`response`]: what is asked and answered, in types that cannot be invalid.
//! - [`tracker`]: the story in one file.
//! - [`access`]: who may announce and scrape.
//! - [`observe`]: what an announce changed.
//! - [`place`]: where a requester is, by packet, by the operator's table or by its own claim.
//! - [`registry`]: who is in which swarm; the memory store, and the contract for any other.
//! - [`select`]: whom to hand out: tiers by place, the reserve, the draw.

pub mod access;
pub mod address;
pub mod codec;
pub mod observe;
pub mod place;
pub mod prefix;
pub mod registry;
pub mod request;
pub mod response;
pub mod select;
pub mod tracker;
pub mod types;

pub use tracker::Tracker;
