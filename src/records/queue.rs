//! The way to the writer of the records: opening them, the queue of changes, and what it tells.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::store::Store;
use super::writer::Writer;
use super::{Change, Completed, Loaded, OpenError, RecordsError, RecordsState, StoreKind};
use crate::config::Database;

/// The file in the data directory.
const FILE: &str = "records.db";
/// How long a change waits for its commit.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the start waits for a server, or for a file that is locked.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Most changes that wait.
const QUEUE: usize = 4096;

/// Puts a change in force and answers, or tells why it failed.
pub(super) type Finish = Box<dyn FnOnce(Result<(), RecordsError>) + Send>;

/// A change that waits to be written.
pub(super) struct Request {
    pub(super) change: Change,
    /// After this nobody waits for it.
    pub(super) deadline: Instant,
    pub(super) finish: Finish,
}

/// The store of the records, and the way to change them.
#[derive(Debug)]
pub(crate) struct Records {
    /// `None`: there is no store.
    requests: Option<mpsc::Sender<Request>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Ends when the thread has written everything.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What the thread tells.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kind: StoreKind,
    pub(super) completed: Arc<Completed>,
    /// Changes that are in the queue or being written.
    pub(super) changes: AtomicUsize,
    /// Torrents with counts that the thread has taken and not written.
    pub(super) counts: AtomicUsize,
    /// Entries that expire at this time, in seconds since 1970, or before, are to be removed. 0: none.
    pub(super) expired: AtomicU64,
    pub(super) status: Mutex<Status>,
}

#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) outage: Option<Instant>,
    pub(super) last_error: Option<RecordsError>,
    pub(super) last_write: Option<Instant>,
    pub(super) writes: u64,
    pub(super) failures: u64,
}

impl Records {
    /// Records that end with the tracker.
    fn in_memory(completed: Arc<Completed>) -> Self {
        completed.turn_off();
        Self {
            requests: None,
            shared: Arc::new(Shared::new(StoreKind::Memory, completed)),
            stop: CancellationToken::new(),
            ended: Mutex::default(),
        }
    }

    /// Opens the database that is named, or else the file in the data directory, and reads all records. Blocks
    /// until it has them. If the file cannot be created, records are in memory, and a warning says so.
    pub(crate) fn open(
        named: Option<&Database>,
        data_dir: Option<&Path>,
        flush_interval: Duration,
        completed: Arc<Completed>,
    ) -> Result<(Self, Loaded), OpenError> {
        let warn = |reason: &str| {
            tracing::warn!(
                "passkeys, lists, bans and download counts that are changed at run time will not survive a restart: {reason}; name a directory with --data-dir or a database with --database"
            );
        };
        let database = match (named, data_dir) {
            (Some(Database::Memory), _) => {
                return Ok((Self::in_memory(completed), Loaded::default()));
            }
            (Some(database), _) => database.clone(),
            (None, _) if cfg!(not(feature = "sqlite")) => {
                return Ok((Self::in_memory(completed), Loaded::default()));
            }
            (None, None) => {
                warn("there is no directory for what must survive a restart");
                return Ok((Self::in_memory(completed), Loaded::default()));
            }
            (None, Some(directory)) => Database::Sqlite(directory.join(FILE)),
        };
        // Records that were never there cannot be missed.
        let is_new = match &database {
            Database::Sqlite(path) => {
                path.metadata().is_ok_and(|it| it.len() == 0) || !path.exists()
            }
            _ => false,
        };
        match Self::start(database, flush_interval, Arc::clone(&completed)) {
            Err(error @ (OpenError::File { .. } | OpenError::Unreachable { .. }))
                if named.is_none() && is_new =>
            {
                let source = std::error::Error::source(&error);
                let source = source.map_or_else(String::new, |source| format!(": {source}"));
                warn(&format!("{error}{source}"));
                Ok((Self::in_memory(completed), Loaded::default()))
            }
            result => result,
        }
    }

    /// Starts the thread and waits until it has read all records.
    fn start(
        database: Database,
        flush_interval: Duration,
        completed: Arc<Completed>,
    ) -> Result<(Self, Loaded), OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Start)?;
        let (opened, result) = std_mpsc::sync_channel(1);
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new()
            .name("records".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let (store, loaded) = match open(&database).await {
                        Ok(store) => store,
                        Err(error) => {
                            let _ = opened.send(Err(error));
                            return;
                        }
                    };
                    let shared = Arc::new(Shared::new(store.kind(), completed));
                    let mut writer = Writer::new(store, Arc::clone(&shared));
                    if opened.send(Ok((shared, loaded))).is_ok() {
                        writer.run(receiver, flush_interval, stopped).await;
                        writer.end().await;
                    }
                    let _ = end.send(());
                });
            })
            .map_err(OpenError::Start)?;
        let gone = || OpenError::Start(std::io::ErrorKind::BrokenPipe.into());
        let (shared, loaded) = result.recv().map_err(|_| gone())??;
        let records = Self {
            requests: Some(requests),
            shared,
            stop,
            ended: Mutex::new(Some(ended)),
        };
        Ok((records, loaded))
    }

    /// Commits a change, then puts it in force with `apply`. Without a store it is in force at once.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: Change,
        apply: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RecordsError> {
        let Some(requests) = &self.requests else {
            return Ok(apply());
        };
        let (answer, answered) = oneshot::channel();
        let request = Request {
            change,
            deadline: Instant::now() + PATIENCE,
            finish: Box::new(move |written| {
                // In force even if nobody waits for the answer any more: it is committed.
                let _ = answer.send(written.map(|()| apply()));
            }),
        };
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = requests.try_send(request) {
            self.shared.changes.fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => RecordsError::Busy,
                mpsc::error::TrySendError::Closed(_) => RecordsError::Stopped,
            });
        }
        match time::timeout(PATIENCE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RecordsError::Stopped),
            Err(_) => Err(RecordsError::Timeout),
        }
    }

    /// Has entries removed that expire at this time, in seconds since 1970, or before.
    pub(crate) fn remove_expired(&self, unix: u64) {
        if self.requests.is_some() {
            self.shared.expired.fetch_max(unix, Ordering::Relaxed);
        }
    }

    /// How the store is.
    pub(crate) fn state(&self) -> RecordsState {
        let Shared {
            kind,
            completed,
            changes,
            counts,
            status,
            ..
        } = &*self.shared;
        let status = status.lock();
        RecordsState {
            store: *kind,
            outage: status.outage.map(|since| since.elapsed()),
            last_error: status.last_error.as_ref().map(RecordsError::to_string),
            last_write: status.last_write.map(|at| at.elapsed()),
            changes_waiting: changes.load(Ordering::Relaxed),
            counts_waiting: completed.waiting() + counts.load(Ordering::Relaxed),
            writes: status.writes,
            failures: status.failures,
            counts_dropped: completed.dropped(),
        }
    }

    /// Writes what waits and closes the store. Gives up after `limit`. Changes fail from now on.
    pub(crate) async fn close(&self, limit: Duration) {
        self.stop.cancel();
        let Some(ended) = self.ended.lock().take() else {
            return;
        };
        if time::timeout(limit, ended).await.is_err() {
            let torrents = self.state().counts_waiting;
            tracing::error!(
                torrents,
                "the database of the records did not answer before the stop: completed downloads of the last seconds may be lost"
            );
        }
    }
}

/// Opens a database. Waits for a server that does not answer, and for a file that is locked.
pub(super) async fn open(database: &Database) -> Result<(Store, Loaded), OpenError> {
    let start = Instant::now();
    let mut pause = Duration::from_secs(1);
    loop {
        let error = match Store::open(database.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let is_worth_it = match &error {
            OpenError::Unreachable { error, .. } => {
                matches!(error, RecordsError::Locked(_)) || !matches!(database, Database::Sqlite(_))
            }
            _ => false,
        };
        if !is_worth_it || start.elapsed() + pause > START_PATIENCE {
            return Err(error);
        }
        tracing::warn!(
            "{error}; the tracker starts when it has its records, and gives up after {} s",
            START_PATIENCE.as_secs()
        );
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

impl Shared {
    pub(super) fn new(kind: StoreKind, completed: Arc<Completed>) -> Self {
        Self {
            kind,
            completed,
            changes: AtomicUsize::new(0),
            counts: AtomicUsize::new(0),
            expired: AtomicU64::new(0),
            status: Mutex::default(),
        }
    }
}
