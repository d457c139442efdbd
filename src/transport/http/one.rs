//! Serves one HTTP/1.1 connection. Replies carry their length.
//!
//! Pipelined requests are answered together, with one write. Every wait has a deadline. Requests
//! allocate nothing; the two buffers belong to the connection.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown};
use scion_tracker_core::request::Origin;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::WaitForCancellationFuture;

use super::head::{self, HeadError};
use crate::transport::Shared;
use crate::transport::connections::memory::Held;
use crate::transport::http::answer::{self, Method, Reply, Request, Scratch, Status, Transport};
use crate::transport::http::deadline::Deadline;

/// First bytes of an HTTP/2 client with prior knowledge (RFC 9113 section 3.4), up to the first
/// empty line.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Initial size of the read buffer. Most requests are half as long.
const READ_BYTES: usize = 1024;
/// Replies to pipelined requests are written when they reach this many bytes.
const WRITE_BYTES: usize = 32 * 1024;
/// After a refused request, how much of the client's further data is read, and for how long.
/// Otherwise closing the socket could destroy the reply in transit (RFC 9112 section 9.6).
const LINGER_BYTES: usize = 64 * 1024;
const LINGER: Duration = Duration::from_millis(500);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Ended {
    /// Regularly, by either side.
    Closed,
    /// By a deadline, a malformed request, or a lost connection.
    Aborted,
    /// The client speaks HTTP/2 from the first byte.
    Http2,
}

/// How a stream is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Farewell {
    /// By closing its socket.
    BySocket,
    /// By a message of the protocol, as in TLS and QUIC.
    InStream,
}

/// A connection of a client.
#[derive(Debug)]
pub(in crate::transport) struct Incoming<S> {
    stream: S,
    origin: Origin,
    farewell: Farewell,
    buffers: Buffers,
    /// The result for the requests in the buffer, if they have been processed.
    answered: Option<Answered>,
}

/// The read and write buffers of a connection.
#[derive(Debug)]
pub(in crate::transport) struct Buffers {
    /// Received bytes. `read[start..end]` has not been processed yet.
    read: Vec<u8>,
    start: usize,
    end: usize,
    /// Replies that have not been written yet.
    out: Vec<u8>,
    /// Whether a reply has not been sent yet.
    first: bool,
}

/// Result of processing the requests in the read buffer.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) enum Answered {
    /// All complete requests are answered. The last one may be incomplete.
    All { partial: bool },
    /// More requests are waiting, but there are enough replies to write first.
    More,
    /// The last request ends the connection.
    Last { lingering: bool },
    /// The data is not HTTP/1.1.
    Http2,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// A connection with `read` as bytes that have already been received.
    pub(in crate::transport) fn new(
        stream: S,
        read: Vec<u8>,
        origin: Origin,
        farewell: Farewell,
    ) -> Self {
        Self::go_on(stream, origin, farewell, (Buffers::new(read), None))
    }

    /// A connection that [`at_once`] started to serve.
    pub(in crate::transport) fn go_on(
        stream: S,
        origin: Origin,
        farewell: Farewell,
        (buffers, answered): Begun,
    ) -> Self {
        Self {
            stream,
            origin,
            farewell,
            buffers,
            answered,
        }
    }

    /// The stream, and the bytes that were read from it and not served.
    pub(in crate::transport) fn into_parts(self) -> (S, Vec<u8>) {
        let Buffers {
            mut read,
            start,
            end,
            ..
        } = self.buffers;
        read.truncate(end);
        read.drain(..start);
        (self.stream, read)
    }

    /// Serves requests until the connection ends.
    ///
    /// When the server stops, all requests that have arrived are answered, and one more that arrives
    /// within half of the drain time. The last reply says `Connection: close`.
    ///
    /// `held` is charged with the buffers. Without it, the caller accounts for the memory.
    pub(in crate::transport) async fn serve(
        &mut self,
        mut held: Option<&mut Held>,
        shared: &Shared,
    ) -> Ended {
        if let Some(held) = &held {
            // All that this task waits for wakes it with the same waker.
            held.register_task().await;
        }
        let limits = shared.service.limits_for_connection();
        let mut deadline = Deadline::after(limits.head);
        let mut shutdown = pin!(shared.shutdown.cancelled());
        let mut draining = false;
        // Whether a head is incomplete, so that its deadline is running.
        let mut in_head = true;
        loop {
            if !draining && shared.shutdown.is_cancelled() {
                draining = true;
                deadline.limit(limits.drain);
            }
            if draining {
                if deadline.is_over() {
                    return Ended::Aborted;
                }
                self.fill_all(WRITE_BYTES + limits.head_bytes).await;
            }
            let answered = match self.answered.take() {
                Some(answered) => answered,
                None => self
                    .buffers
                    .answer(self.origin, shared, limits.head_bytes, draining),
            };
            if let Some(held) = &mut held
                && held.set(self.bytes()).is_err()
            {
                return Ended::Aborted;
            }
            if !self.buffers.out.is_empty() {
                deadline.set(limits.reply);
                if self.flush(held.as_deref(), &mut deadline).await.is_err() {
                    return Ended::Aborted;
                }
                in_head = false;
            }
            match answered {
                Answered::More => continue,
                Answered::Http2 => return Ended::Http2,
                Answered::Last { lingering } => {
                    return self.close(lingering, &mut deadline).await;
                }
                Answered::All { partial } => {
                    let first = self.buffers.first;
                    if draining && !partial {
                        deadline.set(limits.drain / 2);
                    } else if !first && !partial {
                        deadline.set(limits.idle);
                    } else if partial && !in_head {
                        deadline.set(limits.head);
                    }
                    in_head = partial || first;
                    if let Some(held) = &held {
                        held.set_idle(!partial);
                    }
                }
            }
            let filled = self.fill(
                held.as_deref(),
                &mut deadline,
                (!draining).then_some(shutdown.as_mut()),
            );
            match filled.await {
                Filled::Some | Filled::Shutdown => {}
                // Between two requests the connection can be closed without a reply.
                Filled::End | Filled::Deadline | Filled::Evicted if !in_head => {
                    return self.close(false, &mut deadline).await;
                }
                Filled::Deadline if draining && self.buffers.is_empty() => {
                    return self.close(false, &mut deadline).await;
                }
                Filled::End if self.buffers.is_empty() => return Ended::Closed,
                Filled::End | Filled::Deadline | Filled::Evicted | Filled::Error => {
                    return Ended::Aborted;
                }
            }
        }
    }

    /// Size of the buffers. TLS keeps another copy of the replies that the socket does not accept.
    const fn bytes(&self) -> usize {
        let copies = match self.farewell {
            Farewell::BySocket => 1,
            Farewell::InStream => 2,
        };
        self.buffers.read.len() + copies * self.buffers.out.capacity()
    }

    /// Reads more bytes, unless the deadline passes, the server stops or the connection has to make
    /// room first.
    async fn fill(
        &mut self,
        held: Option<&Held>,
        deadline: &mut Deadline,
        mut shutdown: Option<Pin<&mut WaitForCancellationFuture<'_>>>,
    ) -> Filled {
        let mut buf = ReadBuf::new(self.buffers.room());
        let filled = poll_fn(|cx| {
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(Filled::End),
                Poll::Ready(Ok(())) => return Poll::Ready(Filled::Some),
                Poll::Ready(Err(_)) => return Poll::Ready(Filled::Error),
                Poll::Pending => {}
            }
            if held.is_some_and(Held::is_evicted) {
                return Poll::Ready(Filled::Evicted);
            }
            if let Some(shutdown) = &mut shutdown
                && shutdown.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Filled::Shutdown);
            }
            deadline.poll(cx).map(|()| Filled::Deadline)
        })
        .await;
        let length = buf.filled().len();
        self.buffers.end += length;
        filled
    }

    /// Reads what has already arrived, up to `most` bytes in the buffer. The next read meets an end or
    /// an error again.
    async fn fill_all(&mut self, most: usize) {
        while self.buffers.end - self.buffers.start < most {
            let mut buf = ReadBuf::new(self.buffers.room());
            let stream = &mut self.stream;
            poll_fn(|cx| {
                let _ = Pin::new(&mut *stream).poll_read(cx, &mut buf);
                Poll::Ready(())
            })
            .await;
            let length = buf.filled().len();
            if length == 0 {
                return;
            }
            self.buffers.end += length;
        }
    }

    /// Writes the replies.
    async fn flush(&mut self, held: Option<&Held>, deadline: &mut Deadline) -> io::Result<()> {
        let mut late = |cx: &mut Context<'_>| {
            if let Some(held) = held {
                held.set_idle(false);
                if held.is_evicted() {
                    return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                }
            }
            let late = deadline.poll(cx);
            late.map(|()| Err(io::ErrorKind::TimedOut.into()))
        };
        let mut written = 0;
        while written < self.buffers.out.len() {
            let out = &self.buffers.out[written..];
            let stream = &mut self.stream;
            written += poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, out) {
                Poll::Pending => late(cx),
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                ready => ready,
            })
            .await?;
        }
        self.buffers.out.clear();
        // TLS keeps the bytes that the socket did not accept.
        let stream = &mut self.stream;
        poll_fn(|cx| match Pin::new(&mut *stream).poll_flush(cx) {
            Poll::Pending => late(cx).map(|failed| failed.map(|_| ())),
            ready => ready,
        })
        .await
    }

    /// Ends the stream. With `lingering`, reads on for a moment.
    async fn close(&mut self, lingering: bool, deadline: &mut Deadline) -> Ended {
        if self.farewell == Farewell::BySocket && !lingering {
            return Ended::Closed;
        }
        deadline.set(LINGER);
        let goodbye = async {
            self.stream.shutdown().await?;
            let mut left = LINGER_BYTES;
            while lingering && left > 0 {
                let mut buf = ReadBuf::new(&mut self.buffers.read);
                poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut buf)).await?;
                match buf.filled().len() {
                    0 => break,
                    length => left = left.saturating_sub(length),
                }
            }
            io::Result::Ok(())
        };
        tokio::select! {
            // The replies are written. An error means that the client has gone, which does not
            // matter here.
            _ = goodbye => {}
            () = deadline.passed() => {}
        }
        Ended::Closed
    }
}

impl Buffers {
    /// Buffers with `read` as bytes that have already been received.
    pub(in crate::transport) fn new(mut read: Vec<u8>) -> Self {
        let end = read.len();
        read.resize(end.max(READ_BYTES), 0);
        Self {
            read,
            start: 0,
            end,
            out: Vec::new(),
            first: true,
        }
    }

    /// Whether all received bytes have been processed.
    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Space to read into. Moves the rest to the front, then grows the buffer. The limit on a head
    /// also limits the buffer.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.read.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.read.len() {
            self.read.resize(2 * self.end, 0);
        }
        &mut self.read[self.end..]
    }

    /// Answers the requests in the read buffer into `out`. With `draining`, the connection ends after
    /// the last of them, and the start of another request is waited for. So it does if the whole tracker
    /// drains.
    fn answer(
        &mut self,
        origin: Origin,
        shared: &Shared,
        head_bytes: usize,
        draining: bool,
    ) -> Answered {
        let draining = draining || shared.service.is_draining();
        loop {
            let unread = &self.read[self.start..self.end];
            if unread.is_empty() {
                (self.start, self.end) = (0, 0);
                return Answered::All { partial: false };
            }
            if self.first && unread.starts_with(HTTP2_PREFACE) {
                return Answered::Http2;
            }
            let bounded = &unread[..unread.len().min(head_bytes)];
            let status = match head::read(bounded, origin, &shared.options.proxies) {
                Ok(head) => {
                    let last = !head.keep_alive || (draining && is_blank(&unread[head.length..]));
                    let persistence = match (last, head.old) {
                        (true, _) => Persistence::Close,
                        (false, true) => Persistence::KeepAlive,
                        (false, false) => Persistence::Default,
                    };
                    self.first = false;
                    let out = &mut self.out;
                    respond(&Request::decode(&head.request), persistence, shared, out);
                    self.start += head.length;
                    if last {
                        // A client that is told to go may have sent more.
                        let lingering = draining;
                        return Answered::Last { lingering };
                    }
                    if self.out.len() >= WRITE_BYTES {
                        return Answered::More;
                    }
                    continue;
                }
                Err(HeadError::Incomplete) if bounded.len() < head_bytes => {
                    return Answered::All { partial: true };
                }
                Err(HeadError::Incomplete) => Status::HeadTooLarge,
                Err(HeadError::Refused(status)) => status,
            };
            self.first = false;
            let request = Request::rejected(&origin, Method::Get, status);
            respond(&request, Persistence::Close, shared, &mut self.out);
            return Answered::Last { lingering: true };
        }
    }
}

/// The rest of the work after [`at_once`].
pub(in crate::transport) type Begun = (Buffers, Option<Answered>);

/// Serves a connection right after it was accepted, as far as possible without waiting. `None` if
/// nothing is left to do.
///
/// A client that connects for one announce has sent it by the time it is accepted. It costs five
/// system calls, and neither a task nor a timer.
pub(in crate::transport) fn at_once(
    stream: &TcpStream,
    origin: Origin,
    shared: &Shared,
    spare: &mut Buffers,
    draining: bool,
) -> Option<Begun> {
    (spare.start, spare.end, spare.first) = (0, 0, true);
    match net::recv(stream, spare.room(), RecvFlags::DONTWAIT) {
        Ok((_, 0)) => return None,
        Ok((_, length)) => spare.end = length,
        Err(Errno::AGAIN) => return Some((Buffers::new(Vec::new()), None)),
        Err(_) => return None,
    }
    let head_bytes = shared.service.limits().head_bytes;
    let answered = spare.answer(origin, shared, head_bytes, draining);
    let last = matches!(answered, Answered::Last { lingering: false });
    let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    flags.set(SendFlags::MORE, last);
    let written = match spare.out.is_empty() {
        true => 0,
        // The next user of the socket meets the same error.
        false => net::send(stream, &spare.out, flags).unwrap_or(0),
    };
    if last && written == spare.out.len() {
        // The FIN goes out in the same segment as the reply. Closing alone would destroy both if
        // the client had sent more data.
        let _ = net::shutdown(stream, Shutdown::Write);
        spare.out.clear();
        return None;
    }
    spare.out.drain(..written);
    let begun = std::mem::replace(spare, Buffers::new(Vec::new()));
    Some((begun, Some(answered)))
}

/// Whether these bytes are not even the start of a request (RFC 9112 section 2.2).
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Result of waiting for the client.
enum Filled {
    Some,
    End,
    Deadline,
    Shutdown,
    Evicted,
    Error,
}

/// What the reply says about keeping the connection.
#[derive(Clone, Copy)]
enum Persistence {
    Default,
    KeepAlive,
    Close,
}

/// Answers a request into `out`.
fn respond(request: &Request, persistence: Persistence, shared: &Shared, out: &mut Vec<u8>) {
    Scratch::with(|scratch| {
        let reply = answer::answer(&shared.service, Transport::Http, request, scratch);
        write(&reply, request.method, persistence, shared, scratch, out);
    });
}

/// Writes a reply, head and body, to the end of `out`.
fn write(
    reply: &Reply,
    method: Method,
    persistence: Persistence,
    shared: &Shared,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let mut digits = [0; 20];
    match reply.status {
        Status::Ok => out.extend_from_slice(
            // No proxy may answer for the tracker, and scripts in pages may read the reply.
            b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\
              Access-Control-Allow-Origin: *\r\nContent-Type: ",
        ),
        status => {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(answer::decimal(status.code().into(), &mut digits));
            out.push(b' ');
            out.extend_from_slice(status.reason().as_bytes());
            out.extend_from_slice(b"\r\nCache-Control: no-store\r\nContent-Type: ");
        }
    }
    out.extend_from_slice(reply.content_type.as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: ");
    out.extend_from_slice(answer::decimal(scratch.body.len(), &mut digits));
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(scratch.date().as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(methods) = reply.allow() {
        out.extend_from_slice(b"Allow: ");
        out.extend_from_slice(methods.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match persistence {
        Persistence::Default => b"",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n",
        Persistence::Close => b"Connection: close\r\n",
    });
    if let Some(alt_svc) = &shared.options.alt_svc {
        out.extend_from_slice(b"Alt-Svc: ");
        out.extend_from_slice(alt_svc.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if method != Method::Head {
        out.extend_from_slice(&scratch.body);
    }
}
