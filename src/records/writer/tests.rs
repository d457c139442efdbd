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
