//! The demo: a tracker in one AS, peers in all ASes and on plain IP, and core links that fail and
//! come back while the peers announce. Prints which peers each one received, by place, and how many
//! announces were lost.

mod peers;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use scion_tracker::Server;
use scion_tracker::server::{Handle, Kind, Listening};
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::Event;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::routers::LinkState;
use crate::topology::Topology;
use peers::Peer;

/// The network, on free ports.
const NETWORK: &str = include_str!("../../topologies/two-isds.toml");
/// The AS of the tracker.
const TRACKER: &str = "1-ff00:0:111";
/// Announces of each peer while links change.
const ANNOUNCES: usize = 20;

/// Changes of the links when half of the announces of a phase are answered.
const PHASES: [(&str, &[(&str, LinkState)]); 4] = [
    ("all links are up", &[]),
    ("core-a fails", &[("core-a", LinkState::Down)]),
    (
        "core-b fails, core-a is back",
        &[("core-a", LinkState::Up), ("core-b", LinkState::Down)],
    ),
    ("core-b is back", &[("core-b", LinkState::Up)]),
];

/// Runs the demo. Fails if an announce is lost or if peers do not receive the nearest ones first.
pub async fn run(out: &mut impl Write) -> anyhow::Result<()> {
    let mut config = Config::parse("two-isds.toml".as_ref(), NETWORK)?;
    config.take_free_ports();
    let topology = Topology::start(config).await?;
    let tracker = Tracker::start()?;
    let shown = show(&topology, &tracker, out).await;
    tracker.stop().await?;
    topology.stop().await;
    shown
}

async fn show(topology: &Topology, tracker: &Tracker, out: &mut impl Write) -> anyhow::Result<()> {
    let peers = peers::all(topology.config(), tracker)?;
    writeln!(
        out,
        "A tracker in {TRACKER}, and {} peers that announce to it at",
        peers.len()
    )?;
    for listener in &tracker.listeners {
        writeln!(out, "    {}", listener.url())?;
    }

    writeln!(
        out,
        "\nEach peer announces {ANNOUNCES} times while a link between the ISDs fails:\n"
    )?;
    let mut lost = 0;
    for (what, changes) in PHASES {
        let Outcome {
            answered,
            errors,
            slowest,
        } = phase(topology, &peers, changes).await?;
        lost += errors.len();
        let slowest = slowest.as_millis();
        writeln!(
            out,
            "    {what:<30} {answered} announces answered, {} lost, the slowest took {slowest} ms",
            errors.len()
        )?;
        for error in errors {
            writeln!(out, "        {error}")?;
        }
    }

    writeln!(
        out,
        "\nThe peers that each one received for a request of {} (sorted here; replies are shuffled):\n\
         A same AS, I same ISD, o other ISD, - plain IP without a place\n",
        peers::WANTED
    )?;
    let mut far = Vec::new();
    for peer in &peers {
        let answer = peer.announce(Event::None).await?;
        let given = peer.nearness(&answer);
        let letters: Vec<_> = given.iter().map(ToString::to_string).collect();
        writeln!(out, "    {peer}  {}", letters.join(" "))?;
        if !peers::nearest_first(peer, &peers, &given) {
            far.push(peer.to_string());
        }
    }

    let totals = tracker.handle.stats().registry;
    let registered = totals.seeders + totals.leechers;
    writeln!(
        out,
        "\n{registered} peers are registered, {lost} announces were lost."
    )?;
    ensure!(lost == 0, "{lost} announces were lost");
    ensure!(
        registered == peers.len() as u64,
        "{registered} of {} peers are registered",
        peers.len()
    );
    ensure!(
        far.is_empty(),
        "these peers did not receive the nearest peers first: {}",
        far.join(", ")
    );
    Ok(())
}

/// Results of a phase.
struct Outcome {
    answered: usize,
    errors: Vec<String>,
    slowest: Duration,
}

/// All peers announce several times, concurrently. The links change when half of the announces are
/// answered.
async fn phase(
    topology: &Topology,
    peers: &[Arc<Peer>],
    changes: &[(&str, LinkState)],
) -> anyhow::Result<Outcome> {
    let (sender, mut results) = mpsc::channel(peers.len());
    let mut tasks = JoinSet::new();
    for peer in peers {
        let (peer, sender) = (Arc::clone(peer), sender.clone());
        tasks.spawn(async move {
            for _ in 0..ANNOUNCES {
                let start = Instant::now();
                let result: anyhow::Result<AnnounceAnswer> = peer.announce(Event::None).await;
                let result = result.map(|_| start.elapsed());
                let failure = |error| format!("{peer}: {error:#}");
                if sender.send(result.map_err(failure)).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let half = peers.len() * ANNOUNCES / 2;
    let mut outcome = Outcome {
        answered: 0,
        errors: Vec::new(),
        slowest: Duration::ZERO,
    };
    while let Some(result) = results.recv().await {
        match result {
            Ok(took) => {
                outcome.answered += 1;
                outcome.slowest = outcome.slowest.max(took);
            }
            Err(error) => outcome.errors.push(error),
        }
        if outcome.answered + outcome.errors.len() == half {
            for (link, state) in changes {
                topology.set_link(link, *state)?;
            }
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a peer ended unexpectedly")?;
    }
    Ok(outcome)
}

/// The tracker of the demo, over SCION and on the loopback interface.
struct Tracker {
    listeners: Vec<Listening>,
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), scion_tracker::server::RunError>>,
    /// The directory of its certificate, deleted at the end.
    _data: TempDir,
}

impl Tracker {
    fn start() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let mut config = scion_tracker::Config::default();
        config.data_dir = Some(data.path().into());
        // All peers of an AS have one address.
        config.registry.peers_per_source_in_torrent = u32::MAX;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.listen.udp = vec![any.into()];
        config.listen.http = vec![any.into()];
        config.listen.http3 = vec![any.into()];
        config.listen.https.clear();
        config.listen.scion = vec![format!("{TRACKER},[127.0.0.1]:0").parse()?];
        let server = Server::bind(config)?;
        let listeners = server.listeners().collect();
        let handle = server.handle();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        Ok(Self {
            listeners,
            handle,
            stop,
            task,
            _data: data,
        })
    }

    /// The announce URL of the listener of this kind.
    fn url(&self, kind: Kind, over_scion: bool) -> anyhow::Result<String> {
        let mut listeners = self.listeners.iter();
        // A SCION port is one listener with a URL for each transport.
        let scheme = if kind == Kind::Udp { "udp:" } else { "https:" };
        let found = listeners.find(|it| match over_scion {
            true => it.kind == Kind::Scion && it.url().starts_with(scheme),
            false => it.kind == kind,
        });
        match found {
            Some(listener) => Ok(listener.url()),
            None => bail!("the tracker has no listener for {kind}"),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}
