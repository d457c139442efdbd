//! The second socket of a SCION port, on [`ENDHOST_PORT`](super::ENDHOST_PORT).
//!
//! Most trackers receive next to nothing there. So the socket has a waker of its own, and is asked only
//! after it has become readable.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::underlay::{Received, Underlay};

pub(super) struct Endhost {
    underlay: Underlay,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Notes that the socket may be readable, and wakes the task that serves it.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Endhost {
    /// Needs a tokio runtime.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let bell = Arc::new(Bell {
            // It has to be asked once before it can tell.
            rung: AtomicBool::new(true),
            task: Mutex::new(None),
        });
        Ok(Self {
            underlay: Underlay::new(socket)?,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        })
    }

    /// Whether there may be datagrams. If not, this task is woken when there are.
    pub(super) fn may_be_readable(&self, cx: &Context<'_>) -> bool {
        let mut task = self.bell.task.lock();
        match &mut *task {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(task);
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Receives as many datagrams as are available.
    pub(super) fn poll_receive(&self, received: &mut Received) -> Poll<io::Result<usize>> {
        // Taken back first: what arrives from here on rings again.
        self.bell.rung.store(false, Ordering::Release);
        let cx = &mut Context::from_waker(&self.waker);
        let polled = self.underlay.poll_receive(cx, received);
        if polled.is_ready() {
            self.bell.rung.store(true, Ordering::Release);
        }
        polled
    }
}
