//! Serves one HTTP/2 connection with hyper.
//!
//! hyper and h2 limit the following by themselves: streams that are reset before they are served
//! (20, CVE-2023-44487), CONTINUATION frames (as many as the header list needs), and frames that
//! require an answer (PING, SETTINGS). This module adds deadlines: it drops a connection without a
//! first request, and one that does not take a reply in time. It sends GOAWAY on one without further
//! requests, and drops it if it does not close. It also accounts for the memory of a connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, ALT_SVC, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE,
    HeaderMap, HeaderValue,
};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use scion_tracker_core::request::Origin;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::counters::Counter;
use crate::transport::connections::memory::Held;
use crate::transport::http::answer::{
    self, Method, RawRequest, Request, Scratch, Status, Transport,
};
use crate::transport::http::deadline::Deadline;
use crate::transport::http::origin::{Client, Hops};
use crate::transport::{Limits, Shared};

/// Flow-control windows for receiving. No request has a body.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 65_535;
/// Send buffer per stream, for replies that the client has not taken.
const SEND_BYTES: usize = 32 * 1024;
/// Streams reset because of errors of the client, after which the connection is closed. Streams above
/// the limit are among them: a client that has not yet read our SETTINGS may open hundreds.
const ERROR_RESETS: usize = 1024;

/// Memory that a connection is charged with besides the stream below it: the state of h2, its tables
/// for HPACK, a frame that is read and one that is written, and the heads of its requests. Replies of
/// [`REPLIES_INCLUDED`] bytes are part of it; more are charged with their real size.
const CONNECTION_BYTES: usize = 96 * 1024;
const REPLIES_INCLUDED: usize = 32 * 1024;
/// What a reply takes besides its body: its stream, its task and its headers.
const REPLY_BYTES: usize = 3 * 1024;
/// What a connection is charged with while its socket accepts nothing. Then h2 queues the resets of up
/// to [`ERROR_RESETS`] streams.
const BLOCKED_BYTES: usize = 1024 * 1024;

/// Serves a connection until it ends.
pub(in crate::transport) async fn serve<S>(
    stream: S,
    origin: Origin,
    mut held: Held,
    shared: &Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if held.set_base(held.base() + CONNECTION_BYTES).is_err() {
        shared.count(Counter::TcpAborted, &origin);
        return;
    }
    let limits = shared.service.limits_for_connection();
    let untaken = Arc::new(Untaken::default());
    let service = Requests {
        shared: Arc::clone(shared),
        origin,
        untaken: Arc::clone(&untaken),
    };
    let stream = Watched {
        stream,
        untaken: Arc::clone(&untaken),
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
    let mut deadlines = Deadlines::new(&limits);
    // All that this task waits for wakes it with the same waker.
    held.register_task().await;
    let regular = poll_fn(|cx| {
        if let Poll::Ready(done) = connection.as_mut().poll(cx) {
            return Poll::Ready(done.is_ok());
        }
        held.set_idle(untaken.is_empty());
        if held.is_evicted() || held.set(untaken.bytes()).is_err() {
            return Poll::Ready(false);
        }
        if !deadlines.draining && shutdown.as_mut().poll(cx).is_ready() {
            connection.as_mut().graceful_shutdown();
            deadlines.drain(limits.drain);
            // The connection has to be polled again.
            cx.waker().wake_by_ref();
        }
        if !deadlines.draining && shared.service.is_draining() && untaken.served() > 0 {
            connection.as_mut().graceful_shutdown();
            deadlines.drain(limits.reply);
            cx.waker().wake_by_ref();
        }
        match deadlines.poll(&untaken, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Due::Abort) => Poll::Ready(false),
            Poll::Ready(Due::GoAway) => {
                connection.as_mut().graceful_shutdown();
                deadlines.drain(limits.reply);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    });
    if !regular.await {
        shared.count(Counter::TcpAborted, &origin);
    }
}

/// What a connection has to do because of the time.
enum Due {
    /// The client has made no request for too long.
    GoAway,
    /// It does not take its replies, or does not go.
    Abort,
}

/// The deadlines of a connection.
struct Deadlines<'a> {
    limits: &'a Limits,
    /// When to look at all of them again.
    next: Deadline,
    /// When the connection has to have made another request, or to have ended.
    until: Instant,
    /// Requests that were counted when `until` was set.
    seen: u64,
    /// Whether GOAWAY is sent.
    draining: bool,
}

impl<'a> Deadlines<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            next: Deadline::after(limits.head.min(limits.reply)),
            until: Instant::now() + limits.head,
            seen: 0,
            draining: false,
        }
    }

    /// Gives the connection this time to end.
    fn drain(&mut self, time: Duration) {
        self.draining = true;
        self.until = Instant::now() + time;
        self.next.set(time.min(self.limits.reply));
    }

    /// Looks at the deadlines at the latest after the time for a reply, so that a reply sets no timer.
    fn poll(&mut self, untaken: &Untaken, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            ready!(self.next.poll(cx));
            let now = Instant::now();
            let reply = untaken.oldest().map(|at| at + self.limits.reply);
            if reply.is_some_and(|at| at <= now) {
                return Poll::Ready(Due::Abort);
            }
            if self.until <= now {
                let served = untaken.served();
                if self.draining || served == 0 {
                    return Poll::Ready(Due::Abort);
                }
                if served == self.seen {
                    return Poll::Ready(Due::GoAway);
                }
                self.seen = served;
                self.until = now + self.limits.idle;
            }
            let next = reply.map_or(self.until, |at| at.min(self.until));
            let next = next.saturating_duration_since(now);
            self.next.set(next.min(self.limits.reply));
        }
    }
}

/// The replies of a connection that the client has not taken.
#[derive(Debug, Default)]
struct Untaken {
    served: AtomicU64,
    replies: Mutex<Replies>,
}

#[derive(Debug, Default)]
struct Replies {
    /// When they were written, the oldest first.
    written: VecDeque<Instant>,
    bytes: usize,
    /// Since when the socket accepts nothing.
    blocked: Option<Instant>,
}

impl Untaken {
    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.replies.lock().written.is_empty()
    }

    /// What the replies hold besides [`REPLIES_INCLUDED`].
    fn bytes(&self) -> usize {
        let replies = self.replies.lock();
        let blocked = replies.blocked.map_or(0, |_| BLOCKED_BYTES);
        blocked + replies.bytes.saturating_sub(REPLIES_INCLUDED)
    }

    /// Since when the client has taken nothing of what has waited for longest.
    fn oldest(&self) -> Option<Instant> {
        let replies = self.replies.lock();
        let written = replies.written.front().copied();
        written.into_iter().chain(replies.blocked).min()
    }

    /// Adds a reply with this body.
    fn add(self: &Arc<Self>, body: &[u8]) -> Bytes {
        if body.is_empty() {
            return Bytes::new();
        }
        let reply = UntakenReply {
            body: body.into(),
            written: Instant::now(),
            untaken: Arc::clone(self),
        };
        let mut replies = self.replies.lock();
        replies.written.push_back(reply.written);
        replies.bytes += reply.bytes();
        drop(replies);
        Bytes::from_owner(reply)
    }
}

/// The body of a reply. h2 drops it when the stream below has taken its last byte.
struct UntakenReply {
    body: Box<[u8]>,
    written: Instant,
    untaken: Arc<Untaken>,
}

impl UntakenReply {
    fn bytes(&self) -> usize {
        self.body.len() + REPLY_BYTES
    }
}

impl AsRef<[u8]> for UntakenReply {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for UntakenReply {
    fn drop(&mut self) {
        let mut replies = self.untaken.replies.lock();
        if let Ok(at) = replies.written.binary_search(&self.written) {
            replies.written.remove(at);
        }
        replies.bytes -= self.bytes();
    }
}

/// Answers the requests of a connection, each at once.
struct Requests {
    shared: Arc<Shared>,
    origin: Origin,
    untaken: Arc<Untaken>,
}

impl hyper::service::Service<http::Request<Incoming>> for Requests {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        self.untaken.served.fetch_add(1, Ordering::Relaxed);
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
            Method::Get | Method::Other => self.untaken.add(&scratch.body),
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

/// A stream that notes since when it accepts nothing.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    untaken: Arc<Untaken>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: &Poll<T>) {
        let mut replies = self.untaken.replies.lock();
        match polled {
            Poll::Ready(_) => replies.blocked = None,
            Poll::Pending => {
                replies.blocked.get_or_insert_with(Instant::now);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(&polled);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
