//! A tracker that is being talked to: the socket, and who sees to it that its packets take a path that
//! works.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket as _, Endpoint};
use scion_tracker_core::address::ScionAddr;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep, sleep_until};

use super::choice::{Broken, Choice};
use super::{PathInterface, Scion, ScionError, ScionPath};
use crate::scion::socket::{Cause, Failure, ScionSocket};

/// After so long without a packet another path is tried, and after twice as long the next, as QUIC
/// waits twice as long each time before it sends again.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(16);
/// Between two questions for fresh paths.
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a path over which nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Silence {
    /// Another one is tried.
    Switches,
    /// The caller has a schedule of its own, and calls [`Call::try_another_path`].
    IsTheCallers,
}

/// A tracker within reach.
#[derive(Debug)]
pub(in crate::client) struct Call {
    scion: Arc<Scion>,
    socket: Arc<ScionSocket>,
    remote: ScionAddr,
    /// What the socket calls it.
    name: SocketAddr,
    choice: Mutex<Choice>,
    /// Rung when packets on their way are lost and another path is taken.
    moved: Notify,
}

impl Call {
    /// Over the first of these paths.
    pub(super) fn new(
        scion: Arc<Scion>,
        socket: Arc<ScionSocket>,
        remote: ScionAddr,
        paths: Vec<ScionPath>,
    ) -> Result<Self, ScionError> {
        let choice = Choice::new(paths);
        let name = take(&socket, remote, &choice)?;
        Ok(Self {
            scion,
            socket,
            remote,
            name,
            choice: Mutex::new(choice),
            moved: Notify::new(),
        })
    }

    /// The tracker.
    pub(in crate::client) const fn remote(&self) -> ScionAddr {
        self.remote
    }

    /// Our own address.
    pub(in crate::client) fn local(&self) -> ScionAddr {
        self.socket.local()
    }

    /// A QUIC endpoint, and what the tracker is called on it.
    pub(in crate::client) fn endpoint(&self) -> io::Result<(Endpoint, SocketAddr)> {
        Ok((self.socket.endpoint(None)?, self.name))
    }

    /// Whether a new call would find better paths.
    pub(in crate::client) fn is_stale(&self) -> bool {
        self.choice.lock().current().expires_soon(SystemTime::now())
    }

    /// Sends a datagram that is not QUIC's.
    pub(in crate::client) async fn send(&self, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.name,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        };
        let mut poller = Arc::clone(&self.socket).create_io_poller();
        loop {
            match self.socket.try_send(&transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| poller.as_mut().poll_writable(cx)).await?;
                }
                sent => return sent,
            }
        }
    }

    /// Receives such a datagram from the tracker; its length.
    pub(in crate::client) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut meta = [RecvMeta::default()];
            let mut bufs = [IoSliceMut::new(buffer)];
            poll_fn(|cx| self.socket.poll_recv(cx, &mut bufs, &mut meta)).await?;
            if meta[0].addr == self.name {
                return Ok(meta[0].len);
            }
        }
    }

    /// Ends when what was sent has been lost with its path, and another path is taken.
    pub(in crate::client) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Takes the next path, if there is another.
    pub(in crate::client) fn try_another_path(&self) {
        let mut choice = self.choice.lock();
        if choice.advance() {
            self.take(&choice);
        }
    }

    /// Keeps the tracker within reach for as long as a request lasts, and says what has failed if that
    /// takes longer than the deadline.
    pub(in crate::client) async fn during<T, E: From<ScionError>>(
        &self,
        silence: Silence,
        deadline: Instant,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let failures = self.socket.failures();
        tokio::select! {
            biased;
            answer = request => answer,
            never = self.keep(silence, failures) => match never {},
            broken = self.broken_at(deadline) => Err(E::from(broken)),
        }
    }

    /// Does not end if nothing is known to have failed.
    async fn broken_at(&self, deadline: Instant) -> ScionError {
        sleep_until(deadline).await;
        let latest = self.choice.lock().latest().map(ToString::to_string);
        match latest {
            Some(what) => ScionError::Broken(self.remote, what),
            None => pending().await,
        }
    }

    async fn keep(
        &self,
        silence: Silence,
        mut failures: broadcast::Receiver<Failure>,
    ) -> Infallible {
        let mut patience = PATIENCE;
        let mut tried = 0;
        let mut renewals = Renewals::default();
        loop {
            tokio::select! {
                failure = failures.recv() => match failure {
                    Ok(failure) if failure.remote == self.remote => {
                        self.repair(&failure, &mut renewals).await;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    // The socket is ours, so this does not come.
                    Err(RecvError::Closed) => return pending().await,
                },
                () = sleep(patience) => {
                    let quiet = self.socket.silent_for(self.remote).unwrap_or_default();
                    if quiet < patience {
                        patience = PATIENCE;
                        tried = 0;
                    } else if silence == Silence::Switches {
                        patience = (patience * 2).min(MAX_PATIENCE);
                        tried += 1;
                        tracing::debug!("nothing from {} for {quiet:?}", self.remote);
                        if tried < self.choice.lock().count() {
                            self.try_another_path();
                        } else {
                            tried = 0;
                            self.renew(&mut renewals).await;
                        }
                    }
                    if self.is_stale() {
                        self.renew(&mut renewals).await;
                    }
                }
            }
        }
    }

    /// Avoids what has failed.
    async fn repair(&self, failure: &Failure, renewals: &mut Renewals) {
        let at = |id: u64| PathInterface {
            ia: failure.reporter,
            // No path has an interface 0.
            id: u16::try_from(id).unwrap_or_default(),
        };
        let whole = {
            let mut choice = self.choice.lock();
            let broken = match failure.cause {
                Cause::Link(id) => Broken::Link(at(id)),
                Cause::Crossing(one, other) => Broken::Crossing(at(one), at(other)),
                Cause::Expired | Cause::Narrow => Broken::Path(choice.current().clone()),
            };
            tracing::debug!(?broken, "avoided on the way to {}", self.remote);
            let whole = choice.fail(broken);
            // Also if the socket has taken the spare path by itself: the two have to agree.
            self.take(&choice);
            whole
        };
        if !whole {
            self.renew(renewals).await;
        }
        self.moved.notify_one();
    }

    /// Asks for fresh paths. If there are none, the old ones are tried again.
    async fn renew(&self, renewals: &mut Renewals) {
        sleep_until(renewals.next).await;
        renewals.next = Instant::now() + PAUSE;
        let ip = self.local().host.ip();
        let renewed = self.scion.renewed(self.remote, ip).await;
        let mut choice = self.choice.lock();
        match renewed {
            Ok(paths) => choice.replace(paths),
            Err(error) => {
                tracing::debug!("no fresh paths: {error}");
                choice.advance();
            }
        }
        self.take(&choice);
    }

    fn take(&self, choice: &Choice) {
        if let Err(error) = take(&self.socket, self.remote, choice) {
            tracing::debug!("the path {} cannot be taken: {error}", choice.current());
        }
    }
}

/// When the daemon may be asked next.
#[derive(Debug)]
struct Renewals {
    next: Instant,
}

impl Default for Renewals {
    fn default() -> Self {
        Self {
            next: Instant::now(),
        }
    }
}

fn take(
    socket: &ScionSocket,
    remote: ScionAddr,
    choice: &Choice,
) -> Result<SocketAddr, ScionError> {
    let spare = choice.spare().map(ScionPath::route);
    Ok(socket.set_paths(remote, choice.current().route(), spare)?)
}
