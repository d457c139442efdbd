//! A load generator for every transport: `scion-tracker bench`.
//!
//! [`run`] assigns a population of peers ([`load`]) to connections, and the connections to threads.
//! It sends each request when it is due ([`pace`]) and checks every reply. It counts the replies in
//! the measured time ([`report`]), and the CPU time of the server's process.
//!
//! It uses the codecs and sockets of the client, and no code of the server.

mod http;
mod http3;
pub(crate) mod load;
pub(crate) mod mix;
mod pace;
mod process;
mod reply;
pub(crate) mod report;
pub(crate) mod target;
mod tasks;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scion_tracker_core::address::Host;
use scion_tracker_core::codec::scion::{BuildError, PacketError};
use scion_tracker_core::request::{AnnounceRequest, Claim, ScionClaim};
use tokio_util::sync::CancellationToken;

use crate::client::{Scheme, TrackerUrl, Trust, TrustError};
use load::{Ask, Load, LoadError, Requests};
use pace::Pace;
use process::Usage;
use report::{Measured, Report, Setup, Tally};
use target::{Over, Source};

/// How often the progress is checked.
const TICK: Duration = Duration::from_millis(20);
/// Timeout of the first announces of all peers.
const FILLING: Duration = Duration::from_secs(600);
/// Timeout of the next first announce of any peer.
const STALLED: Duration = Duration::from_secs(10);
/// Default number of source addresses.
const SOURCES: u32 = 8;

/// Options of a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) url: TrackerUrl,
    pub(crate) load: load::Options,
    pub(crate) connections: u32,
    /// Source addresses. `None` for as many as the target and the ASes need.
    pub(crate) sources: Option<u32>,
    /// Requests in flight per connection.
    pub(crate) in_flight: u16,
    pub(crate) new_connections: bool,
    pub(crate) numwant: Option<u32>,
    /// Requests per second of an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Ends early after this many measured replies.
    pub(crate) requests: Option<u64>,
    pub(crate) threads: u32,
    pub(crate) timeout: Duration,
    pub(crate) trust: Trust,
    pub(crate) server_pid: Option<u32>,
    /// Over SCION, the host that all connections come from.
    pub(crate) scion_local: Option<Host>,
    /// Whether load may leave this machine.
    pub(crate) beyond_loopback: bool,
}

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("http:// over SCION cannot be measured: use https:// (HTTP/3) or udp://")]
    HttpOverScion,
    #[error("cannot find the address of the tracker")]
    Resolve(#[source] io::Error),
    #[error(
        "{0} is not this machine: put load only on trackers of your own, and confirm with --i-own-this-target"
    )]
    NotLoopback(SocketAddr),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "{sources} source addresses are fewer than {ases} ASes, or more than {connections} connections"
    )]
    Sources {
        sources: u32,
        ases: u32,
        connections: u32,
    },
    #[error("UDP has no connections, so there cannot be a new one for each request")]
    NoConnections,
    #[error("cannot read the CPU time of process {pid}")]
    Usage { pid: u32, source: io::Error },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the host of the URL cannot be the name in a certificate")]
    Name,
    #[error("cannot use TLS over QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    #[error("cannot open a socket")]
    Socket(#[source] io::Error),
    #[error("cannot use a SCION path")]
    Call(#[from] crate::scion::socket::PathError),
    #[error("cannot make a SCION packet")]
    Packet(#[from] BuildError),
    #[error("cannot make a SCION path")]
    Path(#[from] PacketError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot count latencies")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("a thread of the generator panicked")]
    Thread,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Progress {
    /// Peers that have announced themselves, and their total.
    Filling(u32, u32),
    WarmingUp,
    /// The elapsed part of the measured time, from 0 to 1, and the replies so far.
    Measuring(f64, u64),
}

/// What all threads read.
#[derive(Debug)]
struct Plan {
    options: Options,
    to: SocketAddr,
    load: Arc<Load>,
    start: Instant,
}

/// What all threads write.
#[derive(Debug, Default)]
struct Shared {
    measuring: AtomicBool,
    /// Replies in the measured time.
    replies: AtomicU64,
    /// Peers that have made their first announce, if that was requested.
    filled: AtomicU32,
    stop: CancellationToken,
}

impl Plan {
    fn pace(&self, connection: u32) -> Pace {
        let Options {
            rate, connections, ..
        } = self.options;
        Pace::new(rate, self.start, connection, connections)
    }

    /// Returns the address of a source.
    fn source(&self, number: u32) -> io::Result<Source> {
        let mut ip = target::source_ip(self.to, number);
        let Some(tracker) = self.options.url.scion() else {
            return Ok(Source { ip, scion: None });
        };
        if ip.is_unspecified() {
            ip = target::local_ip(self.to)?;
        }
        let places = self.load.places();
        let ia = match places.is_empty() {
            true => tracker.host.ia,
            false => places[number as usize % places.len()],
        };
        let scion = self
            .options
            .scion_local
            .unwrap_or_else(|| Host::new(ia, ip));
        // Inside an AS, trackers take packets only from the host that they name.
        if scion.ia == tracker.host.ia {
            ip = scion.ip();
        }
        Ok(Source {
            ip,
            scion: Some(scion),
        })
    }

    /// Makes the announce of a request, with the ISD-AS that it claims. Over SCION the packets
    /// state the ISD-AS.
    fn announce(&self, ask: &Ask) -> AnnounceRequest {
        let mut announce = AnnounceRequest::new(ask.info_hash, ask.peer_id, ask.port, ask.left);
        announce.event = ask.event;
        announce.numwant = self.options.numwant;
        let over_scion = self.options.url.scion().is_some();
        let ia = ask
            .place
            .filter(|_| !over_scion)
            .map(|n| self.load.places()[n]);
        if ia.is_some() || over_scion {
            announce.claim = Claim {
                ia,
                // Compact lists, not dictionaries.
                scion: ScionClaim::Capable,
            };
        }
        announce
    }
}

impl Shared {
    fn is_measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    /// Returns the next request of a connection.
    fn next(&self, requests: &mut Requests) -> Ask {
        if !requests.is_filled() {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        requests.next()
    }
}

/// Runs the load. Returns the report even if no request was answered.
pub(crate) fn run(
    mut options: Options,
    mut progress: impl FnMut(Progress),
) -> Result<Report, BenchError> {
    if options.url.scion().is_some() && options.url.scheme() == Scheme::Http {
        return Err(BenchError::HttpOverScion);
    }
    let to = target::resolve(&options.url).map_err(BenchError::Resolve)?;
    if !to.ip().is_loopback() && !options.beyond_loopback {
        return Err(BenchError::NotLoopback(to));
    }
    let over = Over::of(&options.url);
    if over == Over::Udp && options.new_connections {
        return Err(BenchError::NoConnections);
    }
    if options.new_connections {
        options.in_flight = 1;
    }
    let sources = sources(&options, to)?;
    options.threads = options.threads.clamp(1, sources);
    let load = Load::new(options.load.clone(), options.connections, sources)?;
    let setup = setup(&options, sources);
    let plan = Arc::new(Plan {
        to,
        load,
        start: Instant::now(),
        options,
    });
    let shared = Arc::new(Shared::default());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.options.threads)
            .map(|thread| {
                let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
                scope.spawn(move || {
                    // A thread that fails stops all others.
                    let _ending = shared.stop.clone().drop_guard();
                    match over {
                        Over::Udp => udp::run(&plan, &shared, thread),
                        Over::Http | Over::Https => http::run(&plan, &shared, thread),
                        Over::Http3 => http3::run(&plan, &shared, thread),
                    }
                })
            })
            .collect();
        let measured = measure(&plan.options, &shared, &mut progress);
        shared.stop.cancel();
        let mut tally = Tally::new()?;
        for thread in threads {
            tally.add(&thread.join().map_err(|_| BenchError::Thread)??);
        }
        Ok(tally.report(setup, &measured?))
    })
}

/// Returns the number of source addresses.
fn sources(options: &Options, to: SocketAddr) -> Result<u32, BenchError> {
    let connections = options.connections;
    // Over SCION each source is in one AS.
    let ases = match (options.url.scion(), options.scion_local) {
        (Some(_), None) => options.load.ases,
        _ => 0,
    };
    let fitting = if options.scion_local.is_some() {
        1
    } else if target::has_many_sources(to) {
        SOURCES.max(ases).min(connections)
    } else {
        ases.max(1)
    };
    let sources = options.sources.unwrap_or(fitting);
    if sources == 0 || sources < ases || sources > connections {
        return Err(BenchError::Sources {
            sources,
            ases,
            connections,
        });
    }
    Ok(sources)
}

/// Waits for the measured time, and reads the CPU times of the processes at its start and end.
fn measure(
    options: &Options,
    shared: &Shared,
    progress: &mut impl FnMut(Progress),
) -> Result<Measured, BenchError> {
    let usage = |pid| Usage::of(pid).map_err(|source| BenchError::Usage { pid, source });
    let both = || {
        let server = options.server_pid.map(usage).transpose()?;
        Ok::<_, BenchError>((server, usage(std::process::id())?))
    };
    // Fails early if the CPU time cannot be read.
    both()?;
    let unfilled = match options.load.fill {
        true => fill(options, shared, progress),
        false => 0,
    };
    let start = Instant::now();
    while start.elapsed() < options.warmup && !shared.stop.is_cancelled() {
        progress(Progress::WarmingUp);
        thread::sleep(TICK.min(options.warmup.saturating_sub(start.elapsed())));
    }
    let (server, own) = both()?;
    let start = Instant::now();
    shared.measuring.store(true, Ordering::Relaxed);
    let enough = options.requests.unwrap_or(u64::MAX);
    loop {
        let (passed, replies) = (start.elapsed(), shared.replies.load(Ordering::Relaxed));
        if passed >= options.duration || replies >= enough || shared.stop.is_cancelled() {
            break;
        }
        let by_time = passed.as_secs_f64() / options.duration.as_secs_f64();
        let by_count = replies as f64 / enough as f64;
        progress(Progress::Measuring(by_time.max(by_count), replies));
        thread::sleep(TICK.min(options.duration - passed));
    }
    shared.measuring.store(false, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let (server_after, own_after) = both()?;
    let server = server
        .zip(server_after)
        .map(|(before, after)| after.since(&before));
    let own = own_after.since(&own);
    Ok(Measured {
        unfilled,
        seconds,
        server,
        own,
    })
}

/// Waits until each peer has announced itself, or none does any more. Returns the number of peers
/// that have not.
fn fill(options: &Options, shared: &Shared, progress: &mut impl FnMut(Progress)) -> u32 {
    let peers = options.load.peers;
    let start = Instant::now();
    let (mut filled, mut moved) = (0, start);
    while filled < peers && moved.elapsed() < STALLED && start.elapsed() < FILLING {
        if shared.stop.is_cancelled() {
            break;
        }
        thread::sleep(TICK);
        let now = shared.filled.load(Ordering::Relaxed);
        if now > filled {
            (filled, moved) = (now, Instant::now());
        }
        progress(Progress::Filling(filled, peers));
    }
    peers - filled
}

fn setup(options: &Options, sources: u32) -> Setup {
    let load = &options.load;
    Setup {
        target: options.url.to_string(),
        transport: target::transport(&options.url),
        rate: options.rate,
        connections: options.connections,
        sources,
        in_flight: options.in_flight,
        new_connections: options.new_connections,
        threads: options.threads,
        torrents: load.torrents,
        zipf: load.zipf,
        peers: load.peers,
        seeds_percent: load.seeds,
        numwant: options.numwant,
        ases: load.ases,
        mix: load.mix.to_string(),
        seed: load.seed,
    }
}

/// The connections of a thread: all those of its sources.
fn connections(plan: &Plan, thread: u32) -> impl Iterator<Item = u32> {
    (0..plan.options.connections)
        .filter(move |connection| plan.load.source_of(*connection) % plan.options.threads == thread)
}
