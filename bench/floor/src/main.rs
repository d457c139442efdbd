//! Servers that answer like a tracker and track nothing. They cost what the network, the kernel and the
//! library cost: the floor under what `scion-tracker bench` measures with the same load.
//!
//! Each runs on one thread. Pin it from outside (`taskset -c 0`).

mod http1;
mod http3;
mod reply;
mod udp;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

/// Peers in a reply. Over UDP a request may want fewer.
const PEERS: usize = 30;

/// Answers tracker requests with fixed replies, as cheaply as can be.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    floor: Floor,
}

#[derive(Debug, Subcommand)]
enum Floor {
    /// BEP 15: recvmmsg and sendmmsg on one socket.
    Udp {
        /// Where to listen.
        address: SocketAddr,
    },
    /// HTTP/1.1: hyper.
    Http {
        /// Where to listen.
        address: SocketAddr,
    },
    /// HTTP/3: quinn and h3.
    H3 {
        /// Where to listen.
        address: SocketAddr,
        /// Limits fit for a tracker instead of quinn's defaults: 16 streams, small windows, no search for
        /// larger packets, AES-128 first, one ticket.
        #[arg(long)]
        tuned: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().floor {
        Floor::Udp { address } => udp::run(address),
        Floor::Http { address } => http1::run(address),
        Floor::H3 {
            address,
            tuned: false,
        } => http3::run(address, http3::Limits::Default),
        Floor::H3 {
            address,
            tuned: true,
        } => http3::run(address, http3::Limits::Tuned),
    }
}
