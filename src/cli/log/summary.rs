//! What the log says from time to time, and at the end, about what was served.

use std::time::Duration;

use humantime::format_duration;
use scion_tracker_core::response::Refusal;

use crate::counters::{Counter, Snapshot};
use crate::server::{Handle, Stats};

/// Numbers of requests, over all transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Served {
    announces: u64,
    scrapes: u64,
    /// Announces and scrapes.
    refused: u64,
    /// Datagrams and requests that cannot be read, or are none of a tracker.
    malformed: u64,
}

impl Served {
    fn of(counters: &Snapshot) -> Self {
        let sum = |all: &[Counter]| -> u64 { all.iter().map(|it| counters.get(*it)).sum() };
        let refused = Refusal::ALL.iter().map(|it| counters.refused(*it)).sum();
        // Answers with an error: refusals, and requests that cannot be read.
        let failed = sum(&[
            Counter::UdpErrors,
            Counter::HttpFailures,
            Counter::Http3Failures,
        ]);
        let dropped = sum(&[
            Counter::UdpMalformed,
            Counter::UdpBadConnectionId,
            Counter::HttpRejected,
            Counter::Http3Rejected,
        ]);
        Self {
            announces: sum(&[
                Counter::UdpAnnounces,
                Counter::HttpAnnounces,
                Counter::Http3Announces,
            ]),
            scrapes: sum(&[
                Counter::UdpScrapes,
                Counter::HttpScrapes,
                Counter::Http3Scrapes,
            ]),
            refused,
            // A counter may be ahead of another one for a moment.
            malformed: dropped + failed.saturating_sub(refused),
        }
    }

    const fn since(self, before: Self) -> Self {
        Self {
            announces: self.announces - before.announces,
            scrapes: self.scrapes - before.scrapes,
            refused: self.refused - before.refused,
            malformed: self.malformed.saturating_sub(before.malformed),
        }
    }
}

/// Remembers what the last line said.
#[derive(Debug, Default)]
struct Summary(Served);

impl Summary {
    /// Logs what was served since the last call, if there was anything.
    fn log(&mut self, handle: &Handle) {
        let stats = handle.stats();
        if let Some(served) = self.next(&stats.counters) {
            log(served, &stats, "served since the last line");
        }
    }

    fn next(&mut self, counters: &Snapshot) -> Option<Served> {
        let now = Served::of(counters);
        let served = now.since(self.0);
        self.0 = now;
        (served != Served::default()).then_some(served)
    }
}

/// Logs from time to time what was served since the last time. Never ends.
pub(in crate::cli) async fn log_every(interval: Duration, handle: Handle) {
    let mut summary = Summary::default();
    loop {
        tokio::time::sleep(interval).await;
        summary.log(&handle);
    }
}

/// Logs at the end what was served since the start.
pub(in crate::cli) fn log_all(handle: &Handle, ran: Duration) {
    let stats = handle.stats();
    let ran = format_duration(Duration::from_secs(ran.as_secs()));
    log(
        Served::of(&stats.counters),
        &stats,
        &format!("stopped after {ran}: this was served"),
    );
}

fn log(served: Served, stats: &Stats, what: &str) {
    let Served {
        announces,
        scrapes,
        refused,
        malformed,
    } = served;
    let torrents = stats.registry.torrents;
    let peers = stats.registry.seeders + stats.registry.leechers;
    tracing::info!(
        announces, scrapes, refused, malformed, torrents, peers, "{what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Network;
    use crate::samples::Transport;

    #[test]
    fn a_summary_counts_since_the_last_one_and_is_silent_about_nothing() {
        let mut summary = Summary::default();
        let mut counters = Snapshot::default();
        assert_eq!(summary.next(&counters), None);
        counters.add(Counter::UdpAnnounces, 3);
        counters.add(Counter::Http3Announces, 4);
        counters.refuse(Refusal::RateLimit, Transport::Udp, Network::V4);
        counters.add(Counter::UdpErrors, 1);
        counters.add(Counter::HttpFailures, 2);
        let expected = Served {
            announces: 7,
            refused: 1,
            malformed: 2,
            ..Served::default()
        };
        assert_eq!(summary.next(&counters), Some(expected));
        assert_eq!(summary.next(&counters), None);
        counters.add(Counter::HttpScrapes, 1);
        let scrapes = summary.next(&counters).map(|served| served.scrapes);
        assert_eq!(scrapes, Some(1));
    }
}
