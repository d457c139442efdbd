//! Remembers the last hour of a running server: rates for charts, and what happened. Looks at the server every
//! few seconds, so that no part of it has to report anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::page;
use crate::config::{Changes, Config};
use crate::counters::{Counter, Network, Snapshot};
use crate::server::vitals::Vitals;
use crate::server::{Handle, RunError};

/// How often the server is looked at.
const TICK: Duration = Duration::from_secs(5);
/// Rates of this moment are means over this time.
const RECENT: usize = 7;
/// What charts show.
const SPAN: Duration = Duration::from_secs(3600);
/// Most moments in the chart. When there are as many, every second one is dropped.
const MOMENTS: usize = 120;
/// Longest time between two moments, in ticks. [`MOMENTS`] of them are more than the [`SPAN`].
const LONGEST_STEP: u32 = 8;
/// Events that are kept.
const EVENTS: usize = 20;

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    /// Time since the start of the server: the clock of the system can be set.
    pub(super) at: Duration,
    /// Announces since the start over UDP, HTTP and HTTP/3.
    pub(super) announces: [u64; 3],
    pub(super) scrapes: u64,
    pub(super) seeders: u64,
    pub(super) leechers: u64,
    /// Datagrams that the kernel dropped since the start.
    pub(super) kernel_drops: u64,
}

impl Moment {
    fn of(vitals: &Vitals) -> Self {
        let count = |counter| vitals.counters.get(counter);
        use Counter::{
            Http3Announces, Http3Scrapes, HttpAnnounces, HttpScrapes, UdpAnnounces, UdpScrapes,
        };
        Self {
            at: vitals.uptime,
            announces: [UdpAnnounces, HttpAnnounces, Http3Announces].map(count),
            scrapes: [UdpScrapes, HttpScrapes, Http3Scrapes]
                .map(count)
                .iter()
                .sum(),
            seeders: vitals.registry.seeders,
            leechers: vitals.registry.leechers,
            kernel_drops: count(Counter::UdpKernelDrops),
        }
    }

    /// Seconds since an earlier moment, never 0.
    pub(super) fn since(&self, earlier: &Self) -> f64 {
        let time = self.at.saturating_sub(earlier.at);
        time.as_secs_f64().max(0.001)
    }

    /// Announces per second since an earlier moment.
    pub(super) fn announce_rates(&self, earlier: &Self) -> [f64; 3] {
        let seconds = self.since(earlier);
        std::array::from_fn(|at| {
            self.announces[at].saturating_sub(earlier.announces[at]) as f64 / seconds
        })
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Time since the start of the server.
    pub(super) at: Duration,
    pub(super) is_problem: bool,
    pub(super) text: String,
}

#[derive(Debug, Default)]
struct Inner {
    /// A moment per step, the oldest first.
    moments: VecDeque<Moment>,
    /// Ticks per step, and ticks of the present step.
    step: u32,
    ticks: u32,
    /// A moment per tick.
    recent: VecDeque<Moment>,
    events: VecDeque<Event>,
    last: Option<(Vitals, Arc<Config>)>,
}

/// What is remembered. One per server.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Inner>);

impl History {
    /// Notes the state of the server.
    fn note(&self, vitals: Vitals, config: Arc<Config>) {
        let mut inner = self.0.lock();
        let moment = Moment::of(&vitals);
        inner.keep(moment);
        let happened = match &inner.last {
            Some((before, was)) => happened((before, was), (&vitals, &config)),
            None => vec![Event {
                at: Duration::ZERO,
                is_problem: false,
                text: format!("started, version {}", env!("CARGO_PKG_VERSION")),
            }],
        };
        for event in happened {
            inner.remember(event);
        }
        inner.last = Some((vitals, config));
    }

    /// The moments of the last hour, the oldest first.
    pub(super) fn moments(&self) -> Vec<Moment> {
        self.0.lock().moments.iter().copied().collect()
    }

    /// Announces and scrapes per second now. `None` in the first seconds.
    pub(super) fn rates(&self) -> Option<(f64, f64)> {
        let inner = self.0.lock();
        let (first, last) = (inner.recent.front()?, inner.recent.back()?);
        if inner.recent.len() < 2 {
            return None;
        }
        let scrapes = last.scrapes.saturating_sub(first.scrapes) as f64 / last.since(first);
        Some((last.announce_rates(first).iter().sum(), scrapes))
    }

    /// What happened, the latest first.
    pub(super) fn events(&self) -> Vec<Event> {
        self.0.lock().events.iter().cloned().collect()
    }
}

impl Inner {
    fn keep(&mut self, moment: Moment) {
        self.recent.push_back(moment);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.step = self.step.max(1);
        self.ticks += 1;
        if self.ticks < self.step && !self.moments.is_empty() {
            return;
        }
        self.ticks = 0;
        self.moments.push_back(moment);
        let is_old = |it: &Moment| moment.at.saturating_sub(it.at) > SPAN;
        while self.moments.front().is_some_and(is_old) {
            self.moments.pop_front();
        }
        if self.moments.len() > MOMENTS && self.step < LONGEST_STEP {
            self.step *= 2;
            let mut keep = false;
            self.moments.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Keeps an event.
    fn remember(&mut self, event: Event) {
        self.events.push_front(event);
        self.events.truncate(EVENTS);
    }
}

/// What happened between two looks.
fn happened(
    (before, was): (&Vitals, &Arc<Config>),
    (now, is): (&Vitals, &Arc<Config>),
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |is_problem, text: String| {
        events.push(Event {
            at: now.uptime,
            is_problem,
            text,
        });
    };
    // A comparison of long lists takes its time.
    let changed = match Arc::ptr_eq(was, is) {
        true => Vec::new(),
        false => Changes::between(was, is).reloaded,
    };
    if !changed.is_empty() {
        add(
            false,
            format!("configuration reloaded: {}", changed.join(", ")),
        );
    }
    if before.certificate_expires != now.certificate_expires {
        add(false, "a new certificate is in use".into());
    }
    match (before.records.outage, now.records.outage) {
        (None, Some(_)) => add(true, "the store of the records cannot be used".into()),
        (Some(_), None) => add(false, "the store of the records can be used again".into()),
        _ => {}
    }
    if now.snapshots.failures > before.snapshots.failures {
        add(true, "a snapshot of the swarms could not be written".into());
    }
    match (before.is_draining, now.is_draining) {
        (false, true) => add(true, "draining: clients are sent away".into()),
        (true, false) => add(false, "draining ended: clients are served again".into()),
        _ => {}
    }
    let new = |counter| newly(&before.counters, &now.counters, counter);
    for (counter, text) in [
        (
            Counter::UdpKernelDrops,
            "datagrams dropped by the kernel: a receive buffer was full",
        ),
        (
            Counter::ConnectionsEvicted,
            "connections closed to make room in the memory for connections",
        ),
        (
            Counter::TcpRefused,
            "TCP connections refused because of a limit",
        ),
        (
            Counter::QuicRefused,
            "QUIC connections refused because of a limit",
        ),
    ] {
        match new(counter) {
            0 => {}
            count => add(true, format!("{} {text}", page::count(count))),
        }
    }
    if now.is_stopping && !before.is_stopping {
        add(false, "stopping".into());
    }
    events
}

fn newly(before: &Snapshot, now: &Snapshot, counter: Counter) -> u64 {
    now.get(counter).saturating_sub(before.get(counter))
}

/// Announces over a network that were served, or a part of them.
pub(super) fn by_network(counters: &Snapshot, counter: Counter) -> [u64; 3] {
    [Network::V4, Network::V6, Network::Scion]
        .map(|network| counters.of_network(counter, network).unwrap_or_default())
}

/// Looks at the server until it is stopped, as long as somebody can see what it finds. Also renders the page for
/// everybody, if there is one.
pub(crate) async fn watch(
    handle: Handle,
    has_admin: bool,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let endless = async {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let config = handle.config();
            let is_public = config.page.public;
            if handle.is_watched(has_admin) {
                handle.admin.history.note(handle.vitals(), config);
            }
            handle.set_public_page(is_public.then(|| page::public(&handle)).flatten());
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: u64) -> Moment {
        Moment {
            at: Duration::from_secs(seconds),
            announces: [seconds * 2, seconds, 0],
            scrapes: seconds,
            seeders: 1,
            leechers: 2,
            kernel_drops: 0,
        }
    }

    #[test]
    fn an_hour_is_kept_in_steps() {
        let mut inner = Inner::default();
        for tick in 0..4000 {
            inner.keep(moment(tick * 5));
            assert!(inner.moments.len() <= MOMENTS + 1, "{tick}");
            let moments: Vec<_> = inner.moments.iter().collect();
            let last = moments.last().unwrap();
            let age = (tick * 5) as f64 - last.since(&moment(0));
            assert!(age <= 40.0, "{tick}: {age}");
            for pair in moments.windows(2) {
                let rates = pair[1].announce_rates(pair[0]);
                assert_eq!(rates.map(f64::round), [2.0, 1.0, 0.0]);
            }
        }
        let first = inner.moments.front().unwrap();
        let span = inner.moments.back().unwrap().since(first);
        assert!((3560.0..=3600.0).contains(&span), "{span}");
        assert_eq!(inner.recent.len(), RECENT);
    }

    #[test]
    fn the_clock_of_the_system_may_be_set() {
        let server = crate::server::Server::bind(Config::of_a_test()).unwrap();
        let mut vitals = server.handle().vitals();
        let history = History::default();
        let day = Duration::from_secs(24 * 3600);
        for (tick, now) in [vitals.now, vitals.now - day, vitals.now + day]
            .into_iter()
            .enumerate()
        {
            vitals.now = now;
            vitals.uptime = TICK * tick as u32;
            vitals.counters.add(Counter::UdpAnnounces, 10);
            history.note(vitals.clone(), Arc::new(Config::default()));
        }
        let moments = history.moments();
        let rates = moments
            .windows(2)
            .map(|pair| pair[1].announce_rates(&pair[0])[0]);
        assert_eq!(rates.collect::<Vec<_>>(), [2.0, 2.0]);
        assert_eq!(history.rates(), Some((2.0, 0.0)));
        assert_eq!(moments.last().unwrap().at, TICK * 2);
    }

    #[test]
    fn events_are_found_by_comparison() {
        let server = crate::server::Server::bind(Config::of_a_test()).unwrap();
        let handle = server.handle();
        let history = History::default();
        let (vitals, config) = (handle.vitals(), Arc::new(Config::default()));
        history.note(vitals.clone(), Arc::clone(&config));
        history.note(vitals.clone(), Arc::clone(&config));
        let mut later = vitals;
        later.records.outage = Some(Duration::ZERO);
        later.snapshots.failures = 1;
        later.is_draining = true;
        later.is_stopping = true;
        let mut changed = Config::default();
        changed.announce.interval = Duration::from_secs(77);
        history.note(later, Arc::new(changed));
        let texts: Vec<_> = history.events().into_iter().map(|it| it.text).collect();
        let started = format!("started, version {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            texts,
            [
                "stopping",
                "draining: clients are sent away",
                "a snapshot of the swarms could not be written",
                "the store of the records cannot be used",
                "configuration reloaded: announce.interval",
                &started,
            ]
        );
    }
}
