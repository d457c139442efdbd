//! Per-connection timers, backed by one tokio timer for the earliest deadline.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn_proto::ConnectionHandle;
use tokio::time::Sleep;

/// Stores the deadlines of all connections.
#[derive(Debug)]
pub(super) struct Timers {
    /// The queued times, at most one per connection. A time may be too early, but never too late.
    set: BTreeSet<(Instant, usize)>,
    /// By connection handle.
    armed: Vec<Option<Instant>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            set: BTreeSet::new(),
            armed: Vec::new(),
            sleep: None,
        }
    }

    /// Sets the deadline of a connection. A later deadline, as every datagram causes, is not
    /// queued: it is found when the earlier time has passed.
    pub(super) fn set(&mut self, handle: ConnectionHandle, at: Option<Instant>) {
        if self.armed.len() <= handle.0 {
            self.armed.resize(handle.0 + 1, None);
        }
        let armed = &mut self.armed[handle.0];
        match (*armed, at) {
            (Some(armed), Some(at)) if armed <= at => return,
            (Some(armed), _) => {
                self.set.remove(&(armed, handle.0));
            }
            (None, _) => {}
        }
        *armed = at;
        if let Some(at) = at {
            self.set.insert((at, handle.0));
        }
    }

    /// Ready when a deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(&(at, _)) = self.set.first() else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        loop {
            if at < sleep.deadline().into_std() || sleep.is_elapsed() {
                if at <= Instant::now() {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(at.into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Removes a connection that has passed its deadline.
    pub(super) fn expired(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let &(at, handle) = self.set.first()?;
        if at > now {
            return None;
        }
        self.set.pop_first();
        self.armed[handle] = None;
        Some(ConnectionHandle(handle))
    }
}
