//! The tasks of a running server: its listeners, the sweep, the watch over the certificate files.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scion_tracker_core::registry::memory::Sweep;
use tokio::task::{self, JoinSet};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "admin")]
use super::Kind;
use super::{Handle, RunError, Server, drain, listener};
use crate::access::{self, Lists};
use crate::records::Records;
use crate::service::Service;
use crate::tls::Certificates;

/// How long requests and connections may take to end after the shutdown.
const DRAIN: Duration = Duration::from_millis(4500);
/// How often the certificate files are checked for changes.
const CERTIFICATE_WATCH: Duration = Duration::from_secs(60);
/// How often a warning about a certificate that expires is repeated.
const EXPIRY_WARNING: Duration = Duration::from_secs(24 * 60 * 60);
/// Rounds of the sweep per lifetime of a peer. A peer stays at most one round longer than its lifetime.
const SWEEPS_PER_LIFETIME: u32 = 32;
/// Peers that the sweep visits per step, under one lock.
const SWEEP_STEP: usize = 1024;
/// Pause between steps of the sweep, in which requests get the locks.
/// How often to check whether a round of the sweep is due.
const SWEEP_TICK: Duration = Duration::from_secs(1);
/// Time between two steps of the sweep.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// All tasks of a server. None of them outlives [`Tasks::stop`].
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
            handle,
        } = server;
        #[cfg(feature = "admin")]
        let has_admin = listeners
            .iter()
            .any(|it| it.listening().kind == Kind::Admin);
        listener::start(listeners, &config, &handle, self)?;
        let stop = self.stop_token();
        self.spawn(drain::stop_when_drained(handle.clone(), stop));
        #[cfg(feature = "admin")]
        {
            let stop = self.stop_token();
            self.spawn(crate::admin::history::watch(
                handle.clone(),
                has_admin,
                stop,
            ));
            let stop = self.stop_token();
            self.spawn(super::census::run(handle.clone(), has_admin, stop));
        }
        let Handle {
            service,
            certificates,
            lists,
            records,
            snapshots,
            ..
        } = handle;
        let stop = self.stop_token();
        self.spawn(sweep(Arc::clone(&service), stop));
        let regularly = snapshots.write_regularly(Arc::clone(&service), self.stop_token());
        self.spawn(async {
            regularly.await;
            Ok(())
        });
        let stop = self.stop_token();
        self.spawn(watch_lists(lists, records, service, stop));
        if let Some(certificates) = certificates {
            let stop = self.stop_token();
            self.spawn(watch(certificates, stop));
        }
        Ok(())
    }

    /// Tells a task to stop.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(super) fn spawn(
        &mut self,
        task: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) {
        self.set.spawn(task);
    }

    pub(super) fn spawn_blocking(
        &mut self,
        task: impl FnOnce() -> Result<(), RunError> + Send + 'static,
    ) {
        self.set.spawn_blocking(task);
    }

    /// Waits for the first task that fails, or ends before it is told to.
    pub(super) async fn failed(&mut self) -> RunError {
        match self.set.join_next().await {
            Some(Ok(Err(error))) => error,
            _ => RunError::Task,
        }
    }

    /// Stops all tasks and waits for their end.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let ended = time::timeout(DRAIN, async {
            while let Some(ended) = self.set.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!("error while stopping: {error}");
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!("closing connections that did not end in time");
            self.set.shutdown().await;
        }
    }
}

impl Drop for Tasks {
    /// Stops the threads if the future of the server is dropped instead of being told to stop.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Removes peers that have not announced again, a few at a time, until it is stopped.
async fn sweep(service: Arc<Service>, stop: CancellationToken) -> Result<(), RunError> {
    let registry = service.tracker.registry();
    let mut sweep = Sweep::default();
    // The lifetime may change while the sweep waits, so it looks again at every tick.
    let mut ticks = time::interval(SWEEP_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    let endless = async {
        loop {
            let now = ticks.tick().await;
            let lifetime = Duration::from_secs(registry.ceilings().peer_lifetime.into());
            let pause = lifetime / SWEEPS_PER_LIFETIME;
            if last.is_some_and(|last| now.duration_since(last) < pause) {
                continue;
            }
            last = Some(now);
            while !registry.sweep(&mut sweep, service.now(), SWEEP_STEP) {
                time::sleep(SWEEP_PAUSE).await;
            }
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}

/// Reads lists of torrents and passkeys again when their files change, and removes what has expired.
async fn watch_lists(
    lists: Arc<Lists>,
    records: Arc<Records>,
    service: Arc<Service>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let endless = poll_lists(lists, records, service);
    stop.run_until_cancelled(endless).await.unwrap_or(Ok(()))
}

/// Ends only with an error.
async fn poll_lists(
    lists: Arc<Lists>,
    records: Arc<Records>,
    service: Arc<Service>,
) -> Result<(), RunError> {
    let mut checks = time::interval(access::WATCH);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        let (lists, service) = (Arc::clone(&lists), Arc::clone(&service));
        let records = Arc::clone(&records);
        let polled = task::spawn_blocking(move || lists.poll(&service, &records)).await;
        polled.map_err(|_| RunError::Task)?;
    }
}

/// Reloads the certificate when its files change, and renews a self-signed one before it expires.
async fn watch(certificates: Arc<Certificates>, stop: CancellationToken) -> Result<(), RunError> {
    let endless = async {
        let mut checks = time::interval(CERTIFICATE_WATCH);
        let mut warned: Option<time::Instant> = None;
        loop {
            let now = checks.tick().await;
            let is_due = warned.is_none_or(|warned| now.duration_since(warned) >= EXPIRY_WARNING);
            if is_due && let Some(left) = certificates.expires_soon(SystemTime::now()) {
                warned = Some(now);
                tracing::warn!(
                    hours_left = left.as_secs() / 3600,
                    "the certificate expires soon or has expired: renew it"
                );
            }
            match certificates.renew_if_due(SystemTime::now()) {
                Ok(false) => {}
                Ok(true) => {
                    let fingerprint = certificates.fingerprint();
                    tracing::info!("self-signed certificate renewed, SHA-256 {fingerprint}");
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew and keep the self-signed certificate"
                ),
            }
            if !certificates.changed() {
                continue;
            }
            match certificates.reload() {
                Ok(()) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot use the changed certificate files; the old certificate stays in use"
                ),
            }
        }
    };
    stop.run_until_cancelled(endless).await;
    Ok(())
}
