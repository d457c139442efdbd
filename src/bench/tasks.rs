//! Runs connections over TCP and QUIC: one task per connection, on the runtime of its thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use super::load::{Ask, Requests};
use super::mix::Kind;
use super::pace::Pace;
use super::report::{Failure, Tally};
use super::{BenchError, Plan, Shared, connections};

/// The timer fires up to this much late. Shorter waits yield to other tasks instead.
const TIMER: Duration = Duration::from_millis(2);
/// Pause before a failed connection is opened again.
const PAUSE: Duration = Duration::from_millis(20);

/// What one connection needs.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) plan: Arc<Plan>,
    pub(super) connection: u32,
    shared: Arc<Shared>,
    tally: Rc<RefCell<Tally>>,
    requests: Rc<RefCell<Requests>>,
    pace: Rc<RefCell<Pace>>,
}

impl Client {
    /// Takes the next request if one is due. Returns it with the instant that its latency counts
    /// from.
    pub(super) fn take(&self) -> Option<(Instant, Ask)> {
        let since = self.pace.borrow_mut().take(Instant::now())?;
        Some((since, self.shared.next(&mut self.requests.borrow_mut())))
    }

    /// When the next request is due. `None` in a closed loop.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pace.borrow().next_due()
    }

    /// Waits until the next request is due.
    pub(super) async fn turn(&self) -> (Instant, Ask) {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            let due = self.next_due();
            let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
            match wait.and_then(|wait| wait.checked_sub(TIMER)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    pub(super) fn answered(&self, kind: Kind, since: Instant, peers: u32) {
        if self.shared.is_measuring() {
            self.shared.replies.fetch_add(1, Ordering::Relaxed);
            self.tally.borrow_mut().reply(kind, since.elapsed(), peers);
        }
    }

    pub(super) fn failed(&self, failure: Failure) {
        if self.shared.is_measuring() {
            self.tally.borrow_mut().failure(failure);
        }
    }

    /// Waits briefly after a failure.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs the connections of a thread until the end. `start` starts them on a local task set.
pub(super) fn run(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    thread: u32,
    start: impl FnOnce(&mut JoinSet<()>, Vec<Client>) -> Result<(), BenchError>,
) -> Result<Tally, BenchError> {
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let clients: Vec<_> = connections(plan, thread)
        .map(|connection| Client {
            plan: Arc::clone(plan),
            connection,
            shared: Arc::clone(shared),
            tally: Rc::clone(&tally),
            requests: Rc::new(RefCell::new(plan.load.requests(connection))),
            pace: Rc::new(RefCell::new(plan.pace(connection))),
        })
        .collect();
    let paces: Vec<_> = clients
        .iter()
        .map(|client| Rc::clone(&client.pace))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        start(&mut tasks, clients)?;
        shared.stop.cancelled().await;
        Ok::<_, BenchError>(())
    })?;
    drop(local);
    let now = Instant::now();
    let mut total = Tally::new()?;
    total.add(&tally.borrow());
    total.unsent(paces.iter().map(|pace| pace.borrow().backlog(now)).sum());
    Ok(total)
}
