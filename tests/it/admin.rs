//! The admin API against a real server: who may do what, and what it does.

mod cli;
mod control;
mod drain;
mod events;
mod guard;
#[cfg(feature = "sqlite")]
mod store;
mod torrust;
mod v2;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scion_tracker::Config;
use scion_tracker::server::Kind;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Running};

/// What the API answered.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// The head, in lower case.
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Reads a whole answer from a stream that ends after it.
    fn read(mut stream: impl Read) -> Self {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = match head.contains("transfer-encoding: chunked") {
            true => dechunked(body),
            false => body.to_owned(),
        };
        Self { status, head, body }
    }
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole += &rest[..length];
        body = &rest[length + 2..];
    }
    whole
}

/// A request with these further header lines.
fn request(method: &str, target: &str, headers: &[&str], body: &str) -> String {
    let has_host = headers.iter().any(|it| it.starts_with("Host:"));
    let host = if has_host { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().flat_map(|it| [it, "\r\n"]).collect();
    let length = match body.is_empty() {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("{method} {target} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}")
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).unwrap();
    Reply::read(stream)
}

/// A tracker with the admin API on a free port and on a socket.
struct Tracker {
    running: Running,
    admin: SocketAddr,
    directory: TempDir,
}

fn config(directory: &Path) -> Config {
    let mut config = common::config();
    config.data_dir = Some(directory.to_owned());
    config.admin.socket = true;
    config.listen.admin = vec!["127.0.0.1:0".parse().unwrap()];
    config
}

impl Tracker {
    /// With the tokens `write-token` and `read-token`.
    fn start() -> Self {
        Self::start_with(|config| {
            config.admin.token = "write-token".parse().ok();
            config.admin.read_token = "read-token".parse().ok();
        })
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let running = common::start(config);
        Self {
            admin: running.address(Kind::Admin),
            running,
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.admin).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// A request over TCP.
    fn over_tcp(&self, method: &str, target: &str, headers: &[&str]) -> Reply {
        exchange(self.tcp(), &request(method, target, headers, ""))
    }

    /// A request without a body over the Unix socket.
    fn ask(&self, method: &str, target: &str) -> Reply {
        exchange(self.unix(), &request(method, target, &[], ""))
    }

    /// A request with a JSON body over the Unix socket.
    fn send(&self, method: &str, target: &str, body: &Value) -> Reply {
        let json = ["Content-Type: application/json"];
        let request = request(method, target, &json, &body.to_string());
        exchange(self.unix(), &request)
    }

    /// Announces a peer over HTTP. Returns the answer.
    fn announce(&self, query: &str) -> String {
        let http = self.running.address(Kind::Http);
        let stream = TcpStream::connect(http).unwrap();
        let request =
            format!("GET /announce?{query} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let mut stream = stream;
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The query of an announce of the torrent whose bytes are all `hash`.
fn announce_query(hash: u8, port: u16, left: u64) -> String {
    let hash = format!("%{hash:02x}").repeat(20);
    format!(
        "info_hash={hash}&peer_id=-qB4650-{port:012}&port={port}&uploaded=0&downloaded=0&left={left}&event=started"
    )
}

fn hex(hash: u8) -> String {
    format!("{hash:02x}").repeat(20)
}
