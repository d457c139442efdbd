//! What a server is made of before it runs: sockets and the certificate.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::{BindError, Kind, Listening};
use crate::config::{self, Config};
use crate::socket::ip;
use crate::tls::{Certificates, MakeError, TlsError};

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listening: Listening,
    pub(super) config: config::Listener,
    pub(super) sockets: Sockets,
}

#[derive(Debug)]
pub(super) enum Sockets {
    /// One a worker.
    Udp(Vec<UdpSocket>),
    /// One a worker.
    Tcp(Vec<TcpListener>),
    /// One: a client that changes its port has to stay with its endpoint.
    Quic(UdpSocket),
}

/// Binds a listener, with a socket for each worker where its transport has several.
pub(super) fn bind(
    kind: Kind,
    listener: &config::Listener,
    config: &Config,
) -> Result<Bound, BindError> {
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
pub(super) fn certificates(config: &Config) -> Result<Certificates, TlsError> {
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
