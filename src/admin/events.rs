//! Live events: hands what requests change to the readers that are connected, without ever waiting for one.
//!
//! Each reader has a bounded queue. An event that finds it full is lost, and counted: the reader is told how
//! many. Without readers an announce costs one relaxed load and a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use scion_tracker_core::address::{CompactAddr, Host, IsdAs};
use scion_tracker_core::observe::{Announced, Change, Refused};
use scion_tracker_core::response::{Reach, Refusal, SwarmCounts};
use scion_tracker_core::types::{InfoHash, PeerId};
use tokio::sync::mpsc;

/// Events that wait for a reader, some 150 bytes each.
const QUEUE: usize = 1024;
/// Readers at once.
pub(super) const READERS: usize = 8;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A peer announced and stays.
    Announced,
    /// A peer completed its download.
    Completed,
    /// A peer stopped.
    Stopped,
    /// A request was refused.
    Refused,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [
        Self::Announced,
        Self::Completed,
        Self::Stopped,
        Self::Refused,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) info_hash: InfoHash,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Served {
        ia: IsdAs,
        addr: CompactAddr,
        reach: Reach,
        id: PeerId,
        seeder: bool,
        change: Change,
        completed: bool,
        counts: SwarmCounts,
    },
    Refused {
        host: Host,
        refusal: Refusal,
    },
}

impl Event {
    pub(super) const fn kind(&self) -> Kind {
        match self.what {
            What::Refused { .. } => Kind::Refused,
            What::Served {
                completed: true, ..
            } => Kind::Completed,
            What::Served {
                change: Change::Left | Change::Unknown,
                ..
            } => Kind::Stopped,
            What::Served { .. } => Kind::Announced,
        }
    }
}

/// Which events a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filter {
    /// Only of this torrent.
    pub(super) info_hash: Option<InfoHash>,
    /// Only of these kinds. Empty: all.
    pub(super) kinds: Vec<Kind>,
}

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        self.info_hash.is_none_or(|hash| hash == event.info_hash)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
    }
}

/// The queue of one reader.
#[derive(Debug)]
struct Queue {
    filter: Filter,
    events: mpsc::Sender<Event>,
    lost: AtomicU64,
}

/// The readers of a tracker.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Whether there is a reader.
    is_read: AtomicBool,
    queues: ArcSwap<Vec<Arc<Queue>>>,
    /// Held while the list of readers changes.
    changing: Mutex<()>,
    /// Events that readers were too slow for.
    lost: AtomicU64,
}

impl Events {
    /// Notes an announce that was served.
    #[inline]
    pub(crate) fn announced(&self, it: &Announced<'_>) {
        if self.is_read.load(Ordering::Relaxed) {
            self.hand_out(&Event {
                info_hash: it.peer.info_hash,
                what: What::Served {
                    ia: it.peer.ia,
                    addr: it.peer.addr,
                    reach: it.peer.reach,
                    id: it.peer.id,
                    seeder: it.peer.seeder,
                    change: it.change,
                    completed: it.completed,
                    counts: it.counts,
                },
            });
        }
    }

    /// Notes a request that was refused.
    #[inline]
    pub(crate) fn refused(&self, it: &Refused<'_>) {
        if self.is_read.load(Ordering::Relaxed) {
            self.hand_out(&Event {
                info_hash: *it.info_hash,
                what: What::Refused {
                    host: it.origin.host,
                    refusal: it.refusal,
                },
            });
        }
    }

    #[cold]
    #[inline(never)]
    fn hand_out(&self, event: &Event) {
        for queue in self.queues.load().iter() {
            if queue.filter.wants(event) && queue.events.try_send(*event).is_err() {
                queue.lost.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Readers that are connected, and the most that may be.
    pub(crate) fn readers(&self) -> (usize, usize) {
        (self.queues.load().len(), READERS)
    }

    /// Events that readers were too slow for, since the start. Each reader counts.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Connects a reader. `None` if there are [`READERS`].
    pub(super) fn read(self: &Arc<Self>, filter: Filter) -> Option<Reader> {
        let _changing = self.changing.lock();
        let queues = self.queues.load();
        if queues.len() >= READERS {
            return None;
        }
        let (sender, events) = mpsc::channel(QUEUE);
        let queue = Arc::new(Queue {
            filter,
            events: sender,
            lost: AtomicU64::new(0),
        });
        let others = queues.iter().cloned();
        let all = others.chain([Arc::clone(&queue)]).collect();
        self.queues.store(Arc::new(all));
        self.is_read.store(true, Ordering::Relaxed);
        Some(Reader {
            events,
            queue,
            all: Arc::clone(self),
        })
    }

    fn disconnect(&self, queue: &Arc<Queue>) {
        let _changing = self.changing.lock();
        let queues = self.queues.load();
        let others = queues.iter().filter(|it| !Arc::ptr_eq(it, queue));
        let others: Vec<_> = others.cloned().collect();
        self.is_read.store(!others.is_empty(), Ordering::Relaxed);
        self.queues.store(Arc::new(others));
    }
}

/// A reader that is connected until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    events: mpsc::Receiver<Event>,
    queue: Arc<Queue>,
    all: Arc<Events>,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Next {
    /// An event.
    Event(Event),
    /// So many events were lost before the next one.
    Lost(u64),
}

impl Reader {
    /// Waits for the next event. Loses nothing if it is cancelled.
    pub(super) async fn next(&mut self) -> Next {
        // The queue has been full if something was lost, so there is an event after this.
        match self.queue.lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => return Next::Lost(lost),
        }
        match self.events.recv().await {
            Some(event) => Next::Event(event),
            // The queue has the sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.all.disconnect(&self.queue);
    }
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::request::Origin;

    use super::*;

    fn refuse(events: &Events, hash: u8) {
        let origin = Origin::ip([192, 0, 2, 1].into());
        let info_hash = InfoHash([hash; 20]);
        events.refused(&Refused::scrape(
            &origin,
            &info_hash,
            Refusal::TorrentDenied,
        ));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_events_it_lost() {
        let events = Arc::new(Events::default());
        refuse(&events, 1);
        let mut reader = events.read(Filter::default()).unwrap();
        for _ in 0..QUEUE + 7 {
            refuse(&events, 1);
        }
        assert!(matches!(reader.next().await, Next::Lost(7)));
        for _ in 0..QUEUE {
            assert!(matches!(reader.next().await, Next::Event(_)));
        }
        refuse(&events, 1);
        assert!(matches!(reader.next().await, Next::Event(_)));
    }

    #[tokio::test]
    async fn a_reader_gets_what_it_wants() {
        let events = Arc::new(Events::default());
        let mut of_torrent = events
            .read(Filter {
                info_hash: Some(InfoHash([2; 20])),
                kinds: vec![Kind::Refused],
            })
            .unwrap();
        let mut of_kind = events
            .read(Filter {
                info_hash: None,
                kinds: vec![Kind::Completed, Kind::Stopped],
            })
            .unwrap();
        refuse(&events, 1);
        refuse(&events, 2);
        let Next::Event(event) = of_torrent.next().await else {
            panic!("nothing was lost");
        };
        assert_eq!(event.info_hash, InfoHash([2; 20]));
        assert_eq!(event.kind(), Kind::Refused);
        assert!(of_torrent.events.try_recv().is_err());
        assert!(of_kind.events.try_recv().is_err());
    }

    #[test]
    fn readers_are_bounded_and_leave() {
        let events = Arc::new(Events::default());
        let read = || events.read(Filter::default());
        let mut readers: Vec<_> = (0..READERS).map(|_| read().unwrap()).collect();
        assert!(read().is_none());
        readers.pop();
        readers.push(read().unwrap());
        drop(readers);
        assert!(!events.is_read.load(Ordering::Relaxed));
        assert!(events.queues.load().is_empty());
    }
}
