//! The server inside another program.

use std::net::UdpSocket;

use scion_tracker::server::{BindError, Kind};
use scion_tracker::{Config, Server};

use crate::common;

#[test]
fn a_server_starts_and_stops() {
    let running = common::start(common::config());
    for (kind, start) in [
        (Kind::Udp, "udp://127.0.0.1:"),
        (Kind::Http, "http://127.0.0.1:"),
        (Kind::Https, "https://127.0.0.1:"),
        (Kind::Http3, "h3://127.0.0.1:"),
    ] {
        assert_ne!(running.address(kind).port(), 0);
        assert!(running.url(kind).starts_with(start));
    }
    assert_eq!(running.handle.stats().registry.torrents, 0);
    running.stop();
}

#[test]
fn the_ports_are_free_again_after_the_end() {
    let running = common::start(common::config());
    let address = running.address(Kind::Udp);
    running.stop();
    UdpSocket::bind(address).unwrap();
}

#[test]
fn a_contradiction_is_refused() {
    let mut config = Config::default();
    config.announce.numwant = config.announce.numwant_max + 1;
    assert!(matches!(Server::bind(config), Err(BindError::Config(_))));
}
