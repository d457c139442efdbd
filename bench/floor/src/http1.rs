//! HTTP/1.1 without a tracker: hyper with its defaults, the same reply to every announce.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::reply::{announce, scrape};

/// Serves kept connections until the process ends, on this thread.
pub(crate) fn run(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        // Accepted sockets inherit it.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        let announce = announce();
        loop {
            let (stream, _) = listener.accept().await?;
            let announce = announce.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    ready(Ok::<_, Infallible>(answer(request.uri().path(), &announce)))
                });
                // A connection that fails ends alone.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// The reply to a request. hyper adds `Content-Length` and `Date`.
fn answer(path: &str, announce: &Bytes) -> Response<Full<Bytes>> {
    let body = match path {
        "/scrape" => scrape(),
        _ => announce.clone(),
    };
    let mut reply = Response::new(Full::new(body));
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    reply
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn each_path_has_its_reply() {
        for (path, body) in [("/announce", announce()), ("/scrape", scrape())] {
            let reply = answer(path, &announce());
            assert_eq!(reply.status(), 200);
            let Ok(sent) = reply.into_body().collect().await;
            assert_eq!(sent.to_bytes(), body);
        }
    }
}
