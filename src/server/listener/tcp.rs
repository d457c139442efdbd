//! Listeners for HTTP/1.1 and HTTP/2 over TCP, plain and over TLS: one socket and one task per worker.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use super::{Bound, Kind, Listener, Listening, Run, Start};
use crate::config::{self, Config};
use crate::server::BindError;
use crate::socket::ip;
use crate::tls::Certificates;
use crate::transport::http::origin::Proxies;
use crate::transport::{Options, tcp};

/// Protocols over TLS, by their names in ALPN.
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A bound listener without TLS.
#[derive(Debug)]
pub(super) struct Http(Sockets);

/// A bound listener with TLS.
#[derive(Debug)]
pub(super) struct Https {
    sockets: Sockets,
    certificates: Arc<Certificates>,
}

#[derive(Debug)]
struct Sockets {
    listening: Listening,
    proxies: Proxies,
    /// One per worker.
    sockets: Vec<TcpListener>,
}

impl Listener for Http {
    type Settings = config::Listener;

    fn bind(listeners: &[config::Listener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let bind = |it| Ok(Bound::ready(Self(Sockets::bind(Kind::Http, it, config)?)));
        listeners.iter().map(bind).collect()
    }

    fn url(listeners: &[config::Listener], _: &Config) -> Result<Option<String>, BindError> {
        Ok(url(Kind::Http, listeners))
    }
}

impl Run for Http {
    fn listening(&self) -> Listening {
        self.0.listening
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        let Self(sockets) = *self;
        let options = start.options(sockets.proxies);
        run(sockets.sockets, None, options, start);
        Ok(())
    }
}

impl Listener for Https {
    type Settings = config::Listener;

    fn bind(listeners: &[config::Listener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let bind = |it| {
            let sockets = Sockets::bind(Kind::Https, it, config)?;
            Ok(Bound::needs_certificate(vec![], |certificates| Self {
                sockets,
                certificates,
            }))
        };
        listeners.iter().map(bind).collect()
    }

    fn url(listeners: &[config::Listener], _: &Config) -> Result<Option<String>, BindError> {
        Ok(url(Kind::Https, listeners))
    }
}

impl Run for Https {
    fn listening(&self) -> Listening {
        self.sockets.listening
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        let Self {
            sockets,
            certificates,
        } = *self;
        let tls = Arc::new(certificates.server_config(PROTOCOLS));
        let options = Options {
            alt_svc: start.http3_port.and_then(tcp::alt_svc),
            ..start.options(sockets.proxies)
        };
        run(sockets.sockets, Some(&tls), options, start);
        Ok(())
    }
}

impl Sockets {
    fn bind(kind: Kind, settings: &config::Listener, config: &Config) -> Result<Self, BindError> {
        let config::Listener {
            address,
            proxies,
            header,
            proxy_protocol,
        } = settings;
        let bound = ip::tcp(*address, config.workers())
            .and_then(|sockets| Ok((sockets[0].local_addr()?, sockets)));
        let (bound, sockets) = bound.map_err(|source| BindError::listen(kind, *address, source))?;
        let listening = Listening::on_ip(kind, kind.name(), bound);
        let proxies = Proxies::new(proxies.iter().copied(), *proxy_protocol, header.as_str());
        Ok(Self {
            listening,
            proxies: proxies.of_listener(listening),
            sockets,
        })
    }
}

/// Skips listeners that wait for the header of a proxy. The scheme is the name of the kind.
fn url(kind: Kind, listeners: &[config::Listener]) -> Option<String> {
    listeners
        .iter()
        .filter(|it| !it.proxy_protocol)
        .find_map(|it| Listening::url_of(kind, kind.name(), it.address))
}

fn run(
    sockets: Vec<TcpListener>,
    tls: Option<&Arc<rustls::ServerConfig>>,
    options: Options,
    start: &mut Start<'_>,
) {
    let options = Arc::new(options);
    for socket in sockets {
        let (tls, options) = (tls.cloned(), Arc::clone(&options));
        let service = Arc::clone(&start.service);
        start.spawn(tcp::run(socket, tls, options, service, start.stop()));
    }
}
