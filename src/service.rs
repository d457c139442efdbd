//! What every transport is handed: the tracker, the time, the counters.

use std::sync::Arc;

use scion_tracker_core::Tracker;
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::types::{Rng, Time};

use crate::clock::Clock;
use crate::counters::Counters;

/// Shared by all transports behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tracker: Tracker<Memory>,
    pub(crate) clock: Clock,
    /// Those of the sockets are in it.
    pub(crate) counters: Arc<Counters>,
}

impl Service {
    pub(crate) fn new(tracker: Tracker<Memory>) -> Self {
        Self {
            tracker,
            clock: Clock::start(),
            counters: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }
}

/// Randomness for one worker or connection, seeded from the system's entropy.
pub(crate) fn rng() -> Result<Rng, getrandom::Error> {
    getrandom::u64().map(Rng::with_seed)
}
