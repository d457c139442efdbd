//! The table of listeners: one row per kind, one file per kind in this folder.
//!
//! The configuration section `listen`, its environment variables, the flags of `serve`, [`Kind`] and
//! the loop that binds are all generated from the rows of [`listeners!`]. To add a kind, write a file
//! with a type that implements [`Listener`] and [`Run`], and add a row that names it.

mod admin;
mod quic;
mod scion;
mod tcp;
mod udp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use scion_tracker_core::address::ScionAddr;
use tokio_util::sync::CancellationToken;

use super::{BindError, Handle, RunError, receive, tasks::Tasks};
use crate::config::Config;
use crate::service::Service;
use crate::tls::{Certificates, MakeError, TlsError};
use crate::transport::Options;
use crate::transport::http::origin::Proxies;

/// The rows, handed to the macro that generates something from them.
///
/// - The doc comment documents the key in `config print` and the variant of [`Kind`].
/// - The name is the key under `listen` and the flag.
/// - `settings` is the type of one listener in the configuration (see `config::listener`).
/// - `env` and `default` are the environment variable and the addresses without configuration.
/// - `flag` is the help of the flag, with the placeholder of its value.
/// - `besides`: whether naming one of these leaves the listeners of other kinds alone.
macro_rules! listeners {
    ($generate:ident) => {
        $generate! {
            {
                /// UDP trackers (BEP 15).
                udp: Udp = udp::Udp,
                settings: UdpListener,
                env: "SCION_TRACKER_UDP",
                default: ["[::]:6969"],
                flag: "Serve UDP here. Naming any listener turns off those that are not named. Repeatable", "ADDR:PORT",
                besides: false,
            }
            {
                /// HTTP/1.1 and HTTP/2 without TLS.
                http: Http = tcp::Http,
                settings: Listener,
                env: "SCION_TRACKER_HTTP",
                default: ["[::]:6969"],
                flag: "Serve HTTP/1.1 and HTTP/2 here. Repeatable", "ADDR:PORT",
                besides: false,
            }
            {
                /// HTTP/1.1 and HTTP/2 over TLS.
                https: Https = tcp::Https,
                settings: Listener,
                env: "SCION_TRACKER_HTTPS",
                default: ["[::]:6443"],
                flag: "Serve HTTP/1.1 and HTTP/2 over TLS here. Repeatable", "ADDR:PORT",
                besides: false,
            }
            {
                /// HTTP/3.
                http3: Http3 = quic::Http3,
                settings: Http3Listener,
                env: "SCION_TRACKER_HTTP3",
                default: ["[::]:6443"],
                flag: "Serve HTTP/3 here. Repeatable", "ADDR:PORT",
                besides: false,
            }
            {
                /// UDP trackers and HTTP/3 over SCION, on one port: "1-ff00:0:110,[10.0.0.1]:31969". The
                /// border routers of the AS must deliver to this port (dispatched_ports in its
                /// topology.json).
                scion: Scion = scion::Scion,
                settings: ScionListener,
                env: "SCION_TRACKER_SCION",
                default: [],
                flag: "Serve UDP and HTTP/3 over SCION here, in addition to the other listeners. Repeatable", "ISD-AS,[IP]:PORT",
                besides: true,
            }
            {
                /// The admin API over HTTP/1.1: see the section `admin`. An address beyond loopback needs a
                /// token, and TLS or admin.allow_plain.
                admin: Admin = admin::Admin,
                settings: AdminListener,
                env: "SCION_TRACKER_ADMIN",
                default: [{ "address": "127.0.0.1:1212", "if_taken": "warn" }],
                flag: "Serve the admin API here instead of on 127.0.0.1:1212. Beyond loopback it needs a token, and TLS or admin.allow_plain. Repeatable", "ADDR:PORT",
                besides: true,
            }
        }
    };
}
pub(crate) use listeners;

/// What a kind of listener does with its part of the configuration.
trait Listener: Run {
    /// One listener in the configuration.
    type Settings;

    /// Binds the listeners that the configuration names.
    fn bind(listeners: &[Self::Settings], config: &Config) -> Result<Vec<Bound>, BindError>;

    /// What a client on this host announces to, of the first listener that it can reach. `None` if
    /// the configuration does not tell, for example because the system picks the port.
    fn url(listeners: &[Self::Settings], config: &Config) -> Result<Option<String>, BindError>;
}

/// A listener that has all it needs to run: its sockets, and a certificate if it uses TLS.
pub(super) trait Run: fmt::Debug + Send + Sync {
    /// Where it listens.
    fn listening(&self) -> Listening;

    /// The same, with an entry for each transport of a listener that serves several.
    fn transports(&self) -> Vec<Listening> {
        vec![self.listening()]
    }

    /// Starts its workers as tasks of the server.
    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()>;
}

/// A listener whose addresses are taken.
enum Bound {
    /// It runs as it is.
    Ready(Box<dyn Run>),
    /// It runs once it has a certificate.
    NeedsCertificate {
        /// Names and addresses for the self-signed certificate, besides the configured ones.
        names: Vec<String>,
        run: Box<dyn FnOnce(Arc<Certificates>) -> Box<dyn Run>>,
    },
}

impl Bound {
    fn ready(run: impl Run + 'static) -> Self {
        Self::Ready(Box::new(run))
    }

    fn needs_certificate<R: Run + 'static>(
        names: Vec<String>,
        run: impl FnOnce(Arc<Certificates>) -> R + 'static,
    ) -> Self {
        Self::NeedsCertificate {
            names,
            run: Box::new(|certificates| Box::new(run(certificates))),
        }
    }
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
        /// A kind of listener.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl Kind {
            /// The name in the configuration and among the flags.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$kind => stringify!($name), )+
                }
            }
        }

        /// Binds all listeners, in the order of the table.
        fn bind_each(config: &Config) -> Result<Vec<Bound>, BindError> {
            let mut bound = Vec::new();
            $( bound.extend(<$listener>::bind(&config.listen.$name, config)?); )+
            Ok(bound)
        }

        /// What a client on this host announces to: the first listener of the table that the
        /// configuration tells enough about. Binds nothing. Reads the topology or asks the SCION
        /// daemon only if no other listener will do.
        pub fn local_url(config: &Config) -> Result<Option<String>, BindError> {
            $(
                if let Some(url) = <$listener>::url(&config.listen.$name, config)? {
                    return Ok(Some(url));
                }
            )+
            Ok(None)
        }
    };
}
listeners!(generate);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A bound address and what is served there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listening {
    /// The kind of listener.
    pub kind: Kind,
    /// The address, with the port that the system picked if the configuration says 0. The address on
    /// the underlay if it listens over SCION.
    pub address: SocketAddr,
    /// The SCION address, if it listens over SCION.
    pub scion: Option<ScionAddr>,
    scheme: &'static str,
}

impl Listening {
    /// Whether clients announce to it.
    pub const fn is_tracker(&self) -> bool {
        !matches!(self.kind, Kind::Admin)
    }

    /// Whether it is announced to by BEP 15, over IP or SCION.
    pub(super) fn is_udp_tracker(&self) -> bool {
        self.scheme == "udp"
    }

    /// A listener on IP, announced to with this scheme.
    const fn on_ip(kind: Kind, scheme: &'static str, address: SocketAddr) -> Self {
        Self {
            kind,
            address,
            scion: None,
            scheme,
        }
    }

    /// The URL that clients announce to, or that of the admin API. It names this host if the address is a
    /// wildcard.
    pub fn url(&self) -> String {
        let Self {
            mut address,
            scion,
            scheme,
            ..
        } = *self;
        if let Some(scion) = scion {
            return format!("{scheme}://{}/announce", scion.url_authority());
        }
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let path = match self.is_tracker() {
            true => "announce",
            false => "",
        };
        format!("{scheme}://{address}/{path}")
    }

    /// [`Listening::url`] of a configured address, unless the system picks its port.
    fn url_of(kind: Kind, scheme: &'static str, address: SocketAddr) -> Option<String> {
        (address.port() != 0).then(|| Self::on_ip(kind, scheme, address).url())
    }
}

/// As in "udp \[::\]:6969"; over SCION with the scheme, as two transports share the address.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            address,
            scion,
            scheme,
        } = self;
        match scion {
            Some(scion) => write!(f, "{kind} {scion} ({scheme})"),
            None => write!(f, "{kind} {address}"),
        }
    }
}

/// All listeners of a server.
pub(super) struct BoundAll {
    pub(super) listeners: Vec<Box<dyn Run>>,
    /// The certificate that those with TLS share.
    pub(super) certificates: Option<Arc<Certificates>>,
}

/// Checks the files that the configuration names.
pub(super) fn check(config: &Config) -> Result<(), BindError> {
    if config.tls.cert.is_some() {
        Certificates::load(&config.tls, None)?;
    }
    scion::check(config)
}

/// Binds every listener, and loads the certificate if one is configured or a listener needs it.
pub(super) fn bind(config: &Config) -> Result<BoundAll, BindError> {
    let bound = bind_each(config)?;
    let names = bound.iter().filter_map(|bound| match bound {
        Bound::NeedsCertificate { names, .. } => Some(names.as_slice()),
        Bound::Ready(_) => None,
    });
    let names = names.flatten().cloned().collect::<Vec<_>>();
    let load = || Ok::<_, TlsError>(Arc::new(certificates(config, &names)?));
    let mut loaded = match config.tls.cert {
        Some(_) => Some(load()?),
        None => None,
    };
    let mut listeners = Vec::new();
    for bound in bound {
        listeners.push(match bound {
            Bound::Ready(listener) => listener,
            Bound::NeedsCertificate { run, .. } => {
                let certificates = match &loaded {
                    Some(certificates) => Arc::clone(certificates),
                    None => load()?,
                };
                run(Arc::clone(loaded.insert(certificates)))
            }
        });
    }
    Ok(BoundAll {
        listeners,
        certificates: loaded,
    })
}

/// Loads the configured certificate, or the self-signed one, which also gets `names`. The self-signed
/// one is not kept if no directory is configured and none of the usual ones can be written.
fn certificates(config: &Config, names: &[String]) -> Result<Certificates, TlsError> {
    let directory = data_dir(config);
    let mut tls = config.tls.clone();
    tls.names.extend_from_slice(names);
    let public = config.public_urls.iter();
    let public = public.filter_map(|url| url.certificate_name());
    tls.names.extend(public.map(ToOwned::to_owned));
    let mut loaded = Certificates::load(&tls, directory.as_deref());
    let mut kept = directory.is_some();
    if let Err(TlsError::Make(error @ MakeError::Write { .. })) = &loaded
        && config.data_dir.is_none()
    {
        tracing::debug!("{error}");
        loaded = Certificates::load(&tls, None);
        kept = false;
    }
    let loaded = loaded?;
    if loaded.is_self_signed() {
        let fingerprint = loaded.fingerprint();
        tracing::info!("HTTPS and HTTP/3 serve a self-signed certificate, SHA-256 {fingerprint}");
        if !kept {
            tracing::warn!(
                "the self-signed certificate cannot be kept and will be another one after a restart: name a directory with --data-dir or data_dir"
            );
        }
    }
    Ok(loaded)
}

/// The Unix socket of the admin API, unless the configuration says no.
#[cfg(any(feature = "admin", feature = "cli"))]
pub(crate) fn admin_socket(config: &Config) -> Option<PathBuf> {
    let directory = data_dir(config).filter(|_| config.admin.socket)?;
    Some(directory.join("admin.sock"))
}

/// The directory for what must survive a restart. See [`Config::data_dir`].
pub(super) fn data_dir(config: &Config) -> Option<PathBuf> {
    config.data_dir.clone().or_else(usual_data_dir)
}

fn usual_data_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // systemd separates several directories by colons; the first is ours.
    variable("STATE_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .or_else(|| Some(PathBuf::from(variable("XDG_STATE_HOME")?).join("scion-tracker")))
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state/scion-tracker")))
}

/// What a listener needs to start.
pub(super) struct Start<'a> {
    service: Arc<Service>,
    #[cfg_attr(
        not(feature = "admin"),
        expect(dead_code, reason = "only the admin API steers the server")
    )]
    handle: &'a Handle,
    config: &'a Config,
    /// Port of the first HTTP/3 listener on IP, which HTTPS tells its clients about.
    http3_port: Option<u16>,
    tasks: &'a mut Tasks,
    /// The listener that is being started.
    listening: Listening,
}

/// Starts every listener. If one fails, those before it run and have to be stopped.
pub(super) fn start(
    listeners: Vec<Box<dyn Run>>,
    config: &Config,
    handle: &Handle,
    tasks: &mut Tasks,
) -> Result<(), RunError> {
    let http3_port = listeners
        .iter()
        .map(|listener| listener.listening())
        .find(|listening| listening.kind == Kind::Http3)
        .map(|listening| listening.address.port());
    for listener in listeners {
        let listening = listener.listening();
        let mut start = Start {
            service: Arc::clone(&handle.service),
            handle,
            config,
            http3_port,
            tasks,
            listening,
        };
        let transports = listener.transports();
        listener
            .run(&mut start)
            .map_err(|source| RunError::Listener {
                listener: listening,
                source,
            })?;
        handle.service.gauges.add_listeners(transports);
    }
    Ok(())
}

impl Start<'_> {
    /// How connections are served behind these proxies.
    fn options(&self, proxies: Proxies) -> Options {
        Options {
            proxies,
            alt_svc: None,
        }
    }

    /// Tells a worker to stop.
    fn stop(&self) -> CancellationToken {
        self.tasks.stop_token()
    }

    /// Runs a worker as a task.
    fn spawn(&mut self, worker: impl Future<Output = io::Result<()>> + Send + 'static) {
        let listener = self.listening;
        self.tasks.spawn(async move {
            worker
                .await
                .map_err(|source| RunError::Listener { listener, source })
        });
    }

    /// Reports what the kernel does to the receive buffers of these sockets: a smaller size now, and
    /// dropped datagrams as long as the server runs.
    fn watch_receive_buffers(&mut self, sockets: &[UdpSocket]) -> io::Result<()> {
        let listener = self.listening;
        let asked = self.config.udp.receive_buffer;
        if let Some(buffer) = receive::report_size(sockets, asked, listener) {
            self.service.gauges.add_receive_buffer(buffer);
        }
        let sockets = sockets.iter().map(UdpSocket::try_clone);
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let (service, stop) = (Arc::clone(&self.service), self.stop());
        self.tasks
            .spawn(receive::count_drops(sockets, listener, service, stop));
        Ok(())
    }

    /// Waits for a worker that is a thread.
    fn join(&mut self, worker: JoinHandle<()>) {
        let listener = self.listening;
        self.tasks
            .spawn_blocking(move || worker.join().map_err(|_| RunError::Ended(listener)));
    }
}
