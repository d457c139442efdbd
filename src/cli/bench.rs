//! `scion-tracker bench`: puts load on a tracker and measures it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use scion_tracker_core::address::Host;

use crate::bench::load;
use crate::bench::mix::Mix;
use crate::bench::report::Report;
use crate::bench::target::{Over, parse_host};
use crate::bench::{self, Options, Progress};
use crate::client::{TrackerUrl, Trust};
use crate::config;

/// Steps of the progress bar.
const STEPS: u64 = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tracker: udp://, http://, https:// (HTTP/1.1) or h3:// (HTTP/3). Over SCION:
    /// udp://[ISD-AS,ip]:port or https://[ISD-AS,ip]:port (HTTP/3). Packets go straight to that IP
    /// address and port, without routers or a daemon.
    url: TrackerUrl,

    /// Connections, or sockets over UDP. Each has its own peers.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Requests in flight per connection: datagrams over UDP, pipelined requests over HTTP/1.1, streams
    /// over HTTP/3 [default: 16 over UDP, otherwise 1].
    #[arg(long, alias = "streams", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: Option<u16>,
    /// Open a new connection with a full handshake for each request, --connections at a time.
    #[arg(long)]
    new_connections: bool,
    /// Requests per second, sent on time whether or not replies come (open loop). Latency counts from
    /// the time a request is due. Without it, the next request follows a reply (closed loop).
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Measured time.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::parse_duration)]
    duration: Duration,
    /// Stop earlier, after this number of replies.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Time before the measured time, under the same load. 0 for none.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_warmup)]
    warmup: Duration,
    /// First announce each peer once. Without it, the tracker fills as peers announce.
    #[arg(long)]
    fill: bool,
    /// Time to wait for a reply.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = config::parse_duration)]
    timeout: Duration,
    /// Threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// Torrents.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    torrents: u32,
    /// Zipf exponent of the popularity of torrents. 0 makes all alike.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0, value_parser = parse_zipf)]
    zipf: f64,
    /// Peers. Each is in one torrent and has its own peer id and port.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    peers: u32,
    /// Seeds, in percent of the peers.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=100))]
    seeds: u8,
    /// Peers an announce asks for. Without it, the tracker decides.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    numwant: Option<u32>,
    /// Shares of the requests: announce, scrape, stopped, completed.
    #[arg(
        long,
        value_name = "MIX",
        default_value = "announce=90,scrape=8,stopped=1,completed=1"
    )]
    mix: Mix,
    /// ASes of the peers. Over IP peers claim them (ia=), over SCION each source address is in one. 0:
    /// none over IP, the AS of the tracker over SCION.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    ases: u32,
    /// ISDs of these ASes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    isds: u16,
    /// Over SCION: host of all connections, as in 1-ff00:0:111,[10.0.0.1]. In the AS of the tracker
    /// packets have the empty path.
    #[arg(long, value_name = "ISD-AS,[IP]", value_parser = parse_host, conflicts_with = "ases")]
    scion_local: Option<Host>,
    /// Source addresses from 127.1.0.1 on, for a tracker on the IPv4 loopback [default: 8; over SCION at
    /// least the number of ASes]. The tracker limits peers and connections per source
    /// (registry.peers_per_source, connections.per_source): use more sources or raise the limits.
    #[arg(long, value_name = "N")]
    sources: Option<u32>,
    /// Seed of the random numbers. Runs with the same seed send the same requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Process id of the tracker on this machine, to measure its CPU time.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not verify the certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Confirm that a tracker on another machine is yours.
    #[arg(long)]
    i_own_this_target: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn parse_rate(text: &str) -> Result<f64, &'static str> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| (0.001..=1e8).contains(rate));
    rate.ok_or("a rate is a number from 0.001 to 100000000")
}

fn parse_zipf(text: &str) -> Result<f64, &'static str> {
    let exponent = text
        .parse()
        .ok()
        .filter(|exponent| (0.0..=4.0).contains(exponent));
    exponent.ok_or("an exponent is a number from 0 to 4")
}

/// A duration that may be zero.
fn parse_warmup(text: &str) -> Result<Duration, serde::de::value::Error> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        _ => config::parse_duration(text),
    }
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let json = self.json;
        let url = self.url.to_string();
        // Drawn on standard error, and only if that is a terminal.
        let bar = ProgressBar::new(STEPS)
            .with_style(ProgressStyle::with_template("{bar:30} {msg}")?.progress_chars("=> "));
        let report = bench::run(self.options(), |progress| show(&bar, progress));
        bar.finish_and_clear();
        let report: Report = report?;
        let text = match json {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.to_text(),
        };
        super::print(&text)?;
        if report.replies == 0 {
            bail!("{url} answered no request");
        }
        Ok(())
    }

    fn options(self) -> Options {
        let default = match Over::of(&self.url) {
            Over::Udp => 16,
            _ => 1,
        };
        Options {
            load: load::Options {
                torrents: self.torrents,
                zipf: self.zipf,
                peers: self.peers,
                seeds: self.seeds,
                mix: self.mix,
                isds: self.isds,
                ases: self.ases,
                seed: self.seed,
                fill: self.fill,
            },
            in_flight: self.in_flight.unwrap_or(default),
            url: self.url,
            connections: self.connections,
            sources: self.sources,
            new_connections: self.new_connections,
            numwant: self.numwant,
            rate: self.rate,
            warmup: self.warmup,
            duration: self.duration,
            requests: self.requests,
            threads: self.threads,
            timeout: self.timeout,
            trust: match self.ca {
                Some(file) => Trust::File(file),
                None if self.insecure => Trust::Anyone,
                None => Trust::System,
            },
            server_pid: self.server_pid,
            scion_local: self.scion_local,
            beyond_loopback: self.i_own_this_target,
        }
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Filling(filled, of) => {
            bar.set_position(u64::from(filled) * STEPS / u64::from(of.max(1)));
            bar.set_message("announcing peers");
        }
        Progress::WarmingUp => {
            bar.set_position(0);
            bar.set_message("warming up");
        }
        Progress::Measuring(part, replies) => {
            bar.set_position((part * STEPS as f64) as u64);
            bar.set_message(format!("{replies} replies"));
        }
    }
}
