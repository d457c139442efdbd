//! What every transport is handed: the tracker, the rules in force, the time, the counters.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use scion_tracker_core::Tracker;
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::tracker::Rules;
use scion_tracker_core::types::{Rng, Time};

use crate::clock::Clock;
use crate::counters::Counters;

/// Shared by all transports behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tracker: Tracker<Memory>,
    rules: Arc<ArcSwap<Rules>>,
    pub(crate) clock: Clock,
    /// Those of the sockets are in it.
    pub(crate) counters: Arc<Counters>,
}

/// The rules as one worker last saw them: each request costs one look at whether they have been
/// swapped, and no write to memory that workers share.
pub(crate) type RulesCache = Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>;

impl Service {
    pub(crate) fn new(tracker: Tracker<Memory>, rules: Rules) -> Self {
        Self {
            tracker,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            clock: Clock::start(),
            counters: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// For a worker to keep.
    pub(crate) fn rules_cache(&self) -> RulesCache {
        Cache::new(Arc::clone(&self.rules))
    }

    /// Whether a cache is of this service's rules.
    pub(crate) fn owns(&self, cache: &RulesCache) -> bool {
        std::ptr::eq(cache.arc_swap(), &*self.rules)
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules::clone(&self.rules.load())
    }

    /// Puts other rules in force. Requests that are being answered keep the old ones.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }
}

/// Randomness for one worker or connection, seeded from the system's entropy.
pub(crate) fn rng() -> Result<Rng, getrandom::Error> {
    getrandom::u64().map(Rng::with_seed)
}
