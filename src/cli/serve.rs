//! `scion-tracker serve`: runs the tracker until it is told to stop.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use confique::Layer as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use scion_tracker_core::place::PlacePolicy;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task;

use super::log::{self, Log};
use super::notify::{State, notify};
use crate::client::DaemonAddr;
use crate::config::{
    self, Changes, Config, ConfigError, Database, Layer, LogFormat, LogTarget, Token,
};
use crate::server::listener::listeners;
use crate::server::{Handle, Server};
use crate::socket::inherited::{self, Inherited};

/// Flags of `serve`. A flag overrides the environment, which overrides the file.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(super) struct Args {
    /// Configuration file [env: SCION_TRACKER_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for what must survive a restart.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    listen: Listeners,
    /// Topology file of this AS, usually /etc/scion/topology.json. Without --scion, the tracker then
    /// listens on SCION port 31969.
    #[arg(long, value_name = "FILE")]
    scion_topology: Option<PathBuf>,
    /// SCION daemon, usually 127.0.0.1:30255. Without --scion-topology, it is asked at the start for
    /// what that file says. Without --scion, the tracker then listens on SCION port 31969.
    #[arg(long, value_name = "ADDR:PORT")]
    scion_daemon: Option<DaemonAddr>,
    /// Serve only requests with a passkey: of the file access.passkeys, or added with
    /// `scion-tracker keys`.
    #[arg(long)]
    private: bool,
    /// Serve only listed torrents: of the file access.allow, or added with `scion-tracker allow`.
    #[arg(long)]
    listed: bool,
    /// Token of the admin API. Other users of this host can read flags: admin.token_file is safer.
    #[arg(long, value_name = "TEXT")]
    admin_token: Option<Token>,
    /// Database of the records: sqlite:PATH, mysql://USER:PASSWORD@HOST/NAME, postgres://..., or memory.
    /// Without it, records.db in the data directory.
    #[arg(long, value_name = "URL")]
    database: Option<Database>,
    /// Time that clients wait between announces, as in 30m or 1800.
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    interval: Option<Duration>,
    /// Shortest time between announces of a client without an event.
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    min_interval: Option<Duration>,
    /// Whether to believe the ISD-AS that clients claim: accept, prefix-only or ignore.
    #[arg(long, value_name = "POLICY")]
    place_policy: Option<PlacePolicy>,
    /// Log level: error, warn, info, debug or trace, or by module as in
    /// info,scion_tracker::tls=debug.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Log format: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Where the log goes: stderr, journald, syslog or a file.
    #[arg(long, value_name = "TARGET")]
    log_to: Option<LogTarget>,
}

macro_rules! generate {
    ($({
        $(#[doc = $doc:tt])+
        $name:ident: $kind:ident = $listener:ty,
        settings: $settings:ident,
        env: $env:tt,
        default: $default:tt,
        flag: $flag:tt, $value:tt,
        besides: $besides:tt,
    })+) => {
        /// Flags that name listeners, generated from the table of listeners.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args)]
        struct Listeners {
            $(
                #[doc = $flag]
                #[arg(long, value_name = $value)]
                $name: Vec<config::$settings>,
            )+
        }

        impl Listeners {
            /// These flags, and those of `other` that they do not replace.
            fn over(self, other: Self) -> Self {
                let names_all = self.names_all();
                Self {
                    $(
                        $name: if self.$name.is_empty() && ($besides || !names_all) {
                            other.$name
                        } else {
                            self.$name
                        },
                    )+
                }
            }

            /// Whether one of them is named that turns off all kinds that are not named.
            const fn names_all(&self) -> bool {
                false $( || !($besides || self.$name.is_empty()) )+
            }

            fn set(self, layer: &mut Layer) {
                let names_all = self.names_all();
                $(
                    if !self.$name.is_empty() || (names_all && !$besides) {
                        layer.listen.$name = Some(self.$name);
                    }
                )+
            }
        }
    };
}
listeners!(generate);

impl Args {
    /// These flags, and those of `other` that are not among them.
    pub(super) fn over(self, other: Self) -> Self {
        Self {
            listen: self.listen.over(other.listen),
            scion_topology: self.scion_topology.or(other.scion_topology),
            scion_daemon: self.scion_daemon.or(other.scion_daemon),
            config: self.config.or(other.config),
            data_dir: self.data_dir.or(other.data_dir),
            private: self.private || other.private,
            listed: self.listed || other.listed,
            admin_token: self.admin_token.or(other.admin_token),
            database: self.database.or(other.database),
            interval: self.interval.or(other.interval),
            min_interval: self.min_interval.or(other.min_interval),
            place_policy: self.place_policy.or(other.place_policy),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            log_to: self.log_to.or(other.log_to),
        }
    }

    fn layer(self) -> Layer {
        let mut layer = Layer::empty();
        self.listen.set(&mut layer);
        layer.scion.topology = self.scion_topology;
        layer.scion.daemon = self.scion_daemon;
        layer.data_dir = self.data_dir;
        layer.access.private = self.private.then_some(true);
        layer.access.listed = self.listed.then_some(true);
        layer.admin.token = self.admin_token;
        layer.records.database = self.database;
        layer.announce.interval = self.interval;
        layer.announce.min_interval = self.min_interval;
        layer.places.policy = self.place_policy;
        layer.log.level = self.log;
        layer.log.format = self.log_format;
        layer.log.to = self.log_to;
        layer
    }

    /// The flags that say where a running tracker keeps its data.
    pub(super) fn of_data(config: Option<PathBuf>, data_dir: Option<PathBuf>) -> Self {
        Self {
            config,
            data_dir,
            ..Self::default()
        }
    }

    /// These flags, with this file instead of --config.
    pub(super) fn over_file(self, file: Option<PathBuf>) -> Self {
        Self {
            config: file.or(self.config),
            ..self
        }
    }

    fn file(&self) -> Option<PathBuf> {
        self.config
            .clone()
            .or_else(|| std::env::var_os("SCION_TRACKER_CONFIG").map(PathBuf::from))
            .filter(|file| !file.as_os_str().is_empty())
    }

    /// Joins these flags, the environment and the file.
    pub(super) fn config(self) -> Result<Config, ConfigError> {
        let file = self.file();
        Config::load(file.as_deref(), self.layer())
    }

    /// The configuration as text, with the source of each setting.
    pub(super) fn effective(self) -> Result<String, ConfigError> {
        let file = self.file();
        Config::effective(file.as_deref(), self.layer())
    }

    /// Checks all that `serve` checks before it binds.
    pub(super) fn check(self) -> anyhow::Result<()> {
        let config = self.config()?;
        log::filter(&config.log)?;
        Ok(Server::check(&config)?)
    }

    /// As [`Args::config`], with listeners for the sockets of the service manager.
    fn config_with(self, inherited: &[Inherited]) -> Result<Config, ConfigError> {
        let mut config = self.config()?;
        for Inherited { name, address } in inherited {
            if !config.listen.adopt(name, *address) {
                return Err(ConfigError::Contradiction {
                    message: format!(
                        "the service manager handed over a socket at {address} with the name {name:?}: expected FileDescriptorName= udp, http, https or http3"
                    ),
                });
            }
        }
        Ok(config)
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        let inherited = inherited::take().context("cannot take over sockets")?;
        let config = self.clone().config_with(&inherited)?;
        let log = Arc::new(Log::start(&config.log)?);
        for warning in unknown_variables() {
            tracing::warn!("{warning}");
        }
        raise_file_limit();
        log::start::log(self.file().as_deref(), &config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.workers().get())
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let result = runtime.block_on(serve(self, config, inherited, log));
        // Not for a start that still waits for a daemon or a database.
        runtime.shutdown_background();
        result
    }
}

/// Warnings of variables in the environment that look like settings and are none.
pub(super) fn unknown_variables() -> impl Iterator<Item = String> {
    config::unknown_variables()
        .into_iter()
        .map(|(name, meant)| {
            let hint = meant
                .map(|name| format!("; did you mean {name}?"))
                .unwrap_or_default();
            format!("the environment variable {name} is not a setting{hint}")
        })
}

async fn serve(
    args: Args,
    config: Config,
    inherited: Vec<Inherited>,
    log: Arc<Log>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let summary = config.log.summary;
    // Before the sockets are bound: from then on clients connect, and a signal must not be lost.
    let mut stop = Box::pin(stop_signal()?);
    let signals = Signals::listen()?;
    let bound = task::spawn_blocking(|| Server::bind(config));
    let server = tokio::select! {
        bound = bound => bound.context("the start panicked")??,
        () = &mut stop => {
            tracing::info!("stopped before the start was complete");
            return Ok(());
        }
    };
    if let Some(address) = inherited::unclaimed().into_iter().next() {
        // Its clients would wait for ever.
        anyhow::bail!(
            "no listener can use the socket of the service manager at {address}: is it ListenStream= for http and https, ListenDatagram= for udp and http3?"
        );
    }

    let handle = server.handle();
    for listening in server.listeners() {
        tracing::info!("listening on {listening}");
    }
    let mut urls = String::new();
    for url in handle.urls() {
        tracing::info!("announce to {url}");
        urls += &url;
        urls += "\n";
    }
    if let Err(error) = super::print(&urls) {
        tracing::warn!("cannot write the URLs to standard output: {error}");
    }
    notify(State::Ready);

    server.on_reload({
        let log = Arc::clone(&log);
        move |handle| {
            let (args, inherited, log) = (args.clone(), inherited.clone(), Arc::clone(&log));
            async move { reload(&args, &inherited, &handle, &log).await }
        }
    });
    let reloads = reload_on(signals, handle.clone());
    let running = server.run(async {
        stop.await;
        tracing::info!("stopping");
        notify(State::Stopping);
    });
    let result = tokio::select! {
        result = running => Ok(result?),
        () = reloads => Ok(()),
        () = log::report_suppressed() => Ok(()),
        () = log::summary::log_every(summary, handle.clone()) => Ok(()),
    };
    log::summary::log_all(&handle, started.elapsed());
    result
}

/// Ends with the first SIGTERM or SIGINT.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Signals that reload the configuration, and one that is ignored instead of ending the program.
struct Signals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
            user1: signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?,
            user2: signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")?,
        })
    }

    /// Waits for SIGHUP or SIGUSR1.
    async fn reload(&mut self) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return,
                _ = self.user1.recv() => return,
                _ = self.user2.recv() => tracing::info!("SIGUSR2 is ignored; SIGHUP and SIGUSR1 reload"),
            }
        }
    }
}

/// Reloads configuration and certificate on each SIGHUP and SIGUSR1. Never ends.
async fn reload_on(mut signals: Signals, handle: Handle) {
    loop {
        signals.reload().await;
        // The log says what became of it.
        let _ = handle.request_reload().await;
    }
}

/// Reloads configuration and certificate, and says so in the log and to the service manager. Opens log files
/// again also if the configuration is wrong: logrotate has renamed them.
async fn reload(
    args: &Args,
    inherited: &[Inherited],
    handle: &Handle,
    log: &Log,
) -> anyhow::Result<Changes> {
    log.reopen();
    handle.reopen_logs();
    notify(State::Reloading);
    let applied = apply(args, inherited, handle, log).await;
    match &applied {
        Ok(changes) => {
            let list = |keys: &[&str]| match keys {
                [] => "nothing".to_owned(),
                keys => keys.join(", "),
            };
            tracing::info!(
                changed = list(&changes.reloaded),
                "configuration and certificate reloaded"
            );
            if !changes.need_restart.is_empty() {
                tracing::warn!(
                    settings = list(&changes.need_restart),
                    "these settings have changed and need a restart"
                );
            }
        }
        Err(error) => {
            tracing::error!("reload failed, all old settings stay in force: {error:#}");
        }
    }
    notify(State::Ready);
    applied
}

/// Puts the file, the environment and the flags in force again. Changes nothing if any of it is wrong.
async fn apply(
    args: &Args,
    inherited: &[Inherited],
    handle: &Handle,
    log: &Log,
) -> anyhow::Result<Changes> {
    let config = args.clone().config_with(inherited)?;
    let filter = log::filter(&config.log)?;
    // It reads files that may have a million lines.
    let handle = handle.clone();
    let reload = task::spawn_blocking(move || handle.reload(config));
    let changes = reload.await.context("the reload panicked")??;
    log.set_filter(filter)?;
    Ok(changes)
}

/// Raises the soft limit of open files, which is 1024 on most systems: each connection is one.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
}
