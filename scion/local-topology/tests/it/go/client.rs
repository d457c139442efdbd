//! Builds and drives the client in Go (tests/go-client).

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use scion_local_topology::Topology;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::codec::bep15::{Reply, parse_reply};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::reply::parse_announce_reply;
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::common::{PATIENCE, Tracker};

/// What the client speaks: HTTP/1.1 on a pair of QUIC streams, HTTP/3, and UDP (BEP 15).
pub(crate) const PROTOCOLS: [&str; 3] = ["qs", "h3", "udp"];

/// Timeout of `go`: it may have to download modules, and compiles 200 packages.
const BUILDING: Duration = Duration::from_secs(600);

async fn go(arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("go");
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go-client"))
        // The Go that is there, and the versions in go.mod.
        .envs([("GOTOOLCHAIN", "local"), ("GOWORK", "off")])
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=readonly")])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    timeout(BUILDING, command.output()).await?
}

/// Builds the client. `None` without Go or its modules, which it says.
async fn build() -> Option<PathBuf> {
    let missing = |why: &str| {
        // Not with a macro, because the output of a test that passes is not shown.
        let line = format!("\nSKIPPED: programs in Go are not tested: {why}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        None
    };
    match go(&["version"]).await {
        Ok(output) if output.status.success() => {}
        Ok(output) => return missing(&format!("go version: {output:?}")),
        Err(error) => return missing(&format!("cannot run go: {error}")),
    }
    // Fails if a module cannot be had, or if this Go is too old for one.
    match go(&["list", "-deps", "."]).await {
        Ok(output) if output.status.success() => {}
        Ok(output) => return missing(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => return missing(&format!("its modules: {error}")),
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-client");
    let built = go(&["build", "-trimpath", "-o", program.to_str().unwrap(), "."]).await;
    let built = built.unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "go build: {said}");
    Some(program)
}

/// The program, which the first caller builds.
async fn program() -> Option<&'static Path> {
    static PROGRAM: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    PROGRAM.get_or_init(build).await.as_deref()
}

/// A client in an AS, with one connection for all its announces.
pub(crate) struct GoClient {
    protocol: &'static str,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: NamedTempFile,
    _process: Child,
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
    /// Starts a client at 127.0.0.1. `None` if it cannot be built.
    pub(crate) async fn start(
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
    ) -> Option<Self> {
        Self::start_with(topology, tracker, from, protocol, &["-local=127.0.0.1"]).await
    }

    /// Starts a client with these further options.
    pub(crate) async fn start_with(
        topology: &Topology,
        tracker: &Tracker,
        from: IsdAs,
        protocol: &'static str,
        options: &[&str],
    ) -> Option<Self> {
        let program = program().await?;
        let mut ases = topology.config().ases.iter();
        let daemon = ases.find(|it| it.ia == from).unwrap().daemon;
        let (ia, port) = (tracker.scion.host.ia, tracker.scion.port);
        let host = std::net::SocketAddr::new(tracker.scion.host.ip(), port);
        let log = NamedTempFile::new().unwrap();
        let mut process = Command::new(program)
            .arg(format!("-protocol={protocol}"))
            .arg(format!("-daemon={daemon}"))
            .arg(format!("-ia={ia}"))
            .arg(format!("-host={host}"))
            .arg(format!("-ca={}", tracker.authority().display()))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Some(Self {
            protocol,
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()).lines(),
            log,
            _process: process,
        })
    }

    /// Announces the peer at this port.
    pub(crate) async fn announce(&mut self, port: u16, numwant: u16) -> Answer {
        let line = format!("{port} {numwant}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
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
        Answer {
            peers: self.peers(&decoded(&line.body)),
            connections: line.connections,
            path_changes: line.paths,
        }
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
