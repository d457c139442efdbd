//! A monotonic clock in seconds, for the core, which must not read one itself.

use std::time::{Duration, Instant};

use scion_tracker_core::types::Time;

/// Counts seconds since its creation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        // A u32 holds 136 years of seconds.
        Time::from_secs(self.elapsed().as_secs() as u32)
    }

    /// Time since its creation.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
