//! Listeners for UDP trackers (BEP 15) over IP: one socket and one thread per worker.

use std::io;
use std::net::UdpSocket;

use super::{Bound, Kind, Listener, Listening, Run, Start};
use crate::config::{Config, UdpListener};
use crate::server::BindError;
use crate::socket::ip;
use crate::transport::udp;

const SCHEME: &str = "udp";

/// A bound UDP listener.
#[derive(Debug)]
pub(super) struct Udp {
    listening: Listening,
    /// One per worker.
    sockets: Vec<UdpSocket>,
}

impl Listener for Udp {
    type Settings = UdpListener;

    fn bind(listeners: &[UdpListener], config: &Config) -> Result<Vec<Bound>, BindError> {
        let bind = |UdpListener { address }: &UdpListener| {
            let bound = ip::udp(*address, config.workers(), config.udp.receive_buffer)
                .and_then(|sockets| Ok((sockets[0].local_addr()?, sockets)));
            let (bound, sockets) =
                bound.map_err(|source| BindError::listen(Kind::Udp, *address, source))?;
            Ok(Bound::ready(Self {
                listening: Listening::on_ip(Kind::Udp, SCHEME, bound),
                sockets,
            }))
        };
        listeners.iter().map(bind).collect()
    }

    fn url(listeners: &[UdpListener], _: &Config) -> Result<Option<String>, BindError> {
        let url = |it: &UdpListener| Listening::url_of(Kind::Udp, SCHEME, it.address);
        Ok(listeners.iter().find_map(url))
    }
}

impl Run for Udp {
    fn listening(&self) -> Listening {
        self.listening
    }

    fn run(self: Box<Self>, start: &mut Start<'_>) -> io::Result<()> {
        start.watch_receive_buffers(&self.sockets)?;
        let options = options(start.config);
        for worker in udp::spawn(&start.service, self.sockets, options, &start.stop())? {
            start.join(worker);
        }
        Ok(())
    }
}

/// How the UDP transport serves, over IP and over SCION.
pub(super) fn options(config: &Config) -> udp::Options {
    udp::Options {
        connection_validity: config.udp.connection_validity.as_secs() as u32,
        ..udp::Options::default()
    }
}
