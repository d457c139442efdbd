//! Listeners over SCION: one port for UDP trackers and HTTP/3, because border routers deliver to one port.
//! They also receive on UDP port 30041 of their address, if it is free.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use scion_tracker_core::address::{Host, ScionAddr};

use super::{Bound, Kind, Listener, Listening, Run, Start, udp};
use crate::config::{Config, ScionListener, ScionTransports};
use crate::scion::daemon::{Daemon, DaemonAddr, DaemonError};
use crate::scion::socket::{self, ENDHOST_PORT, Routers, ScionSocket};
use crate::scion::topology::{Topology, TopologyError};
use crate::server::BindError;
use crate::socket::ip;
use crate::tls::Certificates;
use crate::transport::http::origin::Proxies;
use crate::transport::{quic, scion, udp as udp_transport};

/// The SCION port if none is configured. Border routers deliver to it by default.
const DEFAULT_PORT: u16 = 31969;
const UDP: &str = "udp";

/// A bound SCION listener.
#[derive(Debug)]
pub(super) struct Scion {
    port: Port,
    /// `None`: UDP alone.
    quic: Option<Arc<Certificates>>,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    /// See [`Scion::endhost_port`](crate::config::Scion::endhost_port).
    endhost: Option<UdpSocket>,
    address: SocketAddr,
    host: Host,
    scion: ScionAddr,
    topology: Option<Topology>,
}

impl Listener for Scion {
    type Settings = ScionListener;

    /// Binds what the configuration names, or the default listener if it names only a topology or a
    /// daemon. If only a variable of the host names a daemon, failure is logged and is no error.
    fn bind(listeners: &[ScionListener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let bind = || {
            let topology = own_as(config)?;
            named_or_default(listeners, topology.as_ref())?
                .into_iter()
                .map(|listener| Self::bind_one(listener, topology.clone(), config))
                .collect()
        };
        match bind() {
            Err(error) if !config.asks_for_scion() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "not listening over SCION: nothing names a SCION daemon except SCION_DAEMON in the environment, and it cannot be used"
                );
                Ok(Vec::new())
            }
            bound => bound,
        }
    }

    fn url(listeners: &[ScionListener], config: &Config) -> Result<Option<String>, BindError> {
        let found = match listeners {
            [] => named_or_default(listeners, own_as(config)?.as_ref())?,
            named => named.to_vec(),
        };
        let Some(ScionListener { host, port, .. }) = found.into_iter().find(|it| it.port != 0)
        else {
            return Ok(None);
        };
        let scion = ScionAddr::new(host.ia, host.ip(), port)
            .map_err(|source| BindError::scion((host, port), source))?;
        let address = SocketAddr::new(host.ip(), port);
        Ok(Some(listening(UDP, address, scion).url()))
    }
}

impl Scion {
    fn bind_one(
        listener: ScionListener,
        topology: Option<Topology>,
        config: &Config,
    ) -> Result<Bound, BindError> {
        let port = Port::bind(listener, topology, config)?;
        Ok(match listener.transports {
            ScionTransports::Udp => Bound::ready(Self { port, quic: None }),
            ScionTransports::UdpAndQuic => {
                // Clients over SCION find the address in the URL, without the ISD-AS.
                let names = vec![port.host.ip().to_string()];
                Bound::needs_certificate(names, |certificates| Self {
                    port,
                    quic: Some(certificates),
                })
            }
        })
    }
}

impl Run for Scion {
    fn listening(&self) -> Listening {
        let Port { address, scion, .. } = self.port;
        // HTTP/3 is called https in the SCION world, where nothing else is called that.
        let scheme = if self.quic.is_some() { "https" } else { UDP };
        listening(scheme, address, scion)
    }

    fn transports(&self) -> Vec<Listening> {
        let first = self.listening();
        let second = self.quic.as_ref().map(|_| Listening {
            scheme: UDP,
            ..first
        });
        [first].into_iter().chain(second).collect()
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        let Self { port, quic } = *self;
        start.watch_receive_buffers(std::slice::from_ref(&port.socket))?;
        if let Some(endhost) = &port.endhost {
            start.watch_receive_buffers(std::slice::from_ref(endhost))?;
        }
        let service = Arc::clone(&start.service);
        let socket = ScionSocket::server(
            (port.socket, port.endhost),
            port.host,
            Routers::new(port.topology, start.config.scion.routers.clone()),
            socket::Limits::default(),
            Arc::clone(&service.counters),
        )?;
        // Weak, so that the port is free when the listener has ended.
        let remotes = Arc::downgrade(&socket);
        let remotes = move || remotes.upgrade().map_or(0, |socket| socket.remotes());
        service.gauges.add_remotes(remotes);
        let udp = udp_transport::OverScion::new(&service, udp::options(start.config))?;
        let quic = quic
            .map(|certificates| {
                let tls = certificates.quic_config(quic::PROTOCOLS_OVER_SCION);
                let options = Arc::new(start.options(Proxies::default()));
                quic::Listener::new(tls, Some(socket::INITIAL_RTT), options, service)
            })
            .transpose()?;
        let stop = start.stop();
        start.spawn(async move { scion::run(socket, Some(udp), quic.as_ref(), stop).await });
        Ok(())
    }
}

impl Port {
    fn bind(
        ScionListener { host, port, .. }: ScionListener,
        topology: Option<Topology>,
        config: &Config,
    ) -> Result<Self, BindError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            BindError::scion((host, port), source)
        };
        if let Some(topology) = &topology {
            check_address((host, port), topology, config)?;
        }
        let socket = bind_udp(host, port, config).map_err(|error| failed(error.into()))?;
        let address = socket.local_addr().map_err(|error| failed(error.into()))?;
        let scion = ScionAddr::new(host.ia, host.ip(), address.port())
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            endhost: bind_endhost_port(scion, config)?,
            socket,
            address,
            host,
            scion,
            topology,
        })
    }
}

fn bind_udp(host: Host, port: u16, config: &Config) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(host.ip(), port);
    let sockets = ip::udp(address, NonZeroUsize::MIN, config.udp.receive_buffer)?;
    let first = sockets.into_iter().next();
    first.ok_or_else(|| io::Error::other("no socket"))
}

/// Binds UDP port 30041 of a listener, unless the configuration says no. Without a word in the
/// configuration, failure is logged and is no error.
fn bind_endhost_port(listener: ScionAddr, config: &Config) -> Result<Option<UdpSocket>, BindError> {
    let setting = config.scion.endhost_port;
    let ScionAddr { host, port } = listener;
    if setting == Some(false) || port == ENDHOST_PORT {
        return Ok(None);
    }
    match bind_udp(host, ENDHOST_PORT, config) {
        Ok(socket) => {
            tracing::info!(%listener, "also receiving on UDP port {ENDHOST_PORT}");
            Ok(Some(socket))
        }
        Err(error) if setting.is_none() => {
            tracing::info!(
                %listener, %error,
                "not receiving on UDP port {ENDHOST_PORT}: a dispatcher or another program has it. SCMP echo \
                 requests and programs of this AS that send to this port do not reach the tracker"
            );
            Ok(None)
        }
        Err(error) => Err(BindError::scion((host, ENDHOST_PORT), error)),
    }
}

/// Checks the topology file, if there is one, and the listeners against it.
pub(super) fn check(config: &Config) -> Result<(), BindError> {
    let Some(file) = &config.scion.topology else {
        return Ok(());
    };
    let topology = topology(file)?;
    named_or_default(&config.listen.scion, Some(&topology))?
        .iter()
        .try_for_each(|it| check_address((it.host, it.port), &topology, config))
}

/// Checks that an address is in our AS and that border routers deliver to its port.
fn check_address(
    (host, port): (Host, u16),
    topology: &Topology,
    config: &Config,
) -> Result<(), BindError> {
    if topology.isd_as() != host.ia {
        let source = match config.scion.topology {
            Some(_) => "the topology file is that",
            None => "the SCION daemon is one",
        };
        let other = format!("{source} of {}", topology.isd_as());
        return Err(BindError::scion((host, port), other));
    }
    // Port 0 is for tests: nobody knows the port before the system picks it.
    if port != 0 {
        topology
            .check_port(port)
            .map_err(|error| BindError::scion((host, port), error))?;
    }
    Ok(())
}

const fn listening(scheme: &'static str, address: SocketAddr, scion: ScionAddr) -> Listening {
    Listening {
        kind: Kind::Scion,
        address,
        scion: Some(scion),
        scheme,
    }
}

/// What is known of our AS. A daemon is asked only if there is no topology file.
fn own_as(config: &Config) -> Result<Option<Topology>, BindError> {
    match (&config.scion.topology, &config.scion.daemon) {
        (Some(file), _) => topology(file).map(Some),
        (None, Some(daemon)) => ask(daemon).map(Some),
        (None, None) => Ok(None),
    }
}

/// The configured listeners, or the default one if there is only a topology or a daemon.
fn named_or_default(
    listeners: &[ScionListener],
    topology: Option<&Topology>,
) -> Result<Vec<ScionListener>, BindError> {
    let (Some(topology), []) = (topology, listeners) else {
        return Ok(listeners.to_vec());
    };
    let ip = own_address(topology).map_err(|source| BindError::Scion {
        address: format!("{} (address unknown)", topology.isd_as()),
        source: source.into(),
    })?;
    let host = Host::new(topology.isd_as(), ip);
    Ok(vec![ScionListener::new(host, DEFAULT_PORT)])
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

/// Asks the daemon about our AS. Takes until it has answered, or some seconds.
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
    ip::address_towards(SocketAddr::new(router, DEFAULT_PORT))
}
