//! Measures the memory of a peer in the registry, in bytes per peer: as resident memory of the
//! process, and as the registry counts it.
//!
//! ```text
//! cargo run --release --example registry-memory
//! ```
//!
//! Each shape is measured in its own process, which this program starts. Otherwise memory that the
//! allocator keeps from an earlier shape would make a later one look cheaper.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode};

use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::registry::memory::{Ceilings, Memory};
use scion_tracker_core::registry::{Accepts, Classes, PeerEntry, Registry, Scope, Selection};
use scion_tracker_core::request::Event;
use scion_tracker_core::response::{NoPeers, Reach};
use scion_tracker_core::select::Policy;
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

/// Name, torrents, peers per torrent, and the limit of bytes per peer in speed.md.
const SHAPES: [(&str, u32, u32, f64); 3] = [
    ("100k torrents of 10", 100_000, 10, 64.0),
    ("one torrent of 1M", 1, 1_000_000, 48.0),
    ("1M torrents of 1", 1_000_000, 1, 130.0),
];
/// Number of ASes that the peers are spread over, ten per ISD. With 0 they are on plain IP.
const SPREADS: [u32; 3] = [0, 1, 100];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    if let (Some(Ok(shape)), Some(Ok(ases))) = (args.next(), args.next()) {
        return report(measure(shape, ases));
    }
    let mut text = String::new();
    for (shape, (name, .., goal)) in SHAPES.into_iter().enumerate() {
        for ases in SPREADS {
            let measured = std::env::current_exe().and_then(|exe| {
                Command::new(exe)
                    .args([shape.to_string(), ases.to_string()])
                    .output()
            });
            match measured {
                Ok(output) => {
                    let figures = String::from_utf8_lossy(&output.stdout);
                    let _ = writeln!(
                        text,
                        "{name:20} {ases:3} ASes: {} (goal {goal})",
                        figures.trim()
                    );
                }
                Err(error) => return report(Err(error)),
            }
        }
    }
    report(Ok(text))
}

fn report(result: io::Result<String>) -> ExitCode {
    match result.and_then(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registry-memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(shape: u32, ases: u32) -> io::Result<String> {
    let (_, torrents, each, _) = SHAPES[(shape as usize).min(SHAPES.len() - 1)];
    let ceilings = Ceilings {
        peers_per_source: u32::MAX,
        ..Ceilings::default()
    };
    let before = resident()?;
    let memory = Memory::new(ceilings, [1, 2, 3, 4]);
    let policy = Policy::default();
    let selection = Selection {
        numwant: 0,
        policy: &policy,
        accepts: Accepts {
            first: Classes::NONE,
            then: Classes::NONE,
        },
    };
    let mut rng = Rng::with_seed(1);
    // Round by round, as peers arrive in production, so that swarms grow between each other.
    for round in 0..each {
        for torrent in 0..torrents {
            let peer = peer(torrent, round, round * torrents + torrent, ases);
            let entered = memory.announce(
                &peer,
                &selection,
                Time::from_secs(0),
                &mut rng,
                &mut NoPeers,
            );
            entered.map_err(io::Error::other)?;
        }
    }
    let peers = f64::from(torrents * each);
    let rss = (resident()? - before) as f64 / peers;
    let books = memory.totals().memory as f64 / peers;
    Ok(format!(
        "{rss:6.1} bytes of RSS per peer, {books:6.1} as the registry counts"
    ))
}

fn peer(torrent: u32, round: u32, number: u32, ases: u32) -> PeerEntry {
    let mut hash = [0x5c; 20];
    // Multiplication spreads the hashes, so that they are not in order.
    hash[..4].copy_from_slice(&torrent.wrapping_mul(0x9e37_79b1).to_be_bytes());
    let asn = round.checked_rem(ases).map_or(0, |asn| asn + 1);
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
        reach: if ia.is_none() {
            Reach::Ip
        } else {
            Reach::Scion
        },
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
