//! The running network.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use pocketscion::comp::router::RouterId;
use pocketscion::io_config::IoConfig;
use pocketscion::network::scion::topology::{
    ScionAs, ScionLink, ScionLinkType, ScionRouter, ScionTopology, ScionTopologyBuilder,
};
use pocketscion::runtime::PocketScionRuntime;
use pocketscion::runtime::builder::PocketScionRuntimeBuilder;
use pocketscion::state::PocketScionState;
use scion_tracker_core::address::IsdAs;
use sciparse::identifier::isd_asn::IsdAsn;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

use crate::config::{As, Config, Link, LinkKind};
use crate::daemon::{Daemon, Paths};
use crate::routers::Routers;

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
#[repr(u8)]
pub enum LinkState {
    /// It does.
    Up,
    /// Routers at its ends answer packets for it with an SCMP message (external interface down).
    Down,
    /// Packets for it vanish, and nobody says so.
    Mute,
}

impl From<u8> for LinkState {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Up,
            1 => Self::Down,
            _ => Self::Mute,
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Mute => "mute",
        })
    }
}

/// A network that runs, on threads of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct Topology {
    config: Config,
    network: Option<Network>,
}

/// Routers and daemons are tasks that nobody owns: they end with the runtime.
struct Network {
    runtime: Runtime,
    routers: Arc<Routers>,
    /// The endhost APIs, if there are any.
    pocketscion: Option<PocketScionRuntime>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Topology {
    /// Starts the network. When this returns, routers and daemons answer.
    ///
    /// A rustls provider has to be installed for the process before if there are endhost APIs: pocketscion
    /// takes it for granted.
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
            Ok(started) => {
                config.ases = started.ases;
                let network = Some(Network {
                    runtime,
                    routers: started.routers,
                    pocketscion: started.pocketscion,
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

    /// Changes a link. Daemons go on to hand out paths over it.
    pub fn set_link(&self, name: &str, state: LinkState) -> Result<(), Error> {
        let mut links = self.config.links.iter();
        let link = links
            .position(|link| link.name == name)
            .ok_or_else(|| Error::NoLink(name.to_owned()))?;
        let network = self.network.as_ref().ok_or(Error::Failed)?;
        network.routers.set(link, state);
        Ok(())
    }

    /// Ends the network. Afterwards its ports are free.
    pub async fn stop(mut self) {
        if let Some(Network {
            runtime,
            pocketscion,
            ..
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

/// What was started.
struct Started {
    routers: Arc<Routers>,
    pocketscion: Option<PocketScionRuntime>,
    /// The ASes with the addresses that all this listens on.
    ases: Vec<As>,
}

/// Starts routers, daemons and endhost APIs.
async fn start(config: &Config) -> anyhow::Result<Started> {
    let topology = simulated(config)?;
    let key = |ia| topology.get_as(&isd_asn(ia))?.forwarding_key();
    let routers = Arc::new(Routers::bind(config, key).await?);
    routers.spawn();
    let mut ases = config.ases.clone();
    for (it, address) in ases.iter_mut().zip(routers.addresses()) {
        it.router = address;
    }
    let paths = Arc::new(Paths::new(topology.clone()));
    for it in &mut ases {
        let listener = TcpListener::bind(it.daemon).await;
        let listener = listener.with_context(|| format!("cannot listen on TCP {}", it.daemon))?;
        it.daemon = listener.local_addr()?;
        let daemon = Daemon {
            ia: isd_asn(it.ia),
            router: it.router,
            ports: it.ports,
            paths: Arc::clone(&paths),
        };
        daemon.spawn(listener);
    }
    let pocketscion = match ases.iter().any(|it| it.endhost_api.is_some()) {
        true => Some(start_endhost_apis(config, topology, &mut ases).await?),
        false => None,
    };
    Ok(Started {
        routers,
        pocketscion,
        ases,
    })
}

/// Starts pocketscion with nothing but endhost APIs.
async fn start_endhost_apis(
    config: &Config,
    topology: ScionTopology,
    ases: &mut [As],
) -> anyhow::Result<PocketScionRuntime> {
    let mut state = PocketScionState::new(Utc::now());
    state.set_topology(topology);
    let io = IoConfig::new();
    let mut apis = Vec::with_capacity(ases.len());
    for (number, it) in ases.iter().enumerate() {
        io.set_router_socket_addr(RouterId::new(number), it.router);
        apis.push(it.endhost_api.map(|address| {
            let id = state.add_endhost_api([isd_asn(it.ia)]);
            io.set_endhost_api_addr(id, address);
            id
        }));
    }
    let pocketscion = PocketScionRuntimeBuilder::new()
        .with_system_state(state.clone())
        .with_io_config(io)
        .start()
        .await?;
    // Known from now on, and told to hosts; before, pocketscion would have started routers of its own.
    for it in &*ases {
        let interfaces = config.interfaces(it.ia).map(|(own, _, _)| own.number);
        let interfaces = interfaces.collect();
        state.add_router(isd_asn(it.ia), interfaces, Vec::new(), BTreeMap::new());
    }
    let io = pocketscion.io_config();
    for (it, id) in ases.iter_mut().zip(apis) {
        it.endhost_api = id.and_then(|id| io.endhost_api_addr(id));
    }
    Ok(pocketscion)
}

/// The network as pocketscion knows it.
pub(crate) fn simulated(config: &Config) -> anyhow::Result<ScionTopology> {
    let mut builder = ScionTopologyBuilder::new();
    for it in &config.ases {
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

pub(crate) fn isd_asn(ia: IsdAs) -> IsdAsn {
    IsdAsn(ia.to_u64())
}
