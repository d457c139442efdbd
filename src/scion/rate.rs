//! Limits the rate of answers to unproven sources.

use std::time::Duration;

/// Allows a number of events in one burst, and as many per second.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    per_second: u32,
    left: u32,
    refilled: Duration,
}

impl RateLimiter {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            left: per_second,
            refilled: Duration::ZERO,
        }
    }

    /// Counts one event at this time, measured from a fixed start. Returns whether it is allowed.
    pub(crate) fn allow(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.refilled) >= Duration::from_secs(1) {
            self.refilled = now;
            self.left = self.per_second;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_allows_as_many_events() {
        let mut limiter = RateLimiter::new(3);
        let mut allowed = |millis| {
            (0..10)
                .filter(|_| limiter.allow(Duration::from_millis(millis)))
                .count()
        };
        assert_eq!(allowed(0), 3);
        assert_eq!(allowed(999), 0);
        assert_eq!(allowed(1000), 3);
        assert_eq!(allowed(1999), 0);
        assert_eq!(allowed(60_000), 3);
    }
}
