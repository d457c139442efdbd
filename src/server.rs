//! The server: binds every listener, runs every task, stops them.

mod bind;
mod tasks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use scion_tracker_core::Tracker;
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::registry::memory::{Memory, Totals};
use scion_tracker_core::tracker::Rules;

use crate::config::Config;
use crate::counters::Snapshot;
use crate::scion::daemon::DaemonError;
use crate::service::Service;
use crate::tls::{Certificates, TlsError};
pub(crate) use bind::scion_listeners;
use bind::{Bound, bind, bind_scion, certificates};
use tasks::Tasks;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// BEP 15.
    Udp,
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https,
    /// HTTP/3.
    Http3,
}

impl Kind {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Http3 => "h3",
        }
    }

    /// Its name in the configuration and among the flags.
    const fn name(self) -> &'static str {
        match self {
            Self::Http3 => "http3",
            _ => self.scheme(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a server could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// There is no certificate to serve.
    #[error("cannot serve https and http3")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {kind}{}", hint(*kind, source))]
    Listen {
        /// What should have been spoken there.
        kind: Kind,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The SCION daemon does not say which AS this is.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The daemon cannot be asked.
    #[error("cannot start a runtime to ask the SCION daemon")]
    Runtime(#[source] io::Error),
    /// The topology file of the AS cannot be read or used.
    #[error("cannot use the topology file {}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A SCION address does not fit the AS.
    #[error("cannot listen on {address} over SCION")]
    Scion {
        /// The address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Entropy(#[from] getrandom::Error),
}

/// What the operator can do about it.
fn hint(kind: Kind, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            " (another program has this port, perhaps another scion-tracker: stop it, or name another port with --{kind} or listen.{kind})"
        ),
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need root or the capability CAP_NET_BIND_SERVICE)".into()
        }
        io::ErrorKind::AddrNotAvailable => " (this host does not have this address)".into(),
        _ => String::new(),
    }
}

/// Why a running server came to an end before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The workers of a listener could not be started, or its socket failed.
    #[error("{listener} failed")]
    Listener {
        /// Which.
        listener: Listening,
        /// Why.
        source: io::Error,
    },
    /// A worker panicked.
    #[error("a worker of {0} ended unexpectedly")]
    Ended(Listening),
    /// A task panicked or ended.
    #[error("a task ended unexpectedly")]
    Task,
}

/// A listener that is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// What it speaks.
    pub kind: Kind,
    /// Where, with the port that was picked if the configuration says 0. The address of the underlay
    /// if it listens over SCION.
    pub address: SocketAddr,
    /// Where it listens over SCION, if it does.
    pub scion: Option<ScionAddr>,
}

impl Listening {
    /// What a client announces to: one on this host if the address is a wildcard.
    pub fn url(&self) -> String {
        if let Some(scion) = self.scion {
            let scheme = match self.kind {
                Kind::Udp => "udp",
                // What clients of the SCION world call HTTP/3, having nothing else.
                Kind::Http | Kind::Https | Kind::Http3 => "https",
            };
            return format!("{scheme}://{}/announce", scion.url_authority());
        }
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("{}://{address}/announce", self.kind.scheme())
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scion {
            Some(scion) => write!(f, "the {} listener on {scion} over SCION", self.kind),
            None => write!(f, "the {} listener on {}", self.kind, self.address),
        }
    }
}

/// What a tracker has done and what it holds.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Events since the start.
    pub counters: Snapshot,
    /// What is in the registry now.
    pub registry: Totals,
}

/// Looks into a server and steers it while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    service: Arc<Service>,
    certificates: Option<Arc<Certificates>>,
}

impl Handle {
    /// What the tracker has done and what it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            counters: self.service.counters.snapshot(),
            registry: self.service.tracker.registry().totals(),
        }
    }

    /// Puts other rules in force. Requests that are being answered keep the old ones.
    pub fn set_rules(&self, rules: Rules) {
        self.service.set_rules(rules);
    }

    /// The rules in force, for example to change one of them.
    pub fn rules(&self) -> Rules {
        self.service.rules()
    }

    /// Reads the certificate files again. New connections get the new certificate; those that are
    /// up keep theirs. If it fails, the current certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.certificates
            .as_ref()
            .map_or(Ok(()), |certificates| certificates.reload())
    }

    /// The certificate of HTTPS and HTTP/3, if the server has such listeners.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }
}

/// A tracker with all its listeners.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Vec<Bound>,
    handle: Handle,
}

impl Server {
    /// Binds every listener. From here on the addresses are taken, and clients wait for
    /// [`Server::run`]. Where a SCION daemon has to be asked, this takes until it has answered, ten
    /// seconds at most.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        config.check().map_err(BindError::Config)?;
        let mut listeners = Vec::new();
        let listen = &config.listen;
        for (kind, list) in [
            (Kind::Udp, &listen.udp),
            (Kind::Http, &listen.http),
            (Kind::Https, &listen.https),
            (Kind::Http3, &listen.http3),
        ] {
            for listener in list {
                listeners.push(bind(kind, listener, &config)?);
            }
        }
        listeners.extend(bind_scion(&config)?);
        let secure = listeners
            .iter()
            .any(|bound| bound.sockets.need_certificate());
        let certificates = if !secure && listen.https.is_empty() {
            None
        } else {
            Some(Arc::new(certificates(&config, &listeners)?))
        };
        let keys = [
            getrandom::u64()?,
            getrandom::u64()?,
            getrandom::u64()?,
            getrandom::u64()?,
        ];
        let tracker = Tracker::new(Memory::new(config.ceilings(), keys));
        let rules = Rules::public(config.terms());
        Ok(Self {
            config,
            listeners,
            handle: Handle {
                service: Arc::new(Service::new(tracker, rules)),
                certificates,
            },
        })
    }

    /// The listeners, with the addresses that they are bound to.
    pub fn listeners(&self) -> impl Iterator<Item = Listening> {
        self.listeners.iter().flat_map(Bound::listening)
    }

    /// For looking into the server while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown`, then lets requests end and returns within five seconds. Needs a
    /// tokio runtime with time and I/O.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut tasks = Tasks::new();
        let result = match tasks.start(self) {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                () = shutdown => Ok(()),
                error = tasks.failed() => Err(error),
            },
        };
        tasks.stop().await;
        result
    }
}
