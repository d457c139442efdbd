//! Listeners for the admin API: TCP, and a Unix socket in the data directory. The API itself is in
//! [`crate::admin`].

use std::io;
use std::net::TcpListener;
#[cfg(feature = "admin")]
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Bound, Kind, Listener, Listening, Run, Start};
use crate::config::{AdminListener, Config};
use crate::server::BindError;
use crate::tls::Certificates;

/// A bound TCP listener.
#[derive(Debug)]
pub(super) struct Admin {
    listening: Listening,
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "nothing to serve"))]
    socket: TcpListener,
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "nothing to serve"))]
    certificates: Option<Arc<Certificates>>,
}

impl Listener for Admin {
    type Settings = AdminListener;

    fn bind(listeners: &[AdminListener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let mut all = Vec::new();
        #[cfg(feature = "admin")]
        all.extend(unix::Unix::bind(config).map(Bound::ready));
        // The configuration is wrong if one that is not optional is named without the feature.
        let listeners = listeners.iter().filter(|_| cfg!(feature = "admin"));
        for listener in listeners {
            let bound = TcpListener::bind(listener.address)
                .and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (address, socket) = match bound {
                Ok(bound) => bound,
                Err(error) if listener.optional => {
                    tracing::warn!(
                        "the admin API is not served on {}: {error}; name another address with --admin or listen.admin",
                        listener.address
                    );
                    continue;
                }
                Err(source) => {
                    return Err(BindError::listen(Kind::Admin, listener.address, source));
                }
            };
            let scheme = if config.admin.tls { "https" } else { "http" };
            let admin = move |certificates| Self {
                listening: Listening::on_ip(Kind::Admin, scheme, address),
                socket,
                certificates,
            };
            all.push(match config.admin.tls {
                true => Bound::needs_certificate(vec![], |it| admin(Some(it))),
                false => Bound::ready(admin(None)),
            });
        }
        Ok(all)
    }

    fn url(_: &[AdminListener], _: &Config) -> Result<Option<String>, BindError> {
        Ok(None)
    }
}

#[cfg(not(feature = "admin"))]
impl Run for Admin {
    fn listening(&self) -> Listening {
        self.listening
    }

    fn run(self: Box<Self>, _: &mut Start<'_>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "admin")]
impl Run for Admin {
    fn listening(&self) -> Listening {
        self.listening
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        let tls = self
            .certificates
            .map(|it| Arc::new(it.server_config(&[b"http/1.1"])));
        self.socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        let state = crate::admin::State::new(start.handle);
        start.spawn(crate::admin::serve_tcp(socket, tls, state, start.stop()));
        Ok(())
    }
}

#[cfg(feature = "admin")]
mod unix {
    //! The Unix socket.

    use std::fs::{self, File, Permissions};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};

    use rustix::fs::{FlockOperation, flock};
    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;
    use crate::server::listener::admin_socket;

    /// Connections that wait to be accepted.
    const BACKLOG: i32 = 16;

    /// A bound Unix socket. Its file is removed when it is dropped.
    #[derive(Debug)]
    pub(super) struct Unix {
        socket: UnixListener,
        file: SocketFile,
    }

    /// The file of a bound socket, and the lock that says whose it is.
    #[derive(Debug)]
    struct SocketFile {
        path: PathBuf,
        /// Locked as long as it is open. The kernel unlocks it if the program is killed.
        _lock: File,
    }

    impl Drop for SocketFile {
        fn drop(&mut self) {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::debug!("cannot remove {}: {error}", self.path.display());
            }
        }
    }

    impl Unix {
        /// Binds the socket, unless the configuration says no. Logs a warning if that fails.
        pub(super) fn bind(config: &Config) -> Option<Self> {
            if !config.admin.socket {
                return None;
            }
            let path = admin_socket(config);
            let bound = match &path {
                Some(path) => Self::bind_at(path),
                None => Err(io::Error::other("there is no data directory")),
            };
            match bound {
                Ok(unix) => {
                    tracing::info!("admin API on unix socket {}", unix.file.path.display());
                    Some(unix)
                }
                Err(error) => {
                    let path = path.unwrap_or_default();
                    tracing::warn!(
                        "the admin API is not served on the unix socket {}: {error}; name a directory with --data-dir or data_dir",
                        path.display()
                    );
                    None
                }
            }
        }

        fn bind_at(path: &Path) -> io::Result<Self> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let lock = path.with_extension("lock");
            let lock = File::options()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(lock)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
                match io::Error::from(error) {
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        io::Error::other("another tracker uses this data directory")
                    }
                    error => error,
                }
            })?;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // The kernel gives the file the mode of the socket, so nobody can connect in between.
            let socket = File::from(OwnedFd::from(socket));
            socket.set_permissions(Permissions::from_mode(0o600))?;
            let socket = Socket::from(OwnedFd::from(socket));
            socket.bind(&SockAddr::unix(path)?)?;
            let file = SocketFile {
                path: path.into(),
                _lock: lock,
            };
            socket.listen(BACKLOG)?;
            Ok(Self {
                socket: OwnedFd::from(socket).into(),
                file,
            })
        }
    }

    impl Run for Unix {
        /// It has no address on IP. Its task does not fail, so that no error names it.
        fn listening(&self) -> Listening {
            Listening::on_ip(
                Kind::Admin,
                "http",
                SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            )
        }

        fn transports(&self) -> Vec<Listening> {
            Vec::new()
        }

        fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
            let Self { socket, file } = *self;
            let socket = tokio::net::UnixListener::from_std(socket)?;
            let state = crate::admin::State::new(start.handle);
            let stop = start.stop();
            start.spawn(async move {
                let served = crate::admin::serve_unix(socket, state, stop).await;
                drop(file);
                served
            });
            Ok(())
        }
    }
}
