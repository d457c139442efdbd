//! The core of scion-tracker: all decisions of a BitTorrent tracker, without I/O. It has no socket,
//! clock, file or task. Time, randomness and the origin of a request are arguments.
//!
//! A request of any transport takes this path:
//!
//! ```text
//! bytes -> codec -> request -> access -> place -> registry -> selection -> codec -> bytes
//!                             |                   |
//!                             `-> refusal         `-> observer (what the announce changed)
//! ```
//!
//! The modules, in the order of that path:
//! - [`codec`]: decodes requests and encodes replies, and the reverse for clients: BEP 15 and BEP
//!   41, HTTP queries, bencode, compact peer lists, UDP connection ids, SCION packets.
//! - [`address`], [`types`]: ISD-AS numbers, SCION hosts, info hashes, peer ids.
//! - [`request`], [`response`]: requests and answers, in types that cannot be invalid.
//! - [`tracker`]: handles a request from access to answer.
//! - [`access`]: who may announce and scrape.
//! - [`observe`]: what an announce changed.
//! - [`place`]: the ISD-AS of a requester, by packet, by the operator's table or by its own claim.
//! - [`registry`]: the peers of each swarm. Defines the contract of a store, and a store in memory.
//! - [`select`]: chooses the peers to hand out: tiers by place, the reserve, the draw.

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
