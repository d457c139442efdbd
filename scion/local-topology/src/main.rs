//! The program `scion-local-topology`.

use std::fmt::Write as _;
use std::future;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::thread;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use scion_local_topology::config::Link;
use scion_local_topology::{Config, Topology, control, demo, files};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A SCION network on one machine: ASes, links, border routers and daemons.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    network: Network,
}

#[derive(Debug, clap::Args)]
struct Network {
    /// File that describes the network, such as scion/topologies/two-isds.toml.
    #[arg(required = true)]
    topology: Option<PathBuf>,
    /// Listen on this IP address, with the ports of the file. With the address of a container,
    /// hosts in other containers can reach the routers and be reached by them.
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    /// Write DIR/ISD-AS/topology.json for each AS (with "_" for ":"), for scion-tracker
    /// --scion-topology.
    #[arg(long, value_name = "DIR")]
    write_topology: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the tracker in a network: peers in six ASes and on plain IP announce while links fail,
    /// and receive the nearest peers first. Uses free ports of 127.0.0.1.
    Demo,
}

fn main() -> ExitCode {
    let log = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(io::stderr)
        .init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scion-local-topology: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    scion_local_topology::install_tls_provider();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let told_to_stop = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    let mut out = io::stdout();
    match cli.command {
        Some(Command::Demo) => tokio::select! {
            shown = demo::run(&mut out) => shown,
            () = told_to_stop => Ok(()),
        },
        None => serve(cli.network, told_to_stop).await,
    }
}

/// Runs the network until it is told to stop.
async fn serve(network: Network, told_to_stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let file = network
        .topology
        .context("name the file of a network, such as scion/topologies/two-isds.toml")?;
    let mut config = Config::load(&file)?;
    if let Some(ip) = network.listen {
        config.listen_on(ip);
    }
    let control = match config.control {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("cannot listen on {address}"))?)
        }
        None => None,
    };
    let topology = Arc::new(Topology::start(config).await?);
    if let Some(dir) = &network.write_topology {
        files::write_topologies(topology.config(), dir)?;
    }
    print(&describe(topology.config(), control.as_ref())?)?;

    let commands = Arc::downgrade(&topology);
    thread::spawn(move || take_commands(&commands));
    let served = async {
        match control {
            Some(listener) => control::serve(Arc::downgrade(&topology), listener).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        error = served => return Err(error).context("the control endpoint has failed"),
        () = told_to_stop => {}
    }
    if let Some(topology) = Arc::into_inner(topology) {
        topology.stop().await;
    }
    Ok(())
}

/// Runs commands from standard input until it ends.
fn take_commands(topology: &Weak<Topology>) {
    for line in io::stdin().lines() {
        let (Ok(line), Some(topology)) = (line, topology.upgrade()) else {
            return;
        };
        if print(&format!("{}\n", control::command(&topology, &line))).is_err() {
            return;
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The table of everything that listens.
fn describe(config: &Config, control: Option<&TcpListener>) -> anyhow::Result<String> {
    let mut out = format!(
        "{:<16} {:<5} {:<22} {:<22} {}\n",
        "AS", "", "border router (UDP)", "daemon (TCP)", "hosts' ports (UDP)"
    );
    for it in &config.ases {
        let kind = if it.core { "core" } else { "" };
        writeln!(
            out,
            "{:<16} {kind:<5} {:<22} {:<22} {}",
            it.ia.to_string(),
            it.router.to_string(),
            it.daemon.to_string(),
            it.ports,
        )?;
    }
    writeln!(out, "\n{:<16} {:<5} ends", "link", "")?;
    for Link {
        name,
        kind,
        from,
        to,
        ..
    } in &config.links
    {
        writeln!(
            out,
            "{name:<16} {kind:<5} {from} {to}",
            kind = kind.to_string()
        )?;
    }
    if let Some(control) = control {
        let address = control.local_addr()?;
        writeln!(
            out,
            "\nto take a link down: link down NAME, here or over TCP to {address}"
        )?;
    }
    out.push_str("READY\n");
    Ok(out)
}
