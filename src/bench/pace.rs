//! When a request is due.
//!
//! In a closed loop: as soon as one before it is answered. In an open loop (`--rate`): at its place on a
//! timetable that takes no notice of replies. Latency counts from there, so that a server that stands
//! still is charged for the requests that it kept from being sent (no coordinated omission).

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
    /// Number among all requests of the next one of this connection.
    next: u64,
}

impl Pace {
    /// For connection number `connection` of `connections`, which take turns. `rate` is in requests a
    /// second, of all together.
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

    /// If a request is due, takes it: the instant from which its latency counts.
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

    /// When the next request is due; `None` if it has only to wait for its turn.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timetable.as_ref().map(Timetable::due)
    }

    /// How many requests were due before `now` and have not been taken.
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
        // 1000 a second over 4 connections: this one has those at 1, 5, 9 ms and so on.
        let mut pace = Pace::new(Some(1000.0), start, 1, 4);
        assert_eq!(pace.take(start), None);
        assert_eq!(pace.next_due(), Some(at(1)));
        assert_eq!(pace.take(at(1)), Some(at(1)));
        assert_eq!(pace.take(at(4)), None);
        // The server stood still until 20 ms: those that were due keep their instants.
        assert_eq!(pace.backlog(at(20)), 4);
        let taken: Vec<_> = std::iter::from_fn(|| pace.take(at(20))).collect();
        assert_eq!(taken, [at(5), at(9), at(13), at(17)]);
        assert_eq!(pace.backlog(at(20)), 0);
        assert_eq!(pace.next_due(), Some(at(21)));
    }
}
