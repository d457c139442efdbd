//! The server: binds all listeners, runs their tasks and stops them.

mod access;
#[cfg(feature = "admin")]
pub(crate) mod census;
mod drain;
pub(crate) mod listener;
#[cfg(feature = "admin")]
mod page;
mod receive;
mod reload;
pub(crate) mod secrets;
mod tasks;
#[cfg(test)]
mod tests;
mod urls;
#[cfg(feature = "admin")]
pub(crate) mod vitals;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use scion_tracker_core::Tracker;
use scion_tracker_core::access::Access as AccessRules;
use scion_tracker_core::address::Host;
use scion_tracker_core::registry::memory::{Memory, Totals};
use scion_tracker_core::registry::read::{PeerView, TorrentView};
use scion_tracker_core::tracker::Rules;
use scion_tracker_core::types::InfoHash;
use tokio_util::sync::CancellationToken;

use crate::access::{self as lists, Lists, ReadLists};
pub use crate::access::{LineError, ListError};
use crate::config::{Changes, Config};
use crate::counters::Snapshot;
use crate::data_dir;
use crate::log::access::AccessLog;
use crate::records::{Loaded, OpenError, Records};
use crate::scion::daemon::DaemonError;
use crate::service::Service;
use crate::snapshot::{SnapshotError, SnapshotReport, SnapshotState, Snapshots};
use crate::tls::{Certificates, TlsError};
use crate::watch::Watch;
pub use access::Restricted;
use drain::Drain;
pub use drain::Draining;
use listener::Run;
#[cfg(feature = "cli")]
pub(crate) use listener::admin_socket;
pub use listener::{Kind, Listening, local_url};
pub use reload::ReloadRequestError;
use reload::Reloader;
use tasks::Tasks;

/// How long a stop takes at most, as long as the records can be closed in [`RECORDS_CLOSE`].
const STOP: Duration = Duration::from_millis(4900);
/// How long the records have at least to be closed.
const RECORDS_CLOSE: Duration = Duration::from_millis(400);

/// Why a server could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// There is no certificate for HTTPS and HTTP/3.
    #[error("cannot serve HTTPS and HTTP/3 without a certificate")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {kind}{}", hint(*kind, source))]
    Listen {
        /// The kind of listener.
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
    /// A list of torrents or passkeys cannot be used.
    #[error("cannot use a list of access")]
    List(#[from] ListError),
    /// The access log cannot be opened.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] OpenError),
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Entropy(#[from] getrandom::Error),
}

impl BindError {
    fn listen(kind: Kind, address: SocketAddr, source: io::Error) -> Self {
        Self::Listen {
            kind,
            address,
            source,
        }
    }

    fn scion(
        (host, port): (Host, u16),
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Scion {
            address: format!("{},[{}]:{port}", host.ia, host.ip()),
            source: source.into(),
        }
    }
}

/// What the operator can do about it.
fn hint(kind: Kind, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            " (another program uses this port, perhaps another scion-tracker: stop it, or set another port with --{kind} or listen.{kind})"
        ),
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need root or the capability CAP_NET_BIND_SERVICE)".into()
        }
        io::ErrorKind::AddrNotAvailable => " (this host does not have this address)".into(),
        _ => String::new(),
    }
}

/// Why a configuration was not put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The certificate files cannot be used.
    #[error("cannot reload the certificate")]
    Tls(#[from] TlsError),
    /// A list of torrents or passkeys cannot be used.
    #[error("cannot use a list of access")]
    List(#[from] ListError),
}

/// Why a running server ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The workers of a listener could not be started, or its socket failed.
    #[error("the listener {listener} failed")]
    Listener {
        /// Which listener.
        listener: Listening,
        /// Why.
        source: io::Error,
    },
    /// A worker panicked.
    #[error("a worker of the listener {0} ended unexpectedly")]
    Ended(Listening),
    /// A task panicked or ended.
    #[error("a task ended unexpectedly")]
    Task,
}

/// What a tracker has done since its start, and what it holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Events since the start.
    pub counters: Snapshot,
    /// What the registry holds now.
    pub registry: Totals,
}

/// Reads the state of a server and steers it while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    service: Arc<Service>,
    /// The configuration that the server was started with, which settings that need a restart keep.
    started: Arc<Config>,
    /// The configuration that was put in force last.
    config: Arc<ArcSwap<Config>>,
    /// Held while another configuration is put in force.
    reloading: Arc<Mutex<()>>,
    certificates: Option<Arc<Certificates>>,
    /// What the server listens on.
    listening: Arc<[Listening]>,
    lists: Arc<Lists>,
    drain: Arc<Drain>,
    reloader: Arc<Reloader>,
    snapshots: Arc<Snapshots>,
    /// What the admin API keeps.
    #[cfg(feature = "admin")]
    pub(crate) admin: Arc<crate::admin::Shared>,
    records: Arc<Records>,
    /// Ends [`Server::run`].
    stop: CancellationToken,
}

impl Handle {
    /// Stops the server, as the shutdown of [`Server::run`] does. Returns at once; the server has
    /// stopped when [`Server::run`] returns.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// What the tracker has done since its start, and what it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            counters: self.service.counted(),
            registry: self.service.tracker.registry().totals(),
        }
    }

    /// The registry, to read what it holds.
    #[cfg(feature = "admin")]
    pub(crate) fn registry(&self) -> &Memory {
        self.service.tracker.registry()
    }

    /// Where live events are read.
    #[cfg(feature = "admin")]
    pub(crate) fn events(&self) -> &Arc<crate::admin::Events> {
        &self.service.tracker.observer().events
    }

    /// Downloads that were completed since the start.
    pub fn completed(&self) -> u64 {
        let observer = self.service.tracker.observer();
        observer.downloads.load(Ordering::Relaxed)
    }

    /// A torrent that has peers, and up to `most` of them in no order.
    pub fn torrent(
        &self,
        info_hash: &InfoHash,
        most: usize,
    ) -> Option<(TorrentView, Vec<PeerView>)> {
        let registry = self.service.tracker.registry();
        registry.torrent(info_hash, most, self.service.now())
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> u32 {
        self.service.now().as_secs()
    }

    /// Writes a snapshot of the swarms now. Blocks until it is on the disk, which takes seconds for millions of
    /// peers.
    pub fn snapshot(&self) -> Result<SnapshotReport, SnapshotError> {
        self.snapshots.write(&self.service)
    }

    /// How the snapshots of the swarms are.
    pub fn snapshot_state(&self) -> SnapshotState {
        self.snapshots.state()
    }

    /// Puts other rules in force. Requests that are being answered keep the old ones.
    pub fn set_rules(&self, rules: Rules) {
        self.service.set_rules(rules);
    }

    /// The rules in force, for example to change one of them.
    pub fn rules(&self) -> Rules {
        self.service.rules()
    }

    /// Puts another configuration in force, as far as that needs no restart, and reads the certificate
    /// files and the lists of torrents and passkeys again. Returns what has changed since the last one, and
    /// what differs from the one that the server was started with and needs a restart.
    ///
    /// Requests that are being answered and times of open connections keep the old settings. What the
    /// registry holds above a lower limit stays until it expires or is evicted. If anything is wrong,
    /// nothing changes.
    ///
    /// Access rules that were set otherwise stay, as far as the new configuration says the same as the last
    /// one. Reads files, which can take a second for a million torrents.
    pub fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        config.check().map_err(ReloadError::Config)?;
        let _reloading = self.reloading.lock();
        #[cfg(feature = "admin")]
        let tokens = crate::admin::Tokens::read(&config.admin)
            .map_err(|error| ReloadError::Config(error.to_string()))?;
        let read = ReadLists::read(&config.access, &self.rules().access)?;
        // The last step that can fail.
        self.reload_certificates()?;
        self.lists
            .apply(&config.access, read, &self.service, |rules| {
                rules.terms = config.terms();
            });
        #[cfg(feature = "admin")]
        self.admin.set_tokens(tokens);
        lists::warn(&self.rules(), &self.lists);
        let registry = self.service.tracker.registry();
        registry.set_ceilings(config.ceilings());
        self.service.set_limits(config.limits());
        let reloaded = Changes::between(&self.config.load(), &config).reloaded;
        let need_restart = Changes::between(&self.started, &config).need_restart;
        self.config.store(Arc::new(config));
        Ok(Changes {
            reloaded,
            need_restart,
        })
    }

    /// Reads the certificate files again. New connections get the new certificate; open connections
    /// keep theirs. If it fails, the current certificate stays in use.
    pub fn reload_certificates(&self) -> Result<(), TlsError> {
        self.certificates
            .as_ref()
            .map_or(Ok(()), |certificates| certificates.reload())
    }

    /// Opens the access log again, after it was renamed. Returns at once.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.service.access_log {
            log.reopen();
        }
    }

    /// The certificate of HTTPS and HTTP/3, if the server has such listeners.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }
}

/// Opens the access log that the configuration names.
fn access_log(config: &Config) -> Result<Option<AccessLog>, BindError> {
    let open = |path: &PathBuf| {
        AccessLog::start(path, config.log.access_addresses).map_err(|source| BindError::AccessLog {
            path: path.clone(),
            source,
        })
    };
    config.log.access.as_ref().map(open).transpose()
}

/// Seeds of hash functions.
fn keys() -> Result<[u64; 4], getrandom::Error> {
    let [a, b, c, d] = [(); 4].map(|()| getrandom::u64());
    Ok([a?, b?, c?, d?])
}

/// A tracker with all its listeners.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Vec<Box<dyn Run>>,
    handle: Handle,
}

impl Server {
    /// Checks what [`Server::bind`] checks before it binds: the settings together, the certificate files
    /// and the topology file. Takes no address, asks no SCION daemon and writes nothing.
    pub fn check(config: &Config) -> Result<(), BindError> {
        config.check().map_err(BindError::Config)?;
        ReadLists::read(&config.access, &AccessRules::default())?;
        #[cfg(feature = "admin")]
        crate::admin::Tokens::read(&config.admin)
            .map_err(|error| BindError::Config(error.to_string()))?;
        listener::check(config)
    }

    /// Binds every listener and reads the records. From then on the addresses are taken, and clients wait for
    /// [`Server::run`]. If a SCION daemon has to be asked, this blocks until it has answered, at most
    /// ten seconds. If the database of the records does not answer, this blocks for up to half a minute.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        config.check().map_err(BindError::Config)?;
        if let Some(directory) = listener::data_dir(&config) {
            data_dir::remove_stale(&directory);
        }
        #[cfg(feature = "admin")]
        let admin = crate::admin::Shared::new(&config.admin)
            .map_err(|error| BindError::Config(error.to_string()))?;
        let listener::BoundAll {
            listeners,
            certificates,
        } = listener::bind(&config)?;
        let access_log = access_log(&config)?;
        let watch = Watch {
            access_log: access_log.clone(),
            ..Watch::default()
        };
        let mut rules = Rules::public(config.terms());
        let seeds = keys()?;
        rules.access = AccessRules::new(seeds);
        let read = ReadLists::read(&config.access, &rules.access)?;
        // After the addresses are taken: a tracker that cannot start does not touch the records.
        let (records, loaded) = Records::open(
            config.records.database.as_ref(),
            listener::data_dir(&config).as_deref(),
            config.records.flush_interval,
            Arc::clone(&watch.completed),
        )?;
        let (snapshots, registry) = Snapshots::start(
            listener::data_dir(&config).as_deref(),
            config.snapshot.enabled.then_some(config.snapshot.interval),
            || keys().map(|keys| Memory::new(config.ceilings(), keys)),
        )?;
        let Loaded {
            records: entries,
            counts,
        } = loaded;
        for (info_hash, completed) in counts {
            registry.raise_completed(&info_hash, completed);
        }
        let tracker = Tracker::observed(registry, watch);
        let limits = config.limits();
        let mut service = Service::new(tracker, rules, limits);
        service.access_log = access_log;
        if listeners
            .iter()
            .flat_map(|it| it.transports())
            .any(|it| it.is_udp_tracker())
        {
            let validity = config.udp.connection_validity;
            let directory = listener::data_dir(&config);
            service.secrets = Some(secrets::start(directory.as_deref(), validity)?);
        }
        let lists = Lists::new(seeds);
        lists.load(entries, &service);
        lists.apply(&config.access, read, &service, |rules| {
            rules.access.set_epoch(lists::epoch(&service));
        });
        // They can be stricter than they were when the snapshot was written.
        lists.purge_all(&service);
        lists::warn(&service.rules(), &lists);
        let listening = listeners.iter().flat_map(|it| it.transports()).collect();
        Ok(Self {
            config: config.clone(),
            listeners,
            handle: Handle {
                lists: Arc::new(lists),
                drain: Arc::default(),
                reloader: Arc::default(),
                snapshots: Arc::new(snapshots),
                #[cfg(feature = "admin")]
                admin: Arc::new(admin),
                records: Arc::new(records),
                service: Arc::new(service),
                started: Arc::new(config.clone()),
                config: Arc::new(ArcSwap::from_pointee(config)),
                reloading: Arc::default(),
                certificates,
                listening,
                stop: CancellationToken::new(),
            },
        })
    }

    /// The listeners, with the addresses they are bound to.
    pub fn listeners(&self) -> impl Iterator<Item = Listening> {
        self.listeners
            .iter()
            .flat_map(|listener| listener.transports())
    }

    /// A handle to the server, for use while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` or [`Handle::stop`], then lets open requests end and returns within
    /// five seconds, and at most 20 more if the last snapshot of the swarms takes as long. Needs a tokio
    /// runtime with time and I/O.
    ///
    /// Requests that have arrived are answered. A kept HTTP/1.1 connection gets one more reply, with
    /// `Connection: close`, if a request arrives within two seconds. HTTP/2 and HTTP/3 connections
    /// get GOAWAY.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut tasks = Tasks::new();
        let stop = self.handle.stop.clone();
        let access_log = self.handle.service.access_log.clone();
        let records = Arc::clone(&self.handle.records);
        let service = Arc::clone(&self.handle.service);
        let last = Arc::clone(&self.handle.snapshots).finish(Arc::clone(&self.handle.service));
        let result = match tasks.start(self) {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                () = shutdown => Ok(()),
                () = stop.cancelled() => Ok(()),
                error = tasks.failed() => Err(error),
            },
        };
        let stopping = tokio::time::Instant::now();
        service.gauges.set_stopping();
        tasks.stop().await;
        if let Some(log) = access_log {
            const LAST_LINES: Duration = Duration::from_secs(1);
            // It fails only if the runtime stops, which loses the last lines.
            let _ = tokio::task::spawn_blocking(move || log.drain(LAST_LINES)).await;
        }
        // Downloads that were completed until now are in it.
        let left = STOP.saturating_sub(stopping.elapsed());
        records.close(left.max(RECORDS_CLOSE)).await;
        last.await;
        result
    }
}
