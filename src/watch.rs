//! Observes what requests change, for records, live events and the access log. Each of these takes its note
//! and returns: a requester waits for it.

use std::sync::Arc;

use scion_tracker_core::observe::{Announced, Observer};

use crate::records::Completed;

/// The observer of the server's tracker. An announce that nobody is interested in costs a branch per sink.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Completed downloads that are not in the records yet.
    pub(crate) completed: Arc<Completed>,
}

impl Observer for Watch {
    #[inline]
    fn announced(&self, it: &Announced<'_>) {
        if it.completed {
            self.completed.add(it.peer.info_hash);
        }
    }
}
