//! The control endpoint takes links down and up: one command per line, one reply per line, over
//! TCP. The program accepts the same commands on standard input.
//!
//! ```text
//! link down core-a    ->  ok: core-a is down
//! link up core-a      ->  ok: core-a is up
//! link mute core-a    ->  ok: core-a is mute
//! links               ->  ok: core-a core-b
//! ```

use std::io;
use std::sync::Weak;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::routers::LinkState;
use crate::topology::Topology;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 1024;
/// Time after which a silent connection is closed.
const IDLE: Duration = Duration::from_secs(600);
/// Most connections. Further ones wait to be accepted.
const CONNECTIONS: usize = 64;

/// Runs one command.
pub fn command(topology: &Topology, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, state) = match words.as_slice() {
        ["links"] => {
            let links = topology.config().links.iter();
            let names: Vec<&str> = links.map(|link| link.name.as_str()).collect();
            return format!("ok: {}", names.join(" "));
        }
        ["link", "down", name] => (name, LinkState::Down),
        ["link", "up", name] => (name, LinkState::Up),
        ["link", "mute", name] => (name, LinkState::Mute),
        _ => {
            return "error: expected \"link down NAME\", \"link up NAME\", \"link mute NAME\" or \"links\"".into();
        }
    };
    match topology.set_link(name, state) {
        Ok(()) => format!("ok: {name} is {state}"),
        Err(error) => format!("error: {error}"),
    }
}

/// Accepts connections and runs their commands. Never returns without an error.
pub async fn serve(topology: Weak<Topology>, listener: TcpListener) -> io::Error {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        while connections.try_join_next().is_some() {}
        let topology = Weak::clone(&topology);
        connections.spawn(async move { lines(&topology, stream).await });
    }
}

/// Runs commands until the client ends the connection, is silent for too long, or sends a line that
/// is too long, or until the network ends.
async fn lines(topology: &Weak<Topology>, mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LONGEST_LINE);
        timeout(IDLE, limited.read_line(&mut line)).await??;
        let Some(topology) = topology.upgrade().filter(|_| line.ends_with('\n')) else {
            return Ok(());
        };
        let answer = command(&topology, &line) + "\n";
        drop(topology);
        timeout(IDLE, writer.write_all(answer.as_bytes())).await??;
    }
}
