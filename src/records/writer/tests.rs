use std::path::Path;

use scion_tracker_core::types::InfoHash;
use tokio::sync::oneshot;

use super::*;
use crate::config::Database;
use crate::records::Loaded;
use crate::records::queue::{PATIENCE, open};

const HASH: InfoHash = InfoHash([5; 20]);

/// A writer that nobody runs.
async fn writer(path: &Path) -> (Writer, Loaded) {
    let (store, loaded) = open(&Database::Sqlite(path.into())).await.unwrap();
    let shared = Shared::new(store.kind(), Arc::default());
    let writer = Writer::new(store, Arc::new(shared));
    (writer, loaded)
}

/// A request to allow a torrent, and its answer.
fn request() -> (Request, oneshot::Receiver<Result<(), RecordsError>>) {
    let (answer, answered) = oneshot::channel();
    let request = Request {
        change: Change::Allow(HASH),
        deadline: Instant::now() + PATIENCE,
        finish: Box::new(move |result| {
            let _ = answer.send(result);
        }),
    };
    (request, answered)
}

fn batch(request: Request) -> Batch {
    Batch {
        number: random(),
        requests: vec![request],
        counts: vec![(HASH, 3)],
        expired: None,
    }
}

/// What becomes of a batch if the connection broke while it was committed, or before.
async fn after_a_broken_commit(is_committed: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let (mut writer, _) = writer(&path).await;
    writer.shared.changes.store(1, Ordering::Relaxed);
    let (request, mut answered) = request();
    let batch = batch(request);
    if is_committed {
        let changes = [&batch.requests[0].change];
        let written = writer.store.write(batch.number, &changes, &batch.counts);
        written.await.unwrap();
    }
    let error = RecordsError::Unreachable("it broke".into());
    writer.uncertain = Some((batch, error.clone()));
    writer.reconnect().await.unwrap();
    let expected = if is_committed { Ok(()) } else { Err(error) };
    assert_eq!(answered.try_recv().unwrap(), expected);
    assert_eq!(writer.shared.changes.load(Ordering::Relaxed), 0);
    let waiting = if is_committed { 0 } else { 1 };
    assert_eq!(writer.shared.completed.waiting(), waiting);
    // The counts are written once, now or before.
    writer.write(Vec::new()).await;
    writer.write(Vec::new()).await;
    drop(writer);
    let (_, loaded) = self::writer(&path).await;
    assert_eq!(loaded.counts, [(HASH, 3)]);
    assert_eq!(loaded.records.allowed.len(), usize::from(is_committed));
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_recognized() {
    after_a_broken_commit(true).await;
}

#[tokio::test]
async fn a_commit_that_was_not_made_is_not_assumed() {
    after_a_broken_commit(false).await;
}

#[tokio::test]
async fn a_connection_that_was_given_up_writes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let (mut old, _) = writer(&path).await;
    let (mut new, _) = writer(&path).await;
    let change = Change::Allow(HASH);
    let refused = old.store.write(random(), &[&change], &[(HASH, 1)]).await;
    assert!(matches!(
        refused,
        Err(WriteError::Lost(RecordsError::Locked(_)))
    ));
    assert!(old.store.was_taken() && !old.store.was_taken());
    new.store.write(random(), &[], &[(HASH, 2)]).await.unwrap();
    drop((old, new));
    let (_, loaded) = writer(&path).await;
    assert_eq!(loaded.counts, [(HASH, 2)]);
    assert!(loaded.records.allowed.is_empty());
}

#[tokio::test]
async fn the_last_change_of_an_entry_in_a_batch_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let (mut writer, _) = writer(&path).await;
    let other = InfoHash([6; 20]);
    let changes = [
        Change::Allow(HASH),
        Change::Disallow(HASH),
        Change::Deny(HASH),
        Change::Undeny(HASH),
        Change::Deny(HASH),
        Change::Allow(other),
    ];
    let changes: Vec<_> = changes.iter().collect();
    writer.store.write(random(), &changes, &[]).await.unwrap();
    // More rows than one statement has.
    let many = (0..1000_u16).map(|number| {
        let mut hash = [7; 20];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        (InfoHash(hash), 1 + u32::from(number))
    });
    let many: Vec<_> = many.collect();
    for _ in 0..2 {
        writer.store.write(random(), &[], &many).await.unwrap();
    }
    drop(writer);
    let (_, loaded) = self::writer(&path).await;
    assert_eq!(loaded.records.allowed, [other].into());
    assert_eq!(loaded.records.denied, [HASH].into());
    let doubled: Vec<_> = many
        .iter()
        .map(|(hash, count)| (*hash, 2 * count))
        .collect();
    assert_eq!(loaded.counts, doubled);
}

/// Runs SQL on the file beside the writer.
async fn run(path: &Path, sql: &str) {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
}

/// A change alone in its batch does not fail because of the counts beside it.
#[tokio::test]
async fn counts_that_are_refused_fail_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.db");
    let (mut writer, _) = writer(&path).await;
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON completed BEGIN SELECT RAISE(ABORT, 'no'); END";
    run(&path, refuse).await;
    writer.shared.changes.store(1, Ordering::Relaxed);
    let (request, mut answered) = request();
    writer.attempt(batch(request)).await;
    assert_eq!(answered.try_recv().unwrap(), Ok(()));
    assert_eq!(writer.shared.completed.waiting(), 1);
    // They wait until they can be written.
    writer.write(Vec::new()).await;
    assert!(writer.is_out());
    run(&path, "DROP TRIGGER refuse").await;
    writer.write(Vec::new()).await;
    assert!(!writer.is_out());
    drop(writer);
    let (_, loaded) = self::writer(&path).await;
    assert_eq!(loaded.counts, [(HASH, 3)]);
    assert_eq!(loaded.records.allowed, [HASH].into());
}

/// What is committed to a file that is not there after a restart is not acknowledged.
#[tokio::test]
async fn nothing_is_written_to_a_file_that_was_moved_away() {
    let directory = tempfile::tempdir().unwrap();
    let [path, away] = ["records.db", "moved.db"].map(|name| directory.path().join(name));
    let (mut writer, _) = writer(&path).await;
    let change = async |writer: &mut Writer| {
        writer.shared.changes.store(1, Ordering::Relaxed);
        writer.retry_at = Instant::now();
        let (request, mut answered) = request();
        writer.write(vec![request]).await;
        answered.try_recv().unwrap()
    };
    assert_eq!(change(&mut writer).await, Ok(()));
    // All of it is in this file, not in the log beside it.
    run(&path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    std::fs::rename(&path, &away).unwrap();
    let error = change(&mut writer).await.unwrap_err();
    assert!(error.to_string().contains("was moved away"), "{error}");
    // Another one has other records than those in force.
    let mut other = self::writer(&path).await.0;
    other.write(Vec::new()).await;
    drop(other);
    let error = change(&mut writer).await.unwrap_err();
    assert!(error.to_string().contains("has replaced"), "{error}");
    assert!(writer.is_out());
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(change(&mut writer).await, Ok(()));
    assert!(!writer.is_out());
    drop(writer);
    assert_eq!(self::writer(&path).await.1.records.allowed, [HASH].into());
}

/// A database of another program gets no tables of ours.
#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    run(
        &path,
        "CREATE TABLE whitelist (id INTEGER); CREATE TABLE _sqlx_migrations (version BIGINT)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    let error = open(&Database::Sqlite(path.clone())).await.unwrap_err();
    let text = "it has tables of another program (whitelist)";
    assert!(error.to_string().contains(text), "{error}");
    // Only the mode of the journal can differ: bytes 18 and 19, and the counters of changes.
    let after = std::fs::read(&path).unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after[100..], before[100..]);
}
