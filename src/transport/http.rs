//! HTTP/1.1 and HTTP/2, with and without TLS.

use std::net::TcpListener;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::service::Service;

#[derive(Debug, Default)]
pub(crate) struct Options {}

pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: Arc<Options>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) {
    let _ = (listener, tls, options, service);
    shutdown.cancelled().await;
}
