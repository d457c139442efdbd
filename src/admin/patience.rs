//! Limits on the time of clients: for taking a reply and for sending a body. A client that does neither cannot
//! keep a connection, and its place among the few, forever. Within limits, the rest of a body that nobody wants
//! is read, so that a client that sends it all before it reads gets its answer.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};

/// A stream with a timeout for writes that make no progress.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits for the client.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Fails writes that make no progress for this time.
    pub(super) const fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            timer: None,
        }
    }

    /// Passes on what a write came to, and fails it if it has waited for too long.
    fn watch<T>(
        &mut self,
        write: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.timer = None;
            return write;
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take the reply",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(write, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(write, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(flush, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(shutdown, cx)
    }
}

/// The body of a request. It fails if it has not ended in time. What nobody has read of it goes to
/// [`discard_rests`].
#[derive(Debug)]
pub(super) struct Timed {
    /// `None` after it took too long.
    body: Option<Incoming>,
    /// Begins when somebody wants the body.
    timer: Option<Pin<Box<Sleep>>>,
    time: Duration,
    /// Whether the client waits for a word before it sends the body (`Expect: 100-continue`).
    is_on_request: bool,
    rests: mpsc::Sender<Incoming>,
}

impl Timed {
    /// Gives the body of a request this time, from when it is first read.
    pub(super) fn new(
        request: hyper::Request<Incoming>,
        time: Duration,
        rests: &mpsc::Sender<Incoming>,
    ) -> hyper::Request<Self> {
        let is_on_request = request.headers().contains_key(EXPECT);
        request.map(|body| Self {
            body: Some(body),
            timer: None,
            time,
            is_on_request,
            rests: rests.clone(),
        })
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None) = frame {
            return Poll::Ready(None);
        }
        let time = self.time;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.body = None;
                Poll::Ready(Some(Err("the body took too long".into())))
            }
            Poll::Pending => frame.map(|frame| frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(Incoming::size_hint)
            .unwrap_or_default()
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        // To read it would ask for it, and the answer does so no more.
        let is_unasked = self.is_on_request && self.timer.is_none();
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
            && !is_unasked
        {
            // A connection has one body at a time. If this fails, the connection is gone.
            let _ = self.rests.try_send(body);
        }
    }
}

/// Reads what is left of bodies of one connection and throws it away. Of each at most so many bytes for so long:
/// then the connection closes.
pub(super) async fn discard_rests(
    rests: &mut mpsc::Receiver<Incoming>,
    bytes: usize,
    time: Duration,
) {
    while let Some(rest) = rests.recv().await {
        // hyper closes the connection when a body is dropped before its end.
        let _ = timeout(time, discard(rest, bytes)).await;
    }
}

async fn discard(mut body: Incoming, bytes: usize) {
    let mut left = bytes;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
