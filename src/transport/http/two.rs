//! Serves one HTTP/2 connection with hyper.
//!
//! hyper and h2 limit the following by themselves: streams that are reset before they are served
//! (20, CVE-2023-44487), CONTINUATION frames (as many as the header list needs), and frames that
//! require an answer (PING, SETTINGS). This module adds deadlines: it drops a connection without a
//! first request, and sends GOAWAY on one without further requests, and drops it if it does not
//! close.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, ALT_SVC, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE,
    HeaderMap, HeaderValue,
};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use scion_tracker_core::request::Origin;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::TaskTracker;

use crate::counters::Counter;
use crate::transport::Shared;
use crate::transport::http::answer::{
    self, Method, RawRequest, Request, Scratch, Status, Transport,
};
use crate::transport::http::deadline::Deadline;
use crate::transport::http::origin::{Client, Hops};

/// Flow-control windows for receiving. No request has a body.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 65_535;
/// Send buffer per stream, for replies that the client has not taken.
const SEND_BYTES: usize = 32 * 1024;
/// Streams reset because of errors of the client, after which the connection is closed.
const ERROR_RESETS: usize = 64;

/// Serves a connection until it ends.
pub(in crate::transport) async fn serve<S>(stream: S, origin: Origin, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = shared.service.limits_for_connection();
    let requests = Arc::new(AtomicU64::new(0));
    let service = Requests {
        shared: Arc::clone(shared),
        origin,
        served: Arc::clone(&requests),
    };
    let connection = http2::Builder::new(Tasks(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut shutdown = pin!(shared.shutdown.cancelled());
    let mut deadline = Deadline::after(limits.head);
    let mut seen = 0;
    let mut draining = false;
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                if done.is_err() {
                    shared.service.counters.count(Counter::TcpAborted);
                }
                return;
            }
            () = deadline.passed() => {
                let served = requests.load(Ordering::Relaxed);
                if draining || served == 0 {
                    shared.service.counters.count(Counter::TcpAborted);
                    return;
                }
                if served != seen {
                    seen = served;
                    deadline.set(limits.idle);
                    continue;
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
                deadline.set(limits.reply);
            }
            () = shutdown.as_mut(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
                deadline.set(limits.drain);
            }
        }
    }
}

/// Answers the requests of a connection, each at once.
struct Requests {
    shared: Arc<Shared>,
    origin: Origin,
    served: Arc<AtomicU64>,
}

impl hyper::service::Service<http::Request<Incoming>> for Requests {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        self.served.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Scratch::with(|scratch| self.answer(&request, scratch))))
    }
}

impl Requests {
    fn answer(
        &self,
        request: &http::Request<Incoming>,
        scratch: &mut Scratch,
    ) -> http::Response<Full<Bytes>> {
        let service = &*self.shared.service;
        let method = Method::of(request.method().as_str().as_bytes());
        let decoded = if !request.body().is_end_stream() {
            Request::rejected(&self.origin, method, Status::ContentTooLarge)
        } else {
            Request::decode(&RawRequest {
                method,
                target: request
                    .uri()
                    .path_and_query()
                    .map_or("", |target| target.as_str()),
                client: self.client(request.headers()),
                early: request
                    .headers()
                    .get("early-data")
                    .is_some_and(|value| value == "1"),
            })
        };
        let reply = answer::answer(service, Transport::Http, &decoded, scratch);
        // hyper leaves the body of a reply to HEAD in.
        let body = match method {
            Method::Head => Bytes::new(),
            Method::Get | Method::Other => Bytes::copy_from_slice(&scratch.body),
        };
        let mut response = http::Response::new(Full::new(body));
        *response.status_mut() = http::StatusCode::from_u16(reply.status.code())
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if reply.status == Status::Ok {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        headers.insert(CONTENT_LENGTH, scratch.body.len().into());
        if let Some(methods) = reply.allow() {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(alt_svc) = &self.shared.options.alt_svc {
            headers.insert(ALT_SVC, alt_svc.clone());
        }
        response
    }

    /// Who sent the request with these headers.
    fn client(&self, headers: &HeaderMap) -> Client<'_> {
        let Some(mut hops) = Hops::behind(&self.shared.options.proxies, &self.origin) else {
            return Client::Known(self.origin);
        };
        for (name, value) in headers {
            hops.header(name.as_str().as_bytes(), value.as_bytes());
        }
        hops.client()
    }
}

/// Runs hyper's tasks in the task set of the listener, which waits for them.
#[derive(Debug, Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// A stream of which some bytes have already been read.
#[derive(Debug)]
pub(in crate::transport) struct Rewound<S> {
    read: Vec<u8>,
    position: usize,
    stream: S,
}

impl<S> Rewound<S> {
    /// Returns the bytes of `read` first, then those of `stream`.
    pub(in crate::transport) const fn new(read: Vec<u8>, stream: S) -> Self {
        Self {
            read,
            position: 0,
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.read[self.position..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = left.len().min(buf.remaining());
        buf.put_slice(&left[..length]);
        self.position += length;
        if self.position == self.read.len() {
            (self.read, self.position) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
