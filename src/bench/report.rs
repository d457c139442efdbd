//! Counts replies and failures during a run, and makes the report.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::mix::Kind;
use super::process::Usage;

/// Longest latency that is distinguished, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// Kinds of failures that are distinguished. If a server causes more, the rest is counted as one.
const FAILURES: usize = 64;

/// Why a request has no valid reply. Failures with the same text are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure(pub(crate) Cow<'static, str>);

impl Failure {
    pub(crate) const TIMEOUT: Self = Self(Cow::Borrowed("no reply in time"));
    pub(crate) const MALFORMED: Self = Self(Cow::Borrowed("malformed reply"));
    pub(crate) const UNEXPECTED: Self = Self(Cow::Borrowed("reply to another request"));
    pub(crate) const STRAY: Self = Self(Cow::Borrowed("reply without a request"));
    pub(crate) const TOO_MANY: Self = Self(Cow::Borrowed("more peers than wanted"));
    pub(crate) const CLOSED: Self = Self(Cow::Borrowed("connection closed"));

    /// The failure reason of the tracker.
    pub(crate) fn refused(reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(100)]);
        Self(format!("refused: {}", reason.escape_debug()).into())
    }

    /// A status other than 200.
    pub(crate) fn status(status: u16) -> Self {
        Self(format!("status {status}").into())
    }

    /// An error of the system or a library, with its causes.
    pub(crate) fn error(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        Self(text.into())
    }
}

/// Counts of one thread in the measured time.
#[derive(Debug)]
pub(crate) struct Tally {
    replies: [u64; Kind::ALL.len()],
    peers: u64,
    nanoseconds: Histogram<u64>,
    failures: BTreeMap<Failure, u64>,
    unsent: u64,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            replies: [0; Kind::ALL.len()],
            peers: 0,
            nanoseconds: Histogram::new_with_bounds(1, LONGEST, 3)?,
            failures: BTreeMap::new(),
            unsent: 0,
        })
    }

    /// Counts a valid reply and its peers.
    pub(crate) fn reply(&mut self, kind: Kind, latency: Duration, peers: u32) {
        self.replies[kind as usize] += 1;
        // Some trackers also return peers to peers that leave.
        if matches!(kind, Kind::Announce | Kind::Completed) {
            self.peers += u64::from(peers);
        }
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
        self.nanoseconds.saturating_record(nanoseconds);
    }

    pub(crate) fn failure(&mut self, failure: Failure) {
        let failure = match self.failures.len() < FAILURES || self.failures.contains_key(&failure) {
            true => failure,
            false => Failure("others".into()),
        };
        *self.failures.entry(failure).or_default() += 1;
    }

    /// Counts requests that were due before the end and were not sent.
    pub(crate) const fn unsent(&mut self, count: u64) {
        self.unsent += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.replies.iter_mut().zip(other.replies) {
            *sum += count;
        }
        self.peers += other.peers;
        self.unsent += other.unsent;
        // The histograms have the same bounds, so this cannot fail.
        let _ = self.nanoseconds.add(&other.nanoseconds);
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
    }

    pub(crate) fn replies(&self) -> u64 {
        self.replies.iter().sum()
    }

    /// Makes the report.
    pub(crate) fn report(&self, setup: Setup, measured: &Measured) -> Report {
        let Measured {
            unfilled,
            seconds,
            server,
            own,
        } = *measured;
        let replies = self.replies();
        let of = |kind: Kind| self.replies[kind as usize];
        let with_peers = of(Kind::Announce) + of(Kind::Completed);
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let at = |quantile| micros(self.nanoseconds.value_at_quantile(quantile));
        Report {
            setup,
            seconds,
            replies,
            replies_per_second: replies as f64 / seconds,
            by_kind: Kind::ALL
                .into_iter()
                .filter(|kind| of(*kind) > 0)
                .map(|kind| (kind.label(), of(kind)))
                .collect(),
            peers_per_announce: (with_peers > 0).then(|| self.peers as f64 / with_peers as f64),
            latency_us: (replies > 0).then(|| Latency {
                mean: self.nanoseconds.mean() / 1000.0,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: micros(self.nanoseconds.max()),
            }),
            failures: self
                .failures
                .iter()
                .map(|(failure, count)| (failure.0.clone().into_owned(), *count))
                .collect(),
            unsent: self.unsent,
            unfilled,
            server: server.map(|usage| Server {
                cpu_seconds: usage.cpu(),
                user_seconds: usage.user,
                system_seconds: usage.system,
                cpu_seconds_per_million: (replies > 0).then(|| usage.cpu() * 1e6 / replies as f64),
                voluntary_switches: usage.voluntary_switches,
                involuntary_switches: usage.involuntary_switches,
            }),
            generator: Generator {
                cpu_seconds: own.cpu(),
                cpu_seconds_per_million: (replies > 0).then(|| own.cpu() * 1e6 / replies as f64),
                busy: own.cpu() / seconds,
            },
        }
    }
}

/// What was measured outside of the connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Peers that had not made their requested first announce before the measured time.
    pub(crate) unfilled: u32,
    /// The measured time in seconds.
    pub(crate) seconds: f64,
    pub(crate) server: Option<Usage>,
    pub(crate) own: Usage,
}

/// Parameters of the run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    pub(crate) target: String,
    pub(crate) transport: &'static str,
    /// Requests per second. `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) connections: u32,
    pub(crate) sources: u32,
    pub(crate) in_flight: u16,
    pub(crate) new_connections: bool,
    pub(crate) threads: u32,
    pub(crate) torrents: u32,
    pub(crate) zipf: f64,
    pub(crate) peers: u32,
    pub(crate) seeds_percent: u8,
    pub(crate) numwant: Option<u32>,
    pub(crate) ases: u32,
    pub(crate) mix: String,
    pub(crate) seed: u64,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    pub(crate) seconds: f64,
    pub(crate) replies: u64,
    pub(crate) replies_per_second: f64,
    pub(crate) by_kind: BTreeMap<&'static str, u64>,
    pub(crate) peers_per_announce: Option<f64>,
    pub(crate) latency_us: Option<Latency>,
    pub(crate) failures: BTreeMap<String, u64>,
    /// In an open loop: requests that were due but not sent, because too many were in flight.
    pub(crate) unsent: u64,
    /// Peers that had not made their requested first announce before the measured time.
    pub(crate) unfilled: u32,
    pub(crate) server: Option<Server>,
    pub(crate) generator: Generator,
}

/// Latency in microseconds, from the time a request was due until its reply.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Usage of the server's process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Server {
    pub(crate) cpu_seconds: f64,
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    pub(crate) cpu_seconds_per_million: Option<f64>,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
}

/// Usage of the load generator.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Generator {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_seconds_per_million: Option<f64>,
    /// Number of busy cores.
    pub(crate) busy: f64,
}

impl Report {
    pub(crate) fn to_text(&self) -> String {
        let setup = &self.setup;
        let mut text = format!(
            "{}: {}, {} connection{}{}, {} in flight each, {}\n\
             {} torrents (Zipf {}), {} peers in {} ASes, {}\n\n",
            setup.target,
            setup.transport,
            setup.connections,
            if setup.connections == 1 { "" } else { "s" },
            if setup.new_connections {
                ", a new one for each request"
            } else {
                ""
            },
            setup.in_flight,
            match setup.rate {
                Some(rate) => format!("{rate} requests per second"),
                None => "closed loop".to_owned(),
            },
            setup.torrents,
            setup.zipf,
            setup.peers,
            setup.ases,
            setup.mix,
        );
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14} {value}");
        };
        let per_second = self.replies_per_second;
        let (replies, seconds) = (self.replies, self.seconds);
        line(
            "replies",
            format!("{replies} in {seconds:.2} s, {per_second:.0} per second"),
        );
        for (kind, count) in &self.by_kind {
            line(&format!("  {kind}"), count.to_string());
        }
        if let Some(peers) = self.peers_per_announce {
            line("peers", format!("{peers:.1} per announce"));
        }
        if let Some(latency) = self.latency_us {
            let Latency {
                mean,
                p50,
                p90,
                p99,
                p999,
                max,
            } = latency;
            line(
                "latency",
                format!(
                    "mean {mean:.0}, p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0} us"
                ),
            );
        }
        for (failure, count) in &self.failures {
            line("failed", format!("{count} {failure}"));
        }
        if self.unsent > 0 {
            line("not sent", format!("{} that were due", self.unsent));
        }
        if self.unfilled > 0 {
            line(
                "not filled",
                format!("{} peers had not announced themselves", self.unfilled),
            );
        }
        if let Some(server) = &self.server {
            let per_million = server.cpu_seconds_per_million.unwrap_or_default();
            line(
                "server",
                format!(
                    "{:.2} CPU s ({:.2} user, {:.2} system), {per_million:.2} CPU s per million replies",
                    server.cpu_seconds, server.user_seconds, server.system_seconds
                ),
            );
            line(
                "  switches",
                format!(
                    "{} voluntary, {} involuntary",
                    server.voluntary_switches, server.involuntary_switches
                ),
            );
        }
        let Generator {
            cpu_seconds,
            busy,
            cpu_seconds_per_million,
        } = self.generator;
        let per_million = cpu_seconds_per_million.unwrap_or_default();
        line(
            "generator",
            format!(
                "{cpu_seconds:.2} CPU s, {busy:.2} cores busy, {per_million:.2} CPU s per million replies"
            ),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new().unwrap()
    }

    #[test]
    fn tallies_of_threads_add_up() {
        let (mut one, mut two) = (tally(), tally());
        one.reply(Kind::Announce, Duration::from_micros(100), 30);
        two.reply(Kind::Announce, Duration::from_micros(300), 10);
        two.reply(Kind::Scrape, Duration::from_secs(3600), 0);
        two.reply(Kind::Stopped, Duration::from_micros(1), 30);
        two.failure(Failure::TIMEOUT);
        one.add(&two);
        assert_eq!(one.replies(), 4);
        assert_eq!((one.peers, one.nanoseconds.len()), (40, 4));
        assert!(
            one.nanoseconds.max() >= LONGEST / 2,
            "counted, however late"
        );
        assert_eq!(one.failures[&Failure::TIMEOUT], 1);
    }

    #[test]
    fn a_server_cannot_make_up_failures_without_end() {
        let mut tally = tally();
        for n in 0..1000_u32 {
            tally.failure(Failure::refused(n.to_string().as_bytes()));
        }
        assert_eq!(tally.failures.len(), FAILURES + 1);
        assert_eq!(tally.failures.values().sum::<u64>(), 1000);
    }
}
