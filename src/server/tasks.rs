//! What a server runs: the transports, the sweep, the watch over the certificate.

use std::sync::Arc;
use std::time::Duration;

use scion_tracker_core::registry::memory::Sweep;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::bind::{Bound, Sockets};
use super::{Handle, Kind, RunError, Server};
use crate::scion::socket::{self, ScionSocket};
use crate::service::Service;
use crate::tls::Certificates;
use crate::transport::connections::Connections;
use crate::transport::http::origin::Proxies;
use crate::transport::{Options, quic, scion, tcp, udp};

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

/// Everything that a server runs. None of it outlives [`Tasks::stop`].
pub(super) struct Tasks {
    set: JoinSet<Result<(), RunError>>,
    stop: CancellationToken,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            set: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts all that belongs to the server. If that fails, some of it runs and has to be stopped.
    pub(super) fn start(&mut self, server: Server) -> Result<(), RunError> {
        let Server {
            config,
            listeners,
            handle: Handle {
                service,
                certificates,
            },
        } = server;
        let limits = config.connections.limits();
        let connections = Arc::new(Connections::new(&limits));
        let udp_options = udp::Options {
            connection_validity: config.udp.connection_validity.as_secs() as u32,
            ..udp::Options::default()
        };
        let http3_port = listeners
            .iter()
            .find(|bound| matches!(bound.sockets, Sockets::Quic(_)))
            .map(|bound| bound.listening.address.port());
        for bound in listeners {
            let Bound {
                listening,
                config: listener,
                sockets,
            } = bound;
            let failed = move |source| RunError::Listener {
                listener: listening,
                source,
            };
            let options = Arc::new(Options {
                limits: limits.clone(),
                connections: Arc::clone(&connections),
                proxies: Proxies::new(
                    listener.proxies,
                    listener.proxy_protocol,
                    listener.header.as_str(),
                ),
                alt_svc: http3_port
                    .filter(|_| listening.kind == Kind::Https)
                    .and_then(tcp::alt_svc),
            });
            match sockets {
                Sockets::Udp(sockets) => {
                    let workers =
                        udp::spawn(&service, sockets, udp_options, &self.stop).map_err(failed)?;
                    for worker in workers {
                        self.set.spawn_blocking(move || {
                            worker.join().map_err(|_| RunError::Ended(listening))
                        });
                    }
                }
                Sockets::Tcp(sockets) => {
                    let tls = certificates
                        .as_ref()
                        .filter(|_| listening.kind == Kind::Https)
                        .map(|it| Arc::new(it.server_config(&[b"h2", b"http/1.1"])));
                    for socket in sockets {
                        let worker = tcp::run(
                            socket,
                            tls.clone(),
                            Arc::clone(&options),
                            Arc::clone(&service),
                            self.stop.clone(),
                        );
                        self.set.spawn(async move { worker.await.map_err(failed) });
                    }
                }
                Sockets::Quic(sockets) => {
                    // There is a certificate whenever there is such a listener.
                    let Some(certificates) = &certificates else {
                        continue;
                    };
                    let tls = certificates.quic_config(quic::PROTOCOLS);
                    let listener = quic::Listener::new(tls, None, options, Arc::clone(&service));
                    let listener = Arc::new(listener.map_err(failed)?);
                    for socket in sockets {
                        let (listener, stop) = (Arc::clone(&listener), self.stop.clone());
                        self.set
                            .spawn(async move { listener.run(socket, stop).await.map_err(failed) });
                    }
                }
                Sockets::Scion(socket, host, topology) => {
                    let Some(certificates) = &certificates else {
                        continue;
                    };
                    let socket = ScionSocket::server(
                        socket,
                        host,
                        topology,
                        socket::Limits::default(),
                        Arc::clone(&service.counters),
                    )
                    .map_err(failed)?;
                    let udp = udp::OverScion::new(&service, udp_options).map_err(failed)?;
                    let tls = certificates.quic_config(quic::PROTOCOLS_OVER_SCION);
                    let rtt = Some(socket::INITIAL_RTT);
                    let quic = quic::Listener::new(tls, rtt, options, Arc::clone(&service));
                    let (quic, stop) = (quic.map_err(failed)?, self.stop.clone());
                    self.set.spawn(async move {
                        let served = scion::run(socket, Some(udp), Some(&quic), stop).await;
                        served.map_err(failed)
                    });
                }
            }
        }
        self.set
            .spawn(sweep(service, config.peer_lifetime(), self.stop.clone()));
        if let Some(certificates) = certificates {
            self.set.spawn(watch(certificates, self.stop.clone()));
        }
        Ok(())
    }

    /// Waits for the first task that fails or ends, which none should before it is told to.
    pub(super) async fn failed(&mut self) -> RunError {
        match self.set.join_next().await {
            Some(Ok(Err(error))) => error,
            _ => RunError::Task,
        }
    }

    /// Tells everything to end and waits until it has.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let ended = time::timeout(DRAIN, async {
            while let Some(ended) = self.set.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!("while stopping: {error}");
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
            self.set.shutdown().await;
        }
    }
}

impl Drop for Tasks {
    /// Threads see it when the future of the server is dropped instead of being told to stop.
    fn drop(&mut self) {
        self.stop.cancel();
    }
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
