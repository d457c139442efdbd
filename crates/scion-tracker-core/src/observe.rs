//! Tells an observer what an announce changed: for records, replicas and live events.
//!
//! The tracker calls its [`Observer`] after the registry has released its locks. An observer takes a
//! note and returns: it must not wait, because the requester waits for it. `()` observes nothing and
//! costs nothing.

use crate::registry::PeerEntry;
use crate::request::{AnnounceRequest, Origin};
use crate::response::{Refusal, SwarmCounts};
use crate::types::{InfoHash, Time};

/// What became of a peer in its swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It is new in the swarm.
    Joined,
    /// It was known, and stays.
    Refreshed,
    /// It was known, and is gone (`event=stopped`).
    Left,
    /// It was not known, and said that it stops.
    Unknown,
}

/// An announce that was served.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Announced<'a> {
    /// The requester, as the transport saw it.
    pub origin: &'a Origin,
    /// What it sent.
    pub announce: &'a AnnounceRequest,
    /// The peer, as the registry was given it.
    pub peer: &'a PeerEntry,
    /// What became of it.
    pub change: Change,
    /// Whether the announce counted as a completed download.
    pub completed: bool,
    /// The swarm after the announce.
    pub counts: SwarmCounts,
    /// When.
    pub now: Time,
}

/// An announce that was served and stored nothing, because others cannot reach its peer (port 0).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Looked<'a> {
    /// The requester, as the transport saw it.
    pub origin: &'a Origin,
    /// What it sent.
    pub announce: &'a AnnounceRequest,
    /// The swarm.
    pub counts: SwarmCounts,
}

/// An announce or a scrape that was refused.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Refused<'a> {
    /// The requester, as the transport saw it.
    pub origin: &'a Origin,
    /// The swarm that it asked for.
    pub info_hash: &'a InfoHash,
    /// What it sent, if it was an announce.
    pub announce: Option<&'a AnnounceRequest>,
    /// Why.
    pub refusal: Refusal,
}

impl<'a> Refused<'a> {
    /// A scrape that was refused. For observers that are tested.
    pub const fn scrape(origin: &'a Origin, info_hash: &'a InfoHash, refusal: Refusal) -> Self {
        Self {
            origin,
            info_hash,
            announce: None,
            refusal,
        }
    }
}

/// Is told what requests changed. All methods do nothing unless an observer says otherwise.
pub trait Observer {
    /// An announce was served.
    fn announced(&self, announced: &Announced<'_>) {
        let _ = announced;
    }

    /// An announce was served that stored nothing.
    fn looked(&self, looked: &Looked<'_>) {
        let _ = looked;
    }

    /// An announce or a scrape was refused. Strangers can cause any number of these.
    fn refused(&self, refused: &Refused<'_>) {
        let _ = refused;
    }
}

impl Observer for () {}

impl<O: Observer + ?Sized> Observer for std::sync::Arc<O> {
    fn announced(&self, announced: &Announced<'_>) {
        (**self).announced(announced);
    }

    fn looked(&self, looked: &Looked<'_>) {
        (**self).looked(looked);
    }

    fn refused(&self, refused: &Refused<'_>) {
        (**self).refused(refused);
    }
}
