//! The running network.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use pocketscion::comp::daemon::DaemonServiceState;
use pocketscion::io_config::IoConfig;
use pocketscion::network::scion::topology::{
    ScionAs, ScionLink, ScionLinkType, ScionRouter, ScionTopology, ScionTopologyBuilder,
};
use pocketscion::runtime::PocketScionRuntime;
use pocketscion::runtime::builder::PocketScionRuntimeBuilder;
use pocketscion::state::PocketScionState;
use scion_tracker_core::address::IsdAs;
use sciparse::identifier::isd_asn::IsdAsn;
use tokio::runtime::{self, Runtime};

use crate::config::{As, Config, Link, LinkKind};

/// How long tasks may take to end.
const STOPPING: Duration = Duration::from_secs(5);

/// Why a network does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No threads to run it.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// The network is refused, or an address cannot be listened on.
    #[error("{0:#}")]
    Start(anyhow::Error),
    /// It ended while it started, or while it was spoken to.
    #[error("the network has failed")]
    Failed,
    /// No link is called that.
    #[error("no link is called {0:?}")]
    NoLink(String),
}

/// Whether a link carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It does.
    Up,
    /// Routers at its ends answer packets for it with an SCMP message (external interface down).
    Down,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A network that runs, on threads of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct Topology {
    config: Config,
    network: Option<Network>,
}

/// Daemons are tasks that nobody owns: they end with the runtime.
struct Network {
    runtime: Runtime,
    pocketscion: PocketScionRuntime,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Topology {
    /// Starts the network. When this returns, routers and daemons answer.
    ///
    /// A rustls provider has to be installed for the process before: pocketscion takes it for granted.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("topology")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        // Not as a task: what starts pocketscion cannot move between threads.
        let starting = tokio::task::spawn_blocking(move || {
            let started = runtime.block_on(start(&config));
            (runtime, config, started)
        });
        let (runtime, mut config, started) = starting.await.map_err(|_| Error::Failed)?;
        match started {
            Ok((pocketscion, ases)) => {
                config.ases = ases;
                let network = Some(Network {
                    runtime,
                    pocketscion,
                });
                Ok(Self { config, network })
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(Error::Start(error))
            }
        }
    }

    /// The network as it runs: ports that were to be free ones are known here.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Takes a link down or up. Daemons go on to hand out paths over a link that is down.
    pub fn set_link(&self, name: &str, state: LinkState) -> Result<(), Error> {
        let mut links = self.config.links.iter();
        let end = links
            .find(|link| link.name == name)
            .ok_or_else(|| Error::NoLink(name.to_owned()))?
            .from;
        let (ia, number) = (isd_asn(end.ia), end.number.get());
        let network = self.network.as_ref().ok_or(Error::Failed)?;
        let known = network
            .pocketscion
            .set_link_state(ia, number, state == LinkState::Up);
        known.map(|_| ()).ok_or(Error::Failed)
    }

    /// Ends the network. Afterwards its ports are free.
    pub async fn stop(mut self) {
        if let Some(Network {
            runtime,
            pocketscion,
        }) = self.network.take()
        {
            let ending = tokio::task::spawn_blocking(move || {
                drop(pocketscion);
                runtime.shutdown_timeout(STOPPING);
            });
            if let Err(error) = ending.await {
                tracing::error!(%error, "the network did not end in order");
            }
        }
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            network.runtime.shutdown_background();
        }
    }
}

/// Starts routers and daemons. Returns the ASes with the addresses that these listen on.
async fn start(config: &Config) -> anyhow::Result<(PocketScionRuntime, Vec<As>)> {
    let mut state = PocketScionState::new(Utc::now());
    state.set_topology(simulated(config, &config.ases)?);
    let io = IoConfig::new();
    let mut services = Vec::new();
    for it in &config.ases {
        let ia = isd_asn(it.ia);
        let interfaces = config.interfaces(it.ia).map(|(own, _, _)| own.number);
        let router = state.add_router(ia, interfaces.collect(), Vec::new(), BTreeMap::new());
        io.set_router_socket_addr(router, it.router);
        io.set_daemon_service_addr(ia, it.daemon);
        state.add_daemon_service(ia, DaemonServiceState::new())?;
        let endhost_api = it.endhost_api.map(|address| {
            let id = state.add_endhost_api([ia]);
            io.set_endhost_api_addr(id, address);
            id
        });
        services.push((router, endhost_api));
    }
    let pocketscion = PocketScionRuntimeBuilder::new()
        .with_system_state(state)
        .with_io_config(io)
        .start()
        .await?;
    let io = pocketscion.io_config();
    let mut ases = config.ases.clone();
    for (it, (router, endhost_api)) in ases.iter_mut().zip(services) {
        it.endhost_api = endhost_api.and_then(|id| io.endhost_api_addr(id));
        let router = io.router_socket_addr(router);
        let daemon = io.daemon_service_addr(isd_asn(it.ia));
        (it.router, it.daemon) = router
            .zip(daemon)
            .with_context(|| format!("{} has no router or no daemon", it.ia))?;
    }
    // Daemons tell hosts the routers' addresses as they stand in the topology.
    pocketscion.state().set_topology(simulated(config, &ases)?);
    Ok((pocketscion, ases))
}

/// The network as pocketscion knows it.
fn simulated(config: &Config, ases: &[As]) -> anyhow::Result<ScionTopology> {
    let mut builder = ScionTopologyBuilder::new();
    for it in ases {
        let ia = isd_asn(it.ia);
        builder.add_as(match it.core {
            true => ScionAs::new_core(ia),
            false => ScionAs::new(ia),
        })?;
        builder.add_router(ia, ScionRouter::new_fallback(it.router))?;
    }
    for Link { kind, from, to, .. } in &config.links {
        let kind = match kind {
            LinkKind::Core => ScionLinkType::Core,
            LinkKind::Child => ScionLinkType::Parent,
            LinkKind::Peer => ScionLinkType::Peer,
        };
        let (from_ia, to_ia) = (isd_asn(from.ia), isd_asn(to.ia));
        let (from, to) = (from.number.get(), to.number.get());
        builder.add_link(ScionLink::new(from_ia, from, kind, to_ia, to)?)?;
    }
    builder.build()
}

fn isd_asn(ia: IsdAs) -> IsdAsn {
    IsdAsn(ia.to_u64())
}
