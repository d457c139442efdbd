//! A network with trackers and clients in its ASes.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scion_local_topology::{Config, Topology, install_tls_provider};
use scion_tracker::Server;
use scion_tracker::client::{Client, Options, TrackerUrl, Trust};
use scion_tracker::server::Handle;
use scion_tracker::tls::authority;
use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::query::AnnounceQuery;
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::AnnounceRequest;
use scion_tracker_core::types::{InfoHash, PeerId};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Timeout of a whole request on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn ia(text: &str) -> IsdAs {
    text.parse().unwrap()
}

/// The example network of two ISDs, on free ports, with endhost APIs.
pub(crate) async fn two_isds() -> Topology {
    network(|_| {}).await
}

/// The example network with a change.
pub(crate) async fn network(change: impl FnOnce(&mut Config)) -> Topology {
    install_tls_provider();
    // Fails if another test has already installed one.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies/two-isds.toml");
    let mut config = Config::load(&file).unwrap();
    for it in &mut config.ases {
        it.endhost_api = Some(it.daemon);
    }
    config.take_free_ports();
    change(&mut config);
    Topology::start(config).await.unwrap()
}

/// A tracker in an AS. Its own authority has signed its certificate.
pub(crate) struct Tracker {
    pub(crate) scion: ScionAddr,
    pub(crate) handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
    data: TempDir,
}

impl Tracker {
    pub(crate) fn start(ia: &str) -> Self {
        Self::start_with(&format!("{ia},[127.0.0.1]:0"), |_| {})
    }

    /// A tracker at this SCION address, with a change to its settings.
    pub(crate) fn start_with(
        address: &str,
        change: impl FnOnce(&mut scion_tracker::Config),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        authority(data.path(), &[]).unwrap();
        let mut config = scion_tracker::Config::default();
        config.data_dir = Some(data.path().into());
        // All peers of an AS have one address.
        config.registry.peers_per_source_in_torrent = u32::MAX;
        config.tls.cert = Some(data.path().join("cert.pem"));
        config.tls.key = Some(data.path().join("key.pem"));
        config.listen.udp.clear();
        config.listen.https.clear();
        config.listen.http3.clear();
        config.listen.http.clear();
        config.listen.scion = vec![address.parse().unwrap()];
        change(&mut config);
        let server = Server::bind(config).unwrap();
        let listeners: Vec<_> = server.listeners().collect();
        let scion = listeners.iter().find_map(|it| it.scion).unwrap();
        let handle = server.handle();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { server.run(stopped).await.unwrap() });
        Self {
            scion,
            handle,
            stop,
            task,
            data,
        }
    }

    pub(crate) fn url(&self, scheme: &str) -> TrackerUrl {
        format!("{scheme}://{}/announce", self.scion.url_authority())
            .parse()
            .unwrap()
    }

    /// The certificate of its authority, a PEM file.
    pub(crate) fn authority(&self) -> PathBuf {
        self.data.path().join("ca.pem")
    }

    /// A client in an AS. It asks the daemon of the AS.
    pub(crate) fn client(&self, topology: &Topology, ia: IsdAs) -> Client {
        let ases = &topology.config().ases;
        let it = ases.iter().find(|it| it.ia == ia).unwrap();
        let mut options = Options::default();
        options.timeout = PATIENCE;
        options.trust = Trust::File(self.authority());
        options.scion.daemon = it.daemon.into();
        options.scion.hosts = "/nonexistent".into();
        Client::new(&options).unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// A loopback address for one test of this process, so that ports with a fixed number are free on it. The
/// tests of routers.rs use 1 and 2.
pub(crate) fn own_address(test: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, test, high, low)
}

/// An announce of leecher `number` in swarm `swarm`. The peer listens on port `number`.
pub(crate) fn announce(swarm: u8, number: u16) -> AnnounceQuery {
    let mut id = *b"-ST0001-000000000000";
    id[18..].copy_from_slice(&number.to_be_bytes());
    AnnounceQuery {
        announce: AnnounceRequest::new(InfoHash([swarm; 20]), PeerId(id), number, 1),
        compact: None,
        no_peer_id: true,
    }
}

/// ISD-AS and port of each peer in a reply.
pub(crate) fn peers(answer: &AnnounceAnswer) -> Vec<(IsdAs, u16)> {
    let peers = answer.peers.iter();
    peers
        .map(|peer| (peer.endpoint.ia, peer.endpoint.addr.port()))
        .collect()
}
