//! Runs a network.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use pocketscion::network::scion::topology::{
    ScionAs, ScionLink, ScionLinkType, ScionRouter, ScionTopology, ScionTopologyBuilder,
};
use scion_tracker_core::address::IsdAs;
use sciparse::identifier::isd_asn::IsdAsn;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

use crate::config::{As, Config, Link, LinkKind};
use crate::daemon::Daemon;
use crate::endhost::EndhostApi;
use crate::paths::Paths;
use crate::routers::{LinkState, Routers};

/// Time for tasks to end.
const STOPPING: Duration = Duration::from_secs(5);

/// Why a network does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The threads cannot be started.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// The network is invalid, or an address cannot be listened on.
    #[error("{0:#}")]
    Start(anyhow::Error),
    /// The network ended while it started or handled a request.
    #[error("the network stopped unexpectedly")]
    Failed,
    /// No link has this name.
    #[error("there is no link named {0:?}")]
    NoLink(String),
}

/// A running network on its own threads. It stops when dropped.
#[derive(Debug)]
pub struct Topology {
    config: Config,
    network: Option<Network>,
}

/// Routers, daemons and endhost APIs are tasks without an owner. They end with the runtime.
struct Network {
    runtime: Runtime,
    routers: Arc<Routers>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Topology {
    /// Starts the network. When this returns, routers and daemons answer.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("topology")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let starting = runtime.spawn(async move {
            let started = start(&config).await;
            started.map(|(routers, ases)| (routers, Config { ases, ..config }))
        });
        let error = match starting.await {
            Ok(Ok((routers, config))) => {
                let network = Some(Network { runtime, routers });
                return Ok(Self { config, network });
            }
            Ok(Err(error)) => Error::Start(error),
            Err(_) => Error::Failed,
        };
        runtime.shutdown_background();
        Err(error)
    }

    /// The configuration with the actual ports.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the state of a link. Daemons keep handing out paths over it.
    pub fn set_link(&self, name: &str, state: LinkState) -> Result<(), Error> {
        let (routers, link) = self.link(name)?;
        routers.set(link, state);
        Ok(())
    }

    /// Takes a link up, has it carry this number of packets, in both directions together, and then takes
    /// it down.
    pub fn fail_link_after(&self, name: &str, packets: u64) -> Result<(), Error> {
        let (routers, link) = self.link(name)?;
        routers.fail_after(link, packets);
        Ok(())
    }

    /// The index of a link in the file.
    fn link(&self, name: &str) -> Result<(&Routers, usize), Error> {
        let mut links = self.config.links.iter();
        let link = links
            .position(|link| link.name == name)
            .ok_or_else(|| Error::NoLink(name.to_owned()))?;
        let network = self.network.as_ref().ok_or(Error::Failed)?;
        Ok((&network.routers, link))
    }

    /// Stops the network and releases its ports.
    pub async fn stop(mut self) {
        if let Some(Network { runtime, .. }) = self.network.take() {
            let ending = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOPPING));
            if let Err(error) = ending.await {
                tracing::error!(%error, "the network did not stop cleanly");
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

/// Starts routers, daemons and endhost APIs. Returns the ASes with the actual addresses.
async fn start(config: &Config) -> anyhow::Result<(Arc<Routers>, Vec<As>)> {
    let topology = simulated(config)?;
    let key = |ia| topology.get_as(&isd_asn(ia))?.forwarding_key();
    let routers = Arc::new(Routers::bind(config, key).await?);
    routers.spawn();
    let mut ases = config.ases.clone();
    for (it, address) in ases.iter_mut().zip(routers.addresses()) {
        it.router = address;
    }
    let paths = Arc::new(Paths::new(config, topology)?);
    for it in &mut ases {
        let daemon = Daemon {
            ia: isd_asn(it.ia),
            router: it.router,
            ports: it.ports,
            paths: Arc::clone(&paths),
        };
        it.daemon = serve(it.daemon, daemon.service()).await?;
        if let Some(address) = &mut it.endhost_api {
            let api = EndhostApi {
                ia: isd_asn(it.ia),
                router: it.router,
                paths: Arc::clone(&paths),
            };
            *address = serve(*address, api.service()).await?;
        }
    }
    Ok((routers, ases))
}

/// Serves on this address, on the current runtime, until that ends. Returns the actual address.
async fn serve(address: SocketAddr, service: axum::Router) -> anyhow::Result<SocketAddr> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.with_context(|| format!("cannot listen on TCP {address}"))?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY: replies may be late");
        }
    });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!(%error, %address, "a server stopped");
        }
    });
    Ok(address)
}

/// The network in the form of pocketscion.
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
