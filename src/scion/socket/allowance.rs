//! How often strangers are answered who have shown nothing.

use std::time::Duration;

/// So many in a burst, and as many a second.
#[derive(Debug)]
pub(super) struct Allowance {
    each_second: u32,
    left: u32,
    refilled: Duration,
}

impl Allowance {
    pub(super) const fn new(each_second: u32) -> Self {
        Self {
            each_second,
            left: each_second,
            refilled: Duration::ZERO,
        }
    }

    /// Takes one, if there is one left at this time since some start.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.refilled) >= Duration::from_secs(1) {
            self.refilled = now;
            self.left = self.each_second;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}
