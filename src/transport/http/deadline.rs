//! A deadline that moves with every request without setting its timer again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadline of a connection.
///
/// Moving it further away costs nothing: the timer fires at the old time, finds that the deadline
/// has moved and sleeps on. Only moving it nearer sets the timer again.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    latest: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(crate) fn after(duration: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(duration));
        Self {
            at: sleep.deadline(),
            latest: None,
            sleep,
        }
    }

    /// Moves the deadline to `duration` from now.
    pub(crate) fn set(&mut self, duration: Duration) {
        let at = Instant::now() + duration;
        self.at = self.latest.map_or(at, |latest| at.min(latest));
        if self.at < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.at);
        }
    }

    /// Limits the deadline: from now on it does not move beyond `duration` from now.
    pub(crate) fn limit(&mut self, duration: Duration) {
        self.latest = Some(Instant::now() + duration);
        self.set(self.at.saturating_duration_since(Instant::now()));
    }

    /// Whether the deadline has passed, without waiting.
    pub(crate) fn is_over(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.deadline() < self.at || !self.sleep.is_elapsed() {
            ready!(self.sleep.as_mut().poll(cx));
            if self.sleep.deadline() < self.at {
                let at = self.at;
                self.sleep.as_mut().reset(at);
            }
        }
        Poll::Ready(())
    }

    /// Waits for the deadline.
    pub(crate) async fn passed(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn elapsed(deadline: &mut Deadline, since: Instant) -> Duration {
        deadline.passed().await;
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_moves_both_ways() {
        let start = Instant::now();
        let mut deadline = Deadline::after(Duration::from_secs(10));
        deadline.set(Duration::from_secs(30));
        assert!(elapsed(&mut deadline, start).await >= Duration::from_secs(30));
        deadline.set(Duration::from_secs(60));
        deadline.set(Duration::from_secs(5));
        assert!(elapsed(&mut deadline, start).await < Duration::from_secs(36));
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_move_beyond_the_last_moment() {
        let start = Instant::now();
        let mut deadline = Deadline::after(Duration::from_secs(30));
        deadline.limit(Duration::from_secs(5));
        deadline.set(Duration::from_secs(60));
        assert!(elapsed(&mut deadline, start).await < Duration::from_secs(6));
    }
}
