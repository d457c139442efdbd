//! Decides when a request is due.
//!
//! In a closed loop a request is due as soon as an earlier one is answered. In an open loop
//! (`--rate`) requests follow a timetable that does not depend on replies. Latency counts from the
//! time in the timetable. A server that stalls is therefore charged for the requests that it
//! delayed (no coordinated omission).

use std::time::{Duration, Instant};

/// The timetable of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// `None` in a closed loop.
    timetable: Option<Timetable>,
}

#[derive(Debug, Clone)]
struct Timetable {
    start: Instant,
    /// Seconds between two requests of all connections together.
    step: f64,
    connections: u32,
    /// Number of the next request of this connection among all requests.
    next: u64,
}

impl Pace {
    /// A timetable for connection number `connection` of `connections`, which take turns. `rate` is
    /// the number of requests per second of all connections together.
    pub(crate) fn new(
        rate: Option<f64>,
        start: Instant,
        connection: u32,
        connections: u32,
    ) -> Self {
        let timetable = rate.map(|rate| Timetable {
            start,
            step: rate.recip(),
            connections,
            next: connection.into(),
        });
        Self { timetable }
    }

    /// Takes a request if one is due. Returns the instant that its latency counts from.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let Some(timetable) = &mut self.timetable else {
            return Some(now);
        };
        let due = timetable.due();
        if due > now {
            return None;
        }
        timetable.next += u64::from(timetable.connections);
        Some(due)
    }

    /// When the next request is due. `None` in a closed loop.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timetable.as_ref().map(Timetable::due)
    }

    /// Number of requests that were due before `now` and were not taken.
    pub(crate) fn backlog(&self, now: Instant) -> u64 {
        let Some(timetable) = &self.timetable else {
            return 0;
        };
        let late = now.saturating_duration_since(timetable.due());
        match late.is_zero() {
            true => 0,
            false => {
                1 + (late.as_secs_f64() / timetable.step / f64::from(timetable.connections)) as u64
            }
        }
    }
}

impl Timetable {
    fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.next as f64 * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_is_always_due() {
        let now = Instant::now();
        let mut pace = Pace::new(None, now, 0, 4);
        assert_eq!(pace.take(now), Some(now));
        assert_eq!(pace.take(now), Some(now));
        assert_eq!((pace.next_due(), pace.backlog(now)), (None, 0));
    }

    #[test]
    fn an_open_loop_counts_from_the_timetable() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // 1000 per second over 4 connections: this one has those at 1, 5, 9 ms and so on.
        let mut pace = Pace::new(Some(1000.0), start, 1, 4);
        assert_eq!(pace.take(start), None);
        assert_eq!(pace.next_due(), Some(at(1)));
        assert_eq!(pace.take(at(1)), Some(at(1)));
        assert_eq!(pace.take(at(4)), None);
        // The server stalled until 20 ms. The requests keep the instants at which they were due.
        assert_eq!(pace.backlog(at(20)), 4);
        let taken: Vec<_> = std::iter::from_fn(|| pace.take(at(20))).collect();
        assert_eq!(taken, [at(5), at(9), at(13), at(17)]);
        assert_eq!(pace.backlog(at(20)), 0);
        assert_eq!(pace.next_due(), Some(at(21)));
    }
}
