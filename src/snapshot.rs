//! The snapshot of the swarms: a file in the data directory, so that they survive a restart.
//!
//! It is read when the tracker starts, and written every few minutes and when the tracker stops, into a new file
//! that replaces the old one. `format` has the bytes; the core walks through the registry in steps, so that no
//! announce waits for longer than for a step of the sweep.

pub(crate) mod format;
mod load;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::registry::memory::transfer::Export;
use scion_tracker_core::types::Time;
use tokio::sync::oneshot;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::service::Service;
use format::Encoder;
pub use load::LoadReport;

/// The file in the data directory.
const FILE: &str = "swarms.snapshot";
/// It is written under this name first.
const NEW: &str = "swarms.snapshot.new";
/// How long a stop waits for the last snapshot. The units in contrib/ and packages wait longer.
const STOP: Duration = Duration::from_secs(20);

/// A snapshot that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The file.
    pub file: PathBuf,
    /// When it was complete.
    pub finished: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Its size in bytes.
    pub bytes: u64,
    /// Torrents in it. One that changed while it was written can count more than once.
    pub torrents: u64,
    /// Peers in it.
    pub peers: u64,
    /// Torrents without peers whose completed downloads are in it.
    pub past_torrents: u64,
}

impl SnapshotReport {
    #[cfg(test)]
    pub(crate) fn of_a_test(finished: SystemTime) -> Self {
        Self {
            file: FILE.into(),
            finished,
            duration: Duration::ZERO,
            bytes: 1,
            torrents: 1,
            peers: 1,
            past_torrents: 0,
        }
    }

    /// Time since the snapshot was complete. Zero if the clock was set back since.
    pub fn age(&self) -> Duration {
        self.finished.elapsed().unwrap_or_default()
    }
}

/// Why no snapshot was written. The one before is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Snapshots are off, or there is no data directory that this tracker has for itself.
    #[error("snapshots are off: {0}")]
    Off(String),
    /// Another one is being written.
    #[error("another snapshot is being written")]
    Busy,
    /// The tracker stops, and will write the last one or has no time for it.
    #[error("the tracker stops")]
    Stopped,
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How the snapshots are.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SnapshotState {
    /// The file. `None` if snapshots are off.
    pub file: Option<PathBuf>,
    /// Why they are off although the configuration does not say so.
    pub off_because: Option<String>,
    /// What was read at the start.
    pub loaded: Option<LoadReport>,
    /// The last snapshot of this run.
    pub last: Option<SnapshotReport>,
    /// Why the last attempt failed, if it did. Before the first one: why it would fail.
    pub last_error: Option<String>,
    /// Snapshots that could not be written since the start.
    pub failures: u64,
}

/// The snapshots of a running tracker.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// The directory, locked as long as it is open. `None` if there are no snapshots, and after the last one.
    directory: Mutex<Option<Directory>>,
    interval: Duration,
    /// Held while one is written.
    writing: Mutex<()>,
    /// Ends one that is being written, for the last one.
    stopping: AtomicBool,
    /// Ends the last one.
    giving_up: AtomicBool,
    state: Mutex<SnapshotState>,
}

/// A directory that no other tracker writes snapshots to.
#[derive(Debug, Clone)]
struct Directory {
    path: PathBuf,
    /// The lock, which ends when the last clone does.
    _lock: Arc<File>,
}

impl Directory {
    /// Makes the directory if it is missing, and locks it.
    fn open(path: &Path) -> Result<Self, String> {
        let cannot = |error| format!("cannot use {}: {error}", path.display());
        fs::create_dir_all(path).map_err(cannot)?;
        let file = File::open(path).map_err(cannot)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
                "another tracker keeps its swarms in {}",
                path.display()
            )),
            // Some network file systems have no locks.
            Ok(()) | Err(_) => Ok(Self {
                path: path.to_owned(),
                _lock: Arc::new(file),
            }),
        }
    }

    /// Checks that a snapshot can be written here, as writing one begins. Also removes what a run that was
    /// killed has left.
    fn check(&self) -> Result<(), SnapshotError> {
        let new = self.path.join(NEW);
        let made = create(&new).and_then(|_| fs::remove_file(&new));
        made.map_err(|source| SnapshotError::Io { path: new, source })
    }
}

/// What ends a snapshot that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The stop of the tracker.
    Stop,
    /// The end of the time that a stop may take.
    GivingUp,
}

impl Snapshots {
    /// Locks the directory, unless snapshots are off (`interval` is `None`), and makes the registry from the
    /// snapshot there. `empty` makes one without swarms. Never fails: a tracker that cannot keep its swarms says
    /// so and runs.
    pub(crate) fn start<E>(
        directory: Option<&Path>,
        interval: Option<Duration>,
        empty: impl Fn() -> Result<Memory, E>,
    ) -> Result<(Self, Memory), E> {
        let directory = interval.map(|_| {
            let missing = || "there is no directory for what must survive a restart".to_owned();
            directory.ok_or_else(missing).and_then(Directory::open)
        });
        let mut state = SnapshotState::default();
        let mut memory = None;
        let directory = match directory {
            None => None,
            Some(Ok(directory)) => {
                let file = directory.path.join(FILE);
                if let Err(error) = directory.check() {
                    let error = error.full();
                    tracing::warn!(
                        "swarms will not survive a restart: {error}; let this user write there, name another directory with --data-dir or data_dir, or set snapshot.enabled = false"
                    );
                    state.last_error = Some(error);
                }
                (memory, state.loaded) = load::load(&file, &empty)?.unzip();
                state.file = Some(file);
                Some(directory)
            }
            Some(Err(reason)) => {
                tracing::warn!(
                    "swarms will not survive a restart: {reason}; name a directory with --data-dir or data_dir, or set snapshot.enabled = false"
                );
                state.off_because = Some(reason);
                None
            }
        };
        let snapshots = Self {
            directory: Mutex::new(directory),
            interval: interval.unwrap_or_default(),
            writing: Mutex::new(()),
            stopping: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Ok((snapshots, memory.map_or_else(empty, Ok)?))
    }

    pub(crate) fn state(&self) -> SnapshotState {
        self.state.lock().clone()
    }

    /// Writes a snapshot now. Blocks until it is on the disk.
    pub(crate) fn write(&self, service: &Service) -> Result<SnapshotReport, SnapshotError> {
        let _writing = self.writing.try_lock().ok_or(SnapshotError::Busy)?;
        self.write_until(Until::Stop, service)
    }

    fn write_until(
        &self,
        until: Until,
        service: &Service,
    ) -> Result<SnapshotReport, SnapshotError> {
        let Some(Directory { path, .. }) = self.directory.lock().clone() else {
            let reason = self.state.lock().off_because.clone();
            let reason = reason.unwrap_or_else(|| "set snapshot.enabled = true".to_owned());
            return Err(SnapshotError::Off(reason));
        };
        let stopped = match until {
            Until::Stop => &self.stopping,
            Until::GivingUp => &self.giving_up,
        };
        let registry = service.tracker.registry();
        let written = write(&path, registry, service.now(), stopped);
        let mut state = self.state.lock();
        match &written {
            Ok(report) => {
                (state.last, state.last_error) = (Some(report.clone()), None);
            }
            Err(SnapshotError::Stopped) => {}
            Err(error) => {
                state.failures += 1;
                state.last_error = Some(error.full());
            }
        }
        written
    }

    /// Writes snapshots, one per interval, until it is stopped.
    pub(crate) async fn write_regularly(
        self: Arc<Self>,
        service: Arc<Service>,
        stop: CancellationToken,
    ) {
        if self.directory.lock().is_none() {
            return stop.cancelled().await;
        }
        let mut ticks = time::interval_at(time::Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let endless = async {
            loop {
                ticks.tick().await;
                let snapshots = Arc::clone(&self);
                let service = Arc::clone(&service);
                let written = on_thread(move || snapshots.write(&service)).await;
                log(written);
            }
        };
        stop.run_until_cancelled(endless).await;
    }

    /// Writes the last snapshot, within [`STOP`], and gives the directory free. For when no listener answers any
    /// more.
    pub(crate) async fn finish(self: Arc<Self>, service: Arc<Service>) {
        if self.directory.lock().is_none() {
            return;
        }
        self.stopping.store(true, Ordering::Relaxed);
        let snapshots = Arc::clone(&self);
        let last = on_thread(move || {
            let _writing = snapshots.writing.lock();
            let written = snapshots.write_until(Until::GivingUp, &service);
            snapshots.directory.lock().take();
            written
        });
        match time::timeout(STOP, last).await {
            Ok(written) => log(written),
            Err(_) => {
                self.giving_up.store(true, Ordering::Relaxed);
                tracing::warn!(
                    "the last snapshot of the swarms took longer than {STOP:?} and was given up; the one before stays"
                );
            }
        }
    }
}

/// Runs it on a thread of its own, which a runtime that ends does not wait for.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    let (done, result) = oneshot::channel();
    let thread = thread::Builder::new().name("snapshot".into());
    let started = thread.spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    });
    match started {
        // It panicked.
        Ok(_) => result.await.unwrap_or(Err(SnapshotError::Stopped)),
        Err(source) => Err(SnapshotError::Io {
            path: FILE.into(),
            source,
        }),
    }
}

impl SnapshotError {
    /// The text with its cause.
    pub(crate) fn full(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

fn log(written: Result<SnapshotReport, SnapshotError>) {
    match written {
        Ok(report) => tracing::info!(
            torrents = report.torrents,
            peers = report.peers,
            bytes = report.bytes,
            milliseconds = report.duration.as_millis() as u64,
            "snapshot of the swarms written"
        ),
        Err(SnapshotError::Stopped | SnapshotError::Busy) => {}
        Err(error) => tracing::warn!(
            "no snapshot of the swarms was written: {}; the one before stays",
            error.full()
        ),
    }
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Replaces the snapshot in a directory. Ends early if `stopped` becomes true.
fn write(
    directory: &Path,
    registry: &Memory,
    now: Time,
    stopped: &AtomicBool,
) -> Result<SnapshotReport, SnapshotError> {
    let (path, new) = (directory.join(FILE), directory.join(NEW));
    let written = write_new(&new, registry, now, stopped)
        .and_then(|report| {
            fs::rename(&new, &path)?;
            // So that the new name survives a power failure.
            File::open(directory)?.sync_all()?;
            Ok(report)
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => SnapshotError::Stopped,
            _ => SnapshotError::Io {
                path: new.clone(),
                source: error,
            },
        });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    let report = written?;
    Ok(SnapshotReport {
        file: path,
        ..report
    })
}

/// Makes an empty file that only we can read: it gets secrets, and addresses of peers.
fn create(new: &Path) -> io::Result<File> {
    // Of a run that was killed, or of somebody else: a new file has our mode, and is not behind a link.
    if let Err(error) = fs::remove_file(new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(new)
}

/// Writes a file that is on the disk when this returns. [`io::ErrorKind::Interrupted`] if it is stopped.
fn write_new(
    new: &Path,
    registry: &Memory,
    now: Time,
    stopped: &AtomicBool,
) -> io::Result<SnapshotReport> {
    let begun = std::time::Instant::now();
    let mut encoder = Encoder::new(create(new)?, unix_now())?;
    let mut export = Export::new(now);
    while !registry.export_step(&mut export, |part| encoder.add(&part)) {
        encoder.end_step()?;
        if stopped.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    let (file, contents, bytes) = encoder.finish(|body| registry.export_clients(body))?;
    file.sync_all()?;
    Ok(SnapshotReport {
        file: new.to_owned(),
        finished: SystemTime::now(),
        duration: begun.elapsed(),
        bytes,
        torrents: contents.torrents,
        peers: contents.peers,
        past_torrents: contents.past,
    })
}

#[cfg(test)]
mod tests;
