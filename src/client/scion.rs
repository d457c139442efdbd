//! Reaches trackers over SCION: finds their addresses and paths, and keeps requests on paths that
//! work.

mod call;
mod choice;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod hosts;
mod local;
mod path;
mod policy;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use scion_tracker_core::address::{AddressError, Host, IsdAs, ScionAddr};

use super::TrackerUrl;
use crate::scion::daemon::{Daemon, DaemonAddr, DaemonError, Refresh};
use crate::scion::socket::{PathError, ScionSocket};
use crate::scion::topology::{DispatchedPorts, Topology};
use crate::socket::ip::address_towards;
pub(super) use call::{Call, Silence};
pub(crate) use local::USUAL_PORTS;
pub use path::{PathInterface, PathStatus, ScionPath};
pub use policy::{Acl, AclError, AclErrorKind};

/// How a client reaches trackers over SCION. For trackers on plain IP only the names of hosts
/// matter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScionOptions {
    /// The SCION daemon, which knows our ISD-AS and the paths.
    pub daemon: DaemonAddr,
    /// Our own host. Without it, the client takes the ISD-AS from the daemon, and the local address
    /// that reaches the next hop. With it, trackers in our own AS need no daemon. Trackers on this
    /// host need neither.
    pub local: Option<Host>,
    /// A file with names of SCION hosts, one host per line: `ISD-AS,[ip] name name...`. The file
    /// may be missing.
    pub hosts: PathBuf,
    /// Allows or denies paths.
    pub policy: Acl,
    /// The only path to use, by its number in [`ScionPaths::paths`]. Without it, the client uses
    /// the first usable path, and others when it fails.
    pub path: Option<usize>,
}

impl Default for ScionOptions {
    /// The daemon on 127.0.0.1:30255, the names in /etc/scion/hosts, any path.
    fn default() -> Self {
        Self {
            daemon: DaemonAddr::default(),
            local: None,
            hosts: "/etc/scion/hosts".into(),
            policy: Acl::default(),
            path: None,
        }
    }
}

/// Why a tracker cannot be reached over SCION.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScionError {
    /// The daemon failed to answer.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The file of names cannot be read.
    #[error("cannot read the SCION host names from {}", path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// The error of the file.
        source: io::Error,
    },
    /// The line with the name has no valid address.
    #[error(
        "{}, line {line}: expected an address of the form ISD-AS,[ip]", path.display()
    )]
    HostsLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// The address is not a valid destination.
    #[error("{0} cannot be a tracker")]
    Address(Host, #[source] AddressError),
    /// The host is neither a SCION address nor a known name.
    #[error("{host} is neither a SCION address nor a name in {}", path.display())]
    NotScion {
        /// The host in the URL.
        host: String,
        /// The file of names.
        path: PathBuf,
    },
    /// The daemon knows no path.
    #[error("the SCION daemon knows no path from {from} to {to}")]
    NoPath {
        /// Our AS.
        from: IsdAs,
        /// The tracker's AS.
        to: IsdAs,
    },
    /// No path is usable.
    #[error(
        "none of the {count} paths from {from} to {to} is usable: {}",
        unusable(*count, *denied)
    )]
    NoUsablePath {
        /// Our AS.
        from: IsdAs,
        /// The tracker's AS.
        to: IsdAs,
        /// Number of paths.
        count: usize,
        /// Number of paths that the policy denies.
        denied: usize,
    },
    /// There is no path with the requested number.
    #[error("there is no path {number}: paths are numbered from 0 to {}", count.saturating_sub(1))]
    NoSuchPath {
        /// The requested number.
        number: usize,
        /// Number of paths.
        count: usize,
    },
    /// The requested path is not usable.
    #[error("path {number} is {status}")]
    PathStatus {
        /// Number of the path.
        number: usize,
        /// Why it is not usable.
        status: PathStatus,
    },
    /// Border routers would not deliver answers.
    #[error(
        "the border routers of {0} deliver to no UDP ports of end hosts (dispatched_ports of its \
         topology), so no answer would arrive"
    )]
    NoPorts(IsdAs),
    /// No local address reaches the next hop.
    #[error("cannot find a local address that reaches {next_hop}")]
    Local {
        /// Underlay address of the next hop.
        next_hop: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot bind a UDP port on {ip}{}", within(*ports))]
    Bind {
        /// Our address.
        ip: IpAddr,
        /// First and last allowed port. `None` if all are allowed.
        ports: Option<(u16, u16)>,
        /// The error of the system.
        source: io::Error,
    },
    /// There was no answer in time, and a border router reported why.
    #[error("no answer from {0} in time: {1}")]
    Broken(ScionAddr, String),
    /// A path is malformed, or does not fit into a packet.
    #[error("the SCION daemon returned an invalid path")]
    Path(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why none of the paths is usable, with how many of them the policy denies.
fn unusable(count: usize, denied: usize) -> String {
    let reasons = [
        ("denied by the policy", denied),
        (
            "expired, or beginning at a router of another IP version",
            count - denied,
        ),
    ];
    let reasons = reasons.iter().filter(|(_, paths)| *paths > 0);
    let reasons: Vec<_> = reasons
        .map(|(why, paths)| format!("{paths} {why}"))
        .collect();
    reasons.join(", ")
}

fn within(ports: Option<(u16, u16)>) -> String {
    ports.map_or_else(String::new, |(first, last)| {
        format!(" between {first} and {last}")
    })
}

impl From<PathError> for ScionError {
    fn from(error: PathError) -> Self {
        Self::Path(error.into())
    }
}

/// The paths to a tracker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScionPaths {
    /// Our AS.
    pub from: IsdAs,
    /// The tracker.
    pub to: ScionAddr,
    /// The paths in the order in which they are tried, numbered from 0. Inside an AS there is one
    /// path, without interfaces.
    pub paths: Vec<ScionPath>,
}

/// Finds SCION addresses and paths for a client.
#[derive(Debug)]
pub(super) struct Scion {
    options: ScionOptions,
    daemon: Daemon,
    /// Topology file of the AS of this host.
    pub(super) topology: PathBuf,
}

impl Scion {
    pub(super) fn new(options: &ScionOptions) -> Self {
        Self {
            daemon: Daemon::new(options.daemon.clone()),
            options: options.clone(),
            topology: "/etc/scion/topology.json".into(),
        }
    }

    /// Returns the SCION address of a URL: the address in the URL, or the one of its host name.
    /// `None` if there is neither.
    pub(super) fn find(&self, url: &TrackerUrl) -> Result<Option<ScionAddr>, ScionError> {
        if url.scion().is_some() {
            return Ok(url.scion());
        }
        if url.host().parse::<IpAddr>().is_ok() {
            return Ok(None);
        }
        let Some(host) = hosts::find(&self.options.hosts, url.host())? else {
            return Ok(None);
        };
        ScionAddr::new(host.ia, host.ip(), url.port())
            .map(Some)
            .map_err(|error| ScionError::Address(host, error))
    }

    /// Like [`Scion::find`], but fails if there is no SCION address.
    pub(super) fn require(&self, url: &TrackerUrl) -> Result<ScionAddr, ScionError> {
        self.find(url)?.ok_or_else(|| ScionError::NotScion {
            host: url.host().to_owned(),
            path: self.options.hosts.clone(),
        })
    }

    /// Returns the paths to a tracker.
    pub(super) async fn paths(&self, to: ScionAddr) -> Result<ScionPaths, ScionError> {
        self.look_up(to, Refresh::No).await
    }

    /// Our own ISD-AS, for requests to this tracker: from the options, else from the daemon. Without
    /// a daemon, a tracker on this host is in our own AS.
    pub(super) async fn isd_as(&self, to: ScionAddr) -> Result<IsdAs, ScionError> {
        if let Some(local) = self.options.local {
            return Ok(local.ia);
        }
        match self.daemon.isd_as().await {
            Err(DaemonError::Unreachable { .. }) if local::is_ours(to.host.ip()) => Ok(to.host.ia),
            answer => Ok(answer?),
        }
    }

    /// ISD-AS of this host and the ports that its border routers deliver to: from the daemon, else from
    /// the topology file. `None` if neither tells them.
    pub(super) async fn own_as(&self) -> Option<Topology> {
        let known = match (self.daemon.isd_as().await, self.daemon.port_range().await) {
            (Ok(ia), Ok(ports)) => Some(Topology::new(ia, HashMap::new(), ports)),
            _ => std::fs::read_to_string(&self.topology).ok()?.parse().ok(),
        };
        // The options may place this host in another AS.
        known.filter(|it| {
            self.options
                .local
                .is_none_or(|local| local.ia == it.isd_as())
        })
    }

    async fn look_up(&self, to: ScionAddr, refresh: Refresh) -> Result<ScionPaths, ScionError> {
        let from = self.isd_as(to).await?;
        if from == to.host.ia {
            let next_hop = SocketAddr::new(to.host.ip(), to.port);
            let paths = vec![ScionPath::inside(next_hop)];
            return Ok(ScionPaths { from, to, paths });
        }
        let found = self.daemon.paths(from, to.host.ia, refresh).await?;
        let paths = path::in_order(found, to.host.ip(), &self.options.policy, SystemTime::now());
        Ok(ScionPaths { from, to, paths })
    }

    /// Selects the usable paths from this local address, the best first. Returns at least one.
    fn usable(
        &self,
        found: ScionPaths,
        local: Option<IpAddr>,
    ) -> Result<Vec<ScionPath>, ScionError> {
        let ScionPaths { from, to, paths } = found;
        let (to, count) = (to.host.ia, paths.len());
        if count == 0 {
            return Err(ScionError::NoPath { from, to });
        }
        let mut paths = match self.options.path {
            None => paths,
            Some(number) => {
                let path = paths.into_iter().nth(number);
                let path = path.ok_or(ScionError::NoSuchPath { number, count })?;
                let status = path.status();
                if status != PathStatus::Usable {
                    return Err(ScionError::PathStatus { number, status });
                }
                vec![path]
            }
        };
        let denied = paths
            .iter()
            .filter(|it| it.status() == PathStatus::Denied)
            .count();
        paths.retain(|path| path.status() == PathStatus::Usable);
        // One socket sends over all of them.
        let from_ip = local.or_else(|| Some(paths.first()?.next_hop().ip()));
        paths.retain(|path| from_ip.is_some_and(|ip| ip.is_ipv4() == path.next_hop().is_ipv4()));
        if paths.is_empty() {
            return Err(ScionError::NoUsablePath {
                from,
                to,
                count,
                denied,
            });
        }
        Ok(paths)
    }

    /// Prepares a socket and paths to talk to a tracker.
    pub(super) async fn call(self: &Arc<Self>, to: ScionAddr) -> Result<Call, ScionError> {
        let found = self.paths(to).await?;
        let from = found.from;
        let local = self.options.local.map(|host| host.ip());
        let paths = self.usable(found, local)?;
        let ip = match local {
            Some(ip) => ip,
            None => {
                let next_hop = paths[0].next_hop();
                address_towards(next_hop)
                    .map_err(|source| ScionError::Local { next_hop, source })?
            }
        };
        // Packets between hosts of one AS pass no border router.
        let ports = match from == to.host.ia {
            true => None,
            false => match self.daemon.port_range().await? {
                DispatchedPorts::Range(first, last) => Some((first, last)),
                DispatchedPorts::None => return Err(ScionError::NoPorts(from)),
                DispatchedPorts::Unknown => Some(USUAL_PORTS),
            },
        };
        let socket = local::bind(ip, ports)
            .and_then(|socket| {
                let host = Host::new(from, ip);
                ScionSocket::client(socket, host)
            })
            .map_err(|source| ScionError::Bind { ip, ports, source })?;
        Call::new(Arc::clone(self), socket, to, paths)
    }

    /// Asks the daemon for fresh usable paths from this local address.
    async fn renewed(&self, to: ScionAddr, local: IpAddr) -> Result<Vec<ScionPath>, ScionError> {
        self.usable(self.look_up(to, Refresh::Yes).await?, Some(local))
    }
}

#[cfg(test)]
mod tests;
