//! Asks the SCION daemon for our ISD-AS and for paths.
//!
//! The daemon is sciond of scionproto, or any other that speaks its protocol: gRPC without TLS,
//! usually on 127.0.0.1:30255. Every call opens a new connection: the daemon is near, and it caches
//! its answers.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grpc;
mod messages;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use prost::Message;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::codec::scion;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scion::topology::DispatchedPorts;
pub use grpc::CallError;

/// Timeout of a call, including the connection and what the daemon fetches from elsewhere.
const TIMEOUT: Duration = Duration::from_secs(10);

/// gRPC status of a method that the daemon does not have.
const UNIMPLEMENTED: u32 = 12;

/// Address of the daemon: `ip:port`, `[ip]:port` or `name:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonAddr {
    text: String,
    of_host: bool,
}

/// An address without a host or a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the address of a SCION daemon as HOST:PORT, for example 127.0.0.1:30255")]
pub struct DaemonAddrError;

impl Default for DaemonAddr {
    /// The default address of sciond.
    fn default() -> Self {
        Self::named("127.0.0.1:30255".into())
    }
}

impl fmt::Display for DaemonAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SocketAddr> for DaemonAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::named(addr.to_string())
    }
}

impl FromStr for DaemonAddr {
    type Err = DaemonAddrError;

    fn from_str(text: &str) -> Result<Self, DaemonAddrError> {
        let text = text.trim();
        let authority: http::uri::Authority = text.parse().map_err(|_| DaemonAddrError)?;
        match authority.port_u16() {
            Some(1..) if !authority.host().is_empty() && !text.contains('@') => {
                Ok(Self::named(text.into()))
            }
            _ => Err(DaemonAddrError),
        }
    }
}

impl DaemonAddr {
    const fn named(text: String) -> Self {
        Self {
            text,
            of_host: false,
        }
    }

    /// An address from the environment, which applies to all programs of the host. An invalid one
    /// is not an error here, because not every program uses the daemon. It fails when the daemon is
    /// asked.
    pub(crate) fn of_host(text: &str) -> Self {
        Self {
            text: text.trim().into(),
            of_host: true,
        }
    }

    /// Whether the address is the default or from the environment.
    pub(crate) const fn is_of_host(&self) -> bool {
        self.of_host
    }
}

/// The address in the environment: `SCION_DAEMON`, or `SCION_DAEMON_ADDRESS`, which the tools of
/// scionproto use. An empty variable counts as not set.
pub(crate) fn from_env() -> Option<DaemonAddr> {
    ["SCION_DAEMON", "SCION_DAEMON_ADDRESS"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.trim().is_empty())
        .map(|value| DaemonAddr::of_host(&value))
}

/// Why a call to the daemon failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The connection failed.
    #[error(
        "cannot reach the SCION daemon at {daemon} (to use another address, set --scion-daemon or \
         SCION_DAEMON)"
    )]
    Unreachable {
        /// Address of the daemon.
        daemon: DaemonAddr,
        /// The error of the connection.
        source: io::Error,
    },
    /// The daemon did not answer in time.
    #[error(
        "the SCION daemon at {daemon} does not answer within {}",
        humantime::format_duration(TIMEOUT)
    )]
    Timeout {
        /// Address of the daemon.
        daemon: DaemonAddr,
    },
    /// The daemon answered with an error, or with a reply that cannot be used.
    #[error("the SCION daemon at {daemon} did not answer the call {method}")]
    Call {
        /// Address of the daemon.
        daemon: DaemonAddr,
        /// Name of the gRPC method.
        method: &'static str,
        /// What was wrong with the answer.
        source: CallError,
    },
}

/// Whether the daemon must look up fresh paths instead of using its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    No,
    Yes,
}

/// A path to another AS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonPath {
    /// The path as it is encoded in packets.
    pub(crate) raw: Box<[u8]>,
    /// The border router that forwards its packets.
    pub(crate) next_hop: SocketAddr,
    /// Interfaces along the path, beginning with the one out of our AS.
    pub(crate) interfaces: Vec<(IsdAs, u16)>,
    /// Longest packet in bytes, including its SCION header. 0 if unknown.
    pub(crate) mtu: u16,
    /// Expiry of the path: the earliest of its hop fields, or an earlier time from the daemon.
    pub(crate) expiry: SystemTime,
    /// One-way latency, if all ASes on the path announce theirs.
    pub(crate) latency: Option<Duration>,
}

/// A client of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    addr: DaemonAddr,
    timeout: Duration,
}

impl Daemon {
    pub(crate) const fn new(addr: DaemonAddr) -> Self {
        Self {
            addr,
            timeout: TIMEOUT,
        }
    }

    /// Asks for the ISD-AS of the daemon.
    pub(crate) async fn isd_as(&self) -> Result<IsdAs, DaemonError> {
        const METHOD: &str = "AS";
        let request = messages::AsRequest { isd_as: 0 };
        let reply: messages::AsResponse = self.call(METHOD, &request).await?;
        let ia = IsdAs::from_u64(reply.isd_as);
        if ia.is_wildcard() {
            return Err(self.failed(METHOD, CallError::Content("a wildcard as its own ISD-AS")));
        }
        Ok(ia)
    }

    /// Asks for the UDP ports that border routers deliver to on the hosts of the AS. Daemons before
    /// scionproto v0.12 do not have this method: `Unknown`.
    pub(crate) async fn port_range(&self) -> Result<DispatchedPorts, DaemonError> {
        const METHOD: &str = "PortRange";
        let reply: Result<messages::PortRangeResponse, _> =
            self.call(METHOD, &messages::Empty {}).await;
        let reply = match reply {
            Err(DaemonError::Call {
                source: CallError::Status { code, .. },
                ..
            }) if code == UNIMPLEMENTED => return Ok(DispatchedPorts::Unknown),
            other => other?,
        };
        read_ports(&reply)
            .ok_or_else(|| self.failed(METHOD, CallError::Content("an invalid range of ports")))
    }

    /// Asks for the border router of each interface of the AS. Leaves out interfaces without a
    /// usable address.
    pub(crate) async fn interfaces(&self) -> Result<HashMap<u16, SocketAddr>, DaemonError> {
        let request = messages::InterfacesRequest {};
        let reply: messages::InterfacesResponse = self.call("Interfaces", &request).await?;
        Ok(read_interfaces(reply))
    }

    /// Asks for the paths from our AS to another, in no particular order. Leaves out paths that
    /// cannot be used.
    pub(crate) async fn paths(
        &self,
        source: IsdAs,
        destination: IsdAs,
        refresh: Refresh,
    ) -> Result<Vec<DaemonPath>, DaemonError> {
        const METHOD: &str = "Paths";
        let request = messages::PathsRequest {
            source_isd_as: source.to_u64(),
            destination_isd_as: destination.to_u64(),
            refresh: refresh == Refresh::Yes,
            hidden: false,
        };
        let reply: messages::PathsResponse = self.call(METHOD, &request).await?;
        let offered = reply.paths.len();
        let paths: Vec<_> = reply.paths.into_iter().filter_map(read_path).collect();
        if paths.is_empty() && offered > 0 {
            let nothing = CallError::Content("no path that can be decoded");
            return Err(self.failed(METHOD, nothing));
        }
        if paths.len() < offered {
            tracing::debug!(
                "{} of {offered} paths of the daemon cannot be decoded",
                offered - paths.len()
            );
        }
        Ok(paths)
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, DaemonError> {
        let addr = &self.addr.text;
        let call = async {
            let connected = TcpStream::connect(addr).await;
            // Without this, the pieces that gRPC writes would wait for acknowledgements, 40 ms
            // each.
            let connected = connected.and_then(|it| it.set_nodelay(true).map(|()| it));
            let stream = connected.map_err(|source| {
                let daemon = self.addr.clone();
                DaemonError::Unreachable { daemon, source }
            })?;
            grpc::call(stream, addr, method, request)
                .await
                .map_err(|source| self.failed(method, source))
        };
        timeout(self.timeout, call).await.unwrap_or_else(|_| {
            let daemon = self.addr.clone();
            Err(DaemonError::Timeout { daemon })
        })
    }

    fn failed(&self, method: &'static str, source: CallError) -> DaemonError {
        DaemonError::Call {
            daemon: self.addr.clone(),
            method,
            source,
        }
    }
}

/// Reads a range of ports. `None` if it is invalid.
fn read_ports(reply: &messages::PortRangeResponse) -> Option<DispatchedPorts> {
    let first = u16::try_from(reply.dispatched_port_start).ok()?;
    let last = u16::try_from(reply.dispatched_port_end).ok()?;
    match (first, last) {
        (0, 0) => Some(DispatchedPorts::None),
        _ if first <= last => Some(DispatchedPorts::Range(first.max(1), last)),
        _ => None,
    }
}

/// Reads the interfaces that can be used.
fn read_interfaces(reply: messages::InterfacesResponse) -> HashMap<u16, SocketAddr> {
    let usable = |(id, interface): (u64, messages::Interface)| {
        Some((
            u16::try_from(id).ok().filter(|id| *id > 0)?,
            interface.underlay()?,
        ))
    };
    reply.interfaces.into_iter().filter_map(usable).collect()
}

/// Decodes a path. `None` if it cannot be used.
fn read_path(path: messages::Path) -> Option<DaemonPath> {
    let checked = scion::Path::parse(&path.raw).ok()?;
    // The hop fields limit the expiry. The daemon may report an earlier one.
    let in_packets = u64::from(checked.expiry()?);
    let announced = path
        .expiration
        .and_then(|it| u64::try_from(it.seconds).ok());
    let expiry = announced
        .filter(|it| *it > 0)
        .map_or(in_packets, |it| it.min(in_packets));
    let interfaces = path
        .interfaces
        .iter()
        .map(|it| Some((IsdAs::from_u64(it.isd_as), u16::try_from(it.id).ok()?)))
        .collect::<Option<_>>()?;
    let latency = latency(&path.latency, path.interfaces.len());
    Some(DaemonPath {
        next_hop: path.interface?.underlay()?,
        interfaces,
        mtu: u16::try_from(path.mtu).unwrap_or(u16::MAX),
        expiry: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expiry))?,
        latency,
        raw: path.raw.into(),
    })
}

/// Sums the latencies between neighbouring interfaces. `None` if one is missing or negative, which
/// means unknown.
fn latency(parts: &[messages::Duration], interfaces: usize) -> Option<Duration> {
    if parts.is_empty() || parts.len() + 1 != interfaces {
        return None;
    }
    parts.iter().try_fold(Duration::ZERO, |sum, part| {
        let seconds = u64::try_from(part.seconds).ok()?;
        let nanos = u32::try_from(part.nanos).ok()?;
        sum.checked_add(Duration::from_secs(seconds))?
            .checked_add(Duration::from_nanos(nanos.into()))
    })
}
