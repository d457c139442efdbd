//! Takes a census of all peers from time to time, so that metrics and pages do not walk through millions of
//! peers for each request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scion_tracker_core::registry::read::Census;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{Handle, RunError};
use crate::service::Service;

/// Pause between two steps, in which requests get the locks.
const STEP_PAUSE: Duration = Duration::from_millis(1);
/// Shortest pause between two censuses.
const LEAST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause between two censuses.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// The pause is this many times the time that the last census took. It waits most of that time.
const PAUSE_FACTOR: u32 = 5;

/// A census, and when it was taken. The first one is empty and was taken in 1970.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) census: Census,
    pub(crate) at: SystemTime,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            census: Census::default(),
            at: SystemTime::UNIX_EPOCH,
        }
    }
}

impl Handle {
    /// The last census: at most a minute old, or a few minutes with many millions of peers.
    pub(crate) fn census(&self) -> Arc<Taken> {
        self.service.census.load_full()
    }

    /// Takes a census now, without pauses.
    #[cfg(test)]
    pub(crate) fn take_census(&self) {
        let registry = self.service.tracker.registry();
        let mut walk = registry.census();
        while !registry.count(&mut walk) {}
        store(&self.service, walk.finish());
    }
}

fn store(service: &Service, census: Census) {
    let at = SystemTime::now();
    service.census.store(Arc::new(Taken { census, at }));
}

/// Takes censuses until it is stopped, as long as somebody can see them.
pub(super) async fn run(
    handle: Handle,
    has_admin: bool,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let service = &handle.service;
    let registry = service.tracker.registry();
    let endless = async {
        loop {
            if !handle.is_watched(has_admin) {
                time::sleep(LEAST_PAUSE).await;
                continue;
            }
            let begun = Instant::now();
            let mut walk = registry.census();
            while !registry.count(&mut walk) {
                time::sleep(STEP_PAUSE).await;
            }
            store(service, walk.finish());
            let pause = begun.elapsed() * PAUSE_FACTOR;
            time::sleep(pause.clamp(LEAST_PAUSE, MOST_PAUSE)).await;
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}
