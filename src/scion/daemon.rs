//! The SCION daemon: who we are, and which paths lead where. That is sciond of scionproto, or
//! whatever speaks as it does: gRPC without TLS, usually on 127.0.0.1:30255.
//!
//! One connection a call: the daemon is near, and keeps what it knows.

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

/// A call as a whole: connection, and what the daemon has to fetch from elsewhere.
const TIMEOUT: Duration = Duration::from_secs(10);

/// gRPC status of a method that the daemon does not have.
const UNIMPLEMENTED: u32 = 12;

/// Where the daemon listens: `ip:port`, `[ip]:port` or `name:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonAddr {
    text: String,
    of_host: bool,
}

/// The text is not an address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SCION daemon's address is a host with a port, as in 127.0.0.1:30255")]
pub struct DaemonAddrError;

impl Default for DaemonAddr {
    /// Where sciond listens if nobody says otherwise.
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

    /// One that the environment names, as it does for every program of the host. What is no address
    /// shows when the daemon is asked: not every program that finds it has a use for it.
    pub(crate) fn of_host(text: &str) -> Self {
        Self {
            text: text.trim().into(),
            of_host: true,
        }
    }

    /// Whether nobody has named it for this program.
    pub(crate) const fn is_of_host(&self) -> bool {
        self.of_host
    }
}

/// The address that the environment names: `SCION_DAEMON`, or `SCION_DAEMON_ADDRESS` as the tools of
/// scionproto have it. A variable that is set to nothing counts as not set.
pub(crate) fn from_env() -> Option<DaemonAddr> {
    ["SCION_DAEMON", "SCION_DAEMON_ADDRESS"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.trim().is_empty())
        .map(|value| DaemonAddr::of_host(&value))
}

/// Why the daemon brings no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Nobody listens there.
    #[error(
        "cannot reach the SCION daemon at {daemon} (another address is set with --scion-daemon or \
         SCION_DAEMON)"
    )]
    Unreachable {
        /// Where it should be.
        daemon: DaemonAddr,
        /// Why.
        source: io::Error,
    },
    /// It takes too long.
    #[error(
        "the SCION daemon at {daemon} does not answer within {}",
        humantime::format_duration(TIMEOUT)
    )]
    Timeout {
        /// Where it is.
        daemon: DaemonAddr,
    },
    /// It answers with an error, or with nothing that can be used.
    #[error("the SCION daemon at {daemon} gives no answer to {method}")]
    Call {
        /// Where it is.
        daemon: DaemonAddr,
        /// What was asked.
        method: &'static str,
        /// Why.
        source: CallError,
    },
}

/// Whether the daemon shall not answer out of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    No,
    Yes,
}

/// A path to another AS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonPath {
    /// As it stands in packets.
    pub(crate) raw: Box<[u8]>,
    /// The border router that takes them.
    pub(crate) next_hop: SocketAddr,
    /// Out of our AS, into the next, and so on.
    pub(crate) interfaces: Vec<(IsdAs, u16)>,
    /// How long a packet may be with its SCION header, in bytes; 0 if unknown.
    pub(crate) mtu: u16,
    /// When the first part of it expires.
    pub(crate) expiry: SystemTime,
    /// One way, if all ASes on it have announced theirs.
    pub(crate) latency: Option<Duration>,
}

/// A daemon.
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

    /// The AS that the daemon is in.
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

    /// The UDP ports that border routers deliver to on the hosts of the AS: unknown to daemons before
    /// scionproto v0.12, which have no such method.
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
        let range = (reply.dispatched_port_start, reply.dispatched_port_end);
        match (u16::try_from(range.0), u16::try_from(range.1)) {
            (Ok(0), Ok(0)) => Ok(DispatchedPorts::None),
            (Ok(start), Ok(end)) if start <= end => Ok(DispatchedPorts::Range(start.max(1), end)),
            _ => Err(self.failed(METHOD, CallError::Content("a range of ports that is none"))),
        }
    }

    /// The border router of each interface of the AS. Interfaces without a usable address are left
    /// out.
    pub(crate) async fn interfaces(&self) -> Result<HashMap<u16, SocketAddr>, DaemonError> {
        let request = messages::InterfacesRequest {};
        let reply: messages::InterfacesResponse = self.call("Interfaces", &request).await?;
        let usable = |(id, interface): (u64, messages::Interface)| {
            Some((
                u16::try_from(id).ok().filter(|id| *id > 0)?,
                interface.underlay()?,
            ))
        };
        Ok(reply.interfaces.into_iter().filter_map(usable).collect())
    }

    /// The paths from our AS to another, in no particular order; those that cannot be used are left
    /// out.
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
            let nothing = CallError::Content("no path that can be read");
            return Err(self.failed(METHOD, nothing));
        }
        if paths.len() < offered {
            tracing::debug!(
                "{} of {offered} paths cannot be read",
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
            // What gRPC writes in pieces would wait for acknowledgements otherwise, 40 ms at a time.
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

/// `None` for a path that packets cannot be sent along.
fn read_path(path: messages::Path) -> Option<DaemonPath> {
    let checked = scion::Path::parse(&path.raw).ok()?;
    // What the hop fields say holds; the daemon may know of something that ends earlier.
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

/// The sum over all pairs of neighbouring interfaces; `None` if one is negative, which stands for
/// unknown, or missing.
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
