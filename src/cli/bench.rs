//! `scion-tracker bench`: puts load on a tracker of one's own and says what it takes.

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

/// Steps of the progress bar.
const STEPS: u64 = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tracker: udp://, http://, https:// (HTTP/1.1) or h3:// (HTTP/3). Over SCION
    /// udp://[ISD-AS,ip]:port or https://[ISD-AS,ip]:port (HTTP/3); packets go straight to that IP
    /// address and port, without routers or a daemon.
    url: TrackerUrl,

    /// Connections, each with peers of its own. Over UDP: sockets.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Requests on their way at once, a connection: datagrams over UDP, pipelined requests over
    /// HTTP/1.1, streams over HTTP/3. Default: 16 over UDP, else 1.
    #[arg(long, alias = "streams", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: Option<u16>,
    /// A new connection for each request, with a full handshake; --connections of them at once.
    #[arg(long)]
    new_connections: bool,
    /// Requests a second, sent by the clock whether or not replies come (open loop); latency counts
    /// from when a request was due. Without it, each reply makes room for the next request (closed
    /// loop).
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Time that is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    duration: Duration,
    /// Replies after which it ends before that.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Time before that, of the same load, which does not count.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// First of all, let each peer announce itself once. Without it the tracker fills up as peers
    /// come to announce.
    #[arg(long)]
    fill: bool,
    /// How long to wait for a reply.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    timeout: Duration,
    /// Threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// Torrents.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    torrents: u32,
    /// Exponent of the torrents' popularity by rank: 0 for all alike.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0, value_parser = parse_zipf)]
    zipf: f64,
    /// Peers, each in one torrent, with a peer id and port of its own.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    peers: u32,
    /// Percentage of the peers that are seeds.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=100))]
    seeds: u8,
    /// Peers that an announce asks for; without it, as many as the tracker likes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    numwant: Option<u32>,
    /// Weights of the kinds of requests: announce, scrape, stopped, completed.
    #[arg(
        long,
        value_name = "MIX",
        default_value = "announce=90,scrape=8,stopped=1,completed=1"
    )]
    mix: Mix,
    /// ASes in which peers are. Over IP peers claim them (ia=), over SCION each source address is in
    /// one; 0 for no places, over SCION the AS of the tracker.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    ases: u32,
    /// ISDs over which the ASes are spread.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    isds: u16,
    /// Over SCION: the host that all connections come from, as in 1-ff00:0:111,[10.0.0.1]. In the AS of
    /// the tracker packets have the empty path.
    #[arg(long, value_name = "ISD-AS,[IP]", value_parser = parse_host, conflicts_with = "ases")]
    scion_local: Option<Host>,
    /// Source addresses, from 127.1.0.1 on towards loopback over IPv4. Default there: 8, and no fewer
    /// than ASes over SCION. A tracker that allows a source only so many peers or connections
    /// (peers_per_source, per_source) needs more of them or higher limits.
    #[arg(long, value_name = "N")]
    sources: Option<u32>,
    /// Number from which peers, torrents and requests are made. Runs with the same one ask the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Process id of the tracker, if it runs on this machine: the CPU time that it uses is measured.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Trust the certificate authorities in this PEM file, and no other.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take any certificate, whosever it is.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// The tracker is yours, though it is not on this machine.
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

fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("it has to be longer than nothing".into()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
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
            bail!("{url} has answered no request");
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
            bar.set_message("peers announce themselves");
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
