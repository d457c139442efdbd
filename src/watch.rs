//! Observes what requests change, for records, live events and the access log. Each of these takes its note
//! and returns: a requester waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use scion_tracker_core::observe::{Announced, Looked, Observer, Refused};

use crate::log::access::AccessLog;
use crate::records::Completed;

/// The observer of the server's tracker. An announce that nobody is interested in costs a branch per sink.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Completed downloads since the start.
    pub(crate) downloads: AtomicU64,
    /// Readers of live events.
    #[cfg(feature = "admin")]
    pub(crate) events: Arc<crate::admin::Events>,
    /// Completed downloads that are not in the records yet.
    pub(crate) completed: Arc<Completed>,
    /// The access log, if there is one.
    pub(crate) access_log: Option<AccessLog>,
}

impl Observer for Watch {
    #[inline]
    fn announced(&self, it: &Announced<'_>) {
        if it.completed {
            self.completed.add(it.peer.info_hash);
            self.downloads.fetch_add(1, Ordering::Relaxed);
        }
        #[cfg(feature = "admin")]
        self.events.announced(it);
        if let Some(log) = &self.access_log {
            log.announced(it);
        }
    }

    #[inline]
    fn looked(&self, it: &Looked<'_>) {
        if let Some(log) = &self.access_log {
            log.looked(it);
        }
    }

    #[inline]
    fn refused(&self, it: &Refused<'_>) {
        #[cfg(feature = "admin")]
        self.events.refused(it);
        if let Some(log) = &self.access_log {
            log.refused(it);
        }
    }
}
