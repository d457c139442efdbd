//! Starts a tracker for a test, on free ports of the loopback interface.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use scion_tracker::config::{Database, Listen};
use scion_tracker::server::{Handle, Kind, Listening, RunError};
use scion_tracker::{Config, Server};
use tokio_util::sync::CancellationToken;

/// The default configuration, with one listener of each kind on a free port of 127.0.0.1, two workers, records in
/// memory and no snapshots, since all tests share a data directory.
pub(crate) fn config() -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.data_dir = Some(concat!(env!("CARGO_TARGET_TMPDIR"), "/data").into());
    config.records.database = Some(Database::Memory);
    // Many trackers share this directory.
    config.admin.socket = false;
    config.snapshot.enabled = false;
    config.workers = 2.try_into().ok();
    config.listen = Listen::none();
    config.listen.udp = vec![any.into()];
    config.listen.http = vec![any.into()];
    config.listen.https = vec![any.into()];
    config.listen.http3 = vec![any.into()];
    config
}

/// Runs a future in a test that is not asynchronous.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// A tracker that runs on its own threads, for synchronous and asynchronous tests. It stops when
/// dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) handle: Handle,
    listeners: Vec<Listening>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

/// Starts a tracker. It is reachable when this returns.
pub(crate) fn start(config: Config) -> Running {
    let server = Server::bind(config).unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    Running {
        handle: server.handle(),
        listeners: server.listeners().collect(),
        stop,
        thread: Some(thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(server.run(stopped.cancelled_owned()))
        })),
    }
}

impl Running {
    /// Address of the first listener of this kind.
    pub(crate) fn address(&self, kind: Kind) -> SocketAddr {
        self.listeners
            .iter()
            .find(|it| it.kind == kind)
            .unwrap()
            .address
    }

    /// Announce URL of the first listener of this kind.
    pub(crate) fn url(&self, kind: Kind) -> String {
        self.listeners
            .iter()
            .find(|it| it.kind == kind)
            .unwrap()
            .url()
    }

    /// Announce URLs over SCION, for HTTP/3 and UDP.
    pub(crate) fn scion_urls(&self) -> impl Iterator<Item = String> {
        let scion = self.listeners.iter().filter(|it| it.scion.is_some());
        scion.map(Listening::url)
    }

    /// Stops the tracker and waits for its end.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}
