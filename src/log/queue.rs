//! A bounded queue in front of a thread that writes: the sender never waits for a disk, a pipe or
//! another program. What does not fit is lost, and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

/// Writes items, on a thread of its own. It may block.
pub(crate) trait Sink<T>: Send + 'static {
    /// Writes one item, perhaps only into a buffer. On an error the item is lost.
    fn write(&mut self, item: T) -> io::Result<()>;

    /// Writes what is buffered. Called when no item waits.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Opens its file again, after it was renamed.
    fn reopen(&mut self) {}

    /// Says that items were lost. Called when no item waits, after a write has succeeded again.
    fn report_lost(&mut self, lost: u64);
}

/// Sends to the thread. Clones send to the same one.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    sender: SyncSender<Message<T>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Message<T> {
    Item(T),
    /// Open the file again.
    Reopen,
    /// Answer when all that was sent before is written.
    Drained(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    /// Items that were lost since the last report.
    lost: AtomicU64,
    /// Items that were lost since the start.
    lost_ever: AtomicU64,
}

impl Shared {
    fn lose(&self, items: u64) {
        self.lost.fetch_add(items, Ordering::Relaxed);
        self.lost_ever.fetch_add(items, Ordering::Relaxed);
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Send + 'static> Queue<T> {
    /// Starts the thread. It ends when all queues to it are gone. `length` items may wait.
    pub(crate) fn start(name: &str, length: usize, sink: impl Sink<T>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(length);
        let shared = Arc::<Shared>::default();
        let writer = Writer {
            receiver,
            shared: Arc::clone(&shared),
            sink,
            fails: false,
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(move || writer.run())?;
        Ok(Self { sender, shared })
    }

    /// Sends an item. Never waits: without room the item is lost, and counted.
    pub(crate) fn send(&self, item: T) {
        if self.sender.try_send(Message::Item(item)).is_err() {
            self.shared.lose(1);
        }
    }

    /// Has the thread open its file again. What was sent before goes into the old file, unless the
    /// queue is full: then the thread opens it before the next item.
    pub(crate) fn reopen(&self) {
        if self.sender.try_send(Message::Reopen).is_err() {
            self.shared.reopen.store(true, Ordering::Release);
        }
    }

    /// Items that were lost since the start: the queue was full, or they could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost_ever.load(Ordering::Relaxed)
    }

    /// Waits until all that was sent before is written, but not longer than this. Blocks.
    pub(crate) fn drain(&self, most: Duration) {
        const RETRY: Duration = Duration::from_millis(5);
        let end = Instant::now() + most;
        let (done, is_done) = mpsc::sync_channel(1);
        let mut message = Message::Drained(done);
        // There is no send with a timeout.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if Instant::now() >= end {
                return;
            }
            message = back;
            thread::sleep(RETRY);
        }
        let left = end.saturating_duration_since(Instant::now());
        match is_done.recv_timeout(left) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

struct Writer<T, S> {
    receiver: Receiver<Message<T>>,
    shared: Arc<Shared>,
    sink: S,
    /// Whether the last write failed.
    fails: bool,
}

impl<T, S: Sink<T>> Writer<T, S> {
    fn run(mut self) {
        loop {
            let message = match self.receiver.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => {
                    self.rest();
                    match self.receiver.recv() {
                        Ok(message) => message,
                        Err(mpsc::RecvError) => break,
                    }
                }
                Err(TryRecvError::Disconnected) => break,
            };
            if self.shared.reopen.swap(false, Ordering::Acquire) {
                self.sink.reopen();
            }
            match message {
                Message::Item(item) => {
                    self.fails = self.sink.write(item).is_err();
                    if self.fails {
                        self.shared.lose(1);
                    }
                }
                Message::Reopen => self.sink.reopen(),
                Message::Drained(done) => {
                    self.rest();
                    let _ = done.try_send(());
                }
            }
        }
        self.rest();
    }

    /// No item waits: writes what is buffered, and says what was lost.
    fn rest(&mut self) {
        self.fails |= self.sink.flush().is_err();
        if self.fails {
            return;
        }
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.sink.report_lost(lost);
            self.fails = self.sink.flush().is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes into a channel, after it was let.
    struct Slow {
        gate: Receiver<io::Result<()>>,
        written: mpsc::Sender<String>,
    }

    impl Sink<u32> for Slow {
        fn write(&mut self, item: u32) -> io::Result<()> {
            self.gate.recv().unwrap_or(Ok(()))?;
            self.written.send(item.to_string()).unwrap();
            Ok(())
        }

        fn reopen(&mut self) {
            self.written.send("reopened".into()).unwrap();
        }

        fn report_lost(&mut self, lost: u64) {
            self.written.send(format!("lost {lost}")).unwrap();
        }
    }

    fn slow(length: usize) -> (Queue<u32>, mpsc::Sender<io::Result<()>>, Receiver<String>) {
        let (open, gate) = mpsc::channel();
        let (written, read) = mpsc::channel();
        let queue = Queue::start("test", length, Slow { gate, written }).unwrap();
        (queue, open, read)
    }

    #[test]
    fn a_full_queue_loses_and_counts_and_never_waits() {
        let (queue, open, read) = slow(4);
        for item in 0..100 {
            queue.send(item);
        }
        // The thread holds one item, if it has come to it.
        let lost = queue.lost();
        assert!((95..=96).contains(&lost), "{lost}");
        queue.reopen();
        let start = Instant::now();
        queue.drain(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(10));
        drop(open);
        queue.drain(Duration::from_secs(20));
        drop(queue);
        let written: Vec<_> = read.iter().collect();
        assert!(
            written.starts_with(&["0".into()]) || written[0] == "reopened",
            "{written:?}"
        );
        assert!(written.contains(&"reopened".into()), "{written:?}");
        assert_eq!(written.last(), Some(&format!("lost {lost}")));
        assert_eq!(written.len() as u64, 100 - lost + 2);
    }

    #[test]
    fn what_was_sent_before_goes_into_the_old_file() {
        let (queue, open, read) = slow(4);
        queue.send(1);
        queue.send(2);
        queue.reopen();
        queue.send(3);
        drop(open);
        drop(queue);
        let written: Vec<_> = read.iter().collect();
        assert_eq!(written, ["1", "2", "reopened", "3"]);
    }

    #[test]
    fn what_cannot_be_written_is_reported_after_the_next_success() {
        let (queue, open, read) = slow(16);
        for outcome in [Err(io::ErrorKind::StorageFull.into()), Ok(())] {
            open.send(outcome).unwrap();
        }
        queue.send(1);
        queue.drain(Duration::from_secs(20));
        assert!(read.try_recv().is_err(), "nothing can be written");
        queue.send(2);
        queue.drain(Duration::from_secs(20));
        assert_eq!(read.try_recv().as_deref(), Ok("2"));
        assert_eq!(read.try_recv().as_deref(), Ok("lost 1"));
        assert_eq!(queue.lost(), 1);
    }
}
