//! Listeners for HTTP/3 over IP: one socket and one task per worker.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use super::{Bound, Kind, Listener, Listening, Run, Start};
use crate::config::{Config, Http3Listener};
use crate::server::BindError;
use crate::socket::ip;
use crate::tls::Certificates;
use crate::transport::http::origin::Proxies;
use crate::transport::quic;

const SCHEME: &str = "h3";

/// A bound HTTP/3 listener.
#[derive(Debug)]
pub(super) struct Http3 {
    listening: Listening,
    proxies: Proxies,
    /// One per worker. A client that changes its port may reach another one, which hands its packets
    /// over.
    sockets: Vec<UdpSocket>,
    certificates: Arc<Certificates>,
}

impl Listener for Http3 {
    type Settings = Http3Listener;

    fn bind(listeners: &[Http3Listener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let bind = |settings: &Http3Listener| {
            let Http3Listener {
                address,
                proxies,
                header,
            } = settings;
            let bound = ip::udp(*address, config.workers(), config.udp.receive_buffer)
                .and_then(|sockets| Ok((sockets[0].local_addr()?, sockets)));
            let (bound, sockets) =
                bound.map_err(|source| BindError::listen(Kind::Http3, *address, source))?;
            let listening = Listening::on_ip(Kind::Http3, SCHEME, bound);
            let proxies = Proxies::new(proxies.iter().copied(), false, header.as_str());
            let proxies = proxies.of_listener(listening);
            Ok(Bound::needs_certificate(vec![], move |certificates| Self {
                listening,
                proxies,
                sockets,
                certificates,
            }))
        };
        listeners.iter().map(bind).collect()
    }

    fn url(listeners: &[Http3Listener], _: &Config) -> Result<Option<String>, BindError> {
        let url = |it: &Http3Listener| Listening::url_of(Kind::Http3, SCHEME, it.address);
        Ok(listeners.iter().find_map(url))
    }
}

impl Run for Http3 {
    fn listening(&self) -> Listening {
        self.listening
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        start.watch_receive_buffers(&self.sockets)?;
        let tls = self.certificates.quic_config(quic::PROTOCOLS);
        let options = Arc::new(start.options(self.proxies));
        let listener = quic::Listener::new(tls, None, options, Arc::clone(&start.service))?;
        let listener = Arc::new(listener);
        let seats = quic::Seat::group(self.sockets.len());
        for (socket, seat) in self.sockets.into_iter().zip(seats) {
            let (listener, stop) = (Arc::clone(&listener), start.stop());
            start.spawn(async move { listener.run(socket, seat, stop).await });
        }
        Ok(())
    }
}
