//! Trackers over SCION: who they are, which paths lead to them, and a socket that keeps to those that
//! work.

mod call;
mod choice;
mod hosts;
mod local;
mod path;
mod policy;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use scion_tracker_core::address::{AddressError, Host, IsdAs, ScionAddr};

use super::{Scheme, TrackerUrl};
use crate::scion::daemon::{Daemon, DaemonAddr, DaemonError, Refresh};
use crate::scion::socket::{PathError, ScionSocket};
use crate::scion::topology::DispatchedPorts;
use crate::socket::ip::address_towards;
pub(super) use call::{Call, Silence};
pub use path::{PathInterface, PathStatus, ScionPath};
pub use policy::{Acl, AclError, AclErrorKind};

/// How a client finds its way over SCION. Nothing of it is looked at for trackers on plain IP, but for
/// the names of hosts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScionOptions {
    /// The SCION daemon, which knows our ISD-AS and the paths.
    pub daemon: DaemonAddr,
    /// Our own host. Without it the ISD-AS is the daemon's, and the address the one from which the
    /// next hop is reached. With it, trackers of our own AS need no daemon.
    pub local: Option<Host>,
    /// Names of SCION hosts, a line each: `ISD-AS,[ip] name name...`. The file need not be there.
    pub hosts: PathBuf,
    /// Which paths may be taken.
    pub policy: Acl,
    /// The only path to be taken, by its number in [`ScionPaths::paths`]. Without it, the first that
    /// is usable, and others when it fails.
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

/// Why there is no way over SCION.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScionError {
    /// The daemon does not help.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The file of names cannot be read.
    #[error("cannot read the SCION host names of {}", path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The line with the name has no address.
    #[error(
        "{}, line {line}: the address is not of the form ISD-AS,[ip]", path.display()
    )]
    HostsLine {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// Its address cannot be sent to.
    #[error("{0} cannot be a tracker")]
    Address(Host, #[source] AddressError),
    /// Neither a SCION address nor a name of one.
    #[error("{host} is no SCION address, and no name in {}", path.display())]
    NotScion {
        /// As the URL has it.
        host: String,
        /// The file of names.
        path: PathBuf,
    },
    /// The daemon knows no path.
    #[error("the SCION daemon knows no path from {from} to {to}")]
    NoPath {
        /// Our AS.
        from: IsdAs,
        /// The tracker's.
        to: IsdAs,
    },
    /// None of the paths may or can be taken.
    #[error(
        "none of the {count} paths from {from} to {to} can be taken: {denied} are denied by the \
         policy, the others have expired or begin at a router of another IP version"
    )]
    NoUsablePath {
        /// Our AS.
        from: IsdAs,
        /// The tracker's.
        to: IsdAs,
        /// How many there are.
        count: usize,
        /// How many of them are denied.
        denied: usize,
    },
    /// No path has the number that was asked for.
    #[error("there is no path {number}: they are numbered from 0 to {}", count.saturating_sub(1))]
    NoSuchPath {
        /// The number.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The path that was asked for cannot be taken.
    #[error("path {number} is {status}")]
    PathStatus {
        /// Its number.
        number: usize,
        /// What it is.
        status: PathStatus,
    },
    /// Answers would not arrive.
    #[error(
        "the border routers of {0} deliver to no UDP ports of end hosts (dispatched_ports of its \
         topology), so no answer would arrive"
    )]
    NoPorts(IsdAs),
    /// No address to send from.
    #[error("no address of this host leads to {next_hop}")]
    Local {
        /// The first hop.
        next_hop: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No socket to send from.
    #[error("cannot take a UDP port of {ip}{}", within(*ports))]
    Bind {
        /// Our address.
        ip: IpAddr,
        /// The ports that would do; all, if none.
        ports: Option<(u16, u16)>,
        /// Why.
        source: io::Error,
    },
    /// No answer in time, and a border router has said why.
    #[error("no answer from {0} in time: {1}")]
    Broken(ScionAddr, String),
    /// A path that no packet can carry.
    #[error("the SCION daemon gives a path that no packet can carry")]
    Path(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    /// In the order in which they are tried; their numbers count from 0. Inside an AS there is one,
    /// without interfaces.
    pub paths: Vec<ScionPath>,
}

/// What a client knows of SCION.
#[derive(Debug)]
pub(super) struct Scion {
    options: ScionOptions,
    daemon: Daemon,
}

impl Scion {
    pub(super) fn new(options: &ScionOptions) -> Self {
        Self {
            daemon: Daemon::new(options.daemon.clone()),
            options: options.clone(),
        }
    }

    /// The SCION address behind a URL, if it has one: as it is written, or by the name of its host.
    /// Names of HTTP/1.1 trackers are not looked up.
    pub(super) fn find(&self, url: &TrackerUrl) -> Result<Option<ScionAddr>, ScionError> {
        if url.scion().is_some() {
            return Ok(url.scion());
        }
        if url.scheme() == Scheme::Http || url.host().parse::<IpAddr>().is_ok() {
            return Ok(None);
        }
        let Some(host) = hosts::find(&self.options.hosts, url.host())? else {
            return Ok(None);
        };
        ScionAddr::new(host.ia, host.ip(), url.port())
            .map(Some)
            .map_err(|error| ScionError::Address(host, error))
    }

    /// As [`Scion::find`], for what must have one.
    pub(super) fn require(&self, url: &TrackerUrl) -> Result<ScionAddr, ScionError> {
        self.find(url)?.ok_or_else(|| ScionError::NotScion {
            host: url.host().to_owned(),
            path: self.options.hosts.clone(),
        })
    }

    /// The paths to a tracker.
    pub(super) async fn paths(&self, to: ScionAddr) -> Result<ScionPaths, ScionError> {
        self.look_up(to, Refresh::No).await
    }

    async fn look_up(&self, to: ScionAddr, refresh: Refresh) -> Result<ScionPaths, ScionError> {
        let from = match self.options.local {
            Some(local) => local.ia,
            None => self.daemon.isd_as().await?,
        };
        if from == to.host.ia {
            let next_hop = SocketAddr::new(to.host.ip(), to.port);
            let paths = vec![ScionPath::inside(next_hop)];
            return Ok(ScionPaths { from, to, paths });
        }
        let found = self.daemon.paths(from, to.host.ia, refresh).await?;
        let paths = path::in_order(found, &self.options.policy, SystemTime::now());
        Ok(ScionPaths { from, to, paths })
    }

    /// Those paths that are to be tried from this address, the best first; at least one.
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
        // One socket serves them all.
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

    /// Makes ready to talk to a tracker.
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
        // No router stands between hosts of one AS.
        let ports = match from == to.host.ia {
            true => None,
            false => match self.daemon.port_range().await? {
                DispatchedPorts::Range(first, last) => Some((first, last)),
                DispatchedPorts::None => return Err(ScionError::NoPorts(from)),
                DispatchedPorts::Unknown => Some(local::USUAL_PORTS),
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

    /// The paths to be tried from this address, not out of the daemon's memory.
    async fn renewed(&self, to: ScionAddr, local: IpAddr) -> Result<Vec<ScionPath>, ScionError> {
        self.usable(self.look_up(to, Refresh::Yes).await?, Some(local))
    }
}

#[cfg(test)]
mod tests;
