//! HTTP/3 on a datagram socket.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::service::Service;

#[derive(Debug, Default)]
pub(crate) struct Options {}

pub(crate) async fn run(
    socket: UdpSocket,
    tls: rustls::ServerConfig,
    options: Options,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let _ = (socket, tls, options, service);
    shutdown.cancelled().await;
    Ok(())
}
