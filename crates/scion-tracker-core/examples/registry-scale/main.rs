//! Measures how the cost of the registry grows with peers, torrents and ASes.
//!
//! ```text
//! cargo run --release -p scion-tracker-core --example registry-scale
//! ```
//!
//! Each row is measured in its own process, on one thread:
//! - refreshing announces that ask for 50 peers, in random order,
//! - resident bytes per peer,
//! - the 99.9th percentile of the time of an announce, without and with steps of the expiry sweep
//!   in between. A step visits 1024 peers, as in the server.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::registry::memory::{Ceilings, Memory, Sweep};
use scion_tracker_core::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
use scion_tracker_core::request::{Event, Family};
use scion_tracker_core::response::{Peer, PeerSink, Reach};
use scion_tracker_core::select::Policy;
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

/// Number of peers, torrents and ASes. With 0 ASes peers have no ISD-AS.
const ROWS: [(u32, u32, u32); 16] = [
    (100, 1, 0),
    (1_000, 1, 0),
    (10_000, 1, 0),
    (100_000, 1, 0),
    (1_000_000, 1, 0),
    (10_000_000, 1, 0),
    (1_000_000, 100, 0),
    (1_000_000, 10_000, 0),
    (1_000_000, 1_000_000, 0),
    (10_000_000, 1_000_000, 0),
    (1_000_000, 1, 1),
    (1_000_000, 1, 100),
    (1_000_000, 1, 10_000),
    (1_000_000, 1, 100_000),
    (1_000_000, 100_000, 100),
    (10_000_000, 1_000_000, 1_000),
];
const NUMWANT: usize = 50;
const SWEEP_STEP: usize = 1024;
/// Announces between two steps of the sweep: about as many as one core serves in the millisecond
/// that the server's sweep pauses.
const ANNOUNCES_PER_STEP: u32 = 200;
const ANNOUNCES: u32 = 200_000;
const NOW: Time = Time::from_secs(1000);

fn main() -> ExitCode {
    let row = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse::<usize>().ok());
    let done = match row.and_then(|row| ROWS.get(row)) {
        Some(row) => measure(*row).and_then(|line| writeln!(io::stdout(), "{line}")),
        None => all(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registry-scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(
        out,
        "| peers | torrents | ASes | ns per announce | announces per second | bytes per peer | 99.9 % | 99.9 % while sweeping | sweep step, 99.9 % |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in 0..ROWS.len() {
        let measured = Command::new(std::env::current_exe()?)
            .arg(row.to_string())
            .output()?;
        if !measured.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&measured.stderr).into_owned(),
            ));
        }
        out.write_all(&measured.stdout)?;
    }
    Ok(())
}

/// Copies addresses, as a codec does.
struct Reply(Vec<u8>);

impl PeerSink for Reply {
    fn push(&mut self, peer: Peer<'_>) {
        self.0.extend_from_slice(peer.addr.as_bytes());
    }
}

struct Subject {
    memory: Memory,
    policy: Policy,
    rng: Rng,
    reply: Reply,
}

impl Subject {
    fn announce(&mut self, peer: &PeerEntry, numwant: usize) -> io::Result<()> {
        self.reply.0.clear();
        let first = [Reach::Ip, Reach::Scion, Reach::Both]
            .into_iter()
            .fold(Classes::NONE, |set, reach| {
                set.with(Family::V4, reach, Scope::Global)
            });
        let selection = Selection {
            numwant,
            policy: &self.policy,
            accepts: Accepts {
                first,
                then: Classes::NONE,
            },
        };
        self.memory
            .announce(peer, &selection, NOW, &mut self.rng, &mut self.reply)
            .map(|_| ())
            .map_err(io::Error::other)
    }
}

fn measure((peers, torrents, ases): (u32, u32, u32)) -> io::Result<String> {
    let ceilings = Ceilings {
        torrents: usize::MAX,
        peers_per_torrent: usize::MAX,
        peers_per_source: u32::MAX,
        memory: usize::MAX,
        ..Ceilings::default()
    };
    let before = resident()?;
    let mut subject = Subject {
        memory: Memory::new(ceilings, [1, 2, 3, 4]),
        policy: Policy::default(),
        rng: Rng::with_seed(1),
        reply: Reply(Vec::with_capacity(NUMWANT * 18)),
    };
    for number in 0..peers {
        subject.announce(&peer(number, torrents, ases), 0)?;
    }
    let bytes = (resident()? - before) as f64 / f64::from(peers);

    let mut order = Rng::with_seed(2);
    let mut one = |subject: &mut Subject| {
        subject.announce(&peer(order.u32(..peers), torrents, ases), NUMWANT)
    };
    for _ in 0..ANNOUNCES / 4 {
        one(&mut subject)?;
    }
    let start = now();
    for _ in 0..ANNOUNCES {
        one(&mut subject)?;
    }
    let mean = start.elapsed().as_nanos() as f64 / f64::from(ANNOUNCES);

    let mut plain = Vec::with_capacity(ANNOUNCES as usize);
    let mut swept = Vec::with_capacity(ANNOUNCES as usize);
    let mut steps = Vec::new();
    let mut sweep = Sweep::default();
    for number in 0..ANNOUNCES {
        let start = now();
        one(&mut subject)?;
        plain.push(start.elapsed());
        // A reply that waits for the step, and then for its caches, and the replies after it.
        let start = now();
        if number % ANNOUNCES_PER_STEP == 0 {
            subject.memory.sweep(&mut sweep, NOW, SWEEP_STEP);
            steps.push(start.elapsed());
        }
        one(&mut subject)?;
        swept.push(start.elapsed());
    }
    Ok(format!(
        "| {peers} | {torrents} | {ases} | {mean:.0} | {:.0} | {bytes:.1} | {:?} | {:?} | {:?} |",
        1e9 / mean,
        percentile(&mut plain),
        percentile(&mut swept),
        percentile(&mut steps),
    ))
}

#[allow(clippy::disallowed_methods, reason = "a program, not the core")]
fn now() -> Instant {
    Instant::now()
}

/// The 99.9th percentile.
fn percentile(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = times.len() - 1 - times.len() / 1000;
    times.get(at).copied().unwrap_or_default()
}

fn peer(number: u32, torrents: u32, ases: u32) -> PeerEntry {
    let torrent = number % torrents;
    let mut hash = [0x5c; 20];
    // Multiplication spreads the hashes, so that they are not in order.
    hash[..4].copy_from_slice(&torrent.wrapping_mul(0x9e37_79b1).to_be_bytes());
    let asn = (number / torrents.min(number.max(1)))
        .wrapping_add(torrent)
        .checked_rem(ases)
        .map_or(0, |asn| asn + 1);
    let isd = if ases == 0 { 0 } else { asn % 10 + 1 };
    let ia = IsdAs::from_u64(u64::from(isd) << 48 | u64::from(asn));
    let mut id = *b"-XX0001-000000000000";
    id[16..].copy_from_slice(&number.to_be_bytes());
    PeerEntry {
        info_hash: InfoHash(hash),
        ia,
        addr: CompactAddr::new(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)), 6881),
        id: PeerId(id),
        key: None,
        reach: if ia.is_none() { Reach::Ip } else { Reach::Both },
        scope: Scope::Global,
        verified: true,
        seeder: number.is_multiple_of(5),
        event: Event::None,
    }
}

/// Resident bytes of this process: the second field of statm, in pages (proc(5)).
#[allow(clippy::disallowed_methods, reason = "a program, not the core")]
fn resident() -> io::Result<u64> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).map(str::parse::<u64>);
    match pages {
        Some(Ok(pages)) => Ok(PAGE * pages),
        _ => Err(io::Error::other("statm has no second field")),
    }
}
