//! The clock that the core is not allowed to have.

use std::time::Instant;

use scion_tracker_core::types::Time;

/// Counts seconds from when it was made.
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
        // 136 years of seconds fit.
        Time::from_secs(self.start.elapsed().as_secs() as u32)
    }
}
