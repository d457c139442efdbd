//! Drives a client in Go: requests go to its standard input, answers come from its standard output.

use std::process::Stdio;

use scion_local_topology::Topology;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::codec::bep15::{Reply, parse_reply};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::reply::{parse_announce_reply, parse_scrape_reply};
use serde::Deserialize;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::program::Program;
use crate::common::{PATIENCE, Tracker};

/// What the clients speak: HTTP/1.1 on a pair of QUIC streams, HTTP/3, and UDP (BEP 15).
pub(crate) const PROTOCOLS: [&str; 3] = ["qs", "h3", "udp"];

/// The client with snet (tests/go-client).
static SNET: Program = Program::new("go-client");

/// A client in an AS, with one connection for all its requests.
pub(crate) struct GoClient {
    protocol: &'static str,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: NamedTempFile,
    _process: Child,
    _directory: Option<TempDir>,
}

/// The answer to an announce.
#[derive(Debug)]
pub(crate) struct Answer {
    /// ISD-AS and port of each peer.
    pub(crate) peers: Vec<(IsdAs, u16)>,
    /// Connections that the client has opened so far.
    pub(crate) connections: usize,
    /// How often the client has left a path for another one.
    pub(crate) path_changes: usize,
}

#[derive(Deserialize)]
struct Line {
    body: String,
    error: String,
    connections: usize,
    paths: usize,
}

impl GoClient {
    /// Starts the client with snet at 127.0.0.1. `None` if it cannot be built.
    pub(crate) async fn start(
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
    ) -> Option<Self> {
        Self::start_with(topology, tracker, from, protocol, &["-local=127.0.0.1"]).await
    }

    /// Starts the client with snet with these further options.
    pub(crate) async fn start_with(
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
        options: &[&str],
    ) -> Option<Self> {
        let program = SNET.path().await?;
        let (ia, port) = (tracker.scion.host.ia, tracker.scion.port);
        let host = std::net::SocketAddr::new(tracker.scion.host.ip(), port);
        let mut command = Command::new(program);
        command
            .arg(format!("-ia={ia}"))
            .arg(format!("-host={host}"))
            .args(options);
        Some(Self::run(command, topology, tracker, from, protocol))
    }

    /// Runs a client with the options that all have.
    pub(super) fn run(
        mut command: Command,
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
    ) -> Self {
        let mut ases = topology.config().ases.iter();
        let daemon = ases.find(|it| it.ia == from).unwrap().daemon;
        let log = NamedTempFile::new().unwrap();
        let mut process = command
            .arg(format!("-protocol={protocol}"))
            .arg(format!("-daemon={daemon}"))
            .arg(format!("-ca={}", tracker.authority().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            protocol,
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()).lines(),
            log,
            _process: process,
            _directory: None,
        }
    }

    /// Keeps a folder as long as the client runs.
    pub(super) fn with(mut self, directory: TempDir) -> Self {
        self._directory = Some(directory);
        self
    }

    /// Announces the peer at this port.
    pub(crate) async fn announce(&mut self, port: u16, numwant: u16) -> Answer {
        let line = self.ask(&format!("{port} {numwant}\n")).await;
        Answer {
            peers: self.peers(&decoded(&line.body)),
            connections: line.connections,
            path_changes: line.paths,
        }
    }

    /// Scrapes the torrent. Returns the number of its leechers.
    pub(crate) async fn scrape(&mut self) -> u32 {
        let line = self.ask("scrape\n").await;
        let body = decoded(&line.body);
        if self.protocol != "udp" {
            let answer = parse_scrape_reply(&body).unwrap();
            assert_eq!(answer.files.len(), 1, "{answer:?}");
            return answer.files[0].1.leechers;
        }
        match parse_reply(&body, Layout::Scion4).unwrap() {
            Reply::Scrape { mut counts, .. } => {
                assert_eq!(counts.len(), 1);
                counts.next().unwrap().leechers
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request and waits for its answer.
    async fn ask(&mut self, request: &str) -> Line {
        self.input.write_all(request.as_bytes()).await.unwrap();
        let line = timeout(PATIENCE, self.output.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            panic!("{}: no answer: {line:?}: {}", self.protocol, self.log());
        };
        let line: Line = serde_json::from_str(&line).unwrap();
        assert!(
            line.error.is_empty(),
            "{}: {}: {}",
            self.protocol,
            line.error,
            self.log()
        );
        line
    }

    fn peers(&self, body: &[u8]) -> Vec<(IsdAs, u16)> {
        if self.protocol != "udp" {
            return crate::common::peers(&parse_announce_reply(body).unwrap());
        }
        match parse_reply(body, Layout::Scion4).unwrap() {
            Reply::Announce { peers, .. } => {
                peers.map(|peer| (peer.ia, peer.addr.port())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the client has written to standard error.
    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

fn decoded(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
