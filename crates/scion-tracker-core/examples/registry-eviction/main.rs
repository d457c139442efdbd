//! Measures the announces of new peers when the registry is full.
//!
//! ```text
//! cargo run --release -p scion-tracker-core --example registry-eviction
//! ```
//!
//! The registry holds four million torrents, or the number in the argument, and one thread
//! announces. Each row has another number of idle swarms. The last row is for comparison: peers
//! that refresh, which never evict.
//!
//! The time that the thread waits for a core is not counted (run_delay in
//! /proc/thread-self/schedstat, see sched-stats in the documentation of Linux), so that other
//! programs hardly disturb the figures.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::registry::memory::{Ceilings, Memory};
use scion_tracker_core::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
use scion_tracker_core::request::Event;
use scion_tracker_core::response::{NoPeers, Reach};
use scion_tracker_core::select::Policy;
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

const TORRENTS: u32 = 4_000_000;
const ANNOUNCES: u32 = 1_000_000;
const START: Time = Time::from_secs(100);

fn main() -> ExitCode {
    let torrents = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    match measure(torrents.unwrap_or(TORRENTS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registry-eviction: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a program, not the core")]
fn measure(torrents: u32) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(
        out,
        "| {torrents} torrents, of which idle | announces | served | median | 99.9 % | worst | above 1 ms |\n|---|---|---|---|---|---|---|"
    )?;
    let ceilings = Ceilings {
        torrents: torrents as usize,
        ..Ceilings::default()
    };
    let mut subject = Subject {
        memory: Memory::new(ceilings, [1, 2, 3, 4]),
        rng: Rng::with_seed(1),
    };
    for number in 0..torrents {
        subject.announce(number, START).map_err(io::Error::other)?;
    }
    let late = Time::from_secs(START.as_secs() + ceilings.evict_after + 8);
    // Each row has its own new peers.
    let mut newcomer = torrents;
    let waits = Waits(std::fs::File::open("/proc/thread-self/schedstat")?);
    let row = |subject: &mut Subject, now: Time, first: &mut u32| {
        let times = (0..ANNOUNCES).map(|_| {
            *first += 1;
            let waited = waits.total();
            let start = clock();
            let served = subject.announce(*first, now).is_ok();
            let elapsed = start.elapsed();
            (elapsed.saturating_sub(waits.total() - waited), served)
        });
        Row::of(times)
    };
    writeln!(
        out,
        "| none | {} |",
        row(&mut subject, START, &mut newcomer)
    )?;
    for number in (0..torrents).filter(|number| number % 1000 != 0) {
        subject.announce(number, late).map_err(io::Error::other)?;
    }
    writeln!(
        out,
        "| one in 1000 | {} |",
        row(&mut subject, late, &mut newcomer)
    )?;
    let later = Time::from_secs(late.as_secs() + ceilings.evict_after + 8);
    writeln!(out, "| all | {} |", row(&mut subject, later, &mut newcomer))?;
    let mut known = newcomer - ANNOUNCES;
    writeln!(
        out,
        "| refreshing peers | {} |",
        row(&mut subject, later, &mut known)
    )?;
    Ok(())
}

/// The time that this thread has waited for a core.
struct Waits(std::fs::File);

impl Waits {
    fn total(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.0.read_at(&mut text, 0).unwrap_or_default();
        let text = str::from_utf8(&text[..read]).unwrap_or_default();
        // The file has: nanoseconds on a core, nanoseconds waiting for one, time slices.
        let waited = text
            .split_whitespace()
            .nth(1)
            .and_then(|it| it.parse().ok());
        Duration::from_nanos(waited.unwrap_or_default())
    }
}

struct Row {
    served: usize,
    times: Vec<Duration>,
}

impl Row {
    fn of(announces: impl Iterator<Item = (Duration, bool)>) -> Self {
        let (mut times, served): (Vec<_>, Vec<_>) = announces.unzip();
        times.sort_unstable();
        Self {
            served: served.into_iter().filter(|served| *served).count(),
            times,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { served, times } = self;
        let at = |per_mille: usize| times.get(times.len() * per_mille / 1000).copied();
        let slow = times.iter().filter(|time| time.as_millis() >= 1).count();
        write!(
            f,
            "{} | {served} | {:?} | {:?} | {:?} | {slow}",
            times.len(),
            at(500).unwrap_or_default(),
            at(999).unwrap_or_default(),
            times.last().copied().unwrap_or_default(),
        )
    }
}

struct Subject {
    memory: Memory,
    rng: Rng,
}

impl Subject {
    /// Announces the only peer of torrent number `number`.
    fn announce(
        &mut self,
        number: u32,
        now: Time,
    ) -> Result<(), scion_tracker_core::response::Refusal> {
        let mut hash = [0x5c; 20];
        // Multiplication spreads the hashes, so that they are not in order.
        hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        let peer = PeerEntry {
            info_hash: InfoHash(hash),
            ia: IsdAs::NONE,
            addr: CompactAddr::new(IpAddr::from(number.to_be_bytes()), 6881),
            id: PeerId([7; 20]),
            key: None,
            reach: Reach::Ip,
            scope: Scope::Global,
            verified: false,
            seeder: false,
            event: Event::None,
        };
        let selection = Selection {
            numwant: 0,
            policy: &Policy::default(),
            accepts: Accepts {
                first: Classes::NONE,
                then: Classes::NONE,
            },
        };
        self.memory
            .announce(&peer, &selection, now, &mut self.rng, &mut NoPeers)
            .map(|_| ())
    }
}

#[allow(clippy::disallowed_methods, reason = "a program, not the core")]
fn clock() -> Instant {
    Instant::now()
}
