//! What every transport is handed: the tracker, the rules in force, the time, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "admin")]
use std::time::Duration;

use arc_swap::cache::Cache;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use parking_lot::Mutex;
use scion_tracker_core::Tracker;
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::tracker::Rules;
use scion_tracker_core::types::{Rng, Time};

use crate::clock::Clock;
use crate::counters::{Counter, Counters, Snapshot};
use crate::gauges::Gauges;
use crate::log::access::AccessLog;
use crate::samples::Samples;
use crate::server::secrets::Secrets;
use crate::transport::Limits;
use crate::transport::connections::Connections;
use crate::transport::http::page::PublicPage;
use crate::watch::Watch;

/// Shared by all transports behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tracker: Tracker<Memory, Watch>,
    rules: Arc<ArcSwap<Rules>>,
    /// Held while the rules are changed, so that no change is lost.
    changes: Mutex<()>,
    limits: ArcSwap<Limits>,
    /// The connections of all listeners.
    pub(crate) connections: Arc<Connections>,
    pub(crate) clock: Clock,
    /// Those of the sockets are in it.
    pub(crate) counters: Arc<Counters>,
    /// The access log, if there is one. The observer of the tracker writes to it.
    pub(crate) access_log: Option<AccessLog>,
    /// Whether connections end after their next reply: see `server::drain`.
    draining: AtomicBool,
    pub(crate) samples: Samples,
    pub(crate) gauges: Gauges,
    /// The last census of all peers.
    #[cfg(feature = "admin")]
    pub(crate) census: ArcSwap<crate::server::census::Taken>,
    /// The page of statistics that HTTP listeners serve to everyone, if the operator wants that.
    pub(crate) public_page: ArcSwapOption<PublicPage>,
    /// Secrets of UDP connection ids. Without them, each listener makes its own, which ends with it.
    pub(crate) secrets: Option<Secrets>,
}

/// The rules as one worker last saw them: each request costs one look at whether they have been
/// swapped, and no write to memory that workers share.
pub(crate) type RulesCache = Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>;

impl Service {
    pub(crate) fn new(tracker: Tracker<Memory, Watch>, rules: Rules, limits: Limits) -> Self {
        let counters = Arc::default();
        Self {
            tracker,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            changes: Mutex::new(()),
            connections: Arc::new(Connections::new(&limits, Arc::clone(&counters))),
            limits: ArcSwap::from_pointee(limits),
            clock: Clock::start(),
            counters,
            access_log: None,
            draining: AtomicBool::new(false),
            samples: Samples::default(),
            gauges: Gauges::default(),
            #[cfg(feature = "admin")]
            census: ArcSwap::default(),
            public_page: ArcSwapOption::empty(),
            secrets: None,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// What was counted since the start, also what the access log counts itself.
    pub(crate) fn counted(&self) -> Snapshot {
        let mut counted = self.counters.snapshot();
        if let Some(log) = &self.access_log {
            counted.add(Counter::AccessLogLost, log.lost());
        }
        counted
    }

    /// Time since the start, whatever the clock of the system says.
    #[cfg(feature = "admin")]
    pub(crate) fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether connections end after their next reply.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// For a worker to keep.
    pub(crate) fn rules_cache(&self) -> RulesCache {
        Cache::new(Arc::clone(&self.rules))
    }

    /// Whether a cache is of this service's rules.
    pub(crate) fn owns(&self, cache: &RulesCache) -> bool {
        std::ptr::eq(cache.arc_swap(), &*self.rules)
    }

    /// The limits of connections in force. Do not keep the guard: for the life of a connection, take
    /// [`Service::limits_for_connection`].
    pub(crate) fn limits(&self) -> Guard<Arc<Limits>> {
        self.limits.load()
    }

    /// The limits in force when a connection begins.
    pub(crate) fn limits_for_connection(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Puts other limits in force. Connections that are open keep the times they began with.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.connections.set_limits(&limits);
        self.limits.store(Arc::new(limits));
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules::clone(&self.rules.load())
    }

    /// Puts other rules in force. Requests that are being answered keep the old ones.
    pub(crate) fn set_rules(&self, rules: Rules) {
        let _changing = self.changes.lock();
        self.rules.store(Arc::new(rules));
    }

    /// Changes the rules in force. `change` must not wait: other changes wait for it.
    pub(crate) fn change_rules<T>(&self, change: impl FnOnce(&mut Rules) -> T) -> T {
        let _changing = self.changes.lock();
        let mut rules = self.rules();
        let changed = change(&mut rules);
        self.rules.store(Arc::new(rules));
        changed
    }
}

/// Randomness for one worker or connection, seeded from the system's entropy.
pub(crate) fn rng() -> Result<Rng, getrandom::Error> {
    getrandom::u64().map(Rng::with_seed)
}
