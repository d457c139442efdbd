//! One HTTP/3 connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use scion_tracker_core::request::Origin;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Shared;
use super::control;
use super::frame::Code;
use super::stream::{Exchange, Progress};
use crate::counters::Counter;
use crate::transport::deadline::Deadline;
use crate::transport::quic::is_abort;

/// After GOAWAY, how many round trips without a request end the connection, and how long that is at
/// least: the last replies are under way for half of one.
const QUIET_ROUND_TRIPS: u32 = 3;
const QUIET: Duration = Duration::from_millis(50);

/// Serves a connection until it ends.
pub(in crate::transport) async fn serve(
    connection: Connection,
    origin: Origin,
    shared: Arc<Shared>,
) {
    let code = Requests::new(connection.clone(), origin, &shared)
        .serve()
        .await;
    if let Some(code) = code {
        if code != Code::NO_ERROR {
            shared.service.counters.count(Counter::QuicAborted);
        }
        connection.close(code.into(), b"");
    } else if let Some(error) = connection.close_reason()
        && is_abort(&error)
    {
        shared.service.counters.count(Counter::QuicAborted);
    }
}

/// The requests of a connection.
struct Requests<'a> {
    connection: Connection,
    origin: Origin,
    shared: &'a Arc<Shared>,
    /// Requests that wait for the client, and the control streams. Each may end the connection.
    tasks: JoinSet<Option<Code>>,
    goaway: Option<oneshot::Sender<u64>>,
    /// The id of the next request.
    next: u64,
    deadline: Deadline,
}

impl<'a> Requests<'a> {
    fn new(connection: Connection, origin: Origin, shared: &'a Arc<Shared>) -> Self {
        let limits = &shared.options.limits;
        let (goaway, going) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let control = control::run(
            connection.clone(),
            limits.head_bytes,
            limits.handshake,
            going,
        );
        tasks.spawn(async { control.await.err() });
        Self {
            connection,
            origin,
            shared,
            tasks,
            goaway: Some(goaway),
            next: 0,
            deadline: Deadline::after(limits.idle),
        }
    }

    /// Returns the code to end the connection with, unless it has ended.
    async fn serve(&mut self) -> Option<Code> {
        let connection = self.connection.clone();
        let shutdown = self.shared.shutdown.clone();
        let mut stopping = pin!(shutdown.cancelled());
        loop {
            tokio::select! {
                biased;
                accepted = connection.accept_bi() => match accepted {
                    Err(_) => return self.cause(),
                    Ok((send, recv)) => {
                        if self.goaway.is_some() && shutdown.is_cancelled() {
                            self.go_away();
                        }
                        let code = self.exchange(send, recv).await;
                        if code.is_some() {
                            return code;
                        }
                        // A busy connection leaves the thread to others now and then.
                        tokio::task::consume_budget().await;
                    }
                },
                Some(ended) = self.tasks.join_next() => {
                    // A task that panicked is none that goes on.
                    if let Ok(Some(code)) = ended {
                        return Some(code);
                    }
                    if self.goaway.is_none() {
                        self.await_quiet();
                    }
                }
                () = self.deadline.passed() => return Some(Code::NO_ERROR),
                () = stopping.as_mut(), if self.goaway.is_some() => self.go_away(),
            }
        }
    }

    /// Why a task has closed the connection, if one has.
    fn cause(&mut self) -> Option<Code> {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(Some(code)) = ended {
                return Some(code);
            }
        }
        None
    }

    /// Serves a request, or has it served.
    async fn exchange(&mut self, send: SendStream, recv: RecvStream) -> Option<Code> {
        let limits = &self.shared.options.limits;
        let mut exchange = Exchange {
            send,
            recv,
            origin: self.origin,
        };
        if self.goaway.is_none() {
            // Section 5.2: it was told not to.
            exchange.abandon(Code::REQUEST_REJECTED);
            return None;
        }
        self.next = u64::from(exchange.recv.id()) + 4;
        self.deadline.set(limits.idle);
        let progress = std::future::poll_fn(|cx| exchange.start(self.shared, cx).into()).await;
        match progress {
            Progress::Done => None,
            Progress::Close(code) => {
                // Before the streams are dropped, which would end them in a regular way.
                self.connection.close(code.into(), b"");
                Some(code)
            }
            Progress::Waiting(waiting) => {
                let connection = self.connection.clone();
                let shared = Arc::clone(self.shared);
                self.tasks
                    .spawn(exchange.finish(waiting, connection, shared));
                None
            }
        }
    }

    /// Tells the client to send no more requests, and leaves the replies time to arrive.
    fn go_away(&mut self) {
        if let Some(goaway) = self.goaway.take() {
            // The control task is gone only when the connection is going.
            let _ = goaway.send(self.next);
        }
        self.deadline.limit(self.shared.options.limits.drain);
        self.await_quiet();
    }

    /// After GOAWAY: ends the connection soon, if no request waits for the client.
    fn await_quiet(&mut self) {
        // One of the tasks is the control streams'.
        if self.tasks.len() > 1 {
            self.deadline.set(self.shared.options.limits.drain);
        } else {
            let round_trips = self.connection.rtt() * QUIET_ROUND_TRIPS;
            self.deadline.set(round_trips.max(QUIET));
        }
    }
}
