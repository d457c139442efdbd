//! HTTP/3 without a tracker: quinn and h3, the same reply to every announce, from the task of the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig, TransportConfig, ValidationTokenConfig};
use rustls::CipherSuite;
use rustls::crypto::ring;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::reply::{announce, scrape};

/// What a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// quinn's own.
    Default,
    /// Those of a tracker.
    Tuned,
}

/// Answers until the process ends, on this thread.
pub(crate) fn run(address: SocketAddr, limits: Limits) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let endpoint = Endpoint::server(config(limits)?, address)?;
        let announce = announce();
        while let Some(incoming) = endpoint.accept().await {
            let announce = announce.clone();
            tokio::spawn(async move {
                // A connection that fails ends alone.
                let _ = serve(incoming, announce).await;
            });
        }
        Ok(())
    })
}

async fn serve(incoming: Incoming, announce: Bytes) -> anyhow::Result<()> {
    let connection = h3_quinn::Connection::new(incoming.await?);
    let mut connection = h3::server::builder().build::<_, Bytes>(connection).await?;
    while let Some(resolver) = connection.accept().await? {
        let (request, mut stream) = resolver.resolve_request().await?;
        let body = match request.uri().path() {
            "/scrape" => scrape(),
            _ => announce.clone(),
        };
        let head = http::Response::builder()
            .header(http::header::CONTENT_TYPE, "text/plain")
            .header(http::header::CONTENT_LENGTH, body.len())
            .body(())?;
        stream.send_response(head).await?;
        stream.send_data(body).await?;
        stream.finish().await?;
    }
    Ok(())
}

fn config(limits: Limits) -> anyhow::Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut provider = ring::default_provider();
    if limits == Limits::Tuned {
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    if limits == Limits::Default {
        let crypto = QuicServerConfig::try_from(tls).context("no cipher suite for QUIC")?;
        return Ok(ServerConfig::with_crypto(Arc::new(crypto)));
    }
    tls.ignore_client_order = true;
    tls.send_tls13_tickets = 1;
    let crypto = QuicServerConfig::try_from(tls).context("no cipher suite for QUIC")?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(16_u8.into())
        .max_concurrent_uni_streams(6_u8.into())
        .stream_receive_window(12_288_u16.into())
        .receive_window(196_608_u32.into())
        .send_window(128 * 1024)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None);
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(1);
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        .migration(false);
    Ok(config)
}
