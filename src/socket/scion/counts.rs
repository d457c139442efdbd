//! What happens on a SCION socket, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::gate::Reject;

/// Something worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Dropped: not a SCION packet that can be answered.
    Malformed,
    /// Dropped: for another host, port or AS.
    Elsewhere,
    /// Dropped: a path that does not fit the source.
    WrongPath,
    /// Dropped: no answer is possible.
    Unanswerable,
    /// Taken with a wrong checksum.
    WrongChecksum,
    /// A remote was new.
    RemoteAdded,
    /// Dropped: a packet for a remote that is not in the table (any more).
    RemoteUnknown,
    /// Answers took another path than before.
    PathAdopted,
    /// An SCMP error named a path in use.
    PathFailed,
    /// SCMP that says nothing about us.
    ScmpIgnored,
    /// Answered with QUIC Version Negotiation.
    VersionNegotiated,
}

impl Event {
    /// Every event.
    pub(crate) const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Elsewhere,
        Self::WrongPath,
        Self::Unanswerable,
        Self::WrongChecksum,
        Self::RemoteAdded,
        Self::RemoteUnknown,
        Self::PathAdopted,
        Self::PathFailed,
        Self::ScmpIgnored,
        Self::VersionNegotiated,
    ];

    /// A stable name for metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "scion_malformed",
            Self::Elsewhere => "scion_elsewhere",
            Self::WrongPath => "scion_wrong_path",
            Self::Unanswerable => "scion_unanswerable",
            Self::WrongChecksum => "scion_wrong_checksum",
            Self::RemoteAdded => "scion_remotes_added",
            Self::RemoteUnknown => "scion_remotes_unknown",
            Self::PathAdopted => "scion_paths_adopted",
            Self::PathFailed => "scion_paths_failed",
            Self::ScmpIgnored => "scion_scmp_ignored",
            Self::VersionNegotiated => "scion_versions_negotiated",
        }
    }
}

impl From<Reject> for Event {
    fn from(reject: Reject) -> Self {
        match reject {
            Reject::Packet(_) => Self::Malformed,
            Reject::Elsewhere => Self::Elsewhere,
            Reject::Path => Self::WrongPath,
            Reject::Unanswerable => Self::Unanswerable,
        }
    }
}

/// Counters of one socket.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; Event::ALL.len()]);

impl Counts {
    pub(super) fn count(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub(crate) fn get(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}
