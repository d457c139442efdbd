//! Accepts connections for the admin API and serves HTTP/1.1 on them, within limits of its own, so that
//! neither clients nor strangers can use it to take memory or time from announces, nor keep the operator out.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::patience::{Patient, Timed, discard_rests};
use super::sources::Sources;
use super::{State, router};

/// Connections of one listener. Further ones wait in the queue of the kernel. TCP and the Unix socket count
/// apart, so that the operator on the host always gets in.
const CONNECTIONS: usize = 64;
/// Time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until the head of a request has arrived, also of the next one on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for the body of a request, less than for the answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(25);
/// Bytes that are read of a body that nobody wants: one above its limit that is not absurd still ends.
const REST_BYTES: usize = 2 << 20;
/// Time for them.
const REST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a client to take some of a reply.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head, and of what is buffered of a reply.
const HEAD_BYTES: usize = 16 * 1024;
/// Fields of a request's head.
const HEADERS: usize = 64;
/// Wait after the system has run out of sockets.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// How a request came in.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) via: Via,
    /// Cancelled when the server stops: replies without end have to end.
    pub(super) stopping: CancellationToken,
}

/// Which kind of listener a request came in through.
#[derive(Debug, Clone, Copy)]
pub(super) enum Via {
    /// The Unix socket, which only the user that runs the tracker can open.
    Unix,
    /// A TCP listener.
    Tcp {
        client: SocketAddr,
        /// Whether the client is on this host.
        is_loopback: bool,
    },
}

impl Via {
    /// Whose connection it is. `None`: that of the user who runs the tracker.
    const fn client(self) -> Option<IpAddr> {
        match self {
            Self::Unix => None,
            Self::Tcp { client, .. } => Some(client.ip()),
        }
    }
}

/// Serves a TCP listener until `stop`, then lets requests end that are being answered.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: State,
    stop: CancellationToken,
) -> io::Result<()> {
    let acceptor = tls.map(TlsAcceptor::from);
    let accept = || async {
        let (stream, client) = listener.accept().await?;
        let is_loopback = client.ip().to_canonical().is_loopback();
        Ok((
            stream,
            Via::Tcp {
                client,
                is_loopback,
            },
        ))
    };
    let serve = |stream, via, router, stop: CancellationToken| {
        let acceptor = acceptor.clone();
        async move {
            let Some(acceptor) = acceptor else {
                return connection(stream, via, router, stop).await;
            };
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, via, router, stop).await,
                Ok(Err(error)) => tracing::debug!(%error, "admin API: TLS handshake failed"),
                Err(_) => tracing::debug!("admin API: TLS handshake took too long"),
            }
        }
    };
    accept_loop(accept, serve, state, stop).await
}

/// Serves the Unix socket until `stop`, then lets requests end that are being answered.
pub(crate) async fn serve_unix(
    listener: UnixListener,
    state: State,
    stop: CancellationToken,
) -> io::Result<()> {
    let accept = || async { Ok((listener.accept().await?.0, Via::Unix)) };
    accept_loop(accept, connection, state, stop).await
}

/// Accepts connections and serves each in a task, as many at a time as [`CONNECTIONS`] says.
async fn accept_loop<S, A, C>(
    accept: impl Fn() -> A,
    serve: impl Fn(S, Via, Router, CancellationToken) -> C,
    state: State,
    stop: CancellationToken,
) -> io::Result<()>
where
    A: Future<Output = io::Result<(S, Via)>>,
    C: Future<Output = ()> + Send + 'static,
{
    let changes = state.shared().changes.clone();
    serve_all(accept, serve, router(state), stop).await;
    changes.close();
    changes.wait().await;
    Ok(())
}

/// Serves connections with this router until `stop` and the end of the last request. Dropped before, it ends
/// all connections at once.
async fn serve_all<S, A, C>(
    accept: impl Fn() -> A,
    serve: impl Fn(S, Via, Router, CancellationToken) -> C,
    router: Router,
    stop: CancellationToken,
) where
    A: Future<Output = io::Result<(S, Via)>>,
    C: Future<Output = ()> + Send + 'static,
{
    // Replies without end have to end also when this future is dropped.
    let stopping = stop.child_token();
    let dropped = CancellationToken::new();
    let _drop = [&stopping, &dropped].map(|token| token.clone().drop_guard());
    let sources = Sources::default();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            (permit, accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(accepted).await else {
            break;
        };
        match accepted {
            Ok((stream, via)) => {
                let Some(counted) = sources.count(via.client()) else {
                    tracing::debug!(client = ?via.client(), "admin API: too many connections of one source");
                    continue;
                };
                let connection = serve(stream, via, router.clone(), stopping.clone());
                let dropped = dropped.clone();
                tasks.spawn(async move {
                    dropped.run_until_cancelled(connection).await;
                    drop((permit, counted));
                });
            }
            Err(error) => {
                tracing::debug!(%error, "admin API: cannot accept a connection");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection until it ends, or until `stop` and the end of the request that is being answered.
async fn connection<S>(stream: S, via: Via, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let arrived = Arrived {
        via,
        stopping: stop.clone(),
    };
    let router = TowerToHyperService::new(router);
    let (rests, mut unwanted) = mpsc::channel(1);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request =
            Timed::new(request, BODY_TIMEOUT, &rests).map(axum::body::Body::new);
        request.extensions_mut().insert(arrived.clone());
        let answer = hyper::service::Service::call(&router, request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, TAKE_TIMEOUT)), service);
    let mut served = pin!(served);
    let served = async {
        tokio::select! {
            ended = served.as_mut() => ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        // Goes on as long as the service is there.
        () = discard_rests(&mut unwanted, REST_BYTES, REST_TIMEOUT) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin API: a connection ended with an error");
    }
}

#[cfg(test)]
mod tests;
