//! Draining: a tracker that is about to stop sends its clients away first, so that a load balancer moves them
//! to another one.
//!
//! While it drains, the health check of the admin API answers 503, and connections over TCP and QUIC end after
//! their next reply. Announces and scrapes are served as before, so nobody is refused. When the time is over,
//! the server stops as by [`Handle::stop`].

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Handle, RunError};

/// Whether a server drains, and what ends that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    Draining {
        /// When the server stops. `None`: when somebody stops it.
        until: Option<Instant>,
    },
}

/// The state of a server, for its handles and for the task that stops it.
#[derive(Debug)]
pub(super) struct Drain(watch::Sender<State>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(State::Serving))
    }
}

/// A server that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draining {
    /// Time until it stops. `None`: it does not stop by itself.
    pub left: Option<Duration>,
}

impl Handle {
    /// Begins to drain, or changes when that ends: after this time the server stops. With `None` it waits to
    /// be stopped. Returns at once.
    pub fn drain(&self, time: Option<Duration>) {
        let until = time.and_then(|time| Instant::now().checked_add(time));
        self.drain.0.send_replace(State::Draining { until });
        self.service.set_draining(true);
        match time {
            Some(time) => tracing::info!("draining, and stopping in {} s", time.as_secs()),
            None => tracing::info!("draining until stopped"),
        }
    }

    /// Ends draining: the server goes on. Returns whether it drained.
    pub fn end_drain(&self) -> bool {
        let before = self.drain.0.send_replace(State::Serving);
        self.service.set_draining(false);
        let drained = before != State::Serving;
        if drained {
            tracing::info!("draining has ended");
        }
        drained
    }

    /// Whether the server drains.
    pub fn draining(&self) -> Option<Draining> {
        match *self.drain.0.borrow() {
            State::Serving => None,
            State::Draining { until } => Some(Draining {
                left: until.map(|until| until.saturating_duration_since(Instant::now())),
            }),
        }
    }
}

/// Stops the server when the time to drain is over. Ends when the server stops.
pub(super) async fn stop_when_drained(
    handle: Handle,
    stopping: CancellationToken,
) -> Result<(), RunError> {
    let mut states = handle.drain.0.subscribe();
    let waiting = async {
        loop {
            let state = *states.borrow_and_update();
            // The handle has the sender, so no change means no end.
            let changed = states.changed();
            match state {
                State::Draining { until: Some(until) } => tokio::select! {
                    _ = changed => {}
                    () = sleep_until(until) => {
                        tracing::info!("drained, stopping");
                        handle.stop();
                        std::future::pending::<()>().await;
                    }
                },
                _ => {
                    let _ = changed.await;
                }
            }
        }
    };
    stopping.run_until_cancelled(waiting).await;
    Ok(())
}
