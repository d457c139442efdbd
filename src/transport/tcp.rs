//! Serves HTTP/1.1 and HTTP/2 on one TCP port, with TLS or plain.
//!
//! HTTP/1.1 is our own ([`one`]): a tracker needs little of it, and requests on a kept connection
//! must be cheap. HTTP/2 is hyper's ([`two`]). Over TLS, ALPN selects the version. On a plain port
//! a client that speaks HTTP/2 begins with its preface (RFC 9113 section 3.3).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use scion_tracker_core::request::Origin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::memory::Held;
use super::connections::{Open, Over};
use super::http::one::{self, Buffers, Ended, Farewell, Incoming};
use super::http::origin::{PROXY_HEADER_BYTES, Proxied, read_proxy_header};
use super::http::two::{self, Rewound};
use super::{Options, Shared};
use crate::counters::Counter;
use crate::log::warn_limited;
use crate::service::Service;
use crate::socket::Readable;

/// First and longest wait after the system has run out of sockets.
const ACCEPT_BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// Connections accepted before the listener checks anything else.
const ACCEPT_BURST: usize = 64;

/// Memory that a connection is charged with in any case: its task, its timer and its accounting. Its
/// buffers are charged with their real size.
const CONNECTION_BYTES: usize = 4 * 1024;
/// Memory that TLS is charged with during the handshake: a client may send handshake messages of 64
/// KiB, which rustls joins.
const HANDSHAKE_BYTES: usize = CONNECTION_BYTES + 72 * 1024;
/// Memory that TLS is charged with after the handshake: the keys, and an incomplete record with what
/// was read of it before, each at most 16 KiB.
const TLS_BYTES: usize = CONNECTION_BYTES + 40 * 1024;

/// Interval of an idle tick. tokio wakes itself with a system call when a new timer is due before
/// all others, and every connection starts with a timer. A tick shorter than any deadline avoids
/// that.
const TICK: Duration = Duration::from_secs(1);

/// The `Alt-Svc` header that announces HTTP/3 on this UDP port of the same host, over TLS (RFC
/// 7838).
pub(crate) fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
}

/// A packet filter of the kernel that accepts no packet: `ret #0` (BPF_RET | BPF_K).
const DROP_ALL: [socket2::SockFilter; 1] = [socket2::SockFilter::new(0x06, 0, 0, 0)];

/// Serves a listener until `shutdown`, then drains open connections for at most the drain time.
///
/// At the shutdown no further connection is established, and those that already are established are
/// accepted and served, so that no request is lost that the kernel has acknowledged.
///
/// `tls` must offer `h2` and `http/1.1`, and no early data.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: Arc<Options>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // A reply is written at once and in full, so nothing is to be delayed. Accepted sockets inherit
    // this option on Linux, without a system call each.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    // Accepts by hand, so that only connections that have to wait are registered with the runtime.
    let listener = Readable::tcp(listener)?;
    let acceptor = tls.map(TlsAcceptor::from);
    // Ends every connection when this future is dropped instead of stopped.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let shared = Arc::new(Shared {
        service,
        options,
        shutdown: stop,
        tasks: TaskTracker::new(),
    });
    let mut backoff = ACCEPT_BACKOFF[0];
    let mut stopping = pin!(shutdown.cancelled());
    let mut ticks = tokio::time::interval(TICK);
    let mut spare = Buffers::new(Vec::new());
    'accepting: loop {
        let mut ready = tokio::select! {
            biased;
            ready = listener.readable() => ready?,
            _ = ticks.tick() => continue,
            () = stopping.as_mut() => break 'accepting,
        };
        for _ in 0..ACCEPT_BURST {
            match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(Ok((stream, peer))) => {
                    backoff = ACCEPT_BACKOFF[0];
                    admit(stream, peer, &acceptor, &mut spare, &shared, false);
                }
                // The client has already closed the connection.
                Ok(Err(error)) if is_of_one_connection(&error) => {}
                Ok(Err(error)) => {
                    let counters = &shared.service.counters;
                    warn_limited!(counters, "cannot accept connections", %error);
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = stopping.as_mut() => break 'accepting,
                    }
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF[1]);
                    break;
                }
                // No connection is waiting.
                Err(_) => break,
            }
        }
    }
    let last = listener.get_ref();
    // Without the filter, the kernel would go on to establish connections and then reset them.
    if let Err(error) = socket2::SockRef::from(last).attach_filter(&DROP_ALL) {
        tracing::debug!(%error, "cannot keep new connections away");
    }
    loop {
        match last.accept() {
            Ok((stream, peer)) => admit(stream, peer, &acceptor, &mut spare, &shared, true),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
    drop(listener);
    shared.tasks.close();
    // Each connection ends by itself within the drain time.
    shared.tasks.wait().await;
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Serves a connection if the limits allow it, in its own task if it has to wait. `draining`: the
/// server is stopping.
fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: &Option<TlsAcceptor>,
    spare: &mut Buffers,
    shared: &Arc<Shared>,
    draining: bool,
) {
    let origin = Origin::ip(peer.ip());
    let proxied = shared.options.proxies.trusts(peer.ip());
    let source = (!proxied).then_some(origin.host);
    let Ok(open) = shared.service.connections.enter(Over::Tcp, source) else {
        shared.count(Counter::TcpRefused, &origin);
        return;
    };
    shared.count(Counter::TcpConnections, &origin);
    let held = match acceptor {
        Some(_) => HANDSHAKE_BYTES,
        None => CONNECTION_BYTES,
    };
    let plain = acceptor.is_none() && !(proxied && shared.options.proxies.proxy_protocol);
    let begun = match plain {
        true => match one::at_once(&stream, origin, shared, spare, draining) {
            Some(begun) => Some(begun),
            None => return,
        },
        false => None,
    };
    let Ok(held) = open.hold(held) else {
        shared.count(Counter::TcpRefused, &origin);
        return;
    };
    let stream = match stream
        .set_nonblocking(true)
        .and_then(|()| stream.try_into())
    {
        Ok(stream) => stream,
        Err(error) => {
            let counters = &shared.service.counters;
            warn_limited!(counters, "cannot wait for a connection", %error);
            return;
        }
    };
    let tasks = &shared.tasks;
    let shared = Arc::clone(shared);
    match begun {
        Some(begun) => {
            let incoming = Incoming::go_on(stream, origin, Farewell::BySocket, begun);
            tasks.spawn(serve(incoming, origin, (open, held), shared));
        }
        None => {
            let acceptor = acceptor.clone();
            tasks.spawn(with_preamble(
                stream,
                proxied,
                origin,
                acceptor,
                (open, held),
                shared,
            ));
        }
    }
}

/// Serves a connection that begins with a PROXY protocol header, a TLS handshake, or both.
async fn with_preamble(
    mut stream: tokio::net::TcpStream,
    proxied: bool,
    mut origin: Origin,
    acceptor: Option<TlsAcceptor>,
    (mut open, mut held): (Open, Held),
    shared: Arc<Shared>,
) {
    let deadline = Instant::now() + shared.service.limits().handshake;
    let mut read = Vec::new();
    if proxied && shared.options.proxies.proxy_protocol {
        let header = in_time(proxy_header(&mut stream), deadline, &held, &shared).await;
        let Some(Ok((client, rest))) = header else {
            tracing::debug!(proxy = %origin.host, "no PROXY protocol header");
            shared.count(Counter::TcpAborted, &origin);
            return;
        };
        read = rest;
        if let Some(client) = client {
            origin = Origin::ip(client.ip());
            // The proxy is no source, but the client that it names is one.
            let connections = &shared.service.connections;
            let client = connections.enter(Over::Tcp, Some(origin.host));
            let Ok((client, its_held)) = client.and_then(|client| {
                let held = client.hold(held.base())?;
                Ok((client, held))
            }) else {
                shared.count(Counter::TcpRefused, &origin);
                return;
            };
            (open, held) = (client, its_held);
        }
    }
    let Some(acceptor) = acceptor else {
        let incoming = Incoming::new(stream, read, origin, Farewell::BySocket);
        return serve(incoming, origin, (open, held), shared).await;
    };
    let handshake = acceptor.accept(Rewound::new(read, stream));
    let stream = match in_time(handshake, deadline, &held, &shared).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return handshake_failed(&error, &origin, &shared),
        None => return handshake_failed(&"it took too long", &origin, &shared),
    };
    if held.set_base(TLS_BYTES).is_err() {
        shared.count(Counter::TcpAborted, &origin);
        return;
    }
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        two::serve(stream, origin, held, &shared).await;
        drop(open);
    } else {
        let incoming = Incoming::new(stream, Vec::new(), origin, Farewell::InStream);
        serve(incoming, origin, (open, held), shared).await;
    }
}

/// Counts a TLS handshake that failed.
#[cold]
fn handshake_failed(reason: &dyn fmt::Display, origin: &Origin, shared: &Shared) {
    tracing::debug!(client = %origin.host, %reason, "TLS handshake failed");
    shared.count(Counter::TlsFailures, origin);
}

/// Waits for `future` until the deadline, and when the server stops for at most the drain time. `None`
/// if that is over, or the connection has to make room.
async fn in_time<T>(
    future: impl Future<Output = T>,
    deadline: Instant,
    held: &Held,
    shared: &Shared,
) -> Option<T> {
    let mut future = pin!(timeout_at(deadline, future));
    tokio::select! {
        biased;
        done = future.as_mut() => return done.ok(),
        () = held.evicted() => return None,
        () = shared.shutdown.cancelled() => {}
    }
    let last = Instant::now() + shared.service.limits().drain;
    timeout_at(last, future).await.ok()?.ok()
}

/// Reads a PROXY protocol header. Returns the client it names, and the bytes after the header.
async fn proxy_header(
    stream: &mut tokio::net::TcpStream,
) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
    let mut read = Vec::with_capacity(256);
    loop {
        match read_proxy_header(&read) {
            Proxied::Header { length, client } => return Ok((client, read.split_off(length))),
            Proxied::Incomplete if read.len() < PROXY_HEADER_BYTES => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Serves HTTP/1.1, or HTTP/2 if the client begins with its preface.
async fn serve<S>(
    mut incoming: Incoming<S>,
    origin: Origin,
    (open, mut held): (Open, Held),
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match incoming.serve(Some(&mut held), &shared).await {
        Ended::Http2 => {
            let (stream, read) = incoming.into_parts();
            // Boxed, so that an HTTP/1.1 connection does not reserve the memory that HTTP/2 needs.
            Box::pin(two::serve(
                Rewound::new(read, stream),
                origin,
                held,
                &shared,
            ))
            .await;
        }
        Ended::Aborted => {
            let client = origin.host;
            tracing::debug!(%client, "HTTP connection ended within a request or its reply");
            shared.count(Counter::TcpAborted, &origin);
        }
        Ended::Closed => {}
    }
    drop(open);
}
