//! Observes what requests change, for records, live events and the access log. Each of these takes its note
//! and returns: a requester waits for it.

use std::sync::Arc;

use scion_tracker_core::observe::{Announced, Looked, Observer, Refused};

use crate::log::access::AccessLog;
use crate::records::Completed;

/// The observer of the server's tracker. An announce that nobody is interested in costs a branch per sink.
#[derive(Debug, Default)]
pub(crate) struct Watch {
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
        }
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
        if let Some(log) = &self.access_log {
            log.refused(it);
        }
    }
}
