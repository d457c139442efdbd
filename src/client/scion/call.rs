//! A conversation with a tracker: its socket, and the task that keeps its packets on a path that
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

/// How long to wait for a packet before another path is tried. The wait doubles with each further
/// path, as QUIC doubles its wait before it sends again.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(16);
/// Shortest time between two requests for fresh paths.
const PAUSE: Duration = Duration::from_secs(1);

/// What to do when nothing arrives over a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Silence {
    /// Try another path.
    SwitchPath,
    /// Nothing: the caller calls [`Call::try_another_path`] at times of its choice.
    LeftToCaller,
}

/// A tracker, with a socket and paths to it.
#[derive(Debug)]
pub(in crate::client) struct Call {
    scion: Arc<Scion>,
    socket: Arc<ScionSocket>,
    remote: ScionAddr,
    /// The synthetic address of the tracker on the socket.
    name: SocketAddr,
    choice: Mutex<Choice>,
    /// Notified when sent packets were lost and another path is in use.
    moved: Notify,
}

impl Call {
    /// Starts on the first of these paths.
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

    /// Address of the tracker.
    pub(in crate::client) const fn remote(&self) -> ScionAddr {
        self.remote
    }

    /// Our own address.
    pub(in crate::client) fn local(&self) -> ScionAddr {
        self.socket.local()
    }

    /// Makes a QUIC endpoint. Returns it with the synthetic address of the tracker.
    pub(in crate::client) fn endpoint(&self) -> io::Result<(Endpoint, SocketAddr)> {
        Ok((self.socket.endpoint(None)?, self.name))
    }

    /// Whether a new call would find better paths.
    pub(in crate::client) fn is_stale(&self) -> bool {
        self.choice.lock().current().expires_soon(SystemTime::now())
    }

    /// Sends a datagram that does not belong to QUIC.
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

    /// Receives such a datagram from the tracker. Returns its length.
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

    /// Waits until sent packets were lost with their path and another path is in use.
    pub(in crate::client) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Switches to the next path, if there is one.
    pub(in crate::client) fn try_another_path(&self) {
        let mut choice = self.choice.lock();
        if choice.advance() {
            self.take(&choice);
        }
    }

    /// Runs a request and keeps its packets on a working path. At the deadline, returns what
    /// failed, if that is known.
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

    /// Waits for the deadline. Never returns if no failure is known.
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
                    // The socket is ours and stays open, so this cannot happen.
                    Err(RecvError::Closed) => return pending().await,
                },
                () = sleep(patience) => {
                    let quiet = self.socket.silent_for(self.remote).unwrap_or_default();
                    if quiet < patience {
                        patience = PATIENCE;
                        tried = 0;
                    } else if silence == Silence::SwitchPath {
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

    /// Avoids the failed part of a path.
    async fn repair(&self, failure: &Failure, renewals: &mut Renewals) {
        let at = |id: u64| PathInterface {
            ia: failure.reporter,
            // Interface 0 does not exist, so it matches no path.
            id: u16::try_from(id).unwrap_or_default(),
        };
        let whole = {
            let mut choice = self.choice.lock();
            let broken = match failure.cause {
                Cause::Link(id) => Broken::Link(at(id)),
                Cause::Crossing(one, other) => Broken::Crossing(at(one), at(other)),
                Cause::Expired | Cause::Narrow => Broken::Path(choice.current().clone()),
            };
            tracing::debug!(?broken, "avoiding a broken path to {}", self.remote);
            let whole = choice.fail(broken);
            // Set the paths even if the socket has already switched to the spare one: both must
            // agree.
            self.take(&choice);
            whole
        };
        if !whole {
            self.renew(renewals).await;
        }
        self.moved.notify_one();
    }

    /// Asks the daemon for fresh paths. If there are none, tries the old ones again.
    async fn renew(&self, renewals: &mut Renewals) {
        sleep_until(renewals.next).await;
        renewals.next = Instant::now() + PAUSE;
        let ip = self.local().host.ip();
        let renewed = self.scion.renewed(self.remote, ip).await;
        let mut choice = self.choice.lock();
        match renewed {
            Ok(paths) => choice.replace(paths),
            Err(error) => {
                tracing::debug!("cannot get fresh paths: {error}");
                choice.advance();
            }
        }
        self.take(&choice);
    }

    fn take(&self, choice: &Choice) {
        if let Err(error) = take(&self.socket, self.remote, choice) {
            tracing::debug!("cannot use the path {}: {error}", choice.current());
        }
    }
}

/// The earliest time for the next request to the daemon.
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
