//! The memory that connections over TCP and QUIC hold: how much, whose it is, and who has to give it
//! back.
//!
//! Each connection is charged for what it can make the tracker hold. Buffers that grow with what the
//! client sends, or does not take, are charged with their real size; the state of TLS, HTTP/2 and QUIC
//! with the most that it can be. Charges change in steps, so that most requests change nothing. Sockets
//! of the kernel are not charged.
//!
//! When more than fifteen sixteenths of the limit are held, connections are closed until it is seven
//! eighths: of the source that holds most, its idle connections first. Until then, a source that holds
//! as much as the largest ones have left gets no new connection. Nothing is held above the limit.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::{Full, Open, SHARDS, Source};
use crate::counters::{Counter, Counters};

/// Charges grow in steps of this many bytes.
const GRAIN: usize = 4 * 1024;
/// A charge shrinks when it is at least this many bytes too high.
const SLACK: usize = 16 * 1024;
/// Most parts in which a surplus is taken from sources that hold the same.
const STEPS: usize = 64;
/// Shortest time between two warnings.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Accounts for the memory of all connections.
#[derive(Debug)]
pub(super) struct Memory {
    /// Most bytes held.
    limit: AtomicUsize,
    held: AtomicUsize,
    /// The part of `held` whose connections have been told to end.
    ending: AtomicUsize,
    /// What the largest sources had left when connections were last closed; `usize::MAX` while there
    /// is room.
    level: AtomicUsize,
    /// Number of connections that were a source of their own.
    alone: AtomicU64,
    holders: [Mutex<HashMap<Source, Vec<Arc<Holder>>>>; SHARDS],
    reclaiming: Mutex<()>,
    counters: Arc<Counters>,
    warned: Mutex<Option<Instant>>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Holder {
    bytes: AtomicUsize,
    /// The index in the list of its source. It changes under the lock of the list.
    index: AtomicUsize,
    idle: AtomicBool,
    /// The bytes that it held when it was told to end; 0 before.
    ending: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Memory {
    pub(super) fn new(limit: usize, counters: Arc<Counters>) -> Self {
        Self {
            limit: limit.into(),
            held: AtomicUsize::new(0),
            ending: AtomicUsize::new(0),
            level: AtomicUsize::new(usize::MAX),
            alone: AtomicU64::new(0),
            holders: std::array::from_fn(|_| Mutex::default()),
            reclaiming: Mutex::new(()),
            counters,
            warned: Mutex::new(None),
        }
    }

    /// Changes the limit. Connections are closed when the next one needs memory.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Charges a new connection with `bytes`. Without a source it is one of its own: a trusted proxy
    /// speaks for many, and an address that is not validated may be forged.
    pub(super) fn hold(
        self: &Arc<Self>,
        source: Option<Source>,
        bytes: usize,
    ) -> Result<Held, Full> {
        self.charge(bytes)?;
        let alone = || Source::alone(self.alone.fetch_add(1, Relaxed));
        let source = source.unwrap_or_else(alone);
        let holder = Arc::new(Holder {
            bytes: bytes.into(),
            index: AtomicUsize::new(0),
            idle: AtomicBool::new(false),
            ending: AtomicUsize::new(0),
            waker: Mutex::new(None),
        });
        let mut shard = self.shard(&source);
        let list = shard.entry(source).or_default();
        let level = self.level();
        if level != usize::MAX && !list.is_empty() && staying(list) + bytes > level {
            drop(shard);
            self.release(bytes);
            self.refused();
            return Err(Full);
        }
        holder.index.store(list.len(), Relaxed);
        list.push(Arc::clone(&holder));
        drop(shard);
        Ok(Held {
            memory: Arc::clone(self),
            source,
            holder,
            base: bytes,
            bytes,
        })
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Most bytes held.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    fn shard(&self, source: &Source) -> MutexGuard<'_, HashMap<Source, Vec<Arc<Holder>>>> {
        self.holders[source.shard()].lock()
    }

    fn charge(&self, bytes: usize) -> Result<(), Full> {
        let limit = self.limit.load(Relaxed);
        let held = self.held.fetch_add(bytes, Relaxed) + bytes;
        if held > limit {
            self.release(bytes);
            self.reclaim(bytes, limit);
            self.refused();
            return Err(Full);
        }
        if held > high(limit) {
            self.reclaim(0, limit);
        }
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    fn level(&self) -> usize {
        let level = self.level.load(Relaxed);
        if level != usize::MAX && self.held.load(Relaxed) <= low(self.limit.load(Relaxed)) {
            self.level.store(usize::MAX, Relaxed);
            return usize::MAX;
        }
        level
    }

    /// Tells connections to end if too much is held, or would be with `wanted` bytes more.
    #[cold]
    fn reclaim(&self, wanted: usize, limit: usize) {
        let Some(_only) = self.reclaiming.try_lock() else {
            return;
        };
        let held = self.held.load(Relaxed);
        let staying_bytes = held.saturating_sub(self.ending.load(Relaxed)) + wanted;
        if staying_bytes <= high(limit) {
            return;
        }
        let mut surplus = staying_bytes - low(limit);
        let step = surplus / STEPS;
        let mut sources = BinaryHeap::new();
        for shard in &self.holders {
            let shard = shard.lock();
            sources.extend(shard.iter().map(|(source, list)| (staying(list), *source)));
        }
        let mut level = usize::MAX;
        while surplus > 0
            && let Some((bytes, source)) = sources.pop()
        {
            let next = sources.peek().map_or(0, |(bytes, _)| *bytes);
            let enough = step.max(bytes.saturating_sub(next)).min(surplus);
            let freed = self.evict(&source, enough);
            surplus = surplus.saturating_sub(freed);
            let left = bytes.saturating_sub(freed);
            level = left;
            if freed > 0 && left > 0 {
                sources.push((left, source));
            }
        }
        self.level.store(level, Relaxed);
        self.warn(limit);
    }

    /// Tells connections of a source to end that hold `enough` bytes, at least one. Returns what they
    /// hold.
    fn evict(&self, source: &Source, enough: usize) -> usize {
        let mut wakers = Vec::new();
        let mut freed = 0;
        let shard = self.shard(source);
        let Some(list) = shard.get(source) else {
            return 0;
        };
        let mut staying: Vec<_> = list.iter().filter(|it| !it.is_evicted()).collect();
        staying
            .sort_unstable_by_key(|it| (!it.idle.load(Relaxed), Reverse(it.bytes.load(Relaxed))));
        for holder in staying {
            let bytes = holder.bytes.load(Relaxed).max(1);
            holder.ending.store(bytes, Relaxed);
            self.ending.fetch_add(bytes, Relaxed);
            freed += bytes;
            wakers.push(holder.waker.lock().take());
            if freed >= enough {
                break;
            }
        }
        drop(shard);
        self.counters
            .add(Counter::ConnectionsEvicted, wakers.len() as u64);
        wakers.into_iter().flatten().for_each(Waker::wake);
        freed
    }

    #[cold]
    fn refused(&self) {
        self.counters.count(Counter::ConnectionsOverMemory);
        self.warn(self.limit.load(Relaxed));
    }

    fn warn(&self, limit: usize) {
        let mut warned = self.warned.lock();
        if warned.is_some_and(|at| at.elapsed() < WARNING_PAUSE) {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        let counted = self.counters.snapshot();
        tracing::warn!(
            limit,
            closed = counted.get(Counter::ConnectionsEvicted),
            refused = counted.get(Counter::ConnectionsOverMemory),
            "the memory for connections is used up; see connections.memory"
        );
    }
}

impl Holder {
    fn is_evicted(&self) -> bool {
        self.ending.load(Relaxed) > 0
    }
}

/// Bytes of connections that have not been told to end.
fn staying(list: &[Arc<Holder>]) -> usize {
    let staying = list.iter().filter(|it| !it.is_evicted());
    staying.map(|it| it.bytes.load(Relaxed)).sum()
}

const fn high(limit: usize) -> usize {
    limit - limit / 16
}

const fn low(limit: usize) -> usize {
    limit - limit / 8
}

/// The memory of one connection, charged for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    source: Source,
    holder: Arc<Holder>,
    /// What it holds in any case.
    base: usize,
    /// What is charged.
    bytes: usize,
}

impl Held {
    /// Charges the connection with `more` bytes besides its base. Fails if that is too much for all
    /// connections together: then the connection has to end.
    pub(crate) fn set(&mut self, more: usize) -> Result<(), Full> {
        let bytes = self.base + more;
        if bytes <= self.bytes && self.bytes - bytes < SLACK {
            return Ok(());
        }
        self.change(bytes)
    }

    fn change(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = bytes.next_multiple_of(GRAIN);
        if bytes > self.bytes {
            self.memory.charge(bytes - self.bytes)?;
        } else {
            self.memory.release(self.bytes - bytes);
        }
        self.bytes = bytes;
        self.holder.bytes.store(bytes, Relaxed);
        Ok(())
    }

    /// What the connection holds in any case.
    pub(crate) const fn base(&self) -> usize {
        self.base
    }

    /// Changes the base, as the protocol of the connection is known now.
    pub(crate) fn set_base(&mut self, base: usize) -> Result<(), Full> {
        self.base = base;
        self.set(0)
    }

    /// Makes the connection one of the source that `open` counts it for, instead of its own.
    pub(crate) fn assign(&mut self, open: &Open) {
        match open.source {
            Some(source) if source != self.source => {
                self.leave();
                self.source = source;
                let mut shard = self.memory.shard(&source);
                let list = shard.entry(source).or_default();
                self.holder.index.store(list.len(), Relaxed);
                list.push(Arc::clone(&self.holder));
            }
            _ => {}
        }
    }

    /// Takes the connection from the list of its source.
    fn leave(&self) {
        let mut shard = self.memory.shard(&self.source);
        if let Some(list) = shard.get_mut(&self.source) {
            let index = self.holder.index.load(Relaxed);
            list.swap_remove(index);
            if let Some(moved) = list.get(index) {
                moved.index.store(index, Relaxed);
            }
            if list.is_empty() {
                shard.remove(&self.source);
            }
        }
    }

    /// Whether the connection waits for no request and no reply.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.holder.idle.store(idle, Relaxed);
    }

    /// Whether the connection has to end to make room.
    pub(crate) fn is_evicted(&self) -> bool {
        self.holder.is_evicted()
    }

    /// Wakes this task when the connection has to end. It may already have to.
    pub(crate) fn register(&self, waker: &Waker) {
        *self.holder.waker.lock() = Some(waker.clone());
    }

    /// Wakes the task that awaits this when the connection has to end. For a task whose waits all have
    /// the same waker.
    pub(crate) async fn register_task(&self) {
        poll_fn(|cx| {
            self.register(cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Waits until the connection has to end.
    pub(crate) async fn evicted(&self) {
        poll_fn(|cx| {
            self.register(cx.waker());
            match self.is_evicted() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leave();
        self.memory.release(self.bytes);
        let ending = self.holder.ending.load(Relaxed);
        self.memory.ending.fetch_sub(ending, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn memory(limit: usize) -> Arc<Memory> {
        Arc::new(Memory::new(limit, Arc::default()))
    }

    fn source(number: u64) -> Option<Source> {
        let network = number;
        Some(Source { ia: 0, network })
    }

    fn evicted(held: &[Held]) -> usize {
        held.iter().filter(|it| it.is_evicted()).count()
    }

    #[test]
    fn what_is_held_is_counted_in_steps_and_given_back() {
        let memory = memory(1024 * KIB);
        let mut held = memory.hold(source(1), 10 * KIB).unwrap();
        held.set(1).unwrap();
        assert_eq!(memory.held(), 12 * KIB);
        held.set(2 * KIB).unwrap();
        assert_eq!(memory.held(), 12 * KIB);
        held.set(30 * KIB).unwrap();
        assert_eq!(memory.held(), 40 * KIB);
        held.set(20 * KIB).unwrap();
        assert_eq!(memory.held(), 40 * KIB, "a small decrease waits");
        held.set(0).unwrap();
        assert_eq!(memory.held(), 12 * KIB);
        held.set_base(100 * KIB).unwrap();
        assert_eq!(memory.held(), 100 * KIB);
        assert_eq!(held.set(1000 * KIB), Err(Full));
        assert_eq!(memory.held(), 100 * KIB);
        drop(held);
        assert_eq!(memory.held(), 0);
        assert!(memory.holders.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn the_largest_source_loses_and_its_idle_connections_first() {
        let memory = memory(1024 * KIB);
        let hold = |from, count| -> Vec<_> {
            let held = (0..count).map(|_| memory.hold(source(from), 10 * KIB).unwrap());
            held.collect()
        };
        let small = hold(1, 10);
        small.iter().for_each(|it| it.set_idle(true));
        let middle = hold(2, 30);
        let large = hold(3, 54);
        large[..5].iter().for_each(|it| it.set_idle(true));
        let more = hold(3, 2);
        assert_eq!(evicted(&large), 0);
        // 960 KiB are the mark. The largest source gets no new connection.
        assert_eq!(memory.hold(source(3), 10 * KIB).unwrap_err(), Full);
        assert_eq!((evicted(&small), evicted(&middle)), (0, 0));
        assert_eq!(evicted(&large[..5]), 5, "the idle ones");
        let busy = evicted(&large[5..]) + evicted(&more);
        // Down to 896 KiB.
        assert_eq!(5 + busy, 8);
        // Nothing more is taken while the evicted ones end.
        let others = hold(2, 1);
        assert_eq!(evicted(&large) + evicted(&more), 8);
        // The largest source still gets none, the others do.
        assert_eq!(memory.hold(source(3), 10 * KIB).unwrap_err(), Full);
        let _small = memory.hold(source(1), 10 * KIB).unwrap();
        let counted = memory.counters.snapshot();
        assert_eq!(counted.get(Counter::ConnectionsEvicted), 8);
        assert_eq!(counted.get(Counter::ConnectionsOverMemory), 2);
        // Until there is room again.
        drop((large, more, middle, others));
        assert_eq!(memory.ending.load(Relaxed), 0);
        let _again = hold(3, 30);
    }

    #[test]
    fn many_sources_that_hold_the_same_lose_a_little_each() {
        let memory = memory(1024 * KIB);
        let held: Vec<_> = (0..96)
            .map(|n| memory.hold(source(n % 8), 10 * KIB).unwrap())
            .collect();
        assert_eq!(evicted(&held), 0);
        assert!(memory.hold(source(0), 10 * KIB).is_err());
        assert_eq!(evicted(&held), 8);
        for n in 0..8 {
            let lost = held.iter().skip(n).step_by(8);
            assert_eq!(lost.filter(|it| it.is_evicted()).count(), 1);
        }
    }

    #[test]
    fn connections_without_a_source_are_each_their_own() {
        let memory = memory(1024 * KIB);
        let proxied: Vec<_> = (0..40)
            .map(|_| memory.hold(None, 10 * KIB).unwrap())
            .collect();
        let one: Vec<_> = (0..56)
            .map(|_| memory.hold(source(1), 10 * KIB).unwrap())
            .collect();
        assert!(memory.hold(source(1), 10 * KIB).is_err());
        assert_eq!((evicted(&proxied), evicted(&one)), (0, 8));
    }

    #[test]
    fn nothing_is_held_above_the_limit() {
        let memory = memory(1024 * KIB);
        let mut held = Vec::new();
        for n in 0..2000 {
            // None of them ends.
            if let Ok(one) = memory.hold(source(n), 10 * KIB) {
                held.push(one);
            }
            assert!(memory.held() <= 1024 * KIB);
        }
        assert_eq!(held.len(), 102);
        // A lower limit takes effect with the next connection.
        memory.set_limit(512 * KIB);
        assert!(memory.hold(source(9999), KIB).is_err());
        let left = held.iter().filter(|it| !it.is_evicted()).count();
        assert!(left * 10 <= 448, "{left}");
    }

    #[tokio::test]
    async fn an_evicted_connection_is_woken() {
        let memory = memory(100 * KIB);
        let held = memory.hold(source(1), 90 * KIB).unwrap();
        let waiting = tokio::spawn(async move { held.evicted().await });
        tokio::task::yield_now().await;
        let _more = memory.hold(source(2), 8 * KIB).unwrap();
        waiting.await.unwrap();
        assert_eq!(memory.held(), 8 * KIB);
    }
}
