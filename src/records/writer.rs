//! Writes records: collects changes that arrive together into one transaction, and adds completed downloads
//! from time to time. Runs on a thread of its own. Nothing that answers peers waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::queue::{Request, Shared};
use super::store::{Store, WriteError};
use super::{Change, Counts, RecordsError};

/// Most changes in one transaction.
const CHANGES: usize = 1000;
/// Most torrents with counts in one transaction.
const COUNTS: usize = 10_000;
/// After a failure, changes fail at once for this long, so that they do not queue up behind attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How often an idle connection to a server is tried.
const PING: Duration = Duration::from_secs(15);
/// How often the log says that another program writes.
const TAKEN_WARNING: Duration = Duration::from_secs(60);

/// A number that no other batch or connection has.
pub(super) fn random() -> i64 {
    let number = getrandom::u64().unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    });
    // Positive, and never the zero of a new table.
    (number >> 1 | 1) as i64
}

/// What is written in one transaction.
struct Batch {
    number: i64,
    requests: Vec<Request>,
    counts: Counts,
    expired: Option<u64>,
}

impl Batch {
    /// Whether it has a change and anything else.
    fn is_mixed(&self) -> bool {
        match self.requests.len() {
            0 => false,
            1 => !self.counts.is_empty() || self.expired.is_some(),
            _ => true,
        }
    }
}

pub(super) struct Writer {
    store: Store,
    shared: Arc<Shared>,
    /// Taken and not written, sorted, the last ones first.
    counts: Counts,
    /// A batch of which nobody knows whether it was committed.
    uncertain: Option<(Batch, RecordsError)>,
    /// No attempt before this, after a failure.
    retry_at: Instant,
    ping_at: Instant,
    taken_warning: Option<Instant>,
}

impl Writer {
    pub(super) fn new(store: Store, shared: Arc<Shared>) -> Self {
        Self {
            store,
            shared,
            counts: Vec::new(),
            uncertain: None,
            retry_at: Instant::now(),
            ping_at: Instant::now() + PING,
            taken_warning: None,
        }
    }

    /// Writes until it is told to stop, or nobody is left who could ask.
    pub(super) async fn run(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        flush_interval: Duration,
        stop: CancellationToken,
    ) {
        let mut flush = time::interval(flush_interval);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut is_stopping = false;
        loop {
            let has_more = !self.counts.is_empty() && !self.is_out();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !is_stopping => {
                    // What is in the queue is still written.
                    is_stopping = true;
                    requests.close();
                }
                received = requests.recv_many(&mut batch, CHANGES) => {
                    if received == 0 {
                        return;
                    }
                    self.write(std::mem::take(&mut batch)).await;
                }
                () = std::future::ready(()), if has_more => self.write(Vec::new()).await,
                _ = flush.tick() => self.flush().await,
            }
        }
    }

    /// Writes what waits without changes, and looks after the connection.
    async fn flush(&mut self) {
        let now = Instant::now();
        let has_some = self.shared.completed.waiting() > 0
            || self.shared.expired.load(Ordering::Relaxed) > 0
            || !self.counts.is_empty();
        if has_some || self.is_out() || self.uncertain.is_some() {
            if now >= self.retry_at {
                self.write(Vec::new()).await;
            }
        } else if now >= self.ping_at {
            self.ping_at = now + PING;
            if let Err(error) = self.store.ping().await {
                self.note_failure(&error);
            }
        }
    }

    /// Writes changes, and as many counts as wait.
    async fn write(&mut self, requests: Vec<Request>) {
        let now = Instant::now();
        let mut batch = Batch {
            number: random(),
            requests: Vec::with_capacity(requests.len()),
            counts: Vec::new(),
            expired: None,
        };
        for request in requests {
            match now < request.deadline {
                true => batch.requests.push(request),
                false => self.finish(request, Err(RecordsError::Timeout)),
            }
        }
        if now < self.retry_at
            && let Some(error) = self.last_error_of_outage()
        {
            self.refuse(batch, &error);
            return;
        }
        batch.counts = self.take_counts();
        let expired = self.shared.expired.swap(0, Ordering::Relaxed);
        batch.expired = (expired > 0).then_some(expired);
        self.attempt(batch).await;
    }

    /// Writes a batch and answers. Connects first if there is no connection, and once more if it turns out to
    /// be broken.
    async fn attempt(&mut self, mut batch: Batch) {
        let mut is_fresh = false;
        loop {
            if !self.store.is_connected() {
                if let Err(error) = self.reconnect().await {
                    self.fail(batch, &error);
                    return;
                }
                is_fresh = true;
            }
            let expired = batch.expired.map(Change::RemoveExpired);
            let changes = batch.requests.iter().map(|it| &it.change);
            let changes: Vec<_> = changes.chain(&expired).collect();
            let written = self.store.write(batch.number, &changes, &batch.counts);
            match written.await {
                Ok(()) => return self.succeed(batch),
                Err(WriteError::Failed(RecordsError::Refused(_))) if batch.is_mixed() => {
                    // One of them may be at fault, or what is written besides: each by itself.
                    let Batch { requests, .. } = &mut batch;
                    let singles = std::mem::take(requests);
                    self.fail_back(batch);
                    for request in singles {
                        let single = Batch {
                            number: random(),
                            requests: vec![request],
                            counts: Vec::new(),
                            expired: None,
                        };
                        Box::pin(self.attempt(single)).await;
                    }
                    return;
                }
                Err(WriteError::Failed(error)) => return self.fail(batch, &error),
                Err(WriteError::Lost(error)) => {
                    self.warn_if_taken();
                    if is_fresh {
                        return self.fail(batch, &error);
                    }
                }
                Err(WriteError::Unknown(error)) => {
                    self.uncertain = Some((batch, error));
                    if let Err(error) = self.reconnect().await {
                        self.note_failure(&error);
                    }
                    return;
                }
            }
        }
    }

    /// Connects, and finds out what became of the last batch.
    async fn reconnect(&mut self) -> Result<(), RecordsError> {
        let last = self.store.reopen().await?;
        self.ping_at = Instant::now() + PING;
        match self.uncertain.take() {
            None => {}
            Some((batch, _)) if batch.number == last => self.succeed(batch),
            Some((batch, error)) => {
                self.fail(batch, &error);
                self.retry_at = Instant::now();
            }
        }
        Ok(())
    }

    fn finish(&self, request: Request, result: Result<(), RecordsError>) {
        // Before the answer, so that the count of waiting changes is right for the one who gets it.
        self.shared.changes.fetch_sub(1, Ordering::Relaxed);
        (request.finish)(result);
    }

    fn succeed(&mut self, batch: Batch) {
        self.ping_at = Instant::now() + PING;
        self.retry_at = Instant::now();
        let recovered = {
            let mut status = self.shared.status.lock();
            status.writes += 1;
            status.last_write = Some(Instant::now());
            status.outage.take()
        };
        if let Some(since) = recovered {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "the database of the records can be written again");
        }
        self.shared
            .counts
            .store(self.counts.len(), Ordering::Relaxed);
        for request in batch.requests {
            self.finish(request, Ok(()));
        }
    }

    fn fail(&mut self, batch: Batch, error: &RecordsError) {
        self.note_failure(error);
        self.refuse(batch, error);
    }

    /// Answers with an error. Counts wait for the next attempt.
    fn refuse(&mut self, batch: Batch, error: &RecordsError) {
        for request in self.fail_back(batch) {
            self.finish(request, Err(error.clone()));
        }
    }

    /// Has all that is no change wait again. Returns the changes.
    fn fail_back(&mut self, batch: Batch) -> Vec<Request> {
        self.shared.completed.add_many(batch.counts);
        self.shared
            .completed
            .add_many(std::mem::take(&mut self.counts));
        self.shared.counts.store(0, Ordering::Relaxed);
        if let Some(unix) = batch.expired {
            self.shared.expired.fetch_max(unix, Ordering::Relaxed);
        }
        batch.requests
    }

    /// Notes that an attempt failed, and logs the first one of an outage.
    fn note_failure(&mut self, error: &RecordsError) {
        // A change that the database refuses says nothing about the next one.
        if !matches!(error, RecordsError::Refused(_)) {
            self.retry_at = Instant::now() + PAUSE;
        }
        let is_new = {
            let mut status = self.shared.status.lock();
            status.failures += 1;
            status.last_error = Some(error.clone());
            let is_new = status.outage.is_none();
            status.outage.get_or_insert_with(Instant::now);
            is_new
        };
        if is_new {
            tracing::error!(
                "{error}; changes are refused and completed downloads wait until it can be written again; peers are served as before"
            );
        }
    }

    fn is_out(&self) -> bool {
        self.shared.status.lock().outage.is_some()
    }

    /// What changes are told during an outage.
    fn last_error_of_outage(&self) -> Option<RecordsError> {
        let status = self.shared.status.lock();
        status.outage.and_then(|_| status.last_error.clone())
    }

    /// Some counts that wait.
    fn take_counts(&mut self) -> Counts {
        if self.counts.is_empty() {
            self.counts = self.shared.completed.take();
            // Neighbours in the table together.
            self.counts
                .sort_unstable_by_key(|(info_hash, _)| std::cmp::Reverse(*info_hash));
        }
        let rest = self.counts.len().saturating_sub(COUNTS);
        let taken = self.counts.split_off(rest);
        let waiting = self.counts.len() + taken.len();
        self.shared.counts.store(waiting, Ordering::Relaxed);
        taken
    }

    fn warn_if_taken(&mut self) {
        let is_due = |last: Instant| last.elapsed() >= TAKEN_WARNING;
        if self.store.was_taken() && self.taken_warning.is_none_or(is_due) {
            self.taken_warning = Some(Instant::now());
            tracing::warn!(
                "another program writes the same records, whose changes this tracker does not see until it starts again: give each tracker a database of its own"
            );
        }
    }

    /// Writes what still waits and closes the store.
    pub(super) async fn end(mut self) {
        while self.uncertain.is_some() || self.shared.completed.waiting() + self.counts.len() > 0 {
            self.retry_at = Instant::now();
            self.write(Vec::new()).await;
            if self.is_out() {
                break;
            }
        }
        let torrents = self.shared.completed.waiting() + self.counts.len();
        if torrents > 0 {
            tracing::error!(
                torrents,
                "completed downloads are lost: the database of the records cannot be written"
            );
        }
        if let Err(error) = self.store.close().await {
            tracing::debug!("cannot close the records in order: {error}");
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
