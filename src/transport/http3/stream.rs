//! One request stream. Most requests are there in whole when the stream is, and are answered on the
//! spot, in the task of the connection. Those that are not get a task of their own, with deadlines, so
//! that they hold up nobody.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::{Connection, RecvStream, SendStream};
use scion_tracker_core::request::Origin;
use tokio::time::timeout;

use super::Shared;
use super::frame::Code;
use super::message::{self, Buffers, EXTRA_BYTES, Verdict};
use crate::transport::routes::Transport;

/// The least that is read at once.
const READ_BYTES: usize = 4 * 1024;

thread_local! {
    static BUFFERS: RefCell<(Vec<u8>, Buffers)> = RefCell::default();
}

/// A request and the way for its reply.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) origin: Origin,
}

/// How far an exchange has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// To its end.
    Done,
    /// It has to wait for the client.
    Waiting(Waiting),
    /// To the end of the whole connection.
    Close(Code),
}

/// What an exchange waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// For the rest of the request, which began with these bytes.
    Request(Vec<u8>),
    /// For the client to take the rest of the reply.
    Reply(Vec<u8>),
}

impl Exchange {
    /// Goes as far as it goes without waiting.
    pub(super) fn start(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Progress {
        BUFFERS.with_borrow_mut(|(bytes, buffers)| {
            let most = shared.options.limits.head_bytes + EXTRA_BYTES + 1;
            if bytes.len() < most.max(READ_BYTES) {
                bytes.resize(most.max(READ_BYTES), 0);
            }
            let mut end = 0;
            let finished = loop {
                if end == bytes.len() {
                    break false;
                }
                match self.recv.poll_read(cx, &mut bytes[end..]) {
                    Poll::Ready(Ok(0)) => break true,
                    Poll::Ready(Ok(length)) => end += length,
                    // The client has thought better of it, or is gone.
                    Poll::Ready(Err(_)) => {
                        self.abandon(Code::REQUEST_CANCELLED);
                        return Progress::Done;
                    }
                    Poll::Pending => {
                        return Progress::Waiting(Waiting::Request(bytes[..end].into()));
                    }
                }
            };
            match self.conclude(&bytes[..end], finished, shared, buffers) {
                Concluded::More => Progress::Waiting(Waiting::Request(bytes[..end].into())),
                Concluded::Reply => self.write(&buffers.reply, cx),
                Concluded::Done => Progress::Done,
                Concluded::Close(code) => Progress::Close(code),
            }
        })
    }

    /// Waits for the client as long as it may take, and no longer. Returns the code that the connection
    /// has been closed with.
    pub(super) async fn finish(
        mut self,
        waiting: Waiting,
        connection: Connection,
        shared: Arc<Shared>,
    ) -> Option<Code> {
        let limits = &shared.options.limits;
        let reply = match waiting {
            Waiting::Reply(reply) => reply,
            Waiting::Request(bytes) => {
                match timeout(limits.head, self.read(bytes, &shared)).await {
                    Ok(Ok(reply)) => reply?,
                    Ok(Err(code)) => {
                        // Before the streams are dropped, which would end them in a regular way.
                        connection.close(code.into(), b"");
                        return Some(code);
                    }
                    Err(_) => {
                        self.reject(Code::REQUEST_INCOMPLETE, &shared);
                        return None;
                    }
                }
            }
        };
        match timeout(limits.reply, self.send.write_all(&reply)).await {
            Ok(Ok(())) => self.end(),
            Ok(Err(_)) => {}
            Err(_) => self.reject(Code::REQUEST_CANCELLED, &shared),
        }
        None
    }

    /// Reads the rest of a request: the reply to it, if there is one, or the code to end the connection
    /// with.
    async fn read(&mut self, mut bytes: Vec<u8>, shared: &Shared) -> Result<Option<Vec<u8>>, Code> {
        let mut buf = [0; 1024];
        let mut finished = false;
        loop {
            let concluded = BUFFERS.with_borrow_mut(|(_, buffers)| {
                match self.conclude(&bytes, finished, shared, buffers) {
                    Concluded::More => None,
                    Concluded::Reply => Some(Ok(Some(buffers.reply.clone()))),
                    Concluded::Done => Some(Ok(None)),
                    Concluded::Close(code) => Some(Err(code)),
                }
            });
            if let Some(concluded) = concluded {
                return concluded;
            }
            match poll_fn(|cx| self.recv.poll_read(cx, &mut buf)).await {
                Ok(0) => finished = true,
                Ok(length) => bytes.extend_from_slice(&buf[..length]),
                Err(_) => {
                    self.abandon(Code::REQUEST_CANCELLED);
                    return Ok(None);
                }
            }
        }
    }

    /// Decides on what has been read.
    fn conclude(
        &mut self,
        bytes: &[u8],
        finished: bool,
        shared: &Shared,
        buffers: &mut Buffers,
    ) -> Concluded {
        match message::answer(bytes, finished, self.origin, shared, buffers) {
            Verdict::More => Concluded::More,
            Verdict::Reply => {
                if !finished {
                    // Section 4.1: the rest of the request makes no difference.
                    let _ = self.recv.stop(Code::NO_ERROR.into());
                }
                Concluded::Reply
            }
            Verdict::Reset(code) => {
                self.reject(code, shared);
                Concluded::Done
            }
            Verdict::Close(code) => Concluded::Close(code),
        }
    }

    /// Writes the reply, or as much of it as the client has room for.
    fn write(&mut self, reply: &[u8], cx: &mut Context<'_>) -> Progress {
        let mut written = 0;
        while written < reply.len() {
            match Pin::new(&mut self.send).poll_write(cx, &reply[written..]) {
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(_)) => return Progress::Done,
                Poll::Pending => {
                    return Progress::Waiting(Waiting::Reply(reply[written..].into()));
                }
            }
        }
        self.end();
        Progress::Done
    }

    /// The reply is written. An error says that the client did not want it any more.
    fn end(&mut self) {
        let _ = self.send.finish();
    }

    /// Ends the stream because of what the client did.
    fn reject(&mut self, code: Code, shared: &Shared) {
        shared.service.counters.count(Transport::Http3.rejected());
        self.abandon(code);
    }

    /// Ends both directions, as far as they are open: neither call minds if they are not.
    pub(super) fn abandon(&mut self, code: Code) {
        let _ = self.send.reset(code.into());
        let _ = self.recv.stop(code.into());
    }
}

enum Concluded {
    More,
    Reply,
    Done,
    Close(Code),
}
