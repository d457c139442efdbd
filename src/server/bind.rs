//! What a server is made of before it runs: sockets and the certificate.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use scion_tracker_core::address::{Host, ScionAddr};

use super::{BindError, Kind, Listening};
use crate::config::{self, Config, ScionListener};
use crate::scion::daemon::{Daemon, DaemonAddr, DaemonError};
use crate::scion::topology::{Topology, TopologyError};
use crate::socket::ip;
use crate::tls::{Certificates, MakeError, TlsError};

/// The SCION port where none is named: inside the ports that border routers deliver to by default.
const SCION_PORT: u16 = 31969;

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listening: Listening,
    pub(super) config: config::Listener,
    pub(super) sockets: Sockets,
}

#[derive(Debug)]
pub(super) enum Sockets {
    /// One a worker.
    Udp(Vec<UdpSocket>),
    /// One a worker.
    Tcp(Vec<TcpListener>),
    /// One a worker: a client that changes its port has to begin anew in any case.
    Quic(Vec<UdpSocket>),
    /// One for both transports over SCION: border routers deliver to one port.
    Scion(UdpSocket, Host, Option<Topology>),
}

impl Sockets {
    pub(super) const fn need_certificate(&self) -> bool {
        matches!(self, Self::Quic(_) | Self::Scion(..))
    }
}

impl Bound {
    /// What listens here: over SCION two transports on one socket.
    pub(super) fn listening(&self) -> impl Iterator<Item = Listening> + use<> {
        let second = self.listening.scion.map(|_| Listening {
            kind: Kind::Udp,
            ..self.listening
        });
        std::iter::once(self.listening).chain(second)
    }
}

/// Binds a listener, with a socket for each worker where its transport has several.
pub(super) fn bind(
    kind: Kind,
    listener: &config::Listener,
    config: &Config,
) -> Result<Bound, BindError> {
    let workers = config.workers();
    let failed = |source| BindError::Listen {
        kind,
        address: listener.address,
        source,
    };
    let sockets = match kind {
        Kind::Udp => {
            ip::udp(listener.address, workers, config.udp.receive_buffer).map(Sockets::Udp)
        }
        Kind::Http | Kind::Https => ip::tcp(listener.address, workers).map(Sockets::Tcp),
        Kind::Http3 => {
            ip::udp(listener.address, workers, config.udp.receive_buffer).map(Sockets::Quic)
        }
    }
    .map_err(failed)?;
    let address = match &sockets {
        Sockets::Udp(sockets) | Sockets::Quic(sockets) => sockets[0].local_addr(),
        Sockets::Tcp(sockets) => sockets[0].local_addr(),
        Sockets::Scion(socket, ..) => socket.local_addr(),
    }
    .map_err(failed)?;
    Ok(Bound {
        listening: Listening {
            kind,
            address,
            scion: None,
        },
        config: listener.clone(),
        sockets,
    })
}

/// Binds the SCION listeners: without fail where they are asked for, and otherwise if it can be done.
pub(super) fn bind_scion(config: &Config) -> Result<Vec<Bound>, BindError> {
    let bind = || {
        let topology = own_as(config)?;
        named_or_default(config, topology.as_ref())?
            .into_iter()
            .map(|listener| bind_scion_address(listener, topology.clone(), config))
            .collect()
    };
    match bind() {
        Err(error) if !config.asks_for_scion() => {
            let error = anyhow::Error::new(error);
            tracing::warn!(
                "not listening over SCION, for which nothing speaks but SCION_DAEMON in the \
                 environment: {error:#}"
            );
            Ok(Vec::new())
        }
        bound => bound,
    }
}

/// Where a tracker with this configuration listens over SCION. Binds nothing, and reads the topology
/// or asks the daemon only where no listener is named.
pub(crate) fn scion_listeners(config: &Config) -> Result<Vec<ScionListener>, BindError> {
    match config.listen.scion.is_empty() {
        false => Ok(config.listen.scion.clone()),
        true => named_or_default(config, own_as(config)?.as_ref()),
    }
}

/// What is known of our AS. A daemon is asked only where there is no topology file.
fn own_as(config: &Config) -> Result<Option<Topology>, BindError> {
    match (&config.scion.topology, &config.scion.daemon) {
        (Some(file), _) => topology(file).map(Some),
        (None, Some(daemon)) => ask(daemon).map(Some),
        (None, None) => Ok(None),
    }
}

/// The SCION listeners: those that are named, or the default one where only a topology or a daemon is.
fn named_or_default(
    config: &Config,
    topology: Option<&Topology>,
) -> Result<Vec<ScionListener>, BindError> {
    let mut addresses = config.listen.scion.clone();
    if let Some(topology) = topology
        && addresses.is_empty()
    {
        let ip = own_address(topology).map_err(|source| BindError::Scion {
            address: format!("{} (address unknown)", topology.isd_as()),
            source: source.into(),
        })?;
        let host = Host::new(topology.isd_as(), ip);
        let port = SCION_PORT;
        addresses.push(ScionListener { host, port });
    }
    Ok(addresses)
}

fn topology(path: &Path) -> Result<Topology, BindError> {
    let failed = |source| BindError::Topology {
        path: path.into(),
        source,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
    text.parse()
        .map_err(|error: TopologyError| failed(error.into()))
}

/// What the daemon knows of our AS. Takes until it has answered, or some seconds.
fn ask(daemon: &DaemonAddr) -> Result<Topology, BindError> {
    let daemon = Daemon::new(daemon.clone());
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BindError::Runtime)?;
        let answers = runtime.block_on(async {
            let (ia, ports, routers) =
                tokio::try_join!(daemon.isd_as(), daemon.port_range(), daemon.interfaces())?;
            Ok::<_, DaemonError>(Topology::new(ia, routers, ports))
        });
        Ok(answers?)
    };
    // The caller may be on a thread of a runtime, which may not wait for another one.
    let joined = thread::scope(|scope| scope.spawn(asked).join());
    joined.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// Our address in the network of the border routers.
fn own_address(topology: &Topology) -> io::Result<IpAddr> {
    let router = topology.border_routers().min().ok_or_else(|| {
        io::Error::other("no border router of the AS is known: name the address with --scion")
    })?;
    ip::address_towards(SocketAddr::new(router, SCION_PORT))
}

fn bind_scion_address(
    ScionListener { host, port }: ScionListener,
    topology: Option<Topology>,
    config: &Config,
) -> Result<Bound, BindError> {
    let failed = |source| BindError::Scion {
        address: format!("{},[{}]:{port}", host.ia, host.ip()),
        source,
    };
    if let Some(topology) = &topology {
        if topology.isd_as() != host.ia {
            let source = match config.scion.topology {
                Some(_) => "the topology file is that",
                None => "the SCION daemon is one",
            };
            let other = format!("{source} of {}", topology.isd_as());
            return Err(failed(other.into()));
        }
        // Port 0 is for tests: nobody knows the port before it is picked.
        if port != 0 {
            topology
                .check_port(port)
                .map_err(|error| failed(error.into()))?;
        }
    }
    let socket = ip::udp(
        SocketAddr::new(host.ip(), port),
        NonZeroUsize::MIN,
        config.udp.receive_buffer,
    )
    .map(|sockets| sockets.into_iter().next())
    .map_err(|error| failed(error.into()))?
    .ok_or_else(|| failed("no socket".into()))?;
    let address = socket.local_addr().map_err(|error| failed(error.into()))?;
    let scion =
        ScionAddr::new(host.ia, host.ip(), address.port()).map_err(|error| failed(error.into()))?;
    Ok(Bound {
        listening: Listening {
            kind: Kind::Http3,
            address,
            scion: Some(scion),
        },
        config: address.into(),
        sockets: Sockets::Scion(socket, host, topology),
    })
}

/// The configured certificate, or the self-signed one, which is not kept if nobody said where and
/// the usual places are not there or cannot be written.
pub(super) fn certificates(config: &Config, listeners: &[Bound]) -> Result<Certificates, TlsError> {
    let directory = config.data_dir.clone().or_else(usual_data_dir);
    let mut tls = config.tls.clone();
    // What clients over SCION find in the URL, the ISD-AS left aside.
    let over_scion = listeners.iter().filter_map(|bound| bound.listening.scion);
    tls.names
        .extend(over_scion.map(|scion| scion.host.ip().to_string()));
    let mut loaded = Certificates::load(&tls, directory.as_deref());
    let mut kept = directory.is_some();
    if let Err(TlsError::Make(error @ MakeError::Write { .. })) = &loaded
        && config.data_dir.is_none()
    {
        tracing::debug!("{error}");
        loaded = Certificates::load(&tls, None);
        kept = false;
    }
    let loaded = loaded?;
    if loaded.is_self_signed() {
        let fingerprint = loaded.fingerprint();
        tracing::info!("https and http3 serve a self-signed certificate, SHA-256 {fingerprint}");
        if !kept {
            tracing::warn!(
                "there is no place to keep this certificate, so it will be another one after a restart: name a directory with --data-dir"
            );
        }
    }
    Ok(loaded)
}

/// See [`Config::data_dir`].
fn usual_data_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // systemd separates several directories by colons; the first is ours.
    variable("STATE_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .or_else(|| Some(PathBuf::from(variable("XDG_STATE_HOME")?).join("scion-tracker")))
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state/scion-tracker")))
}
