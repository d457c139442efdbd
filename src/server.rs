//! The server: binds every listener, runs every task, stops them.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use scion_tracker_core::Tracker;
use scion_tracker_core::registry::memory::{Memory, Sweep, Totals};
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::counters::Snapshot;
use crate::service::Service;
use crate::socket::ip;
use crate::tls::{Certificates, MakeError, TlsError};
use crate::transport::connections::Connections;
use crate::transport::origin::Proxies;
use crate::transport::{http, http3, udp};

/// How long requests and connections may take to end after the shutdown.
const DRAIN: Duration = Duration::from_millis(4500);
/// How often certificate files are looked at.
const CERTIFICATE_WATCH: Duration = Duration::from_secs(60);
/// Rounds of the sweep in the lifetime of a peer, which it outstays by one round at most.
const SWEEPS_PER_LIFETIME: u32 = 32;
/// Peers that the sweep visits in one step, under one lock.
const SWEEP_STEP: usize = 1024;
/// The sweep leaves the locks to the requests for this long between steps.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

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
    /// A task panicked or ended.
    #[error("{0} ended unexpectedly")]
    Ended(String),
}

/// A listener that is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// What it speaks.
    pub kind: Kind,
    /// Where, with the port that was picked if the configuration says 0.
    pub address: SocketAddr,
}

impl Listening {
    /// What a client on this host announces to.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("{}://{address}/announce", self.kind.scheme())
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} listener on {}", self.kind, self.address)
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

#[derive(Debug)]
struct Bound {
    listening: Listening,
    config: config::Listener,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One a worker.
    Udp(Vec<UdpSocket>),
    /// One a worker.
    Tcp(Vec<TcpListener>),
    /// One: a client that changes its port has to stay with its endpoint.
    Quic(UdpSocket),
}

impl Server {
    /// Binds every listener. From here on the addresses are taken, and clients wait for
    /// [`Server::run`].
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
        let certificates = if listen.https.is_empty() && listen.http3.is_empty() {
            None
        } else {
            Some(Arc::new(certificates(&config)?))
        };
        let keys = [
            getrandom::u64()?,
            getrandom::u64()?,
            getrandom::u64()?,
            getrandom::u64()?,
        ];
        let tracker = Tracker::new(Memory::new(config.ceilings(), keys), config.terms());
        Ok(Self {
            config,
            listeners,
            handle: Handle {
                service: Arc::new(Service::new(tracker)),
                certificates,
            },
        })
    }

    /// The listeners, with the addresses that they are bound to.
    pub fn listeners(&self) -> impl Iterator<Item = Listening> {
        self.listeners.iter().map(|bound| bound.listening)
    }

    /// For looking into the server while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown`, then lets requests end and returns within five seconds. Needs a
    /// tokio runtime with time and I/O.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        // Tasks that were started before one that failed to start end with it.
        let started = self.start(&mut tasks, &stop);
        let result = match started {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                () = shutdown => Ok(()),
                Some(ended) = tasks.join_next() => Err(ended.unwrap_or_else(|panic| {
                    Err(RunError::Ended(format!("a task ({panic})")))
                }).err().unwrap_or_else(|| RunError::Ended("a task".into()))),
            },
        };
        stop.cancel();
        let drained = time::timeout(DRAIN, async {
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!("while stopping: {error}");
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
            tasks.shutdown().await;
        }
        result
    }

    fn start(
        self,
        tasks: &mut JoinSet<Result<(), RunError>>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        let Self {
            config,
            listeners,
            handle: Handle {
                service,
                certificates,
            },
        } = self;
        let limits = config.connections.limits();
        let connections = Arc::new(Connections::new(&limits));
        let http3_port = listeners
            .iter()
            .find(|bound| bound.listening.kind == Kind::Http3)
            .map(|bound| bound.listening.address.port());
        for Bound {
            listening,
            config: listener,
            sockets,
        } in listeners
        {
            let proxies = Proxies {
                prefixes: listener.proxies,
                proxy_protocol: listener.proxy_protocol,
            };
            let failed = move |source| RunError::Listener {
                listener: listening,
                source,
            };
            match sockets {
                Sockets::Udp(sockets) => {
                    let options = udp::Options {
                        connection_validity: config.udp.connection_validity.as_secs() as u32,
                        ..udp::Options::default()
                    };
                    let workers = udp::spawn(&service, sockets, options, stop).map_err(failed)?;
                    tasks.spawn_blocking(move || join(listening, workers));
                }
                Sockets::Tcp(sockets) => {
                    let tls = certificates
                        .as_ref()
                        .filter(|_| listening.kind == Kind::Https)
                        .map(|it| Arc::new(it.server_config(&[b"h2", b"http/1.1"])));
                    let options = Arc::new(http::Options {
                        limits: limits.clone(),
                        connections: Arc::clone(&connections),
                        proxies,
                        http3_port,
                    });
                    for socket in sockets {
                        let worker = http::run(
                            socket,
                            tls.clone(),
                            Arc::clone(&options),
                            Arc::clone(&service),
                            stop.clone(),
                        );
                        tasks.spawn(async move { worker.await.map_err(failed) });
                    }
                }
                Sockets::Quic(socket) => {
                    // There is a certificate whenever there is such a listener.
                    let Some(certificates) = &certificates else {
                        continue;
                    };
                    let endpoint = http3::run(
                        socket,
                        certificates.quic_config(&[b"h3"]),
                        http3::Options {
                            limits: limits.clone(),
                            connections: Arc::clone(&connections),
                            proxies,
                        },
                        Arc::clone(&service),
                        stop.clone(),
                    );
                    tasks.spawn(async move { endpoint.await.map_err(failed) });
                }
            }
        }
        tasks.spawn(sweep(service, config.registry.peer_lifetime, stop.clone()));
        if let Some(certificates) = certificates {
            tasks.spawn(watch(certificates, stop.clone()));
        }
        Ok(())
    }
}

fn bind(kind: Kind, listener: &config::Listener, config: &Config) -> Result<Bound, BindError> {
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
        Kind::Http3 => ip::udp(
            listener.address,
            NonZeroUsize::MIN,
            config.udp.receive_buffer,
        )
        .and_then(|it| {
            it.into_iter()
                .next()
                .map(Sockets::Quic)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
    }
    .map_err(failed)?;
    let address = match &sockets {
        Sockets::Udp(sockets) => sockets[0].local_addr(),
        Sockets::Tcp(sockets) => sockets[0].local_addr(),
        Sockets::Quic(socket) => socket.local_addr(),
    }
    .map_err(failed)?;
    Ok(Bound {
        listening: Listening { kind, address },
        config: listener.clone(),
        sockets,
    })
}

/// The configured certificate, or the self-signed one, which is not kept if nobody said where and
/// the usual places are not there or cannot be written.
fn certificates(config: &Config) -> Result<Certificates, TlsError> {
    let directory = config.data_dir.clone().or_else(usual_data_dir);
    let mut loaded = Certificates::load(&config.tls, directory.as_deref());
    let mut kept = directory.is_some();
    if let Err(TlsError::Make(error @ MakeError::Write { .. })) = &loaded
        && config.data_dir.is_none()
    {
        tracing::debug!("{error}");
        loaded = Certificates::load(&config.tls, None);
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

fn join(listening: Listening, workers: Vec<thread::JoinHandle<()>>) -> Result<(), RunError> {
    for worker in workers {
        worker
            .join()
            .map_err(|_| RunError::Ended(format!("a worker of {listening}")))?;
    }
    Ok(())
}

/// Removes peers that have not returned, for ever, a little at a time.
async fn sweep(
    service: Arc<Service>,
    lifetime: Duration,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut sweep = Sweep::default();
    let mut rounds = time::interval((lifetime / SWEEPS_PER_LIFETIME).max(Duration::from_secs(1)));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let endless = async {
        loop {
            rounds.tick().await;
            let registry = service.tracker.registry();
            while !registry.sweep(&mut sweep, service.now(), SWEEP_STEP) {
                time::sleep(SWEEP_PAUSE).await;
            }
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}

/// Reloads the certificate when its files have changed.
async fn watch(certificates: Arc<Certificates>, stop: CancellationToken) -> Result<(), RunError> {
    let endless = async {
        let mut looks = time::interval(CERTIFICATE_WATCH);
        loop {
            looks.tick().await;
            if !certificates.changed() {
                continue;
            }
            match certificates.reload() {
                Ok(()) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the certificate files have changed and cannot be used; the old certificate stays"
                ),
            }
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}
